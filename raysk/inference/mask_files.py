"""The masks of new pictures as files: a folder with one PNG file each, and a table that names them."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from raysk.artifacts import locked, replacing
from raysk.data.regions import BOX, MASK, box_of
from raysk.data.table_files import read_columns, strings_of
from raysk.errors import ConfigError, DataError
from raysk.inference.masks import Masker
from raysk.inference.tables import NamedImage, is_table

TABLE = "masks.csv"
UNREADABLE_TABLE = "unreadable.csv"
_AREA = "area"


def check_folder(folder: Path) -> None:
    """Refuses an output that exists, or that is named like a table.

    Raises:
        ConfigError: It does, or is.
    """
    if folder.exists() or is_table(str(folder)):
        what = "it exists" if folder.exists() else "it is named like a table"
        raise ConfigError(f"--output must be a new folder for masks, but got {folder}: {what}, choose another name")


def write_masks(
    masker: Masker,
    images: Sequence[NamedImage],
    sources: Sequence[str],
    folder: Path,
    progress: Callable[[int, int], None],
) -> tuple[int, int]:
    """Writes the mask of each picture into a new folder, which appears when all are there.

    `masks.csv` has a line for each picture: its path, its mask, the box around it (blank for an empty mask) and the
    share of the picture that it covers. If the pictures come from one table, its other columns are there too, so that
    `masks.csv` can take its place with `data.mask=mask`.

    Args:
        masker: Predicts the masks.
        images: The pictures.
        sources: Where they come from, as `list_images` takes them.
        folder: The new folder.
        progress: Called with the number of pictures done and of all.

    Returns:
        The number of masks, and that of pictures that cannot be read; `unreadable.csv` names these.

    Raises:
        ConfigError: The folder exists.
        DataError: No picture can be read.
    """
    names, others = _file_names(images), _other_columns(sources)
    lines: list[list[object]] = []
    bad: list[list[str]] = []
    busy = f"--output must be a folder that no other raysk writes, but one writes {folder}: wait for it"
    with locked(folder.with_name(f".{folder.name}.lock"), busy):
        check_folder(folder)
        with replacing(folder) as temporary:
            temporary.mkdir(parents=True)
            progress(0, len(images))
            for number, shares in enumerate(masker.of([Path(image.path) for image in images])):
                progress(number + 1, len(images))
                if isinstance(shares, str):
                    bad.append([images[number].name, shares])
                    continue
                mask = np.where(shares >= 0.5, 255, 0).astype(np.uint8)
                Image.fromarray(mask).save(temporary / names[number])
                picture = str(Path(images[number].path).resolve())
                cells = [values[number] for values in others.values()]
                box, area = box_of(mask) or [""] * 4, f"{(mask > 0).mean():.6f}"
                lines.append([picture, *cells, names[number], *box, area])
            if not lines:
                name, reason = bad[0]
                raise DataError(
                    f"a picture must be readable, but none of {len(bad)} is, first {name} ({reason}): correct the paths"
                )
            _write(temporary / TABLE, ["image", *others, MASK, *BOX, _AREA], lines)
            if bad:
                _write(temporary / UNREADABLE_TABLE, ["image", "reason"], bad)
    return len(lines), len(bad)


def _write(path: Path, header: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])


def _file_names(images: Sequence[NamedImage]) -> list[str]:
    """Returns a name for each mask, that of its picture; a number tells pictures of one name apart."""
    taken: set[str] = set()

    def free(stem: str) -> Iterator[str]:
        yield f"{stem}.png"
        yield from (f"{stem}-{number}.png" for number in range(2, len(images) + 2))

    names = []
    for image in images:
        # Some file systems do not tell upper case from lower case.
        names.append(next(name for name in free(Path(image.name).stem) if name.casefold() not in taken))
        taken.add(names[-1].casefold())
    return names


def _other_columns(sources: Sequence[str]) -> dict[str, list[str]]:
    """Returns the columns of the one table of pictures by name, but those that `masks.csv` has itself."""
    if len(sources) != 1 or not is_table(sources[0]):
        return {}
    path = Path(sources[0]).expanduser()
    table = read_columns(path, (), lambda name: True)
    own = {"image", MASK, *BOX, _AREA}
    columns = {}
    for name in (name for name in table.column_names if name not in own):
        with suppress(DataError):  # a column that is neither text nor numbers has no place in a CSV file
            columns[name] = strings_of(table, name, "--column", path)
    return columns
