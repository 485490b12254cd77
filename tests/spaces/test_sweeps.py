import json
from collections import Counter

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial

from raysk.config import compose_plain, read_config
from raysk.errors import ConfigError
from raysk.overrides import parse_overrides
from raysk.parts.losses.classification import CrossEntropy
from raysk.parts.losses.margins import LDAM
from raysk.recipe import Recipe
from raysk.spaces.space import load_space
from raysk.spaces.sweeps import (
    Parameter,
    as_choice,
    assigned,
    distribution,
    lookup,
    override_texts,
    read_parameters,
    values_of,
)

PLAIN = {"stage_one": None, "stage_two": {"head": {"name": "linear"}, "loss": None, "view": "none"}, "seed": 3}
NUMBERS = FloatDistribution(0.0, 1.0)


@pytest.mark.parametrize(
    ("key", "when", "exists"),
    [
        ("stage_one.views", (), False),  # PLAIN has no stage one
        ("stage_two.view", (), True),
        ("stage_two.head.tau", (), True),
        ("stage_two.loss.gamma", (), False),
        ("stage_two.loss.name", (), True),  # a name creates its part
        ("stage_two.head.tau", (("stage_two.head.name", ("tau_norm",)),), False),
        ("stage_two.head.tau", (("stage_two.head.name", ("tau_norm", "linear")),), True),
        ("stage_two.head.tau", (("stage_one.loss.name", ("supcon",)),), False),
        ("seed", (("seed", ("3",)),), True),
        ("seed", (("stage_one", ("None",)),), True),
        ("seed", (("seed", ("3",)), ("stage_one", ("None",))), True),
        ("seed", (("seed", ("3",)), ("stage_one", ("1",))), False),
    ],
)
def test_a_parameter_exists_if_its_part_and_its_choice_exist(key, when, exists):
    assert Parameter(key, NUMBERS, when).exists(PLAIN) is exists


@pytest.mark.parametrize(
    ("values", "inside", "outside"),
    [
        (CategoricalDistribution(["a", 1]), ["a", 1], ["b", 2, None]),
        (FloatDistribution(0.5, 2.0), [0.5, 1, 2.0], [0.4, 2.1, "1", None]),
        (IntDistribution(1, 3), [1, 3], [0, 4, "2"]),
    ],
)
def test_a_parameter_allows_only_searched_values(values, inside, outside):
    parameter = Parameter("key", values)
    assert all(parameter.allows(value) for value in inside)
    assert not any(parameter.allows(value) for value in outside)


@pytest.mark.parametrize(
    ("values", "value", "nearest"),
    [
        (CategoricalDistribution(["a", 1]), 1, 1),
        (CategoricalDistribution(["a", 1]), "b", "a"),
        (FloatDistribution(0.5, 2.0), 0.7, 0.7),
        (FloatDistribution(0.5, 2.0), 3, 2.0),
        (IntDistribution(1, 3), 0, 1),
    ],
)
def test_the_nearest_value_is_searched(values, value, nearest):
    parameter = Parameter("key", values)
    assert parameter.nearest(value) == nearest
    assert parameter.allows(parameter.nearest(value))


ENTRIES = {
    "a sweep": "tag(log, interval(0.01, 1))",
    "a condition": {"sweep": "choice(1, 2)", "when": "stage_two.head.name=linear"},
    "a condition with a choice": {"sweep": "choice([none,light],[none,none])", "when": "a.b=choice(x, y, 3)"},
    "several": [
        {"sweep": "int(interval(1, 5))", "when": "stage_two.head.name=linear"},
        {"sweep": "range(1, 6, 2)", "when": "stage_two.head.name=choice(ncm, cosine)"},
    ],
    "several conditions, and the rest": [
        {"sweep": "choice(1, 2)", "when": ["a.b=choice(x, y)", "a.c=1"]},
        {"sweep": "choice(3)", "when": "a.b=y"},
        "choice(4)",
    ],
}


