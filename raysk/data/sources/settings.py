"""What a user says of a dataset: its source, where it lies, and how it is to be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from raysk.errors import ConfigError
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class ClassMap(Settings):
    """Which class of ours each class of a collection is; plain: a mapping of names to names."""

    pairs: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "ClassMap":
        """Makes the map of {theirs: ours}."""
        return cls(pairs=tuple((str(theirs), ours) for theirs, ours in plain.items()))

    def to_plain(self) -> dict[str, Any]:
        """Returns {theirs: ours}."""
        return dict(self.pairs)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """Which dataset, and how it is to be read.

    Attributes:
        source: The name of a source.
        name: What the rows of this collection are called among those of others; only within `collections`.
        path: The table or folder; the synthetic source has none.
        image: The column of image paths, of a user's own table.
        label: The column of labels, of a user's own table.
        group: The column of what must not be parted, such as the lesion or patient, of a user's own table; several
            are joined: "lesion_id+patient_id". Without it a column named "group" is taken if the table has one;
            otherwise each row is its own group.
        group_by: What must not be parted in a publisher's collection; "both" joins what shares a lesion or a patient.
            Without it, all that the collection tells.
        role: "train_only" or "test" for every row; or, in a user's own table, the column that says so of some rows
            (others: "train" or blank); without it, as for `group`, "role".
        classes: The classes in their order, when a label outside them is an error; without it, those that occur.
        classes_map: Which class each of the collection's classes is; rows of other classes are left out.
        map: "usual" gives classes their usual names, whatever the collection calls them: NV, NEV and nevus are nv.
            With `classes_map` it names the classes that the map lacks.
        on_error: What a missing or unreadable image does: "refuse" the data, or "skip" the row with a warning.
        size: The number of images that the synthetic source draws, or that are taken of another, in whole groups and
            with its shares of the classes; without it, all.
        seed: Of what is drawn or taken.
        collections: The datasets that the source "several" joins.

    Raises:
        ConfigError: A value cannot be right.
    """

    source: str = "synthetic"
    name: str | None = None
    path: str | None = None
    image: str = "image"
    label: str = "label"
    group: str | None = None
    group_by: Literal["lesion", "patient", "both"] | None = None
    role: str | None = None
    classes: tuple[str, ...] | None = None
    classes_map: ClassMap | None = None
    map: Literal["usual"] | None = None
    on_error: Literal["refuse", "skip"] = "refuse"
    size: Annotated[int, Between(1, 10_000_000)] | None = None
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    collections: tuple["DataSettings", ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.collections and self.source != "several":
            raise ConfigError(f"collections must be empty unless the source is several, but got {self.source}")

    def to_plain(self) -> dict[str, Any]:
        """Returns the mapping of plain values from which `from_plain` makes equal settings."""
        return super().to_plain() | {"collections": [collection.to_plain() for collection in self.collections]}
