"""Optuna's side of a study: its journal in the run directory, and the sampler of each proposal."""

import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def open_study(path: Path, direction: Literal["maximize", "minimize"] = "maximize") -> optuna.Study:
    """Opens or creates the Optuna study of a run; `direction` is that of a new one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _cut_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(study_name="raysk", storage=storage, direction=direction, load_if_exists=True)


def _cut_torn_line(path: Path) -> None:
    """Removes a last line that a full disk or a power cut left unfinished: the next line would be glued to it."""
    if not path.exists():
        return
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def create_sampler(seed: int, number: int) -> optuna.samplers.TPESampler:
    """Returns the sampler of one proposal, seeded with the study's seed and the proposal's number.

    So a resumed study draws the same recipes as an uninterrupted one, and the same encoders whether or not stage two
    has a search of its own.
    """
    mixed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    with warnings.catch_warnings():
        # Grouped, multivariate TPE with a constant liar is marked experimental; conditional spaces with several trials
        # at work need it.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=mixed)
