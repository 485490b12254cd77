import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from raysk.errors import ConfigError
from raysk.spaces.space import load_space

SPACE = """
about: A space of the tests.
settings:
  - image_size=32
  - stage_one.epochs=3
  - stage_two.search=0
search:
  stage_one.loss.temperature: tag(log, interval(0.03, 0.5))
  stage_one.optimizer.momentum: interval(0.5, 0.95)
  stage_two.epochs: int(interval(2, 9))
  stage_two.passes: range(1, 4)
  stage_two.optimizer.name: choice(sgd, adamw)
  stage_one.views: choice([none,light],[light,light])
  stage_two.loss.name: choice(cross_entropy, focal, logit_adjustment)
  stage_two.loss.gamma: {sweep: "interval(0.5, 5.0)", when: stage_two.loss.name=focal}
starts:
  "paper, ${stage_one.epochs} epochs":
    - stage_one.loss.temperature=0.07
    - stage_two.epochs=5
  other:
    - stage_two.loss.name=focal
    - stage_two.loss.gamma=3.0
controls:
  plain: &plain
    - stage_one=null
    - stage_two.frozen=false
    - stage_two.loss.name=cross_entropy
  heavy:
    - *plain
    - stage_two.loss.weights=balanced
"""


@pytest.fixture
def space_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SPACE)
    return str(path)


