"""Optuna's side of a study: its journal in the run directory, and what draws the values of a proposal."""

import os
import warnings
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend


def open_study(path: Path) -> optuna.Study:
    """Opens, or begins, the Optuna study of a run."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _cut_torn_line(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(study_name="raysk", storage=storage, direction="maximize", load_if_exists=True)


def _cut_torn_line(path: Path) -> None:
    """Takes away the line that a full disk or a power cut left unfinished: what follows it would be glued to it."""
    if not path.exists():
        return
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def create_sampler(seed: int, number: int) -> optuna.samplers.TPESampler:
    """Returns what draws the values of one proposal, from the seed and the proposal's number.

    So a study that goes on draws as one that was never left, and as one that searches stage two otherwise.
    """
    mixed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    with warnings.catch_warnings():
        # Grouped, multivariate TPE with a constant liar is marked experimental; it is what conditional spaces with
        # several trials at work need.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=mixed)
