"""Reads the image lists of users: tables in several dialects, one-hot tables and plain text files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

from raysk.data.sources import IMAGE_SUFFIXES
from raysk.data.table_files import encoding_of, not_utf_8, quoted_rows, read_columns
from raysk.errors import DataError

IMAGE_COLUMNS = (
    "image", "image_id", "image_name", "img_id", "isic_id", "img", "file", "file_name", "filename", "filepath",
    "image_path", "path", "name", "id",
)  # fmt: skip
LABEL_COLUMNS = ("label", "dx", "diagnosis", "diagnostic", "class", "category", "target", "y")
# Words of the column names in lists of one part, such as image_train,label_train, X_train,y_train or imageName,classId.
_IMAGE_WORDS = frozenset({"image", "img", "file", "filename", "filepath", "path", "x"})
_LABEL_WORDS = frozenset({*LABEL_COLUMNS, "lbl", "classes", "categories"})


@dataclass(frozen=True)
class ImageList:
    """The rows of one file.

    Attributes:
        images: The image of each row, as written.
        labels: The label of each row, "" where unknown.
        columns: All other columns.
    """

    images: list[str]
    labels: list[str]
    columns: dict[str, list[str]]


def read_list(path: Path) -> ImageList:
    """Reads a table with a column of images, or a text file with an image and an optional label on each line.

    Raises:
        DataError: The file cannot be read, has no column of images, has an unclosed quote, or has a row of another
            width or without an image.
    """
    if path.suffix.lower() == ".parquet":
        table = read_columns(path, [])
        columns = {name: [_cell(v) for v in table.column(name).to_pylist()] for name in table.column_names}
        return _from_columns(columns, path)
    text = _text_of(path)
    lines = [line for line in text.split("\n") if line.strip()]
    delimiter = max("\t;,|", key=lambda character: lines[0].count(character)) if lines else ","
    if not lines or delimiter not in lines[0]:
        return _from_text(lines)
    parsed = quoted_rows(StringIO(text, newline=""), delimiter, path, spaced=True)
    rows = [row for row in parsed if any(value.strip() for value in row)]
    header = _usual_header(rows)
    if not {name.lower() for name in header} & set(IMAGE_COLUMNS):
        if not any(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in header) and len(header) != 2:
            raise DataError(
                f"a list must have a column of images, named {', '.join(IMAGE_COLUMNS[:6])} or the like, but "
                f"{path} has {', '.join(header)}: rename the column of images to 'image'"
            )
        return _from_rows(rows, path)
    if repeated := [name for name in header if name and header.count(name) > 1]:
        raise DataError(f"columns of {path} must have different names, but two are called {repeated[0]!r}: rename one")
    _check_widths(rows, len(header), path)
    return _from_columns({name: [row[column].strip() for row in rows[1:]] for column, name in enumerate(header)}, path)


def _usual_header(rows: list[list[str]]) -> list[str]:
    """Returns the first row; if its columns are those of images and labels in other words, with their usual names."""
    first = [value.strip() for value in rows[0]]
    if {name.lower() for name in first} & set(IMAGE_COLUMNS):
        return first
    words = [_words(name) for name in first]
    image = next((place for place, name in enumerate(words) if name & _IMAGE_WORDS), None)
    label = next((place for place, name in enumerate(words) if name & _LABEL_WORDS and place != image), None)
    if image is None or label is None:
        return first
    if any(len(row) > label and row[label].strip() == first[label] for row in rows[1:]):
        return first  # a label that several rows have: the first row is a row like them
    usual = {image: "image", label: "label"}
    return [usual.get(place, name) for place, name in enumerate(first)]


def _words(name: str) -> set[str]:
    """Returns the words of a column name in lower case; none for a value with a digit or a suffix, as images have."""
    if not re.fullmatch(r"[A-Za-z]+([ _-][A-Za-z]+)*", name):
        return set()
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", name)
    words = spaced.lower().split()
    return {*words, *(word.removesuffix("s") for word in words)}


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode(encoding_of(content[:4])).replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError) and path.is_file() and (wrong := not_utf_8(path)):
            raise DataError(f"{path} must be a list in UTF-8, but {wrong}") from error
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{path} must be a list in UTF-8, but {reason}: correct the path or the file") from error


def _from_text(lines: Sequence[str]) -> ImageList:
    """Reads lines of an image and an optional label, separated by spaces."""
    body = lines[1:] if lines and lines[0].strip().lower() in IMAGE_COLUMNS else lines
    pairs = [_image_and_label(line.strip()) for line in body]
    return ImageList([image for image, _ in pairs], [label for _, label in pairs], {})


def _image_and_label(line: str) -> tuple[str, str]:
    is_image = PurePosixPath(line).suffix.lower() in IMAGE_SUFFIXES or " " not in line
    image, label = (line, "") if is_image else line.rsplit(maxsplit=1)
    return image, label


def _from_rows(rows: list[list[str]], path: Path) -> ImageList:
    """Reads a table without a header.

    The images are in the first column with an image suffix. In a table of two columns the other one has the labels.
    """
    suffixed = [PurePosixPath(value.strip()).suffix.lower() in IMAGE_SUFFIXES for value in rows[0]]
    column = suffixed.index(True) if any(suffixed) else 0
    _check_widths(rows, len(rows[0]), path)
    labels = [row[1 - column].strip() if len(row) == 2 else "" for row in rows]
    return ImageList([row[column].strip() for row in rows], labels, {})


def _check_widths(rows: list[list[str]], width: int, path: Path) -> None:
    for number, row in enumerate(rows):
        if len(row) != width:
            raise DataError(
                f"rows of {path} must have {width} columns, but row {number} ({', '.join(row)[:60]!r}) has "
                f"{len(row)}: put quotes around names that contain the delimiter"
            )


def _from_columns(columns: dict[str, list[str]], path: Path) -> ImageList:
    by_name = {name.lower(): name for name in columns}
    image = next((by_name[name] for name in IMAGE_COLUMNS if name in by_name), None)
    if image is None:
        raise DataError(f"{path} must have a column of images, but has {', '.join(columns)}: rename it to 'image'")
    blank = [row for row, value in enumerate(columns[image]) if not value.strip()]
    if blank:
        raise DataError(f"every row of {path} must name an image, but row {blank[0]} has none: fill it in or remove it")
    label = next((by_name[name] for name in LABEL_COLUMNS if name in by_name), None)
    rest = {name: values for name, values in columns.items() if name and name not in (image, label)}
    if label is not None:
        return ImageList(columns[image], [_no_nan(value) for value in columns[label]], rest)
    one_hot = {name: values for name, values in rest.items() if values and set(values) <= {"0", "1", "0.0", "1.0"}}
    if len(one_hot) < 2:
        return ImageList(columns[image], [""] * len(columns[image]), rest)
    chosen = [
        [name for name, value in zip(one_hot, row, strict=True) if float(value)]
        for row in zip(*one_hot.values(), strict=True)
    ]
    labels = [names[0] if len(names) == 1 else "" for names in chosen]
    return ImageList(columns[image], labels, {name: values for name, values in rest.items() if name not in one_hot})


def _cell(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _no_nan(value: str) -> str:
    return "" if value.strip().lower() in ("nan", "none", "null", "na", "n/a") else value.strip()
