"""What every source hands over, and the names of the sources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysk.data.sources.settings import DataSettings
from raysk.errors import ConfigError
from raysk.registry import Registry

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
# What tables write where there is no value. A class may be called "none".
NO_VALUE = frozenset({"", "nan", "null", "<na>", "n/a", "na", "#n/a", "nat"})


@dataclass(frozen=True, eq=False)
class Collection:
    """The rows of a dataset as their publisher tells them, each list in the order of the table.

    Attributes:
        origin: The table or folder, for errors.
        root: The folder that relative image paths start from.
        names: What the table calls each image.
        images: The path of each image, relative to `root` or absolute; None where there is no file.
        labels: The class of each row, in the publisher's words; blank where there is none.
        groupings: By kind ("lesion", "patient" or the name of a column) the lesion, patient, ... of each row, blank
            where it is not known; empty when nothing says which images belong together.
        roles: The role of each row, when the table tells it.
        known_classes: The classes that the publisher knows, when these are given; any other label is an error.
        attributes: What else is known of the rows.
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

    def take(self, rows: Sequence[int]) -> "Collection":
        """Returns the collection of these rows only."""
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
        """Returns words that name a row."""
        return f"row {row} ({self.names[row]!r}) of {self.origin}"


# Settings that a publisher's collection reads, and those that a user's own table does.
OF_PUBLISHERS = ("path", "group_by", "role")
OF_TABLES = ("path", "image", "label", "group", "role")

Reader = Callable[[DataSettings, Path], Collection]


@dataclass(frozen=True)
class Source:
    """A kind of dataset.

    Args:
        read: Reads it; the folder is for what it has to make, and finds again the next time.
        reads: Which of `DESCRIBING` it reads; a value of another one is refused.
        defaults: What these settings are for it, where that is not their own default.
    """

    read: Reader
    reads: tuple[str, ...]
    defaults: Mapping[str, Any]

    @property
    def about(self) -> str:
        """The first sentence of its documentation."""
        return " ".join((self.read.__doc__ or "").partition("\n\n")[0].split())


# The settings that say how a dataset is laid out: each source reads some of them.
DESCRIBING = ("path", "image", "label", "group", "group_by", "role")
sources: Registry[Source] = Registry("data source")


def register_source(name: str, reads: tuple[str, ...] = OF_PUBLISHERS, **defaults: Any) -> Callable[[Reader], Reader]:
    """Returns a decorator that files a function as the source `name`; see `Source`."""

    def register(read: Reader) -> Reader:
        sources.register(name)(Source(read, reads, defaults))
        return read

    return register


def required_path(settings: DataSettings, what: str) -> Path:
    """Returns the absolute path of the dataset.

    Raises:
        ConfigError: None is given.
    """
    if settings.path is None:
        raise ConfigError(f"data.path must be given for the source {settings.source!r}, but is not: name {what}")
    return Path(settings.path).expanduser().absolute()


def known(text: str) -> str:
    """Returns the text without spaces around it, blank where it only says that there is no value."""
    stripped = text.strip()
    return "" if stripped.casefold() in NO_VALUE else stripped
