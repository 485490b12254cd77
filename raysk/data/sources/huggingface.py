"""Hugging Face datasets on disk, without the datasets library: image folders, save_to_disk folders, Parquet files."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from raysk.data.sources.base import IMAGE_SUFFIXES, OF_TABLES, Collection, register_source, required_path
from raysk.data.sources.files import image_files, posix_text, visible_folders
from raysk.data.sources.folder import class_folders, unlabelled_images, warn_of_loose_images
from raysk.data.sources.parts import are_parts, role_of
from raysk.data.sources.settings import DataSettings
from raysk.data.sources.tables import collection_of, text_columns
from raysk.data.sources.unpacking import suffix_of, unpacked
from raysk.data.table_files import read_columns
from raysk.errors import DataError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
# The library's suffix of a part's name: -00000-of-00001, with or without a digest.
_SHARD = re.compile(r"(-\d+(-of-\d+)?(-[0-9a-f]+)?)?\.parquet$")

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed:
    """A part of a dataset whose images are in Arrow or Parquet files.

    Attributes:
        split: The name of the part.
        files: The files in their order.
    """

    split: str
    files: tuple[Path, ...]


@register_source("hf", reads=OF_TABLES)
def read_huggingface(settings: DataSettings, cache: Path) -> Collection:
    """Reads a dataset directory; a part with "test" in its name has the role test, and all other parts train.

    Images within Arrow or Parquet files are unpacked into the cache once, because the rest of raysk reads files.
    """
    root = required_path(settings, "a dataset directory")
    if not root.is_dir():
        raise DataError(f"data.path must be a dataset directory, but {root} is not a folder: correct data.path")
    parts = _packed_parts(root)
    if not parts:
        return _read_image_folder(root, settings)
    files = [file for part in parts for file in part.files]
    if not files:
        raise DataError(f"{root} must hold rows, but names no data files: copy the dataset again")
    _warn_of_nameless([part.split for part in parts], root)
    label = None if settings.role == "unlabelled" else settings.label
    write = partial(_unpack, root=root, parts=parts, image=settings.image, label=label)
    about = [settings.image, label, [part.split for part in parts]]
    folder = unpacked(cache, "hf", files, write, about)
    try:
        table = pq.read_table(folder / "rows.parquet", partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{folder} must hold the files unpacked from {root}, but its rows.parquet is missing or broken: remove "
            "that folder, and raysk unpacks it again"
        ) from error
    return collection_of(table, folder, root, settings)


def _warn_of_nameless(splits: Sequence[str], root: Path) -> None:
    nameless = [split for split in splits if role_of(split) is None]
    if nameless and len(nameless) < len(splits):
        logger.warning("%s: the names of %s say neither train nor test: their rows train", root, ", ".join(nameless))


def _read_image_folder(root: Path, settings: DataSettings) -> Collection:
    if _metadata(root):
        table = _with_roles_of_folders(_folder_table(root, "", settings), root, settings)
        return collection_of(table, root, root, settings)
    splits = {} if settings.role == "unlabelled" else _split_folders(root)
    if not splits:
        return collection_of(_folder_table(root, "", settings), root, root, settings)
    warn_of_loose_images(root)
    tables = [
        _with_role(_folder_table(split, f"{posix_text(PurePath(split.name))}/", settings), role)
        for split, role in splits.items()
    ]
    return collection_of(_concatenated(tables, root), root, root, settings)


def _split_folders(root: Path) -> dict[Path, str]:
    """Returns the role of each folder that is a part; empty if the folders are classes."""
    folders = visible_folders(root)
    if not are_parts([folder.name for folder in folders]):
        return {}
    splits = {}
    for folder in folders:
        role = role_of(folder.name)
        if role is not None:
            splits[folder] = role
        elif image_files(folder):
            raise DataError(
                f"each folder in {root} must have train or test in its name, as the others do, but {folder.name!r} "
                f"has neither: rename it to train_{folder.name} or test_{folder.name}, or move it away"
            )
    return splits


def _with_roles_of_folders(table: pa.Table, root: Path, settings: DataSettings) -> pa.Table:
    """Adds the role that the first folder of each image path names, unless the table has a column of roles."""
    images = [image.replace("\\", "/") for image in table.column(settings.image).to_pylist()]
    folders = ["".join(PurePosixPath(image).parts[:-1][:1]) or "." for image in images]
    roles = {folder: role_of(folder) for folder in sorted(set(folders))}
    if not any(roles.values()) or {"role", settings.role} & set(table.column_names):
        return table
    _warn_of_nameless(list(roles), root)
    return table.append_column("role", pa.array([roles[folder] for folder in folders], pa.string()))


def _concatenated(tables: Sequence[pa.Table], root: Path) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the parts of {root} must have the same columns, but {reason}: correct one") from error


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _folder_table(folder: Path, prefix: str, settings: DataSettings) -> pa.Table:
    """Returns the rows of one folder; the paths in the image column begin with `prefix`."""
    path = _metadata(folder)
    if path is None and settings.role == "unlabelled":
        return pa.table({settings.image: [prefix + image for image in unlabelled_images(folder)]})
    if path is None:
        images, labels = class_folders(folder)
        return pa.table({settings.image: [prefix + image for image in images], settings.label: labels})
    columns = text_columns(settings)
    table = _read_json_lines(path) if path.suffix == ".jsonl" else read_columns(path, (FILE_NAME,), columns)
    if FILE_NAME not in table.column_names:
        raise DataError(
            f"{path} must have a column {FILE_NAME!r}, but has {', '.join(table.column_names)}: add or rename it"
        )
    images = [prefix + str(image or "") for image in table.column(FILE_NAME).to_pylist()]
    return _with_name_free(table.drop_columns([FILE_NAME]), settings.image).append_column(
        settings.image, pa.array(images, pa.string())
    )


def _read_json_lines(path: Path) -> pa.Table:
    try:
        return pyarrow.json.read_json(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} must hold JSON lines, but {str(error).splitlines()[0]}: correct the file") from error


def _with_name_free(table: pa.Table, name: str) -> pa.Table:
    """Renames a column of this name, if there is one, so that the name is free."""
    return table.rename_columns([f"source_{column}" if column == name else column for column in table.column_names])


def _with_role(table: pa.Table, role: str) -> pa.Table:
    return _with_name_free(table, "role").append_column("role", pa.array([role] * table.num_rows, pa.string()))


def _packed_parts(root: Path) -> list[Packed]:
    if (root / "dataset_dict.json").is_file():
        folders = _from_json(root / "dataset_dict.json", lambda content: [root / name for name in content["splits"]])
        return [Packed(folder.name, _arrow_files(folder)) for folder in folders]
    if (root / "state.json").is_file():
        return [Packed("train", _arrow_files(root))]
    files = sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    splits: dict[str, list[Path]] = {}
    for file in files:
        if file.name not in TABLES:
            splits.setdefault(_SHARD.sub("", file.name), []).append(file)
    return [Packed(split, tuple(shards)) for split, shards in splits.items()]


def _arrow_files(folder: Path) -> tuple[Path, ...]:
    files = _from_json(
        folder / "state.json", lambda state: tuple(folder / entry["filename"] for entry in state["_data_files"])
    )
    if absent := [file for file in files if not file.is_file()]:
        raise DataError(f"{folder} must be a whole dataset, but {absent[0].name} is missing: copy it again")
    return files


def _from_json(path: Path, read: Callable[[Any], T]) -> T:
    """Returns the result of `read` on the content of a JSON file."""
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must hold JSON, but {str(error).splitlines()[0]}: copy the dataset again") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} must name the files of the dataset, but does not: copy the dataset again") from error


def _unpack(folder: Path, root: Path, parts: list[Packed], image: str, label: str | None) -> None:
    """Writes the images as files, and rows.parquet with all other columns; `label` is None for unlabelled rows."""
    tables = []
    for part in parts:
        row = 0
        for file in part.files:
            for batch in _batches(file):
                if image not in batch.schema.names or label not in (None, *batch.schema.names):
                    raise DataError(
                        f"data.image and data.label must be columns of {file.name}, but got {image!r} and {label!r}; "
                        f"columns: {', '.join(batch.schema.names)}"
                    )
                names = [
                    _write_image(folder, f"{part.split}/{row + place:07d}", cell, root)
                    for place, cell in enumerate(batch.column(image).to_pylist())
                ]
                row += len(batch)
                tables.append(_without_images(batch, names, image, label, part.split))
    if not tables:
        raise DataError(f"{root} must hold rows, but its files have none: copy the dataset again")
    pq.write_table(_concatenated(tables, root), folder / "rows.parquet")


def _write_image(folder: Path, name: str, cell: Any, root: Path) -> str:
    """Writes the bytes of one image and returns its path; a cell without bytes may hold the path of a file."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell if isinstance(cell, bytes) else None
    source = cell.get("path") if isinstance(cell, dict) else cell if isinstance(cell, str) else None
    if content is None:
        return str(root / source) if source else name
    suffix = Path(source or "").suffix.lower()
    path = folder / (name + (suffix if suffix in IMAGE_SUFFIXES else suffix_of(content) or ".img"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.relative_to(folder).as_posix()


def _without_images(batch: pa.RecordBatch, names: list[str], image: str, label: str | None, split: str) -> pa.Table:
    class_names = None if label is None else _class_names(batch.schema, label)
    table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
    if label is not None and class_names is not None:
        table = table.set_column(
            table.column_names.index(label), label, pa.array(_named(batch.column(label), class_names), pa.string())
        )
    table = table.set_column(table.column_names.index(image), image, pa.array(names, pa.string()))
    return _with_role(table, role_of(split) or "train")


def _named(codes: pa.Array, class_names: list[str]) -> list[str | None]:
    # -1 marks an unknown class.
    names: dict[int | None, str | None] = {None: None, -1: None, **dict(enumerate(class_names))}
    if strange := [code for code in codes.to_pylist() if code not in names]:
        raise DataError(
            f"a label must be the code of one of {len(class_names)} class names, but got {strange[0]!r}: copy the "
            "dataset again"
        )
    return [names[code] for code in codes.to_pylist()]


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Returns the class names of a ClassLabel column, which the library stores in the schema."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(label, {})
    return feature.get("names") if isinstance(feature, dict) else None


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    try:
        if file.suffix == ".parquet":
            yield from pq.ParquetFile(file).iter_batches(batch_size=256)
            return
        with pa.memory_map(str(file)) as memory:
            yield from _arrow_reader(memory)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{file} must be a data file, but {str(error).splitlines()[0]}: copy it again") from error


def _arrow_reader(memory: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    opened: Callable[[], Any] = partial(pa.ipc.open_stream, memory)
    try:
        yield from opened()
    except pa.ArrowInvalid:  # the library writes streams; others may have written a file
        memory.seek(0)
        reader = pa.ipc.open_file(memory)
        yield from (reader.get_batch(place) for place in range(reader.num_record_batches))
