"""The shipped search spaces: every point is a valid recipe, on many classes and on two, however unbalanced."""

from dataclasses import replace

import numpy as np
import optuna
import pytest

from raysk.errors import ConfigError
from raysk.spaces.files import list_spaces, read_space_file, spaces_folder
from raysk.spaces.space import load_space
from raysk.spaces.sweeps import lookup

NAMES = [
    "care", "care_ablation", "contrastive", "crop_ablation", "decouple", "focal", "focal_ablation", "gravis",
    "label_shares", "longtail", "mask_shares", "metric", "mislas", "probe", "segmentation", "supcon", "tournament",
]  # fmt: skip
# A ready encoder has weights.
GIVEN = {"probe": ["model.pretrained=true"]}
GRIDS = ("care_ablation", "crop_ablation", "focal_ablation", "label_shares", "mask_shares")
SEARCHED = [name for name in NAMES if name not in (*GRIDS, "tournament")]
# A screening for one disease, which few of the rows have.
BINARY, MANY = np.array([982, 18]), np.array([200, 400, 900, 90, 900, 5400, 110])


@pytest.fixture(scope="module")
def spaces():
    return {name: load_space(name, GIVEN.get(name, [])) for name in NAMES}


def trials(count, seed=0):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask() for _ in range(count)]


def test_the_list_of_shipped_spaces_is_complete():
    assert [name for name, _ in list_spaces()] == NAMES
    assert all(about.endswith(".") and "\n" not in about for _, about in list_spaces())


@pytest.mark.parametrize("name", NAMES)
def test_every_named_point_is_a_recipe_that_trains_on_seven_classes_and_on_two(name, spaces):
    points = spaces[name].named_points()
    assert points
    assert len({point.name for point in points}) == len(points)
    recipes = [spaces[name].config(point).recipe for point in points]
    for recipe in recipes:
        recipe.check_rows(BINARY)
        recipe.check_rows(MANY)
    # Competing families may start at the same recipe.
    assert name == "tournament" or len({recipe.key for recipe in recipes}) == len(recipes), (
        "two points are the same recipe"
    )


@pytest.mark.parametrize("name", SEARCHED)
def test_drawn_points_and_their_stage_two_settings_are_valid_recipes(name, spaces):
    space = spaces[name]
    (family,) = space.families
    keys = set()
    for trial in trials(20):
        point = space.draw(trial, family)
        recipe = space.config(point).recipe
        recipe.check_rows(BINARY)
        is_searched_inside = recipe.uses_kept_features
        drawn = [p for p in family.parameters if not (is_searched_inside and p.key.startswith("stage_two."))]
        check_conditions(drawn, point.values, recipe.to_plain())
        search = space.stage_two_search(point)
        assert (search is not None) is is_searched_inside
        if search is not None:
            _, setting = replace(search, num_settings=2).settings(lambda recipe: recipe.check_rows(BINARY))
            check_conditions(search.parameters, setting.values, setting.recipe.to_plain())
            assert setting.recipe.encoder_key == recipe.encoder_key, "stage two must not change the encoder"
            recipe = setting.recipe
        keys.add(recipe.key)
    # A probe has as many encoders as poolings and layers; the settings of stage two follow from these.
    assert len(keys) == (4 if name == "probe" else 20)


def check_conditions(parameters, drawn, plain):
    """Checks that exactly the parameters were drawn that come first among those whose conditions hold."""
    decided = set()
    for parameter in parameters:
        if parameter.when or parameter.unless:
            holds = all(str(lookup(plain, key)) in values for key, values in parameter.when)
            assert (parameter.name in drawn) is (holds and parameter.key not in decided), parameter.name
            decided |= {parameter.key} if holds else set()


