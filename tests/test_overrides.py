import pytest

from raysk.errors import ConfigError
from raysk.overrides import parse_override, parse_overrides, with_literal_value


def test_sweeps_are_told_from_values():
    sweep, value = parse_overrides(["stage_one.epochs=choice(1,2)", "stage_one.views=[none,light]"])
    assert (sweep.is_sweep_override(), value.is_sweep_override()) == (True, False)


@pytest.mark.parametrize("text", ["stage_one.epochs", "stage_one.epochs=[1"])
def test_what_is_not_in_the_grammar_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match="an override must be KEY=VALUE, but got") as caught:
        parse_override(text)
    assert "\n" not in str(caught.value)


def test_an_override_without_a_value_gets_a_remedy():
    with pytest.raises(ConfigError, match=r"must be KEY=VALUE, but got 'folds.column': add = and the value"):
        parse_override("folds.column")


@pytest.mark.parametrize("path", ["~/a b", "it's", "x,y", "end\\", "{z}"])
def test_a_path_means_itself(path):
    assert parse_override(f"data.path={path}").value() == path


def test_other_values_and_sweeps_are_left_as_they_are():
    for text in ("seed=1", "data.path=null", "cache='a'", "model.checkpoint=choice(a,b)"):
        assert with_literal_value(text) == text
