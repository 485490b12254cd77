"""The points of a grid: those of its file, each once for every combination of the choices of its sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from hydra.core.override_parser.types import ChoiceSweep, Override

from raysk.errors import ConfigError
from raysk.overrides import parse_overrides
from raysk.spaces.sweeps import as_choice, override_texts


@dataclass(frozen=True)
class GridPoint:
    """A recipe of a grid.

    Args:
        method: The name of its point in the file.
        choice: The values of its sweeps, as "label_share 0.1"; "" without sweeps.
        overrides: Its overrides.
    """

    method: str
    choice: str
    overrides: tuple[str, ...]


def grid_points(where: str, points: Mapping[str, Sequence[str]], sweeps: Sequence[Override]) -> dict[str, GridPoint]:
    """Returns the recipes of a grid by name: each point of the file with each choice of its sweeps.

    Args:
        where: The file, for errors.
        points: The points of the file; their overrides may be sweeps.
        sweeps: Sweeps of the command line, which apply to all points and come before those of the file.

    Raises:
        ConfigError: A sweep has no list of choices, or two points have one name.
    """
    expanded: dict[str, GridPoint] = {}
    given = {item.key_or_group: item for item in sweeps}
    for name, texts in points.items():
        items = {item.key_or_group: (item, text) for item, text in zip(parse_overrides(texts), texts, strict=True)}
        fixed = [text for key, (item, text) in items.items() if key not in given and not item.is_sweep_override()]
        swept = {key: item for key, (item, _) in items.items() if item.is_sweep_override()} | given
        for values in product(*(_choices(where, item) for item in swept.values())):
            chosen = dict(zip(swept, values, strict=True))
            choice = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in chosen.items())
            full_name = ", ".join(filter(None, [name, choice]))
            if full_name in expanded:
                raise ConfigError(f"{where}: points of a grid must have different names, but got {full_name!r} twice")
            expanded[full_name] = GridPoint(name, choice, (*fixed, *override_texts(chosen)))
    return expanded


def _choices(where: str, item: Override) -> list[bool | int | float | str]:
    sweep = item.value()
    if not isinstance(sweep, ChoiceSweep):
        raise ConfigError(
            f"{where}: the sweep of {item.key_or_group} must be choice(...), since a grid tries every value, but got "
            f"{item.input_line}: list the values"
        )
    return [as_choice(value) for value in sweep.list]
