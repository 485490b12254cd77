"""Parquet files that raysk writes: a table, and facts about it as JSON in the schema."""

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
        path: The file.
        noun: The kind of content, such as "folds"; `read_parquet` refuses a file of another kind.
        table: The columns.
        facts: JSON values.
    """
    named = table.replace_schema_metadata({f"raysk.{noun}": json.dumps(facts)})
    with replacing(path) as temporary:
        pq.write_table(named, temporary, compression="zstd")


def read_parquet(path: Path, noun: str) -> tuple[pa.Table, dict[str, Any]]:
    """Returns the table and the facts of a file that `write_parquet` wrote.

    Raises:
        ArtifactError: The file is missing, broken, or holds something else.
    """
    try:
        # Read all bytes first: Arrow opens a path twice, and another lane may replace the file in between.
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).split("\n", 1)[0]
        raise ArtifactError(f"{path} must hold {noun}, but it cannot be read: {reason}") from error
    facts = (table.schema.metadata or {}).get(f"raysk.{noun}".encode())
    if facts is None:
        raise ArtifactError(f"{path} must hold {noun}, but it is another Parquet file: give the path of {noun}")
    return table, json.loads(facts)
