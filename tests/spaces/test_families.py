import pytest

from raysk.errors import ConfigError
from raysk.spaces.files import list_spaces
from raysk.spaces.space import load_space


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("stage_one.loss.temperature=interval(-1,5)", r"^stage_one.loss.temperature must be a number in .* got -1.0"),
        ("stage_one.loss.temperature=tag(log,interval(0.1,500))", r"^stage_one.loss.temperature must be .* got 500.0"),
        ("image_size=choice(4,48)", r"^image_size must be a whole number in \[16, 4096\], but got 4"),
        ("image_size=interval(32.0,64.0)", "^image_size must be a whole number"),
        ("epochs=choice(0,5)", "^epochs must be a whole number"),
        ("model.pooling=choice(avg,foo)", "^model.pooling .*, but got 'foo'"),
        ("stage_one.views=choice([none,medium],[none,media])", "^stage_one.views must .* did you mean medium"),
        ("stage_two.search=choice(4,-4)", r"^stage_two.search must be a whole number in \[0, 100000\], but got -4"),
        ("stage_two.sampler.name=choice(instance,instanze)", "must be a known name, but got 'instanze'"),
        ("seed=range(-1,3)", "^seed must be a whole number .*, but got -1"),
    ],
)
def test_a_sweep_with_an_impossible_value_is_refused_before_the_study(word, message):
    with pytest.raises(ConfigError, match=message):
        load_space("supcon", [word])


def test_a_value_that_depends_on_a_part_is_checked_against_that_part():
    """A margin of 0.3 is one of batch_hard; the temperature of SupCon is none of its settings."""
    load_space("metric", ["stage_one.loss.margin=choice(0.1,0.3)"])
    with pytest.raises(ConfigError, match=r"^stage_one.loss.margin must be a number in .*, but got -1"):
        load_space("metric", ["stage_one.loss.margin=choice(-1,0.3)"])


@pytest.mark.parametrize("name", [name for name, _ in list_spaces()])
def test_no_space_has_a_value_that_its_setting_cannot_have(name):
    load_space(name)
