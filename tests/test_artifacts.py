import json
import math
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.artifacts import digest_of, locked, read_json, replacing, write_json, write_text
from raysk.errors import ArtifactError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=PLAIN)
@settings(max_examples=60, deadline=None)
def test_a_digest_survives_json(value):
    assert digest_of(json.loads(json.dumps(value))) == digest_of(value)


@given(value=st.dictionaries(st.text(), st.integers(), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest_of(dict(reversed(value.items()))) == digest_of(value)


def test_digests_of_different_values_differ():
    values = [None, False, 0, "0", [], {}, [1, 2], [2, 1], [[1], 2], {"a": 1}, {"a": "1"}, 1e-7, "ä", "a\u0308"]
    assert len({digest_of(value) for value in values}) == len(values)


def test_a_digest_is_the_same_tomorrow():
    """Later versions look for files with these names."""
    assert digest_of({"b": [1, 2.5, None], "a": "ä"}) == "1a5b52b0d65cca20"


def test_a_value_that_is_not_json_has_no_digest():
    with pytest.raises(ValueError):
        digest_of({"lr": math.nan})


def test_json_is_read_back_equal(tmp_path):
    path = tmp_path / "deep" / "er" / "file.json"
    write_json(path, {"b": [1, None, 0.1], "ä": "\u2028"})
    assert read_json(path) == {"b": [1, None, 0.1], "ä": "\u2028"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("text", "message"), [(None, "must exist, but does not"), ("{", "must hold JSON")])
def test_a_missing_or_broken_file_is_refused_in_one_line(text, message, tmp_path):
    if text is not None:
        write_text(tmp_path / "file", text)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_json(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_refused_in_one_line(tmp_path):
    write_text(tmp_path / "file", "{}")
    with pytest.raises(ArtifactError, match="must exist, but does not"):
        read_json(tmp_path / "file" / "run.json")


def test_nothing_is_visible_before_the_block_ends(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent.parent == tmp_path  # a rename fails across file systems
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_json(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ArtifactError, match="must be writable, but File too large: free space"):
            write_json(path, list(range(10_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_json(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    program = (
        "import os, signal, sys; from pathlib import Path; from raysk.artifacts import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half of the n')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_a_folder_appears_complete(tmp_path):
    path = tmp_path / "folder"
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("1")
        assert not path.exists()
    assert (path / "file").read_text() == "1"


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match=r"must be writable, but .*free space or choose another folder"):
        write_text(tmp_path / "file" / "inner", "text")


def hold(path: Path, notes: Path) -> None:
    with locked(path), notes.open("a") as file:
        for word in ("in", "out"):
            file.write(f"{word}\n")
            file.flush()
            time.sleep(0.05)


def test_one_process_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(hold, tmp_path / "lock", tmp_path / "notes") for _ in range(6)]
        assert [task.result() for task in tasks] == [None] * 6
    assert (tmp_path / "notes").read_text() == "in\nout\n" * 6
    assert not (tmp_path / "lock").exists()


def test_a_process_that_does_not_wait_gets_an_error_and_can_retry(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", busy="wait for it"):
        with pytest.raises(ArtifactError, match=r"^wait for it$"), locked(tmp_path / "lock", busy="wait for it"):
            pass
        assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", busy="wait for it"):
        pass


def test_an_unwritable_lock_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="must be writable"), locked(tmp_path / "file" / "lock"):
        pass
