"""Optuna's journal in the run directory."""

import os
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def open_study(path: Path, direction: Literal["maximize", "minimize"] = "maximize") -> optuna.Study:
    """Opens or creates the Optuna study of a run; `direction` is that of a new one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _cut_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    # Trials are queued with all their values, so this sampler draws none.
    sampler = optuna.samplers.RandomSampler()
    return optuna.create_study(
        study_name="raysk", storage=storage, sampler=sampler, direction=direction, load_if_exists=True
    )


def _cut_torn_line(path: Path) -> None:
    """Removes a last line that a full disk or a power cut left unfinished: the next line would be glued to it."""
    if not path.exists():
        return
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
