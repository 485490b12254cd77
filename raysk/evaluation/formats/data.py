"""Formats for programs: JSON, CSV and Parquet."""

import io
import json

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from raysk.evaluation.formats.base import formats
from raysk.evaluation.leaderboard import Leaderboard


@formats.register("json")
def as_json(leaderboard: Leaderboard) -> str:
    """Returns the whole leaderboard as JSON, which `Leaderboard.read` reads."""
    return json.dumps(leaderboard.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@formats.register("csv")
def as_csv(leaderboard: Leaderboard) -> bytes:
    """Returns one line per row and one column per score, empty where a row has none."""
    sink = io.BytesIO()
    pa_csv.write_csv(leaderboard.to_table(), sink)
    return sink.getvalue()


@formats.register("parquet")
def as_parquet(leaderboard: Leaderboard) -> bytes:
    """Returns the columns of the CSV with their types; the schema's metadata has the class names and the meta facts."""
    metadata = {"class_names": leaderboard.class_names, "meta": dict(leaderboard.meta)}
    table = leaderboard.to_table().replace_schema_metadata({"raysk.leaderboard": json.dumps(metadata)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
