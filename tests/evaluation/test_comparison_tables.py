"""Comparison tables of a leaderboard."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from raysk.errors import ArtifactError
from raysk.evaluation.comparison import Difference, expected_best
from raysk.evaluation.comparison_tables import (
    Cell,
    ComparisonTable,
    choices_table,
    expected_best_table,
    grid_table,
    significance_table,
)
from raysk.evaluation.metrics import parse_metric

MACRO_F1 = parse_metric("macro_f1")
TABLE = ComparisonTable("Title", "label-1", ("", "one"), 1, (("a", 0.5), ("b", None)), "")


def row_scores(*percent: float) -> Mapping[str, float]:
    names = ("test_accuracy", "test_macro_precision", "test_balanced_accuracy", "test_macro_f1")
    return dict(zip(names, (value / 100 for value in percent), strict=True)) | {"oof_macro_f1": 0.1}


def test_the_published_ablation_is_printed_row_for_row() -> None:
    # Le et al. 2020; the published table rounds to whole percent.
    published = {
        "no dropout": (90, 78, 77, 77),
        "no augmentation": (89, 79, 71, 74),
        "no class weights": (90, 81, 77, 79),
        "no fully connected layers": (74, 70, 80, 72),
        "no global average pooling": (88, 77, 73, 75),
        "full": (90, 81, 80, 80),
    }
    table = grid_table({name: row_scores(*values) for name, values in published.items()})
    assert table.headings == ("", "accuracy", "precision", "recall", "F1")
    expected = tuple((name, *(f"{value}.0" for value in values)) for name, values in published.items())
    assert table.cells == expected


def test_an_ablation_keeps_its_order_and_shows_failed_rows() -> None:
    table = grid_table({"z": row_scores(12.34, 5, 100, 99.96), "failed": {}, "a": row_scores(1, 2, 3, 4)})
    assert table.cells[:2] == (("z", "12.3", "5.0", "100.0", "100.0"), ("failed", None, None, None, None))
    assert table.cells[2][0] == "a"


def test_a_grid_has_a_line_for_each_method_and_a_column_for_each_choice() -> None:
    few = {"test_macro_f1": 0.3, "test_macro_f1_low": 0.2, "test_macro_f1_high": 0.41}
    scores = {
        ("simclr", "label_share 0.1"): few,
        ("simclr", "label_share 1"): {"test_macro_f1": 0.5, "oof_macro_f1": 0.9},
        ("gravis", "label_share 0.1"): {},
    }
    table = choices_table(scores, MACRO_F1)
    assert table.title == "macro-F1 on the test part"
    assert table.headings == ("", "label_share 0.1", "label_share 1")
    assert table.cells == (("simclr", "0.300 [0.200, 0.410]", "0.500"), ("gravis", None, None))


def test_budgets_go_up_to_the_smallest_family() -> None:
    scores = {"supcon": [0.5, 0.9, 0.7, 0.6], "focal": [0.8, 0.4, 0.6]}
    table = expected_best_table(scores, MACRO_F1)
    assert table.headings == ("family", "recipes", "k = 1", "k = 2", "k = 3")
    assert [line[:2] for line in table.cells] == [("supcon", "4"), ("focal", "3")]
    for line, values in zip(table.cells, scores.values(), strict=True):
        assert line[2:] == tuple(expected_best(np.array(values), k) for k in (1, 2, 3))


@pytest.mark.parametrize("num_recipes", [10, 11, 12, 200])
def test_many_budgets_are_thinned_out_and_keep_both_ends(num_recipes: int) -> None:
    headings = expected_best_table({"all": list(range(num_recipes))}, MACRO_F1).headings[2:]
    budgets = [int(heading.removeprefix("k = ")) for heading in headings]
    assert (budgets[0], budgets[-1]) == (1, num_recipes)
    assert budgets == sorted(set(budgets))
    assert len(budgets) <= 10


@pytest.mark.parametrize("scores", [{}, {"full": [0.5], "empty": []}])
def test_a_family_without_recipes_is_refused(scores: dict[str, list[float]]) -> None:
    with pytest.raises(ArtifactError, match="at least one scored recipe"):
        expected_best_table(scores, MACRO_F1)


def test_the_significance_table_has_a_summary_in_words() -> None:
    clear = Difference("a", "b", 0.1, 0.05, 0.15, 0.0001, 0.0002)
    unclear = replace(clear, second="c", difference=-0.01, low=float("nan"), high=float("nan"), p=0.6, p_holm=1.0)
    table = significance_table([clear, unclear], MACRO_F1, level=0.9)
    assert table.headings == ("first", "second", "difference", "low", "high", "p", "p corrected")
    assert table.cells == (
        ("a", "b", 0.1, 0.05, 0.15, "<0.001", "<0.001"),
        ("a", "c", -0.01, None, None, "0.600", "1.000"),
    )
    assert table.note.startswith("In 1 of 2 comparisons the difference is significant at the 90% level")
    assert table.num_text == 2


@pytest.mark.parametrize("cell", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(cell: Cell) -> None:
    with pytest.raises(ArtifactError, match="write None"):
        replace(TABLE, cells=(("a", cell),))


@pytest.mark.parametrize("line", [(), ("a",), ("a", 0.5, 0.5)])
def test_a_line_of_another_length_is_refused(line: tuple[Cell, ...]) -> None:
    with pytest.raises(ArtifactError, match="must have 2 cells"):
        replace(TABLE, cells=(("a", 0.5), line))


@pytest.mark.parametrize("label", ["", "Label", "a b", "a}", "1st", "ä"])
def test_a_label_with_other_characters_is_refused(label: str) -> None:
    with pytest.raises(ArtifactError, match="lowercase letters"):
        replace(TABLE, label=label)