def trials(count=20, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [study.ask() for _ in range(count)]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def by_key(space):
    return {parameter.key: parameter for parameter in space.families[0].parameters}


def draw(space, trial):
    return space.draw(trial, space.families[0])


def test_every_sweep_becomes_its_distribution(space_file):
    distributions = {key: parameter.distribution for key, parameter in by_key(load_space(space_file)).items()}
    assert distributions == {
        "stage_one.loss.temperature": FloatDistribution(0.03, 0.5, log=True),
        "stage_one.optimizer.momentum": FloatDistribution(0.5, 0.95),
        "stage_two.epochs": IntDistribution(2, 9),
        "stage_two.passes": CategoricalDistribution([1, 2, 3]),
        "stage_two.optimizer.name": CategoricalDistribution(["sgd", "adamw"]),
        "stage_one.views": CategoricalDistribution(["[none,light]", "[light,light]"]),
        "stage_two.loss.name": CategoricalDistribution(["cross_entropy", "focal", "logit_adjustment"]),
        "stage_two.loss.gamma": FloatDistribution(0.5, 5.0),
    }


def test_a_conditional_parameter_exists_for_its_choice_only(space_file):
    space = load_space(space_file)
    seen = set()
    for trial in trials():
        point = draw(space, trial)
        loss = point.values["stage_two.loss.name"]
        assert ("stage_two.loss.gamma" in point.values) is (loss == "focal")
        assert trial.params == point.values
        recipe = space.config(point).recipe
        assert getattr(recipe.stage_two.loss, "gamma", None) == point.values.get("stage_two.loss.gamma")
        seen.add(loss)
    assert len(seen) == 3


def test_the_papers_setting_is_first_then_the_other_starts_then_the_controls(space_file):
    space = load_space(space_file)
    points = space.named_points()
    assert [(point.name, point.kind) for point in points] == [
        ("paper, 3 epochs", "start"), ("other", "start"), ("plain", "control"), ("heavy", "control"),
    ]  # fmt: skip
    paper, other, plain, heavy = (space.config(point).recipe for point in points)
    assert paper.stage_one.loss.temperature == 0.07
    assert (paper.stage_two.epochs, paper.stage_one.epochs, paper.image_size) == (5, 3, 32)
    assert other.stage_two.loss.gamma == 3.0
    assert plain.stage_one is None
    assert (plain.kind, heavy.kind) == ("one-stage", "one-stage")
    assert (plain.stage_two.loss.weights, heavy.stage_two.loss.weights) == ("none", "balanced")


def test_a_start_is_named_by_the_settings_that_it_has(space_file, tmp_path):
    assert load_space(space_file, ["stage_one.epochs=40"]).named_points()[0].name == "paper, 40 epochs"
    path = tmp_path / "wrong.yaml"
    path.write_text(SPACE.replace("${stage_one.epochs}", "${stage_one.epoch}"))
    rule = r"^paper, \$\{stage_one\.epoch\} epochs must hold keys .*'stage_one\.epoch' not found: correct it"
    with pytest.raises(ConfigError, match=rule):
        load_space(str(path)).named_points()


def test_the_command_line_fixes_a_searched_setting(space_file):
    space = load_space(space_file, ["stage_two.loss.name=focal", "stage_one.loss.temperature=0.2"])
    assert not {"stage_two.loss.name", "stage_one.loss.temperature"} & set(by_key(space))
    for trial in trials(5):
        point = draw(space, trial)
        assert "stage_two.loss.gamma" in point.values, "the command line makes its condition hold"
        assert space.config(point).recipe.stage_one.loss.temperature == 0.2
    paper, other, plain, _ = space.named_points()
    assert space.config(paper).recipe.stage_one.loss.temperature == 0.2, "the command line overrides the start"
    assert space.config(other).recipe.stage_two.loss.gamma == 3.0
    assert type(space.config(plain).recipe.stage_two.loss).__name__ == "CrossEntropy", "a control does not change"


def test_a_sweep_of_the_command_line_replaces_that_of_the_file(space_file):
    space = load_space(space_file, ["stage_two.passes=choice(7,9)", "stage_one.optimizer.lr=interval(0.1,0.2)"])
    assert by_key(space)["stage_two.passes"].distribution == CategoricalDistribution([7, 9])
    for trial in trials(5):
        recipe = space.config(draw(space, trial)).recipe
        assert recipe.stage_two.passes in (7, 9)
        assert 0.1 <= recipe.stage_one.optimizer.lr <= 0.2, (
            "and a setting that the file does not search is searched, too"
        )


def test_a_sweep_of_the_command_line_keeps_the_condition(space_file):
    space = load_space(space_file, ["stage_two.loss.gamma=interval(1,2)"])
    for trial in trials():
        gamma = getattr(space.config(draw(space, trial)).recipe.stage_two.loss, "gamma", 1.5)
        assert 1 <= gamma <= 2


def test_a_start_leaves_out_values_outside_the_command_lines_sweep(space_file):
    sweeps = [
        "stage_one.loss.temperature=interval(0.2,0.3)",
        "stage_two.epochs=choice(2,3)",
        "stage_two.passes=choice(1,4)",
    ]
    paper = load_space(space_file, sweeps).named_points()[0]
    assert paper.values["stage_two.passes"] == 1
    assert not {"stage_one.loss.temperature", "stage_two.epochs"} & set(paper.values)


@pytest.mark.parametrize(
    ("override", "adjustment", "lr"),
    [
        ("seed=0", 0.5, 0.1),
        # The prior is corrected once: the space has no adjustment beside this loss or sampler.
        ("stage_two.loss.name=balanced_softmax", 0.0, 0.1),
        ("stage_two.sampler.name=class_balanced", 0.0, 0.1),
        ("stage_two.optimizer.lr=interval(0.0001,0.001)", 0.5, 0.001),
    ],
)
def test_what_a_search_of_stage_two_begins_with_lies_in_its_space(override, adjustment, lr):
    space = load_space("metric", [override])
    for point in (space.starts()[0], draw(space, next(iter(trials(1))))):
        stage = space.config(point).recipe.stage_two
        assert (stage.adjustment, stage.optimizer.lr) == (adjustment, lr)


def test_a_stage_that_the_command_line_removes_is_not_searched(space_file):
    space = load_space(space_file, ["stage_one=null", "stage_two.frozen=false"])
    for trial in trials(5):
        point = draw(space, trial)
        assert not any(key.startswith("stage_one") for key in point.values)
        assert space.config(point).recipe.stage_one is None


@pytest.mark.parametrize("name", ["supcon", "mine"])
def test_the_overrides_of_a_point_make_the_same_recipe(name, space_file):
    """The leaderboard's commands depend on it; test_searcher.py tests the part of the searcher."""
    source = "supcon" if name == "supcon" else space_file
    user = ["data.size=150", "stage_two.epochs=4", "seed=3"]
    space = load_space(source, user)
    for point in [*space.named_points(), *(draw(space, trial) for trial in trials(8))]:
        again = load_space(source, [*user, *point.own])
        assert again.config().recipe == space.config(point).recipe, point


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("search: {stage_one.epochs: 5}", r"the sweep of stage_one.epochs must be choice\(...\), interval"),
        (
            "starts: {paper: [stage_one.epochs=5]}",
            "a start must set searched keys only, but paper sets stage_one.epochs",
        ),
        ("serach: {}", "must be a known name, but got 'serach'; did you mean search"),
        ("settings: [", "must be YAML, but"),
    ],
)
def test_an_invalid_file_is_refused_in_one_line_that_names_it(wrong, message, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(f"about: Wrong.\n{wrong}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_space(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_must_have_about(tmp_path):
    path = tmp_path / "silent.yaml"
    path.write_text("search: {}\n")
    with pytest.raises(ConfigError, match="no sentence `about`"):
        load_space(str(path))


def test_an_unknown_space_suggests_the_nearest_name():
    with pytest.raises(ConfigError, match="a search space must be a known name, but got 'supcom'; did you mean supcon"):
        load_space("supcom")


def test_an_unknown_setting_in_a_space_is_refused(tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("about: Typo.\nsettings: [stage_one.epoch=3]\n")
    with pytest.raises(ConfigError, match=r"did you mean stage_one\.epochs"):
        load_space(str(path)).config()


def test_an_interval_without_values_is_refused():
    with pytest.raises(ConfigError, match=r"the sweep of stage_one\.loss\.temperature must have values"):
        load_space("supcon", ["stage_one.loss.temperature=interval(1,0)"])


def test_the_goal_names_the_search_of_stage_two_and_no_recipe():
    searches = {}
    for words in (["metric=kappa"], ["metric=pauc@mel:0.80"], ["metric=pauc@mel:.8"], ["require=['kappa>=0.5']"], []):
        space = load_space("decouple", words)
        point = next(point for point in space.named_points() if space.stage_two_search(point))
        searches[words[0] if words else ""] = space.stage_two_search(point)
    assert len({search.recipe.key for search in searches.values()}) == 1
    assert len({search.id for search in searches.values()}) == 4
    assert searches["metric=pauc@mel:0.80"] == searches["metric=pauc@mel:.8"]
    assert searches["require=['kappa>=0.5']"].require == ("kappa>=0.5",)


@pytest.mark.parametrize("word", ["metric=choice(kappa,macro_f1)", "folds.k=range(2,4)", "data.seed=interval(0,9)"])
def test_a_search_over_settings_of_the_study_is_refused(word):
    with pytest.raises(ConfigError, match="a search must be over settings of a recipe, but got"):
        load_space("decouple", [word])


def test_where_families_compete_a_setting_of_a_part_is_for_those_that_have_it(tmp_path):
    path = tmp_path / "four.yaml"
    path.write_text("about: Four.\ninclude: [controls]\nfamilies: [metric, focal, decouple, care]\n")
    four = str(path)
    space = load_space(four, ["stage_two.attention.rare=0.3", "stage_one.sampler.images=8", "seed=5"])
    recipes = {point.name: space.config(point).recipe for point in space.named_points()}
    assert {recipe.seed for recipe in recipes.values()} == {5}
    guided = {name: recipe.stage_two.care.rare for name, recipe in recipes.items() if recipe.stage_two.care}
    assert guided and {*guided.values()} == {0.3} and all(name.startswith("care: ") for name in guided)
    per_class = {name: r.stage_one.sampler.images for name, r in recipes.items() if "metric: " in name}
    assert {*per_class.values()} == {8}
    space = load_space(four, ["stage_one.epochs=7", "stage_one.loss.temperature=0.2"])
    for point in space.named_points():
        one = space.config(point).recipe.stage_one
        assert (one is None) is point.name.startswith(("focal: ", "cross_", "balanced_", "logit_"))
        assert one is None or one.epochs == 7
        assert getattr(one and one.loss, "temperature", 0.2) == 0.2
    with pytest.raises(ConfigError, match="rare must be a known setting of NoAttention"):
        load_space("metric", ["stage_two.attention.rare=0.3"]).config()
    with pytest.raises(ConfigError, match="rarer must be a known setting"):
        load_space(four, ["stage_two.attention.rarer=0.3"]).config()
