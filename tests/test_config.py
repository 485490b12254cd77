import pytest

from raysk.config import Config, compose_plain, read_config
from raysk.data.sources import DataSettings
from raysk.errors import ConfigError
from raysk.parts.losses.classification import Focal
from raysk.parts.losses.contrastive import SupCon
from raysk.recipe import Recipe


def config(*overrides):
    return read_config(compose_plain(*overrides))


def test_the_tree_alone_is_a_valid_configuration():
    composed = config()
    assert composed.data.source == "synthetic"
    assert (composed.folds.k, composed.folds.seed, composed.folds.test_share) == (3, 0, 0.2)
    assert composed.cache_folder.is_absolute()
    assert Recipe.from_plain(composed.recipe.to_plain()) == composed.recipe


def test_the_tree_alone_has_the_defaults_of_the_settings():
    assert config() == Config(data=DataSettings(image="file", group="group"))


def test_later_overrides_take_precedence():
    assert config("seed=1", "folds.k=5", "seed=2").recipe.seed == 2
    assert config("data=csv", "data.path=/x.csv", "data.group=patient").data.group == "patient"


def test_a_part_takes_its_own_settings_by_name():
    stage = config(
        "stage_two.loss.name=focal", "stage_two.loss.gamma=3", "stage_two.head.name=mlp", "stage_two.head.hidden=64"
    ).recipe.stage_two
    assert (stage.loss.gamma, stage.head.hidden) == (3.0, 64)
    assert config("++stage_one.loss.temperature=0.2").recipe.stage_one.loss.temperature == 0.2


def test_a_stage_can_be_left_out():
    composed = config("stage_one=null", "stage_two.frozen=false")
    assert composed.recipe.stage_one is None
    assert composed.recipe.kind == "one-stage"


def test_the_size_of_the_stage_two_search_is_not_part_of_the_recipe():
    assert config("stage_two.search=7").stage_two.search == 7
    assert config("stage_two.search=7").recipe == config("stage_two.search=0").recipe


def test_a_loss_of_stage_one_can_be_exchanged_left_out_or_combined():
    stage = config("stage_one.loss=null", "stage_one.classifier_loss.name=focal").recipe.stage_one
    assert (stage.loss, stage.classifier_loss) == (None, Focal())
    stage = config("stage_one.classifier_loss={name: focal, gamma: 1}", "stage_one.loss_weight=0.5").recipe.stage_one
    assert (stage.loss, stage.classifier_loss, stage.loss_weight) == (SupCon(), Focal(gamma=1.0), 0.5)


