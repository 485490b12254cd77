from dataclasses import replace

import pytest

from raysk.data.regions import BOX, MASK
from raysk.errors import ConfigError
from raysk.search.fitting import fitting
from raysk.spaces.space import load_space


@pytest.fixture(scope="module")
def without_lesions(manifest):
    known = [name for name in (MASK, *BOX) if name in manifest.table.column_names]
    assert known
    return replace(manifest, table=manifest.table.drop_columns(known))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """The file of a space with three families; those of the tournament take seconds to compose."""
    path = tmp_path_factory.mktemp("spaces") / "three.yaml"
    path.write_text("about: Three families.\nfamilies: [metric, focal, care]\n")
    return str(path)


def families(space):
    return [family.name for family in space.families]


def test_care_competes_where_lesions_are_known(manifest, without_lesions, three):
    space = load_space(three, ["stage_two.attention.rare=0.3"])
    assert fitting(space, manifest) == (space, {})
    fewer, unfit = fitting(space, without_lesions)
    assert families(fewer) == [name for name in families(space) if name != "care"]
    assert unfit.keys() == {"care"}
    assert unfit["care"].startswith(
        "stage_two.attention.region must be known in some training rows of the rare classes"
    )
    assert "add the columns x0, y0, x1, y1" in unfit["care"]
    assert {point.family for point in fewer.starts()} == {*families(fewer)}


# Nine classes of eight images: 72 are no multiple of seven classes.
WIDE = ["batch_size=72", "stage_one.sampler.classes=9", "stage_one.sampler.images=8"]


def test_a_family_that_the_classes_or_the_network_do_not_allow_is_left_out(manifest, three):
    rare = "stage_two.attention.rare=0.3"
    _, unfit = fitting(load_space(three, [rare, *WIDE]), manifest)
    assert unfit.keys() == {"metric"}
    assert "classes must be at most the 7 classes of the manifest" in unfit["metric"]
    _, unfit = fitting(load_space(three, [rare, "model.backbone=test_vit"]), manifest)
    assert unfit.keys() == {"care"}
    assert "model.output_stride must be 32 for test_vit" in unfit["care"]


def test_a_study_without_a_family_left_is_refused(without_lesions, tmp_path):
    space = load_space("care")
    assert fitting(space, without_lesions) == (space, {}), "of one family the checks of every study speak"
    path = tmp_path / "two.yaml"
    path.write_text("about: Two families.\nfamilies: [care, metric]\n")
    with pytest.raises(ConfigError, match="classes must be at most the 7 classes"):
        fitting(load_space(str(path), WIDE), without_lesions)
