"""Configuration: Hydra composes it from `conf/`, a space and the command line; dataclasses validate it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from raysk.data.sources import DataSettings
from raysk.errors import ConfigError
from raysk.recipe import Recipe
from raysk.registry import unknown_name
from raysk.settings import Between, Settings, within

_TREE = Path(__file__).parent.resolve() / "conf"
# Below these nodes the settings depend on the part's name, so the tree cannot list them; the part checks them.
_PART_NODES = ("loss", "sampler", "head")
# The last two are there for others to refer to.
_NOT_OF_THE_RECIPE = ("data", "folds", "cache", "epochs", "batch_size")


@dataclass(frozen=True, kw_only=True)
class FoldSettings(Settings):
    """How rows are divided.

    Args:
        k: Number of folds.
        seed: Of the division.
        test_share: Share of the rows that is locked away for the last step.
        column: An attribute column that has the folds instead.
    """

    k: Annotated[int, Between(2, 100)] = 3
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    test_share: Annotated[float, Between(0, 1, open_low=True, open_high=True)] = 0.2
    column: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Everything that a study is told.

    Args:
        data: Which rows.
        folds: How they are divided.
        recipe: What the trials of the study vary.
        cache: Where decoded images and drawn datasets are kept between runs, on each machine.
    """

    data: DataSettings = field(default_factory=DataSettings)
    folds: FoldSettings = field(default_factory=FoldSettings)
    recipe: Recipe = field(default_factory=Recipe)
    cache: str = "~/.cache/raysk"

    @property
    def cache_folder(self) -> Path:
        """The cache as a path."""
        return Path(self.cache).expanduser()


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """Parses overrides in Hydra's grammar, sweeps included.

    Raises:
        ConfigError: One of them is not in that grammar.
    """
    return [_parse(text) for text in texts]


@cache
def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"an override must be KEY=VALUE, but got {text!r}: {reason}") from error


@cache
def compose_plain(*texts: str) -> dict[str, Any]:
    """Composes the configuration tree with overrides, later ones over earlier ones; not to be changed.

    Raises:
        ConfigError: An override names what does not exist, or would import code.
    """
    opened = [_opened(text) for text in texts]
    try:
        return _compose(opened, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the overrides must fit the configuration, but {reason}: correct them") from error


def read_config(plain: dict[str, Any]) -> Config:
    """Validates a composed configuration.

    Raises:
        ConfigError: A value breaks a rule.
    """
    recipe = {name: value for name, value in plain.items() if name not in _NOT_OF_THE_RECIPE}
    return Config(
        data=within("data", DataSettings, plain["data"]),
        folds=within("folds", FoldSettings, plain["folds"]),
        recipe=Recipe.from_plain(recipe),
        cache=plain["cache"],
    )


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


def _opened(text: str) -> str:
    """Checks the key of an override, and lets it add a setting to a part."""
    key = _parse(text).key_or_group
    if "_target_" in text:
        raise ConfigError(f"an override must not import code, but got {text!r}: name a registered part instead")
    if any(node in _PART_NODES for node in key.split(".")[:-1]):
        return f"++{text.lstrip('+')}"
    if key == "data":
        sources = [path.stem for path in (_TREE / "data").glob("*.yaml")]
        if _parse(text).value() not in sources:
            raise unknown_name("data", str(_parse(text).value()), sources)
    if key not in _known_keys():
        raise unknown_name("the key of an override", key, _known_keys())
    return text