@pytest.mark.parametrize(
    ("b", "c", "expected"), [("x", 1, [1, 2]), ("y", 1, [1, 2]), ("y", 2, [3]), ("x", 2, [4]), (None, None, [4])]
)
def test_the_first_sweep_whose_conditions_all_hold_applies(b, c, expected):
    parameters = read_parameters("a space", "key", ENTRIES["several conditions, and the rest"])
    applying = [parameter for parameter in parameters if parameter.exists({"a": {"b": b, "c": c}})]
    assert [list(parameter.distribution.choices) for parameter in applying] == [expected]
    assert len({parameter.name for parameter in parameters}) == 3


@pytest.mark.parametrize(
    "entry",
    [
        {"when": "a.b=x"},
        {"sweep": "choice(1)", "wen": "a.b=x"},
        {"sweep": "choice(1)", "when": None},
        {"sweep": "choice(1)", "when": 5},
        {"sweep": "choice(1)", "when": {"a.b": "x"}},
        {"sweep": "choice(1)", "when": ["a.b=x", ["a.c=y"]]},
    ],
)
def test_an_entry_of_another_form_is_refused_in_one_line(entry):
    with pytest.raises(ConfigError, match=r"^a space: an entry of key must be a sweep, or have a `sweep`") as caught:
        read_parameters("a space", "key", entry)
    assert "\n" not in str(caught.value)


def test_a_sweep_after_one_without_a_condition_is_refused():
    with pytest.raises(ConfigError, match=r"^a space: only the last sweep of key may have no condition, but "):
        read_parameters("a space", "key", ["choice(4)", {"sweep": "choice(5)", "when": "a.b=x"}])


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_parameters_come_back_from_json(entry):
    parameters = read_parameters("a space", "stage_two.passes", entry)
    texts = json.loads(json.dumps([parameter.to_plain() for parameter in parameters]))
    assert [Parameter.from_plain(plain) for plain in texts] == parameters


