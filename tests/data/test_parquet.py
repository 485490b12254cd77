from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event

import pyarrow as pa
import pytest

from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import ArtifactError


def test_what_is_written_is_read_back(tmp_path):
    table = pa.table({"row": [1, 2], "name": ["a", None]})
    write_parquet(tmp_path / "file", "rows", table, {"digest": "x"})
    found, facts = read_parquet(tmp_path / "file", "rows")
    assert found.to_pydict() == table.to_pydict() and facts == {"digest": "x"}
    with pytest.raises(ArtifactError, match="must hold folds, but it is another Parquet file"):
        read_parquet(tmp_path / "file", "folds")


def test_a_file_that_is_replaced_meanwhile_is_one_or_the_other(tmp_path):
    path, stop = tmp_path / "file", Event()
    new = []
    for number in (1, 5000):
        new.append(tmp_path / f"new{number}")
        write_parquet(new[-1], "rows", pa.table({"row": list(range(number))}), {"rows": number})
    write_parquet(path, "rows", pa.table({"row": [0]}), {"rows": 1})

    def replace():
        for turn in count():
            if stop.is_set():
                return
            (tmp_path / "next").hardlink_to(new[turn % 2])
            (tmp_path / "next").replace(path)

    with ThreadPoolExecutor(1) as pool:
        replaced = pool.submit(replace)
        try:
            for _ in range(500):
                table, facts = read_parquet(path, "rows")
                assert len(table) == facts["rows"]
        finally:
            stop.set()
        replaced.result()
