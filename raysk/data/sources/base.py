"""The collection that every source returns, and the registry of sources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysk.data.sources.settings import DataSettings
from raysk.errors import ConfigError
from raysk.registry import Registry

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".dcm", ".dicom"})
# What tables write for a missing value. "none" is not among them, because a class may have this name.
NO_VALUE = frozenset({"", "nan", "null", "<na>", "n/a", "na", "#n/a", "nat"})


@dataclass(frozen=True, eq=False)
class Collection:
    """The rows of a dataset as published, each list in the order of the table.

    Attributes:
        origin: The table or folder, for errors.
        root: The folder that relative image paths start from.
        names: The name of each image in the table.
        images: The path of each image, relative to `root` or absolute; None if the file is missing.
        labels: The published class of each row, blank if it has none or is unlabelled.
        groupings: The values of each row by kind ("lesion", "patient" or the name of a column), blank where unknown;
            empty if the dataset has no groups.
        roles: The role of each row, if the table has roles.
        known_classes: The publisher's classes, if there is a list of them; any other label is an error.
        attributes: Further columns by name.
        bits: The depth of its pictures of 16 bits a pixel, if it is known.
        grouped_by: What the groups of a normalised collection are made of, by origin; () if it has none.
    """

    origin: str
    root: Path
    names: Sequence[str]
    images: Sequence[str | None]
    labels: Sequence[str]
    groupings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    roles: Sequence[str] | None = None
    known_classes: tuple[str, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bits: int | None = None
    grouped_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, rows: Sequence[int]) -> "Collection":
        """Returns the collection with these rows only."""
        indices = pa.array(rows, pa.int64())
        return replace(
            self,
            names=[self.names[row] for row in rows],
            images=[self.images[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            groupings={kind: [values[row] for row in rows] for kind, values in self.groupings.items()},
            roles=None if self.roles is None else [self.roles[row] for row in rows],
            attributes={name: column.take(indices) for name, column in self.attributes.items()},
        )

    def where(self, row: int) -> str:
        """Returns the description of a row for messages."""
        return f"row {row} ({self.names[row]!r}) of {self.origin}"


# The roles that data.role can give to every row of a collection.
ROLES_OF_ALL = ("train_only", "test", "unlabelled")
# The settings that a publisher's collection reads, and the settings that a user's table reads.
OF_PUBLISHERS = ("path", "group_by", "role")
OF_TABLES = ("path", "image", "label", "group", "role", "mask", "box")

Reader = Callable[[DataSettings, Path], Collection]


@dataclass(frozen=True)
class Source:
    """A kind of dataset.

    Args:
        read: Reads the dataset; the folder is a cache for files that it makes once and reuses.
        reads: The settings in `DESCRIBING` that it reads; a value of any other setting is refused.
        defaults: Its values of these settings where they differ from the general defaults.
    """

    read: Reader
    reads: tuple[str, ...]
    defaults: Mapping[str, Any]

    @property
    def about(self) -> str:
        """The first paragraph of its docstring."""
        return " ".join((self.read.__doc__ or "").partition("\n\n")[0].split())


# The settings that describe the layout of a dataset; each source reads some of them.
DESCRIBING = ("path", "image", "label", "group", "group_by", "role", "mask", "box")
sources: Registry[Source] = Registry("data source")


def register_source(name: str, reads: tuple[str, ...] = OF_PUBLISHERS, **defaults: Any) -> Callable[[Reader], Reader]:
    """Returns a decorator that registers a function as the source `name`; see `Source`."""

    def register(read: Reader) -> Reader:
        sources.register(name)(Source(read, reads, defaults))
        return read

    return register


def number_of(count: int, noun: str) -> str:
    """Returns a count with its noun, such as "1 row" or "2 rows"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def required_path(settings: DataSettings, what: str) -> Path:
    """Returns the absolute path of the dataset.

    Raises:
        ConfigError: The settings have no path.
    """
    if settings.path is None:
        raise ConfigError(f"data.path must be given for the source {settings.source!r}, but got none: name {what}")
    return Path(settings.path).expanduser().absolute()


def value_or_blank(text: str) -> str:
    """Returns the text without spaces around it, or "" if it stands for a missing value."""
    stripped = text.strip()
    return "" if stripped.casefold() in NO_VALUE else stripped
