"""The settings of a search of stage two: a scrambled Sobol sequence over a conditional space."""

import json
from dataclasses import replace

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from raysk.errors import ConfigError
from raysk.recipe import Recipe
from raysk.spaces.reference_heads import reference_heads
from raysk.spaces.space import load_space
from raysk.spaces.stage_two_search import StageTwoSearch, value_at
from raysk.spaces.sweeps import Parameter

TRAINED = (("stage_two.head.name", ("linear", "cosine")),)
PARAMETERS = (
    Parameter("stage_two.head.name", CategoricalDistribution(["linear", "cosine", "tau_norm", "ncm"])),
    Parameter("stage_two.head.tau", FloatDistribution(0.0, 2.0), (("stage_two.head.name", ("tau_norm",)),)),
    Parameter("stage_two.optimizer.lr", FloatDistribution(0.001, 0.1, log=True), TRAINED),
    Parameter("stage_two.passes", IntDistribution(1, 4)),
)


def search_of(num_settings: int = 64, **changes) -> StageTwoSearch:
    return StageTwoSearch(replace(Recipe(), **changes), PARAMETERS, num_settings)


def accept(recipe: Recipe) -> None:
    """Refuses nothing."""


def keys(search: StageTwoSearch) -> list[str]:
    return [setting.recipe.key for setting in search.settings(accept)]


def test_settings_are_different_and_begin_with_that_of_the_recipe():
    search = search_of()
    settings = search.settings(accept)
    assert settings[0].recipe == search.recipe
    assert settings[0].values == search.base()
    assert len({setting.recipe.key for setting in settings}) == len(settings) == 64


def test_the_reference_heads_of_the_space_follow_the_setting_of_the_recipe():
    space = load_space("metric")
    search = space.stage_two_search(next(point for point in space.named_points() if space.stage_two_search(point)))
    heads = [replace(search.recipe, stage_two=stage).key for stage in reference_heads(search.recipe.stage_two).values()]
    first = list(dict.fromkeys([search.recipe.key, *heads]))  # The recipe may have one of the heads itself.
    assert keys(search)[: len(first)] == first
    assert keys(replace(search, num_settings=3)) == first[:3]


def test_a_reference_head_outside_of_the_space_is_not_tried():
    """The space varies the learning rate of cross entropy up to 0.05: of the ten heads, one is in it."""
    lr = (Parameter("stage_two.optimizer.lr", FloatDistribution(0.001, 0.05, log=True)),)
    base = replace(Recipe().stage_two, optimizer=replace(Recipe().stage_two.optimizer, lr=0.02))
    settings = StageTwoSearch(replace(Recipe(), stage_two=base), lr, 64).settings(accept)
    heads = [stage for stage in reference_heads(base).values() if stage in [s.recipe.stage_two for s in settings]]
    assert heads == [reference_heads(base)["cross entropy, lr 0.01"]]


def test_settings_follow_from_seed_encoder_and_base():
    assert keys(search_of()) == keys(StageTwoSearch.from_plain(json.loads(json.dumps(search_of().to_plain()))))
    assert set(keys(search_of(seed=1))).isdisjoint(keys(search_of()))
    points = [{tuple(setting.values.items()) for setting in search.settings(accept)} for search in (
        search_of(), search_of(seed=1), search_of(image_size=64),
        search_of(stage_two=replace(Recipe().stage_two, optimizer=replace(Recipe().stage_two.optimizer, lr=0.02))),
    )]  # fmt: skip
    for place, first in enumerate(points):
        for second in points[:place]:
            assert len(first & second) < 20  # those of heads without a continuous value


def test_values_that_do_not_apply_are_ignored_and_repeated_settings_drawn_again():
    values = [setting.values for setting in search_of().settings(accept)]
    for setting in values:
        head = setting["stage_two.head.name"]
        assert ("stage_two.head.tau" in setting) is (head == "tau_norm")
        assert ("stage_two.optimizer.lr" in setting) is (head in ("linear", "cosine"))
    # A quarter of the points have the nearest mean, in four variants only.
    assert sorted(v["stage_two.passes"] for v in values if v["stage_two.head.name"] == "ncm") == [1, 2, 3, 4]


def test_the_values_of_a_parameter_are_even():
    """Each of 64 equal intervals holds one of the 64 points; the first point is replaced by the recipe's own value."""
    decay = (Parameter("stage_two.optimizer.weight_decay", FloatDistribution(0.001, 0.1, log=True)),)
    settings = StageTwoSearch(Recipe(), decay, 64).settings(accept)
    values = [setting.values["stage_two.optimizer.weight_decay"] for setting in settings[1:]]
    assert len({int(64 * share) for share in np.log(np.divide(values, 0.001)) / np.log(100)}) == 63


@pytest.mark.parametrize("num_settings", [1, 3, 100])
def test_any_number_of_settings_is_given(num_settings):
    assert len(search_of(num_settings).settings(accept)) == num_settings


def test_a_refused_setting_is_replaced():
    def refuse(recipe: Recipe) -> None:
        if recipe.stage_two.passes == 1:
            raise ConfigError("passes must be 2 or more")

    settings = search_of(32).settings(refuse)
    assert len(settings) == 32
    assert {setting.recipe.stage_two.passes for setting in settings} == {2, 3, 4}


def test_a_space_without_more_settings_gives_all_it_has():
    passes = (Parameter("stage_two.passes", IntDistribution(1, 4)),)
    settings = StageTwoSearch(Recipe(), passes, 64).settings(accept)
    assert sorted(setting.recipe.stage_two.passes for setting in settings) == [1, 2, 3, 4]
    assert StageTwoSearch(Recipe(), (), 8).settings(accept)[0].recipe == Recipe()


@pytest.mark.parametrize(
    ("distribution", "quantile", "value"),
    [
        (CategoricalDistribution(["a", "b", "c"]), 0.34, "b"),
        (CategoricalDistribution(["a", "b", "c"]), 0.999999, "c"),
        (FloatDistribution(2.0, 4.0), 0.25, 2.5),
        (FloatDistribution(0.01, 1.0, log=True), 0.5, 0.1),
        (FloatDistribution(3.0, 3.0), 0.7, 3.0),
        (IntDistribution(1, 4), 0.0, 1),
        (IntDistribution(1, 4), 0.26, 2),
        (IntDistribution(1, 4), 0.999999, 4),
        (IntDistribution(1, 100, log=True), 0.999999, 100),
    ],
)
def test_quantiles_of_a_distribution(distribution, quantile, value):
    assert value_at(distribution, quantile) == pytest.approx(value)
    assert type(value_at(distribution, quantile)) is type(value)


def test_a_shipped_space_gives_settings_of_every_kind():
    space = load_space("metric")
    point = next(point for point in space.named_points() if space.stage_two_search(point))
    settings = space.stage_two_search(point).settings(accept)
    assert len(settings) == 256
    for key in ("head", "loss", "sampler"):
        names = {setting.recipe.to_plain()["stage_two"][key]["name"] for setting in settings}
        choices = [p.distribution.choices for p in space.families[0].parameters if p.key == f"stage_two.{key}.name"]
        assert names == {choice for of_condition in choices for choice in of_condition}
