"""The configuration: Hydra composes it from `conf/`, a space and the command line; dataclasses validate it."""

from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from raysk.data.folds.dividing import FoldSettings
from raysk.data.sources import DataSettings, sources
from raysk.errors import ConfigError, in_one_line
from raysk.evaluation.goals import Goal
from raysk.evaluation.metrics import DEFAULT_METRIC
from raysk.overrides import parse_override, with_literal_value
from raysk.recipe import PART_NODES, Recipe
from raysk.registry import unknown_name
from raysk.settings import Between, Settings, within

_TREE = Path(__file__).parent.resolve() / "conf"
_DATA_SETTINGS = frozenset(setting.name for setting in fields(DataSettings))
# The nodes of the tree that are the same for all recipes of a study.
_OF_THE_SEARCH = ("folds", "metric", "require", "search", "controls", "finalists", "seeds")
OF_THE_STUDY = ("data", *_OF_THE_SEARCH, "cache", "stores", "loader")
# Only interpolations of other nodes use these.
SHORTHANDS = ("epochs", "batch_size")


@dataclass(frozen=True, kw_only=True)
class StageTwoBudget(Settings):
    """The budget of the search of stage two. It belongs to the study, not to the recipes.

    Args:
        search: Number of settings tried on each frozen encoder, best a power of two; 0 searches both stages flat.
    """

    search: Annotated[int, Between(0, 100_000)] = 256


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """How a study draws recipes.

    Args:
        sampler: Draws them: "tpe" (tree-structured Parzen estimator), "gp" (Gaussian process), "random", or "sobol"
            (scrambled Sobol points).
    """

    sampler: Literal["tpe", "gp", "random", "sobol"] = "tpe"


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """The configuration of a study.

    Args:
        data: The rows.
        folds: How the rows are divided.
        recipe: The recipe that the trials vary.
        metric: What the study searches for and ranks by; CLASS is the name of a class.
        require: Bounds on metrics that come before it, as `--require` gives them.
        search: How the study draws recipes.
        controls: "all" runs them before any recipe is drawn; "quarter" runs the first, and more while they have at most
            a quarter of what follows the starts.
        finalists: Number of the best recipes that are trained with several seeds before the test part is opened, one of
            each family; 0 for none.
        seeds: Number of training seeds of a finalist.
        cache: Folder on each machine that keeps decoded images, drawn datasets and features of ready encoders between
            runs.
        stores: A folder or an address such as s3://bucket/prefix that all machines see, for decoded images.
        loader: Number of processes per worker that draw views; None chooses by the machine.
        stage_two: The budget of the search of stage two.
    """

    data: DataSettings = field(default_factory=DataSettings)
    folds: FoldSettings = field(default_factory=FoldSettings)
    recipe: Recipe = field(default_factory=Recipe)
    metric: str = DEFAULT_METRIC
    require: tuple[str, ...] = ()
    search: SearchSettings = field(default_factory=SearchSettings)
    controls: Literal["quarter", "all"] = "quarter"
    finalists: Annotated[int, Between(0, 100)] = 0
    seeds: Annotated[int, Between(2, 100)] = 3
    cache: str = "~/.cache/raysk"
    stores: str | None = None
    loader: Annotated[int, Between(0, 1024)] | None = None
    stage_two: StageTwoBudget = field(default_factory=StageTwoBudget)

    def __post_init__(self) -> None:
        super().__post_init__()
        Goal.parse(self.metric, self.require, None)

    @property
    def cache_folder(self) -> Path:
        """The cache as a path."""
        return Path(self.cache).expanduser().absolute()


