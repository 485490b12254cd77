import pyarrow as pa
import pytest

from raysk.data.parquet import read_parquet, write_parquet
from raysk.errors import ArtifactError
from tests.replacing import replaced_in_turns


def test_a_table_and_its_facts_are_read_back(tmp_path):
    table = pa.table({"row": [1, 2], "name": ["a", None]})
    write_parquet(tmp_path / "file", "rows", table, {"digest": "x"})
    copy, facts = read_parquet(tmp_path / "file", "rows")
    assert copy.to_pydict() == table.to_pydict() and facts == {"digest": "x"}
    with pytest.raises(ArtifactError, match="must hold folds, but it is another Parquet file"):
        read_parquet(tmp_path / "file", "folds")


def test_a_file_replaced_during_reading_gives_one_version_whole(tmp_path):
    path, files = tmp_path / "file", [tmp_path / "short", tmp_path / "long"]
    for file, number in zip([path, *files], (1, 1, 5000), strict=True):
        write_parquet(file, "rows", pa.table({"row": list(range(number))}), {"rows": number})
    with replaced_in_turns(path, files):
        for _ in range(500):
            table, facts = read_parquet(path, "rows")
            assert len(table) == facts["rows"]
