"""What the model card says of the rows."""

from dataclasses import replace

from raysk.inference.card import card_of
from tests.inference.drawn_bundles import draw_bundle


def test_it_says_how_many_rows_without_labels_the_encoders_saw():
    facts = draw_bundle([("test_resnet", 32)], [(0, "linear")], ["identity"]).facts
    assert "Rows: 18 of 5 groups; their digest is m." in card_of(facts)
    seen = replace(facts, provenance=replace(facts.provenance, num_unlabelled=1200))
    assert "Rows: 18 of 5 groups, and 1200 without labels; their digest is m." in card_of(seen)
