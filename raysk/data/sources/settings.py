"""The settings of a dataset: its source, its path, and how to read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from raysk.errors import ConfigError
from raysk.settings import Between, Settings


@dataclass(frozen=True, kw_only=True)
class ClassMap(Settings):
    """The new name of each class of a collection; plain: a mapping of published names to new names."""

    pairs: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "ClassMap":
        """Makes the map from {published name: new name}; null and "" leave a class out."""
        return cls(pairs=tuple((str(old), "" if new is None else new) for old, new in plain.items()))

    def to_plain(self) -> dict[str, Any]:
        """Returns {published name: new name}."""
        return dict(self.pairs)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class DataSettings(Settings):
    """The dataset and how to read it.

    Attributes:
        source: The name of a source.
        name: The name of this collection among others; only within `collections`.
        path: The table or folder; the synthetic source has none.
        image: The column of image paths in a user's own table.
        label: The column of labels in a user's own table; or the columns of a one-hot table, which hold a 1 in the
            class of each row and a 0 elsewhere: "MEL+NV+BCC".
        group: The column of groups, such as lesions or patients, in a user's own table; several columns are joined:
            "lesion_id+patient_id". Without it, a column named "group" is used if the table has one, otherwise the
            columns of lesions and patients, which raysk knows by their names; "none" makes each row its own group.
        group_by: The groups of a publisher's collection; "both" joins rows that share a lesion or a patient. Without
            it, all kinds of groups in the collection are joined.
        role: "train_only", "test" or "unlabelled" for every row; or, in a user's own table, the column that holds
            these for some rows ("train", "val" or blank for the others, which folds divide). Without it, a column named
            "role" is used if the table has one. Labels of unlabelled rows are ignored: they join a stage one whose loss
            needs none.
        mask: The column of masks in a user's own table: the path of a picture of the same size that is bright on the
            lesion, or blank. Without it, a column named "mask" is used if the table has one.
        box: The columns of the box around the lesion in a user's own table, in pixels and half-open: "x0+y0+x1+y1",
            which are also used without it if the table has them.
        classes: The classes in their order; any other label is then an error. Without it, the classes that occur.
        classes_map: The new name of each class of the collection; rows of other classes, and of classes whose new name
            is empty, are left out.
        map: "usual" gives classes their usual names: NV, NEV and nevus become nv. With `classes_map`, it names the
            classes that the map lacks.
        bits: The bits of a grey level in pictures of 16 bits a pixel whose files state no fewer, such as 12 for the
            camera of a microscope; without it, 16. One value for all collections.
        on_error: How to handle a missing or unreadable image: "refuse" the data, or "skip" the row with a warning.
        on_blank: How to handle a row without a label: "refuse" the data, or give the row the role "unlabelled".
        size: The number of images to draw for the synthetic source, or to take from another source, in whole groups
            and with its shares of the classes; without it, all.
        seed: The seed for drawing or taking images.
        collections: The datasets that the source "several" joins.

    Raises:
        ConfigError: A value is invalid.
    """

    source: str = "synthetic"
    name: str | None = None
    path: str | None = None
    image: str = "image"
    label: str = "label"
    group: str | None = None
    group_by: Literal["lesion", "patient", "both"] | None = None
    role: str | None = None
    mask: str | None = None
    box: str | None = None
    classes: tuple[str, ...] | None = None
    classes_map: ClassMap | None = None
    map: Literal["usual"] | None = None
    bits: Annotated[int, Between(9, 16)] | None = None
    on_error: Literal["refuse", "skip"] = "refuse"
    on_blank: Literal["refuse", "unlabelled"] = "refuse"
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