def test_entries_become_parameters():
    (sweep,) = read_parameters("a space", "key", ENTRIES["a sweep"])
    assert sweep == Parameter("key", FloatDistribution(0.01, 1.0, log=True), name="key")
    (listed,) = read_parameters("a space", "key", ENTRIES["a condition with a choice"])
    assert listed.distribution == CategoricalDistribution(["[none,light]", "[none,none]"])
    assert listed.when == (("a.b", ("x", "y", "3")),)
    first, second = read_parameters("a space", "key", ENTRIES["several"])
    assert (first.distribution, second.distribution) == (IntDistribution(1, 5), CategoricalDistribution([1, 3, 5]))
    assert first.when == (("stage_two.head.name", ("linear",)),)
    assert second.when == (("stage_two.head.name", ("ncm", "cosine")),)
    assert (first.unless, second.unless) == ((), (first.when,))
    assert first.name != second.name  # in Optuna, a name has one distribution


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed=3", r"^a file: the sweep of seed must be choice\(...\), interval\(...\) or range\(...\), but got 3: "),
        ("seed=interval(3, 1)", "^a file: the sweep of seed must have values, but "),
    ],
)
def test_an_invalid_sweep_is_refused(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        distribution("a file", *parse_overrides([text]))
    assert "\n" not in str(caught.value)


@given(value=st.lists(st.sampled_from(["none", "light"])) | st.booleans() | st.integers() | st.sampled_from(["a", "b"]))
@settings(max_examples=30, deadline=None)
def test_a_choice_survives_being_typed_as_an_override(value):
    (text,) = override_texts({"stage_one.views": as_choice(value)})
    assert parse_overrides([text])[0].value() == value


def test_values_are_read_for_existing_parameters_only():
    parameters = [Parameter(key, NUMBERS) for key in ("stage_one.views", "stage_two.view", "seed", "stage_two.nothing")]
    assert values_of(parameters, PLAIN) == {"stage_two.view": "none", "seed": 3}
    assert lookup(PLAIN, "stage_two.head.name.deeper") is None


# A single changed setting.


def test_an_exchanged_part_drops_settings_that_the_new_part_lacks():
    plain = {"stage_two": {"loss": {"name": "focal", "gamma": 3.0, "weights": "balanced"}}}
    changed = assigned(plain, "stage_two.loss.name", "cross_entropy")
    assert changed == {"stage_two": {"loss": {"name": "cross_entropy", "weights": "balanced"}}}
    assert plain["stage_two"]["loss"]["gamma"] == 3.0  # the argument is unchanged
    again = assigned(changed, "stage_two.loss.name", "class_balanced")
    assert again == {"stage_two": {"loss": {"name": "class_balanced"}}}


def test_an_exchanged_part_takes_its_own_defaults():
    """The default of beta is 0.999 in one loss and 0.9999 in the other; a chosen value stays, a default does not."""
    plain = {"loss": CrossEntropy().to_plain() | {"name": "cross_entropy"}}
    assert LDAM().beta != CrossEntropy().beta
    assert assigned(plain, "loss.name", "ldam") == {"loss": {"name": "ldam"}}
    plain["loss"]["beta"] = 0.9
    assert assigned(plain, "loss.name", "ldam") == {"loss": {"name": "ldam", "beta": 0.9}}


def test_a_name_that_is_not_a_part_drops_nothing():
    changed = assigned({"stage_two": {"optimizer": {"name": "sgd", "lr": 0.1}}}, "stage_two.optimizer.name", "adamw")
    assert changed == {"stage_two": {"optimizer": {"name": "adamw", "lr": 0.1}}}


def test_a_missing_part_is_created():
    plain = {"stage_one": {"classifier_loss": None}}
    changed = assigned(plain, "stage_one.classifier_loss.name", "focal")
    assert changed == {"stage_one": {"classifier_loss": {"name": "focal"}}}


SPACE = load_space("supcon")


def draws(seed: int) -> dict[str, object]:
    """Returns a point of the space by key; each parameter exists given the values drawn before it."""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    (family,) = SPACE.families
    plain, values = SPACE.config().recipe.to_plain(), {}
    for parameter in family.parameters:
        if parameter.exists(plain):
            values[parameter.key] = parameter.draw(trial)
            (item,) = parse_overrides(override_texts({parameter.key: values[parameter.key]}))
            plain = assigned(plain, parameter.key, item.value())
    return values | {"": plain}


@pytest.mark.parametrize("seed", range(16))
def test_a_point_equals_the_composed_tree(seed):
    values = draws(seed)
    plain = values.pop("")
    texts = override_texts(values)
    expected = read_config(compose_plain(*SPACE.families[0].settings, *texts))
    assert any(key.startswith("stage_two.") for key in values)
    try:
        recipe = Recipe.from_plain(plain)
    except ConfigError as error:
        pytest.fail(f"{texts} compose, but {error}")
    assert recipe == expected.recipe


@given(share=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize(
    "values",
    [
        FloatDistribution(-1, 3),
        FloatDistribution(0.03, 0.5, log=True),
        IntDistribution(2, 9),
        IntDistribution(1, 1000, log=True),
        CategoricalDistribution(["a", "b", "c"]),
    ],
)
def test_every_share_of_the_range_is_a_value_of_it(values, share):
    value = Parameter("x", values).at(share)
    assert Parameter("x", values).allows(value)
    assert Parameter("x", values).draw(FixedTrial({"x": value})) == value


def test_equal_shares_of_the_range_have_equal_numbers_of_values():
    shares = (np.arange(800) + 0.5) / 800
    assert set(Counter(Parameter("x", IntDistribution(2, 9)).at(share) for share in shares).values()) == {100}
    assert set(Counter(Parameter("x", CategoricalDistribution(["a", "b"])).at(s) for s in shares).values()) == {400}
    rates = [Parameter("x", FloatDistribution(0.01, 1, log=True)).at(share) for share in shares]
    assert sum(rate < 0.1 for rate in rates) == 400