@pytest.mark.parametrize("name", SEARCHED)
def test_every_start_is_within_the_sweeps(name, spaces):
    """A start outside the search would be replaced by a drawn value, under the name of the start."""
    (family,) = spaces[name].families
    starts = [point for point in spaces[name].named_points() if point.kind == "start"]
    for point, texts in zip(starts, family.starts.values(), strict=True):
        keys = {text.partition("=")[0] for text in point.own}
        assert {text.partition("=")[0] for text in texts} <= keys


def test_every_family_of_the_tournament_is_its_space_with_prefixed_names(spaces):
    tournament = spaces["tournament"]
    assert [family.name for family in tournament.families] == [
        "supcon", "metric", "focal", "decouple", "longtail", "contrastive", "mislas", "care",
    ]  # fmt: skip
    for family in tournament.families:
        (alone,) = spaces[family.name].families
        assert [parameter.name for parameter in family.parameters] == [
            f"{family.name}: {parameter.name}" for parameter in alone.parameters
        ]
        assert (family.settings, family.starts) == (alone.settings, alone.starts)
    names = [parameter.name for family in tournament.families for parameter in family.parameters]
    assert len(set(names)) == len(names), "Optuna knows a parameter by its name alone"


def test_points_of_the_tournament_are_named_by_their_family_and_take_turns(spaces):
    names = [point.name for point in spaces["tournament"].named_points()]
    assert names[:3] == ["supcon: paper, 10 epochs", "metric: batch_hard", "focal: paper"]
    assert names[8:10] == ["supcon: from_scratch", "metric: centre_triplet"]
    assert names[-3:] == ["cross_entropy", "balanced_softmax", "logit_adjustment"]


def test_the_ablation_tries_only_its_rows_in_the_order_of_the_paper(spaces):
    space = spaces["focal_ablation"]
    names = ["no dropout", "no augmentation", "no class weights", "no fully connected layers",
             "no global average pooling", "full"]  # fmt: skip
    assert list(space.grid) == names == [point.name for point in space.named_points()]
    recipes = {point.name: space.config(point).recipe for point in space.named_points()}
    full = recipes.pop("full").to_plain()
    for name, recipe in recipes.items():
        (changed,) = differing(full, recipe.to_plain())
        assert changed.rpartition(".")[0] in ("stage_two.head", "stage_two", "stage_two.loss", "model"), name


@pytest.mark.parametrize(
    ("name", "overrides", "having"),
    [
        ("focal", ["stage_two.loss.gamma=1.5"], {"paper", "no_weights"}),
        ("focal", ["stage_two.loss.name=vs", "stage_two.loss.tau=1.5"], {"paper", "no_weights", "logit_adjustment"}),
        ("care", ["stage_two.attention.weight=0.05"], {"paper, 10 epochs", "half adjusted", "cross_entropy",
                                                       "balanced_softmax", "logit_adjustment"}),
    ],
)  # fmt: skip
def test_a_setting_of_a_part_does_not_reach_a_point_that_names_a_part_without_it(name, overrides, having):
    space, (key, value) = load_space(name, overrides), overrides[-1].split("=")
    recipes = {point.name: space.config(point).recipe.to_plain() for point in space.named_points()}
    assert {name for name, plain in recipes.items() if lookup(plain, key) == float(value)} == having
    with pytest.raises(
        ConfigError, match=rf"{key}x must be a known setting of .* did you mean {key.rpartition('.')[2]}"
    ):
        load_space(name, [*overrides[:-1], f"{key}x={value}"]).config()


def test_the_crop_study_changes_nothing_but_the_crop(spaces):
    space = spaces["crop_ablation"]
    recipes = {point.name: space.config(point).recipe for point in space.named_points()}
    assert list(recipes) == [
        "whole",
        *(f"{name}, margin {margin}" for name in ("mask", "box") for margin in (0.0, 0.1, 0.25)),
    ]
    whole = recipes.pop("whole").to_plain()
    for recipe in recipes.values():
        assert set(differing(whole, recipe.to_plain())) <= {"crop.region", "crop.margin"}


