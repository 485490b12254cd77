"""`raysk` as a user types it, in a session of its own, and what its run directory says of the work."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\S+ \S+ pid (\d+) INFO (begin|done|failed|cancelled) (\S+)")


@dataclass
class Command:
    """A `raysk` that runs in a session of its own, so that all its processes are known."""

    process: subprocess.Popen
    out: Path
    err: Path

    def pids(self):
        """The living processes of the session: the driver, and whatever it started."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.process.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found

    def wait_for(self, condition, seconds=600):
        """Waits while the driver lives; returns what the condition found."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.err.read_text()}"
            assert time.monotonic() < deadline, f"waited in vain: {self.out.read_text()}"
            time.sleep(0.01)
        return found

    def end(self, seconds=600):
        """Waits for the end; returns (exit status, stdout, stderr)."""
        status = self.process.wait(seconds)
        return status, self.out.read_text(), self.err.read_text()

    def left(self, seconds=30):
        """The processes that are still there some time after the end."""
        deadline = time.monotonic() + seconds
        while (pids := self.pids()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return pids

    def kill(self):
        """Kills all of the session that lives, by process id, and removes Ray's temporary folder."""
        pids, folders = self.pids(), set()
        for pid in pids:
            with suppress(OSError):
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                folders |= set(re.findall(r"/tmp/raysk-\w+", arguments))
        # The driver first, alone and without a warning, as the machine's out-of-memory killer would.
        for pid in sorted(pids, key=lambda pid: pid != self.process.pid):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        self.left()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def raysk(folder, *arguments):
    """Runs a command; whatever happens, nothing of it lives on."""
    number = len(list(folder.glob("*.out")))
    out, err = folder / f"{number}.out", folder / f"{number}.err"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env.pop("RAY_ADDRESS", None)
    words = [sys.executable, "-m", "raysk.cli", *map(str, arguments)]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            words, cwd=folder, env=env, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True
        )
    command = Command(process, out, err)
    try:
        yield command
    finally:
        command.kill()


def finished(run):
    """The jobs in the ledger."""
    return {path.stem for path in (run / "jobs").glob("*.json")}


def lane_lines(run, ranks="*"):
    """What the lanes' logs say, as (pid, what, job)."""
    text = "\n".join(path.read_text() for path in sorted((run / "logs").glob(f"lane*-rank{ranks}.log")))
    return [(int(m[1]), m[2], m[3]) for m in map(ROW.match, text.splitlines()) if m]


def begun(run):
    """How often each job was begun."""
    return Counter(job for _, what, job in lane_lines(run, ranks="0") if what == "begin")
