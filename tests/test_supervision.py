"""The parent of a study's process: what it reports and which signals it forwards."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysk.errors import CutOffError

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from raysk.supervision import supervised, tell_log

def work():
    tell_log(Path({log!r}))
    print("child", os.getpid(), flush=True)
    {work}
    return 0

sys.exit(supervised(work))
"""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "ray.log"


def begin(log, work):
    words = [sys.executable, "-c", SCRIPT.format(log=str(log), work=work)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def end(process):
    """Returns the exit status and stderr."""
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def cut_off(cause, log):
    return 3, f"raysk: a study must reach its end, but {cause}: see {log}, then run the same command with --resume\n"


@pytest.mark.parametrize("status", [0, 2, 130])
def test_the_status_of_a_child_that_ends_in_order_is_returned_without_a_message(log, status):
    assert end(begin(log, f"return {status}")) == (status, "")


def test_a_status_that_was_sent_counts_however_the_interpreter_ends(log):
    assert end(begin(log, "import atexit; atexit.register(os._exit, 1)")) == (0, "")


@pytest.mark.parametrize(
    ("written", "cause"),
    [
        ("E gcs_rpc_client.h:151: Failed to connect to GCS within 60 seconds.", "Ray's GCS is gone (status 1)"),
        ("E core_worker.cc: The raylet has died.", "the raylet of this machine is gone (status 1)"),
        ("nothing that is known", "Ray ended its process (status 1)"),
    ],
)
def test_an_exit_below_python_is_reported_with_its_cause_from_the_log(log, written, cause):
    log.write_text(f"{written}\n")
    assert end(begin(log, "os._exit(1)")) == cut_off(cause, log)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        ("SIGKILL", "SIGKILL ended its process, perhaps for lack of memory"),
        ("SIGSEGV", "SIGSEGV ended its process"),
    ],
)
def test_a_signal_that_ends_the_child_is_named(log, number, cause):
    assert end(begin(log, f"os.kill(os.getpid(), signal.{number})")) == cut_off(cause, log)


def test_a_study_that_had_not_started_is_to_be_run_again():
    assert str(CutOffError.of("it rains", None)).endswith("but it rains: run the same command again")


def test_an_unexpected_error_keeps_its_traceback(log):
    status, errors = end(begin(log, "raise ValueError('unforeseen')"))
    assert (status, errors.splitlines()[-1]) == (1, "ValueError: unforeseen")


def child_of(process):
    return int(process.stdout.readline().split()[1])


def test_the_parent_does_not_forward_ctrl_c(log):
    process = begin(log, "signal.signal(signal.SIGINT, lambda *_: os.write(1, b'asked\\n')); time.sleep(1); return 130")
    child_of(process)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert end(process) == (130, "")


def test_sigterm_before_the_study_handles_it_is_an_interrupt(log):
    process = begin(log, "try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        return 130")
    child_of(process)
    time.sleep(0.3)
    process.terminate()
    assert end(process) == (130, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_parent_alone_are_forwarded(log, number):
    process = begin(log, f"signal.signal({int(number)}, lambda *_: sys.exit(7)); time.sleep(60)")
    child_of(process)
    time.sleep(0.3)
    process.send_signal(number)
    status, errors = end(process)
    assert status == 3, "it ended without a message of its own"
    assert "Ray ended its process (status 7)" in errors


def test_a_child_whose_parent_is_killed_is_asked_to_end(log):
    process = begin(log, "time.sleep(60)")
    child = child_of(process)
    process.kill()
    process.wait(30)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
