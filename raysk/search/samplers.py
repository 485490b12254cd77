"""The samplers: each draws the next recipe of a family, and learns from the trials of that family alone.

Optuna's journal is the record of a study. A sampler does not learn from it, since it also has the controls and the
other families, but from a study in memory that holds the trials of one family. That study is made anew for each draw.
So a draw depends only on the journal, the seed and the number of the family's trials, and a resumed study draws like
one that was never interrupted.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import BaseTrial, FixedTrial, FrozenTrial, TrialState, create_trial
from scipy.stats import qmc

from raysk.search.trial_records import latest
from raysk.spaces.sweeps import Parameter

# Number of a family's trials that are drawn at random, the starts among them, before TPE or a Gaussian process learns.
NUM_STARTUP = 6


@dataclass(frozen=True)
class Sampler:
    """Draws values for the parameters of a family.

    Args:
        name: "tpe", "gp", "random" or "sobol".
        seed: Seed of the study.
        direction: Whether a larger score is better.
    """

    name: str
    seed: int
    direction: Literal["maximize", "minimize"] = "maximize"

    def propose(
        self,
        parameters: Sequence[Parameter],
        trials: Sequence[FrozenTrial],
        fixed: Mapping[str, Any] | None = None,
        attempt: int = 0,
    ) -> BaseTrial:
        """Returns a trial that suggests the values of the next recipe.

        Args:
            parameters: The parameters that it may have.
            trials: The trials of the family, in the order in which they were first proposed.
            fixed: Values that are not drawn, by the name of the parameter.
            attempt: Number of earlier draws that were known recipes.
        """
        if self.name == "sobol":
            return FixedTrial(self._sobol(parameters, len(trials), attempt) | dict(fixed or {}))
        mixed = np.random.SeedSequence((self.seed, len(trials), attempt)).generate_state(1)
        teaching = [trial for trial in trials if _teaches(trial)]
        distributions = {}
        if self.name == "gp":
            teaching = [_with_all_parameters(trial, parameters) for trial in teaching]
            distributions = {parameter.name: parameter.distribution for parameter in parameters}
        study = optuna.create_study(direction=self.direction, sampler=_optuna_sampler(self.name, int(mixed[0])))
        study.add_trials(teaching)
        study.enqueue_trial(dict(fixed or {}))
        return study.ask(distributions)

    def _sobol(self, parameters: Sequence[Parameter], number: int, attempt: int) -> dict[str, Any]:
        """Returns a value for each parameter, from one point of a sequence in the unit cube of all parameters.

        Optuna's own sampler of such sequences draws parameters that do not exist in all trials at random.
        """
        cube = qmc.Sobol(len(parameters), rng=np.random.default_rng((self.seed, attempt)))
        if number:
            cube.fast_forward(number)
        shares = cube.random(1)[0].tolist()
        return {parameter.name: parameter.at(share) for parameter, share in zip(parameters, shares, strict=True)}


def _optuna_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed)
    with warnings.catch_warnings():
        # Marked experimental. Conditional spaces need groups, and several trials at work need the constant liar.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=NUM_STARTUP, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(
            n_startup_trials=NUM_STARTUP, multivariate=True, group=True, constant_liar=True, seed=seed
        )


def _teaches(trial: FrozenTrial) -> bool:
    """Returns whether a sampler learns from a trial: it has ended with a score, or it runs."""
    if trial.state is TrialState.RUNNING:
        return bool(trial.params)
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and bool(trial.intermediate_values)


def _with_all_parameters(trial: FrozenTrial, parameters: Sequence[Parameter]) -> FrozenTrial:
    """Returns a trial with a value for each parameter: a Gaussian process does not know parameters that do not exist.

    One that does not exist has the middle of its range. A stopped trial counts with the folds that it had, since
    Optuna's Gaussian process would ignore it.
    """
    has_ended = trial.state.is_finished()
    return create_trial(
        state=TrialState.COMPLETE if has_ended else TrialState.RUNNING,
        value=latest(trial) if has_ended else None,
        params={parameter.name: trial.params.get(parameter.name, parameter.at(0.5)) for parameter in parameters},
        distributions={parameter.name: parameter.distribution for parameter in parameters},
        constraints=trial.constraints,
    )