@cache
def compose_plain(*texts: str) -> dict[str, Any]:
    """Composes the configuration tree with overrides; later ones take precedence. Do not modify the cached result.

    Raises:
        ConfigError: An override has an unknown key, or would import code.
    """
    texts, collections = _collections(tuple(map(with_literal_value, texts)))
    opened = [_opened(text, collections) for text in texts]
    opened += [f"+data@data.{name}={source}" for name, source in collections.items()]
    try:
        return _compose(opened, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        _check_nodes(texts)
        reason = in_one_line(error)
        raise ConfigError(f"the overrides must fit the configuration, but {reason}: correct them") from error


def read_config(plain: dict[str, Any]) -> Config:
    """Validates a composed configuration.

    Raises:
        ConfigError: A value breaks a rule.
    """
    recipe = {name: value for name, value in plain.items() if name not in (*OF_THE_STUDY, *SHORTHANDS)}
    stage_two = dict(plain["stage_two"])
    budget = {"search": stage_two.pop("search")}
    return Config(
        data=within("data", DataSettings, _with_collections(plain["data"])),
        folds=within("folds", FoldSettings, plain["folds"]),
        recipe=Recipe.from_plain(recipe | {"stage_two": stage_two}),
        metric=plain["metric"],
        require=plain["require"],
        search=within("search", SearchSettings, plain["search"]),
        controls=plain["controls"],
        finalists=plain["finalists"],
        seeds=plain["seeds"],
        cache=plain["cache"],
        stores=plain["stores"],
        loader=_loader(plain["loader"]),
        stage_two=within("stage_two", StageTwoBudget, budget),
    )


def filled_in(text: str, plain: dict[str, Any]) -> str:
    """Returns a text with the values of a composed configuration in place of ${KEY}.

    Raises:
        ConfigError: The configuration has no such key.
    """
    if "${" not in text:
        return text
    try:
        return str(OmegaConf.create({**plain, "text": text})["text"])
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{text} must hold keys of the configuration, but {reason}: correct it") from error


def _loader(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise ConfigError(f"loader must be auto or a number of processes, but got {value!r}: set loader=auto")
    return None if value == "auto" else value


def _defaults() -> dict[str, Any]:
    """Returns the defaults of all dataclasses as a tree, in which a part has only its name."""

    def names_of_parts(plain: dict[str, Any]) -> dict[str, Any]:
        nodes = {name: names_of_parts(value) if isinstance(value, dict) else value for name, value in plain.items()}
        return {name: {"name": v["name"]} if name in PART_NODES and v else v for name, v in nodes.items()}

    config = Config()
    recipe = names_of_parts(config.recipe.to_plain())
    recipe["stage_two"] |= config.stage_two.to_plain()
    loader = "auto" if config.loader is None else config.loader
    others = {name: config.to_plain()[name] for name in (*_OF_THE_SEARCH, "cache", "stores")}
    return recipe | others | {"loader": loader}


def _data_defaults() -> dict[str, Any]:
    plain = DataSettings().to_plain()
    return {name: value for name, value in plain.items() if name not in ("name", "collections")} | {"source": "???"}


# The tree starts from the dataclasses, so that each default is defined once.
ConfigStore.instance().store("defaults", _defaults())
ConfigStore.instance().store("_every", _data_defaults(), group="data")
for _name in sources:
    _node = {"defaults": ["_every", "_self_"], "source": _name, **sources[_name].defaults}
    ConfigStore.instance().store(_name, _node, group="data")


def _compose(texts: list[str], resolve: bool) -> dict[str, Any]:
    with initialize_config_dir(str(_TREE), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("config", texts), resolve=resolve)
    return dict(plain)


@cache
def _known_keys() -> list[str]:
    return _leaves(_compose([], resolve=False))


def _leaves(plain: Any, path: str = "") -> list[str]:
    if not isinstance(plain, dict):
        return [path]
    inner = [leaf for name, value in plain.items() for leaf in _leaves(value, f"{path}.{name}".lstrip("."))]
    return [path, *inner] if path else inner


def _collections(texts: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Splits data=[ham10000,clinic:csv] into data=several and the source of each collection, by name."""
    data_texts = [text for text in texts if parse_override(text).key_or_group == "data"]
    items = parse_override(data_texts[-1]).value() if data_texts else None
    if not isinstance(items, list):
        return texts, {}
    collections: dict[str, str] = {}
    for item in items:
        name, _, source = str(item).rpartition(":")
        name = name or source
        _check_source(source)
        if not name.isidentifier() or name in _DATA_SETTINGS or name in collections:
            raise ConfigError(
                "a collection must have a name of letters and digits that is not the name of another collection or of "
                f"a setting, but got {name!r}: write data=[other_name:{source}]"
            )
        collections[name] = source
    return (*(text for text in texts if text not in data_texts), "data=several"), collections


def _with_collections(data: dict[str, Any]) -> dict[str, Any]:
    """Moves the collections of a dataset, which the tree has by name, into a list."""
    settings = {name: value for name, value in data.items() if name in _DATA_SETTINGS}
    collections = [{"name": name, **value} for name, value in data.items() if name not in _DATA_SETTINGS]
    return settings | ({"collections": collections} if collections else {})


def _check_source(name: str) -> None:
    if name not in list(sources):
        raise unknown_name("data", name, list(sources))


def _check_nodes(texts: tuple[str, ...]) -> None:
    """Raises a ConfigError if an override sets a setting of a node that another one replaces by a value."""
    values = {item.key_or_group: item.value() for item in map(parse_override, texts)}
    for key in values:
        names = key.split(".")
        for node in (".".join(names[:depth]) for depth in range(1, len(names))):
            if node in values and not isinstance(values[node], dict):
                shown = "null" if values[node] is None else values[node]
                raise ConfigError(f"{key} must have {node}, but {node} is {shown}: leave out one of the two")


def _opened(text: str, collections: dict[str, str]) -> str:
    """Checks the key of an override, and allows it to add a setting to a part."""
    key = parse_override(text).key_or_group
    if "_target_" in text:
        raise ConfigError(f"an override must not import code, but got {text!r}: name a registered part instead")
    if any(node in PART_NODES for node in key.split(".")[:-1]):
        return f"++{text.lstrip('+')}"
    if key == "data":
        _check_source(str(parse_override(text).value()))
    above, _, name = key.partition(".")[2].partition(".")
    if key.startswith("data.") and above in collections:
        key = f"data.{name}"
    if key not in _known_keys():
        raise unknown_name("the key of an override", key, _known_keys())
    return text