def test_two_compositions_do_not_affect_each_other():
    first = compose_plain("seed=1")
    assert config("seed=2").recipe.seed == 2
    assert first["seed"] == compose_plain("seed=1")["seed"] == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage_one.epoch=3"], "'stage_one.epoch'; did you mean stage_one.epochs"),
        (["+stage_one.epoch=3"], "'stage_one.epoch'; did you mean stage_one.epochs"),
        (["++modle.backbone=x"], "'modle.backbone'; did you mean model.backbone"),
        (["optimizer.lr=1"], "'optimizer.lr'; did you mean stage_"),
        (["zzzzzz=1"], "'zzzzzz'; known: batch_size, cache, controls, crop, "),
        (["stage_two.loss.gama=2", "stage_two.loss.name=focal"], "stage_two.loss.gama .* did you mean gamma"),
        (["stage_two.loss.gamma=2"], "stage_two.loss.gamma must be a known setting of CrossEntropy"),
        (["stage_two.loss.name=focall"], "must be a known name, but got 'focall'; did you mean focal"),
        (["stage_two.loss.name=supcon"], r"stage_two.loss must be one of .*cross_entropy.*, but got 'supcon'"),
        (["stage_two.sampler.name=squareroot"], "did you mean square_root"),
        (["stage_two.head.name=liner"], "did you mean linear"),
        (["stage_two.view=meduim"], "did you mean medium"),
        (["model.backbone=resnet5O"], "did you mean resnet50"),
        (["stage_one.epochs=0"], r"stage_one.epochs must be a whole number in \[1, 100000\], but got 0"),
        (["stage_one.epochs=2.5"], "stage_one.epochs must be a whole number"),
        (["stage_one.epochs=many"], "stage_one.epochs must be a whole number"),
        (["folds.k=1"], r"folds.k must be a whole number in \[2, 100\], but got 1"),
        (["folds.test_share=1"], r"folds.test_share must be a number in \[0, 1\)"),
        (["stage_two.optimizer.lr=1e30"], r"stage_two.optimizer.lr must be a number in \(0, 100\]"),
        (["stage_two.search=-1"], r"stage_two.search must be a whole number in \[0, .*\], but got -1"),
        (
            ["stage_two.loss.gamma=-1", "stage_two.loss.name=focal"],
            r"stage_two.loss.gamma must be a number in \[0, 20\]",
        ),
        (["stage_two.mixing.name=mixpu"], "did you mean mixup"),
        (["stage_one.loss=null"], "stage_one.loss must be given if classifier_loss is null"),
        (["stage_one=null"], "model must have trained weights for a frozen encoder without a stage one"),
        (["stage_one.epochs=[1"], r"an override must be KEY=VALUE, but got 'stage_one.epochs=\[1'"),
        (["stage_one.epochs"], "an override must be KEY=VALUE, but got 'stage_one.epochs'"),
        (
            ["stage_one=null", "stage_one.copies=4"],
            "stage_one.copies must have stage_one, but stage_one is null",
        ),
        (["seed=${nothing}"], "the overrides must fit the configuration"),
        (["image_size=null"], "image_size must be a whole number"),
    ],
)
def test_an_invalid_override_is_refused_in_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as caught:
        config(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "stage_two.loss._target_=os.system",
        "+model._target_=os.system",
        "++stage_two.head={_target_: os.system}",
        "stage_two.loss={name: focal, _target_: os.system}",
    ],
)
def test_nothing_on_the_command_line_imports_code(override):
    with pytest.raises(ConfigError, match="an override must not import code"):
        config(override)


def test_a_configuration_cannot_import_code_by_a_space_or_a_recipe_either():
    plain = config().recipe.to_plain()
    plain["stage_two"]["loss"] = {"name": "focal", "_target_": "os.system"}
    with pytest.raises(ConfigError, match="_target_ must be a known setting"):
        Recipe.from_plain(plain)


def test_an_unknown_data_source_suggests_the_nearest_name():
    with pytest.raises(ConfigError, match="data must be a known name, but got 'cvs'; did you mean csv"):
        compose_plain("data=cvs")


def test_the_loader_is_chosen_by_the_machine_unless_a_number_is_given():
    assert [config(*texts).loader for texts in ([], ["loader=auto"], ["loader=4"], ["loader=0"])] == [None, None, 4, 0]
    with pytest.raises(ConfigError, match="loader must be auto or a number of processes, but got 'many'"):
        config("loader=many")
    for wrong in ("-1", "1.5", "true"):
        with pytest.raises(ConfigError, match=r"loader must be a whole number in \[0, 1024\], but got"):
            config(f"loader={wrong}")


@pytest.mark.parametrize(
    "path",
    [
        "~/HAM",
        "/data/Hautläsionen",
        "My Images (1)",
        "a,b",
        "x#y",
        "it's",
        "[a]",
        "{y}",
        "2020",
        "a\\'b",
        "end\\",
        "a=b",
    ],
)
def test_a_path_is_taken_literally(path):
    composed = config("data=folder", f"data.path={path}", f"cache={path}")
    assert (composed.data.path, composed.cache) == (path, path)
    assert composed.cache_folder.is_absolute()


def test_paths_of_collections_and_null_are_read():
    composed = config("data=[ham10000,b:csv]", "data.ham10000.path=~/H A M", "data.b.path='x y'", "stores=null")
    assert [collection.path for collection in composed.data.collections] == ["~/H A M", "x y"]
    assert composed.stores is None
