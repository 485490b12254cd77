"""Parquet files of raysk's own: a table, and facts about it as JSON in the schema."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysk.artifacts import replacing
from raysk.errors import ArtifactError


def write_parquet(path: Path, noun: str, table: pa.Table, facts: dict[str, Any]) -> None:
    """Writes a table with its facts, whole or not at all.

    Args:
        path: Where.
        noun: What the file holds; only a reader that wants the same takes it.
        table: The columns.
        facts: JSON values.
    """
    named = table.replace_schema_metadata({f"raysk.{noun}": json.dumps(facts)})
    with replacing(path) as temporary:
        pq.write_table(named, temporary, compression="zstd")


def read_parquet(path: Path, noun: str) -> tuple[pa.Table, dict[str, Any]]:
    """Reads what `write_parquet` wrote: the table and its facts.

    Raises:
        ArtifactError: The file is missing, broken, or holds something else.
    """
    try:
        # Read in one go: by its path it would be opened twice, and another lane may replace it in between.
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).split("\n", 1)[0]
        raise ArtifactError(f"{path} must hold {noun}, but it cannot be read: {reason}") from error
    facts = (table.schema.metadata or {}).get(f"raysk.{noun}".encode())
    if facts is None:
        raise ArtifactError(f"{path} must hold {noun}, but it is another Parquet file: give the path of {noun}")
    return table, json.loads(facts)
