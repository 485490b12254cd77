"""Hugging Face datasets on disk, read without their library: image folders, save_to_disk folders, Parquet files."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from raysk.data.sources.base import IMAGE_SUFFIXES, Collection, required_path, sources
from raysk.data.sources.settings import DataSettings
from raysk.data.sources.tables import class_folders, collection_of
from raysk.data.sources.unpacking import suffix_of, unpacked
from raysk.data.tables import read_columns
from raysk.errors import DataError

# A validation part is for raysk's own folds to divide; only a test part stays locked away.
ROLES = {
    "train": "train", "training": "train", "validation": "train", "valid": "train", "val": "train", "dev": "train",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


@dataclass(frozen=True)
class Packed:
    """A part of a dataset whose images are in Arrow or Parquet files.

    Attributes:
        split: The name of the part.
        files: The files, in their order.
    """

    split: str
    files: tuple[Path, ...]


@sources.register("hf")
def read_huggingface(settings: DataSettings, cache: Path) -> Collection:
    """Reads a dataset directory; a part called "test" has that role, and all other parts are for training.

    Images within Arrow or Parquet files are unpacked into the cache once: everything else in raysk reads files.
    """
    root = required_path(settings, "a dataset directory")
    if not root.is_dir():
        raise DataError(f"data.path must be a dataset directory, but {root} is no folder: correct data.path")
    parts = _packed_parts(root)
    if not parts:
        return _read_image_folder(root, settings)
    files = [file for part in parts for file in part.files]
    write = partial(_unpack, root=root, parts=parts, image=settings.image, label=settings.label)
    folder = unpacked(cache, "hf", files, write, [settings.image, settings.label])
    table = folder / "rows.parquet"
    return collection_of(pq.read_table(table, partitioning=None), folder, root, settings)


def _read_image_folder(root: Path, settings: DataSettings) -> Collection:
    splits = [entry for entry in sorted(root.iterdir()) if entry.is_dir() and entry.name.casefold() in ROLES]
    tables = []
    if splits and not _metadata(root):
        for split in splits:
            role = ROLES[split.name.casefold()]
            tables.append(_with_role(_folder_table(split, f"{split.name}/", settings), role))
    else:
        tables.append(_folder_table(root, "", settings))
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the parts of {root} must have the same columns, but {reason}: correct one") from error
    return collection_of(table, root, root, settings)


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _folder_table(folder: Path, prefix: str, settings: DataSettings) -> pa.Table:
    """Returns the rows of one folder, its image column with paths that begin with `prefix`."""
    path = _metadata(folder)
    if path is None:
        images, labels = class_folders(folder)
        return pa.table({settings.image: [prefix + image for image in images], settings.label: labels})
    texts = {FILE_NAME, settings.image, settings.label, *(settings.group or "group").split("+")}
    table = _read_json_lines(path) if path.suffix == ".jsonl" else read_columns(path, texts)
    if FILE_NAME not in table.column_names:
        raise DataError(
            f"{path} must have a column {FILE_NAME!r}, but has {', '.join(table.column_names)}: add or rename it"
        )
    images = [prefix + str(image or "") for image in table.column(FILE_NAME).to_pylist()]
    return _renamed_aside(table.drop_columns([FILE_NAME]), settings.image).append_column(
        settings.image, pa.array(images, pa.string())
    )


def _read_json_lines(path: Path) -> pa.Table:
    try:
        return pyarrow.json.read_json(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} must hold JSON lines, but {str(error).splitlines()[0]}: correct the file") from error


def _renamed_aside(table: pa.Table, name: str) -> pa.Table:
    """Returns the table with a column of this name called otherwise, so that the name is free."""
    return table.rename_columns([f"source_{column}" if column == name else column for column in table.column_names])


def _with_role(table: pa.Table, role: str) -> pa.Table:
    return _renamed_aside(table, "role").append_column("role", pa.array([role] * table.num_rows, pa.string()))


def _packed_parts(root: Path) -> list[Packed]:
    if (root / "dataset_dict.json").is_file():
        names = _json(root / "dataset_dict.json")["splits"]
        return [Packed(name, _arrow_files(root / name)) for name in names]
    if (root / "state.json").is_file():
        return [Packed("train", _arrow_files(root))]
    files = sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])
    splits: dict[str, list[Path]] = {}
    for file in files:
        if file.name not in TABLES:
            splits.setdefault(file.name.removesuffix(".parquet").split("-")[0], []).append(file)
    return [Packed(split, tuple(found)) for split, found in splits.items()]


def _arrow_files(folder: Path) -> tuple[Path, ...]:
    state = _json(folder / "state.json")
    files = tuple(folder / entry["filename"] for entry in state["_data_files"])
    if absent := [file for file in files if not file.is_file()]:
        raise DataError(f"{folder} must be a whole dataset, but {absent[0].name} is missing: copy it again")
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must hold JSON, but {str(error).splitlines()[0]}: copy the dataset again") from error
    return content


def _unpack(folder: Path, root: Path, parts: list[Packed], image: str, label: str) -> None:
    """Writes the images as files, and rows.parquet with all other columns."""
    tables = []
    for part in parts:
        row = 0
        for file in part.files:
            for batch in _batches(file):
                if image not in batch.schema.names or label not in batch.schema.names:
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
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), folder / "rows.parquet")


def _write_image(folder: Path, name: str, cell: Any, root: Path) -> str:
    """Writes the bytes of one image and returns its path; a cell may also hold the path of a file."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell if isinstance(cell, bytes) else None
    told = cell.get("path") if isinstance(cell, dict) else cell if isinstance(cell, str) else None
    if content is None:
        return str(root / told) if told else name
    suffix = Path(told or "").suffix.lower()
    path = folder / (name + (suffix if suffix in IMAGE_SUFFIXES else suffix_of(content) or ".img"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.relative_to(folder).as_posix()


def _without_images(batch: pa.RecordBatch, names: list[str], image: str, label: str, split: str) -> pa.Table:
    class_names = _class_names(batch.schema, label)
    table = pa.Table.from_batches([batch]).drop_columns([image]).replace_schema_metadata(None)
    if class_names is not None:
        table = table.set_column(
            table.column_names.index(label), label, pa.array(_named(batch.column(label), class_names), pa.string())
        )
    table = table.append_column(image, pa.array(names, pa.string()))
    return _with_role(table, ROLES.get(split.casefold(), "train"))


def _named(codes: pa.Array, class_names: list[str]) -> list[str | None]:
    # -1 stands for an unknown class.
    return [None if code is None or code < 0 else class_names[code] for code in codes.to_pylist()]


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Returns the names behind the codes of a ClassLabel column, which the library keeps in the schema."""
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
