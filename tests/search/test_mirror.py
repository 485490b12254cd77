"""The copy of a run directory, in a folder and in S3 (moto's server)."""

import os
import time
from pathlib import Path

import pytest
from pyarrow import fs

from raysk.data.store.chunks import file_system
from raysk.errors import ArtifactError, ConfigError
from raysk.search import mirror
from raysk.search.mirror import Mirror


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def names_in(address: str) -> list[str]:
    files, root = file_system(address)
    infos = files.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    return sorted(info.path.removeprefix(f"{root}/") for info in infos if info.is_file)


RUN = {"run.json": "{}", "jobs/a-fold0.json": "1", "study.journal": "one\n", "logs/lane0-rank0.log": "begin"}


def test_another_machine_gets_the_run_unchanged(shared: str, tmp_path: Path) -> None:
    here = fill(tmp_path / "here", RUN | {".driver": "", "logs/ray/session": "x", "jobs/.a.json.tmp/a.json": "half"})
    Mirror(here, shared).push()
    assert names_in(shared) == sorted(RUN), "no temporary files, and none of Ray's"
    Mirror(tmp_path / "there", shared).pull()
    assert {name: (tmp_path / "there" / name).read_text() for name in RUN} == RUN


def test_only_changed_files_are_copied_again_and_deleted_files_are_removed(shared: str, tmp_path: Path) -> None:
    here = fill(tmp_path / "here", RUN | {"encoders/e/fold0.progress": "half"})
    copy = Mirror(here, shared)
    copy.push()
    files, root = file_system(shared)
    with files.open_output_stream(f"{root}/run.json") as sink:
        sink.write(b"marked")
    (here / "encoders/e/fold0.progress").unlink()
    fill(here, {"study.journal": "one\ntwo\n"})
    copy.push()
    assert names_in(shared) == sorted(RUN)
    with files.open_input_stream(f"{root}/run.json") as stream:
        assert stream.read() == b"marked", "unchanged here, so not copied again"
    with files.open_input_stream(f"{root}/study.journal") as stream:
        assert stream.read() == b"one\ntwo\n"


def test_records_are_copied_after_the_work_that_they_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = {"searches/s.json": "1", "jobs/a-fold0.json": "1", "study.journal": "one"}
    here = fill(tmp_path / "here", late | {"zebra.json": "1", "predictions/a/fold0-held_out.parquet": "1"})
    order: list[str] = []
    place = Mirror._place
    monkeypatch.setattr(Mirror, "_place", lambda self, name: order.append(name) or place(self, name))
    Mirror(here, str(tmp_path / "there")).push()
    assert set(order[:2]) == {"zebra.json", "predictions/a/fold0-held_out.parquet"}
    assert set(order[2:4]) == {"searches/s.json", "jobs/a-fold0.json"}
    assert order[4:] == ["study.journal"]


def test_files_from_another_machine_are_not_copied_back(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Mirror(fill(tmp_path / "here", RUN), shared).push()
    copy = Mirror(tmp_path / "there", shared)
    copy.pull()
    copied: list[str] = []
    place = Mirror._place
    monkeypatch.setattr(Mirror, "_place", lambda self, name: copied.append(name) or place(self, name))
    copy.push()
    assert set(copied) == RUN.keys() - {"jobs/a-fold0.json"}, "only what content names is known to be the same"


@pytest.mark.parametrize(("there", "then"), [("one\ntwo\nthree\n", "one\ntwo\nthree\n"), ("one\n", "one\ntwo\n")])
def test_the_longer_journal_counts_and_no_local_file_is_lost(
    shared: str, tmp_path: Path, there: str, then: str
) -> None:
    Mirror(fill(tmp_path / "other", RUN | {"study.journal": there, "jobs/a-fold0.json": "2"}), shared).push()
    here = fill(tmp_path / "here", RUN | {"study.journal": "one\ntwo\n", "jobs/b-fold0.json": "3"})
    Mirror(here, shared).pull()
    assert (here / "study.journal").read_text() == then
    assert (here / "jobs/a-fold0.json").read_text() == "1"
    assert (here / "jobs/b-fold0.json").read_text() == "3"


def test_the_copy_follows_while_the_study_runs_and_is_whole_at_its_end(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_EVERY_S", 0.05)
    here = fill(tmp_path / "here", RUN)
    with pytest.raises(KeyboardInterrupt), Mirror(here, shared).kept():
        assert names_in(shared) == sorted(RUN)
        fill(here, {"jobs/b-fold0.json": "2"})
        deadline = time.monotonic() + 20
        while "jobs/b-fold0.json" not in names_in(shared):
            assert time.monotonic() < deadline
        fill(here, {"leaderboard.json": "3"})
        raise KeyboardInterrupt
    assert names_in(shared) == sorted([*RUN, "jobs/b-fold0.json", "leaderboard.json"])


def test_unreachable_storage_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--run must be a folder or s3://BUCKET/PREFIX, but .*gopher"):
        Mirror(tmp_path, "gopher://there/x")
    with pytest.raises(ConfigError, match=r"^--run must be .* but got s3://: name a bucket"):
        Mirror(tmp_path, "s3://")
    (tmp_path / "file").write_text("")
    here = fill(tmp_path / "here", RUN)
    with pytest.raises(ArtifactError, match=r"^--run .*file/x must be writable, but .*: .*here has all of it"):
        Mirror(here, str(tmp_path / "file" / "x")).push()


def test_the_copy_catches_up_after_storage_fails_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mirror, "_EVERY_S", 0.05)
    here, there = fill(tmp_path / "here", RUN), tmp_path / "there"
    with Mirror(here, str(there)).kept():
        os.rename(there, tmp_path / "away")
        there.write_text("a file where the folder was")
        fill(here, {"jobs/b-fold0.json": "2"})
        deadline = time.monotonic() + 20
        while "retrying soon" not in caplog.text:
            assert time.monotonic() < deadline
        there.unlink()
        os.rename(tmp_path / "away", there)
    assert names_in(str(there)) == sorted([*RUN, "jobs/b-fold0.json"])
