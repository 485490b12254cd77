import os
import signal
import time
from pathlib import Path

import pytest

from raysk.errors import ConfigError
from raysk.search.request import Interrupt, StudyRequest
from raysk.spaces.space import load_space

CACHE = Path("cache")


@pytest.fixture
def space():
    return load_space("supcon")


def test_the_folder_of_a_new_study_is_named_by_its_space_and_time(space):
    assert str(StudyRequest("supcon").folder(space, CACHE)).startswith("runs/supcon-20")


def test_resuming_without_a_folder_takes_the_newest_run_of_the_space(space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("supcon-2026-01-02-000000", "supcon-2026-01-10-000000", "other-2027-01-01-000000"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "supcon-2026-12-01-000000").mkdir()  # without run.json: no study was begun in it
    assert StudyRequest("supcon", resume=True).folder(space, CACHE).name == "supcon-2026-01-10-000000"


def test_resuming_without_a_run_is_refused(space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"--resume must find a run .* give --run DIR"):
        StudyRequest("supcon", resume=True).folder(space, CACHE)


def test_a_run_in_object_storage_has_its_own_working_folder_in_the_cache(space):
    first, again, other = (
        StudyRequest("supcon", run=address).folder(space, CACHE)
        for address in ("s3://bucket/a/study", "s3://bucket/a/study/?region=eu-west-1", "s3://bucket/b/study")
    )
    assert first == again != other
    assert first.parent == other.parent == CACHE / "runs"
    assert first.name.startswith("study-")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"run": "s3://bucket/study", "address": "auto"}, "^--run must be a folder that all nodes .* got s3://bucket"),
        ({"trials": 0}, "^--trials must be >= 1, but got 0: "),
        ({"trials": -3}, "^--trials must be >= 1, but got -3: "),
        ({"time_budget": 0.0}, "^--time-budget must be > 0 seconds, but got 0: "),
        ({"run": ""}, "^--run must be a folder, but got an empty name: "),
        ({"time_budget": float("nan")}, "^--time-budget must be > 0 seconds, but got nan: "),
        ({"time_budget": -1.5}, "^--time-budget must be > 0 seconds, but got -1.5: "),
    ],
)
def test_invalid_options_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        StudyRequest("supcon", **wrong)


def test_a_cluster_job_with_a_run_in_object_storage_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(ConfigError, match=r"^--run must be a folder that all nodes"):
        StudyRequest("supcon", run="s3://bucket/study")


def test_the_first_ctrl_c_requests_the_end_and_the_second_ends_at_once():
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    with interrupt.catches(signal.SIGINT):
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked.is_set()
        assert interrupt.is_due()
        os.kill(os.getpid(), signal.SIGINT)  # the same request, passed on by the parent
        interrupt.asked_at -= 2.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_time_is_up_after_the_deadline():
    assert not Interrupt().is_due()
    assert not Interrupt(time.monotonic() + 1000).is_due()
    assert Interrupt(time.monotonic() + 1000).is_due(1001)
    late = Interrupt(time.monotonic() - 1)
    assert late.is_due()
    assert not late.asked.is_set()


def test_the_typed_command_is_recorded_and_repeats_in_a_new_run():
    words = ("tune", "--space", "supcon", "--run", "here it is", "--resume", "--workers", "2", "--gpus-per-worker", "0",
             "--time-budget", "60", "data.path=my images")  # fmt: skip
    request = StudyRequest("supcon", words=words)
    rest = "--workers 2 --gpus-per-worker 0 --time-budget 60 'data.path=my images'"
    assert request.command == f"raysk tune --space supcon --run 'here it is' --resume {rest}"
    assert request.repeating_command == f"raysk tune --space supcon {rest}"
    assert StudyRequest("supcon", words=("tune", "--run=x", "a=b")).repeating_command == "raysk tune a=b"
