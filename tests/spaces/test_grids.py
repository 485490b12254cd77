import pytest

from raysk.errors import ConfigError
from raysk.overrides import parse_overrides
from raysk.spaces.grids import GridPoint, grid_points
from raysk.spaces.space import load_space

POINTS = {"one": ["seed=1"], "two": ["stage_two.loss.name=choice(focal,ldam)"]}


def test_a_point_is_tried_with_each_combination_of_choices():
    assert grid_points("file", POINTS, []) == {
        "one": GridPoint("one", "", ("seed=1",)),
        "two, name focal": GridPoint("two", "name focal", ("stage_two.loss.name=focal",)),
        "two, name ldam": GridPoint("two", "name ldam", ("stage_two.loss.name=ldam",)),
    }
    swept = grid_points("file", POINTS, parse_overrides(["label_share=choice(0.1,1)"]))
    assert list(swept) == [
        "one, label_share 0.1",
        "one, label_share 1",
        "two, name focal, label_share 0.1",
        "two, name focal, label_share 1",
        "two, name ldam, label_share 0.1",
        "two, name ldam, label_share 1",
    ]
    point = swept["two, name ldam, label_share 1"]
    assert point == GridPoint("two", "name ldam, label_share 1", ("stage_two.loss.name=ldam", "label_share=1"))


def test_a_sweep_of_the_command_line_replaces_values_of_the_file():
    swept = grid_points("file", POINTS, parse_overrides(["seed=choice(3,4)"]))
    assert swept["one, seed 3"].overrides == ("seed=3",)
    swept = grid_points("file", POINTS, parse_overrides(["stage_two.loss.name=choice(vs,gcl)"]))
    assert list(swept) == ["one, name vs", "one, name gcl", "two, name vs", "two, name gcl"]


def test_only_choices_can_be_tried_one_by_one():
    rule = r"^file: the sweep of label_share must be choice\(...\), .* but got label_share=interval\(0.1,1\): list the"
    with pytest.raises(ConfigError, match=rule):
        grid_points("file", POINTS, parse_overrides(["label_share=interval(0.1,1)"]))
    with pytest.raises(ConfigError, match="different names, but got 'one, seed 1' twice"):
        grid_points("file", {"one": ["seed=choice(1,1)"]}, [])


def test_a_shipped_grid_takes_shares_of_labels():
    space = load_space("focal_ablation", ["label_share=choice(0.1,1)"])
    names = [point.name for point in space.named_points()]
    assert list(space.grid) == names
    assert names[-2:] == ["full, label_share 0.1", "full, label_share 1"]
    shares = [space.config(point).recipe.label_share for point in space.named_points()]
    assert shares == [0.1, 1.0] * (len(shares) // 2)
    assert not space.families, "nothing is left to draw"