def test_methods_of_label_shares_differ_in_their_loss_and_train_on_the_same_shares(spaces):
    space = spaces["label_shares"]
    recipes = {name: space.config(point).recipe for name, point in zip(space.grid, space.named_points(), strict=True)}
    methods = {point.method: [] for point in space.grid.values()}
    for name, point in space.grid.items():
        methods[point.method].append(recipes[name].label_share)
    assert list(methods.values()) == [[0.01, 0.1, 1.0]] * 7
    for ending in ("frozen", "end to end"):
        gravis, simclr, supcon = (
            recipes[f"{loss}, {ending}, label_share 0.1"] for loss in ("gravis", "simclr", "supcon")
        )
        assert differing(gravis.to_plain(), simclr.to_plain()) == ["stage_one.loss.name"]
        assert differing(gravis.to_plain(), supcon.to_plain()) == ["stage_one.loss.name"]
    encoders = {recipe.encoder_key for recipe in recipes.values()}
    assert len(encoders) == 2 + 3 + 1, "gravis and simclr need one for all shares, supcon one each, the last none"


def differing(first, second, path=""):
    """The dotted paths of the settings that differ; a part of another name counts as one."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [path] if first != second else []
    if first.get("name") != second.get("name"):
        return [f"{path}.name"]
    return [leaf for key in first for leaf in differing(first[key], second[key], f"{path}.{key}".lstrip("."))]


def test_gravis_starts_as_published_and_compares_losses_that_see_the_same(spaces):
    points = {point.name: spaces["gravis"].config(point).recipe for point in spaces["gravis"].starts()}
    names = ["paper, 10 epochs", "gravis", "simclr", "supcon with labels", "gravis end to end"]
    assert list(points) == names
    paper, *others, end_to_end = (points[name] for name in names)
    stage = paper.stage_one
    assert (stage.loss.temperature, stage.views * stage.copies, stage.batch_size) == (0.2, ("gravis",) * 20, 16)
    optimizer = stage.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.001, 0.9, 0.0)
    assert (optimizer.schedule, optimizer.warmup, stage.classifier_loss, stage.normalise) == ("cosine", 0.0, None, True)
    for other in others[1:]:
        assert differing(others[0].to_plain(), other.to_plain()) == ["stage_one.loss.name"]
    assert end_to_end.encoder_key == others[0].encoder_key, "its encoder is trained once"
    assert (end_to_end.stage_two.frozen, end_to_end.stage_two.head_epochs) == (False, 1)


def test_an_unknown_fragment_suggests_the_nearest_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("about: Mine.\ninclude: [control]\n")
    with pytest.raises(ConfigError, match="'control'; did you mean controls") as caught:
        read_space_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_overrides_the_fragments_that_it_includes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "about: Mine.\ninclude: [controls, stage_two]\n"
        "search: {stage_two.adjustment: 'choice(0.0, 2.0)', stage_one.epochs: 'choice(1, 2)'}\n"
        "controls: {balanced_softmax: [stage_one.epochs=3], own: [stage_one.epochs=4]}\n"
    )
    content = read_space_file(path)
    assert "include" not in content
    assert content["controls"]["balanced_softmax"] == ["stage_one.epochs=3"]
    assert list(content["controls"]) == ["cross_entropy", "balanced_softmax", "logit_adjustment", "own"]
    assert content["search"]["stage_two.adjustment"] == "choice(0.0, 2.0)"
    assert content["search"]["stage_one.epochs"] == "choice(1, 2)"
    assert content["search"]["stage_two.head.tau"]["when"] == "stage_two.head.name=tau_norm", "the rest is as it was"


def test_every_space_includes_the_controls():
    """A grid has none, since its rows are compared with one another; those of masks have no classes."""
    for name in set(NAMES) - {*GRIDS, "segmentation"}:
        controls = read_space_file(spaces_folder() / f"{name}.yaml")["controls"]
        assert list(controls)[:3] == ["cross_entropy", "balanced_softmax", "logit_adjustment"], name
