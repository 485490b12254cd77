"""The finished parts of a prediction, kept in a hidden folder beside its output until all are there.

The folder is named by its content, so that the same command finds its parts again and repeats none.
"""

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from raysk.artifacts import locked, replacing
from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import ConfigError, DataError
from raysk.evaluation.class_columns import class_columns
from raysk.evaluation.operating_points import decide
from raysk.inference.bundle import Bundle
from raysk.inference.predictor import Predicted, batch_length
from raysk.inference.tables import NamedImage

SUFFIXES = (".csv", ".parquet")
_NOUN = "a part of a prediction"
_TEXTS = ("image", "label")


@dataclass(frozen=True)
class Summary:
    """A finished prediction.

    Attributes:
        num_images: Number of images with a prediction.
        num_unreadable: Number of images without one.
        unreadable: The file that lists them.
    """

    num_images: int
    num_unreadable: int
    unreadable: Path


@dataclass(frozen=True)
class Parts:
    """The parts of a prediction, each of one batch of images.

    Args:
        bundle: The classifier.
        images: The images, in the order of the result.
        output: The file of the result, CSV or Parquet.

    Raises:
        ConfigError: The output has another suffix, or exists and is not what these parts began.
    """

    bundle: Bundle
    images: Sequence[NamedImage]
    output: Path

    def __post_init__(self) -> None:
        check_suffix(self.output)
        existing = [path for path in (self.output, self.unreadable) if path.exists()]
        # A command that was ended between writing its result and removing its parts has both.
        if existing and self.missing():
            raise ConfigError(
                f"--output must be a new file, but {existing[0]} exists: choose another name, or remove it"
            )

    def __len__(self) -> int:
        return -(-len(self.images) // self._length)

    @property
    def unreadable(self) -> Path:
        """The list of images that cannot be read."""
        return self.output.with_name(f"{self.output.stem}-unreadable.csv")

    @cached_property
    def columns(self) -> list[str]:
        """The columns of the result."""
        facts = self.bundle.facts
        first = [*self._texts, "disagreement"]
        return [*first, *class_columns(facts.class_names, first)]

    @property
    def _texts(self) -> list[str]:
        """The columns of text; a classifier with operating points also decides."""
        return [*_TEXTS, *(["decision"] if self.bundle.facts.thresholds else [])]

    def images_of(self, number: int) -> Sequence[NamedImage]:
        """Returns the images of a part."""
        return self.images[number * self._length : (number + 1) * self._length]

    def missing(self) -> list[int]:
        """Returns the numbers of the parts that are not finished."""
        finished = set(os.listdir(self._folder)) if self._folder.is_dir() else set()
        return [number for number in range(len(self)) if self._file(number).name not in finished]

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keeps other commands away from the output for the block.

        Raises:
            ArtifactError: On entering, if another command writes it, or writing is not permitted.
        """
        busy = f"--output must be a file that no other raysk writes, but one writes {self.output}: wait for it"
        with locked(self.output.with_name(f".{self.output.name}.lock"), busy):
            yield

    def write(self, number: int, predicted: Predicted, reasons: Sequence[str | None]) -> None:
        """Keeps a finished part.

        Args:
            number: Its number.
            predicted: The prediction of its readable images.
            reasons: For each of its images, why it cannot be read, or None.
        """
        images = self.images_of(number)
        names = [image.name for image, reason in zip(images, reasons, strict=True) if reason is None]
        class_names = np.array(self.bundle.facts.class_names)
        texts = [names, class_names[predicted.probabilities.argmax(axis=1)].tolist()]
        if self.bundle.facts.thresholds:
            texts.append(class_names[decide(predicted.probabilities, self.bundle.facts.thresholds)].tolist())
        values: list[Any] = [pa.array(column, pa.string()) for column in texts]
        table = pa.table([*values, predicted.disagreement, *predicted.probabilities.T], names=self.columns)
        bad = [[image.name, reason] for image, reason in zip(images, reasons, strict=True) if reason is not None]
        write_parquet(self._file(number), _NOUN, table, {"unreadable": bad})

    def join(self) -> Summary:
        """Writes the result from all parts, then removes them.

        Raises:
            DataError: No image can be read.
            ArtifactError: A part is damaged, or writing is not permitted.
        """
        try:
            summary = self._join()
        except DataError:
            self._remove()
            raise
        self._remove()
        return summary

    def _join(self) -> Summary:
        bad: list[list[str]] = []
        num_images = 0
        with replacing(self.output) as temporary:
            with _writer(temporary, self._schema) as write:
                for number in range(len(self)):
                    table, facts = read_parquet(self._file(number), _NOUN)
                    write(table.replace_schema_metadata(None))
                    bad += facts["unreadable"]
                    num_images += table.num_rows
            if not num_images:
                name, reason = bad[0] if bad else ("", "")
                first = f", first {name} ({reason})" if bad else ""
                raise DataError(f"an image must be readable, but none of {len(bad)} is{first}: correct the paths")
            if bad:
                with replacing(self.unreadable) as listed, listed.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerows([["image", "reason"], *bad])
        return Summary(num_images, len(bad), self.unreadable)

    @property
    def _schema(self) -> pa.Schema:
        return pa.schema([(name, pa.string() if name in self._texts else pa.float64()) for name in self.columns])

    @cached_property
    def _length(self) -> int:
        return batch_length(self.bundle.facts.image_sizes)

    @cached_property
    def _folder(self) -> Path:
        digest = hashlib.blake2b(f"{self.bundle.content_digest} {self.columns} {self._length}".encode(), digest_size=8)
        for name, path in self.images:
            digest.update(f"{name!r} {path!r} {_state_of(path)}\n".encode())
        return self.output.with_name(f"{self._prefix}{digest.hexdigest()}")

    @property
    def _prefix(self) -> str:
        return f".{self.output.name}.parts-"

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:08d}.parquet"

    def _remove(self) -> None:
        """Removes the parts, and those of earlier commands for this output, whose images or bundle have changed."""
        for folder in self.output.parent.iterdir():
            if folder.name.startswith(self._prefix):
                shutil.rmtree(folder, ignore_errors=True)


def check_suffix(output: Path) -> None:
    """Refuses an output that is no table.

    Raises:
        ConfigError: Its suffix is another one.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"--output must end in {' or '.join(SUFFIXES)}, but got {output}: name it {output.stem}.csv")


def _state_of(path: str) -> tuple[int, int] | None:
    """Returns the number of bytes of a file and when it was modified; None without a file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yields a function that appends a table to a file; a CSV file needs its suffix in the name of the output."""
    kind = pq.ParquetWriter if path.suffix == ".parquet" else pyarrow.csv.CSVWriter
    with kind(str(path), schema) as writer:
        yield writer.write_table
