"""A small parent process that reports how the process of a study ended.

Ray ends a driver below Python when its raylet or its GCS is gone, and the system kills a process that takes too much
memory. Python cannot print a message in either case. So a study runs in a child process, and the parent, which only
waits, tells the user how it ended and what to do.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from raysk.errors import CutOffError

_PR_SET_PDEATHSIG = 1
_SENT_BY_A_PROCESS = 0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
# Words that Ray writes into the log before it ends the driver, and their meaning.
_CAUSES = (
    ("GCS", "Ray's GCS is gone"),
    ("raylet", "the raylet of this machine is gone"),
)
_TAIL_BYTES = 20_000
_END = "end "
_LOG = "log "
_SHOW_CURSOR = "\x1b[?25h"

_to_parent: int | None = None


def supervised(work: Callable[[], int]) -> int:
    """Does work in a child process and returns its exit status; reports the cause if the child was killed.

    Call it before the process has threads, since it forks.
    """
    global _to_parent
    from_child, to_parent = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # Block the signals before the child exists, so that none is missed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(from_child)
        _to_parent = to_parent
        _end_with(parent)
        try:
            status = work()
        except Exception:
            traceback.print_exc()
            status = 1
        _send(f"{_END}{status}")
        return status
    os.close(to_parent)
    return _conclude(from_child, _wait_for(child))


def _wait_for(child: int) -> int:
    """Forwards signals until the child has ended; returns its exit code."""
    while True:
        received = signal.sigwaitinfo(_SIGNALS)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        # The kernel sends Ctrl-C in a terminal to the child, too.
        elif received.si_signo != signal.SIGINT or received.si_code == _SENT_BY_A_PROCESS:
            os.kill(child, received.si_signo)


def tell_log(path: Path) -> None:
    """Sends the parent, if any, the path of the log to name if this process ends without a message."""
    _send(f"{_LOG}{path}")


def _send(line: str) -> None:
    if _to_parent is not None:
        with suppress(BrokenPipeError):  # the parent is gone
            os.write(_to_parent, f"{line}\n".encode())


def _end_with(parent: int) -> None:
    """Asks Linux to send this process SIGTERM when its parent is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _conclude(from_child: int, exit_code: int) -> int:
    """Returns the status that the child sent; without one, reports how the child ended."""
    os.set_blocking(from_child, False)
    try:
        lines = os.read(from_child, 65_536).decode().splitlines()
    except BlockingIOError:
        lines = []
    statuses = [line.removeprefix(_END) for line in lines if line.startswith(_END)]
    if statuses:
        return int(statuses[-1])
    if sys.stdout.isatty():
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()
    logs = [Path(line.removeprefix(_LOG)) for line in lines if line.startswith(_LOG)]
    log = logs[-1] if logs else None
    print(f"raysk: {CutOffError.of(_cause(exit_code, log), log)}", file=sys.stderr)
    return CutOffError.status


def _cause(exit_code: int, log: Path | None) -> str:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"{name} ended its process{', perhaps for lack of memory' * (name == 'SIGKILL')}"
    tail = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace") if log and log.exists() else ""
    meaning = next((meaning for word, meaning in _CAUSES if word in tail), "Ray ended its process")
    return f"{meaning} (status {exit_code})"
