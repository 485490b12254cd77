"""Which sampler finds the best recipes within a study's budget?

The contenders draw from spaces that raysk ships, through the same functions as a study, with their conditional
parameters, three trials at a time. A random function of the values takes the place of training, so that the true score
of each recipe is known: each choice, and the distance of each number from an optimum of its own, has an effect, two
numbers interact, and parameters that do not exist have no effect. Scores are in standard deviations of random draws.
Every recipe has three folds, with noise that folds share and noise of its own (0.5 in the mean of the folds); a recipe
whose first fold is far below the best one stops there, as in a race.

Two contenders show what a study gains if each family has a sampler of its own. Both are TPE, in one study with five
controls that are better than most draws, or with the trials of two other families.

The table has, after 12, 20 and 40 recipes, the mean true score of the recipe with the best observed mean, and that of
the later half of the draws, with its standard error.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console
from rich.table import Table

from raysk.search.samplers import Sampler
from raysk.spaces.space import Family, Space, load_space
from raysk.spaces.sweeps import Parameter

BUDGETS = (12, 20, 40)
NUM_FOLDS, AT_WORK = 3, 3
FOLD_SD, RECIPE_SD, FAR = 1.0, 0.5 * NUM_FOLDS**0.5, 1.5
# Spaces with few and with many conditions: stage one of metric learning, and all of longtail.
SPACES = ("metric", "longtail")


class Surrogate:
    """The true score of each recipe of a family, as a random function of its values."""

    def __init__(self, parameters: Sequence[Parameter], draws: Sequence[dict[str, Any]], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self.places = {name: rng.random() for name in self.parameters}
        self.weights = {name: rng.gamma(2.0) for name in self.parameters}
        self.effects = {
            name: dict(zip(p.distribution.choices, rng.normal(size=len(p.distribution.choices)), strict=True))
            for name, p in self.parameters.items()
            if isinstance(p.distribution, optuna.distributions.CategoricalDistribution)
        }
        self.shift, self.scale = 0.0, 1.0
        scores = [self(values) for values in draws]
        self.shift, self.scale = float(np.mean(scores)), float(np.std(scores))

    def __call__(self, values: dict[str, Any]) -> float:
        """Returns the true score of a recipe."""
        distances = {
            name: self._share(name, value) - self.places[name]
            for name, value in values.items()
            if name not in self.effects
        }
        total = sum(self.effects[name][value] for name, value in values.items() if name in self.effects)
        total -= sum(4 * self.weights[name] * distance**2 for name, distance in distances.items())
        first, second, *_ = [*distances.values(), 0.0, 0.0]
        return float((total + 4 * first * second - self.shift) / self.scale)

    def _share(self, name: str, value: float) -> float:
        distribution: Any = self.parameters[name].distribution
        low, high = distribution.low, distribution.high
        return float(np.log(value / low) / np.log(high / low) if distribution.log else (value - low) / (high - low))


# (true score of the best observed recipe, mean true score of the later half of the draws)
Outcome = tuple[float, float]


@dataclass(frozen=True)
class Contender:
    """A sampler, and what it learns from.

    Args:
        sampler: Its name.
        others: Returns the trials of others that it learns from too, after so many recipes, by a seed.
    """

    sampler: str
    others: Callable[[int, int], list[FrozenTrial]] = lambda number, seed: []


def begun(space: Space, family: Family, sampler: Sampler, trials: Sequence[FrozenTrial]) -> FrozenTrial:
    """Draws a recipe; returns its trial, which runs."""
    proposal = sampler.propose(space.drawn_parameters(family), trials)
    values = space.draw(proposal, family).values
    distributions = {p.name: p.distribution for p in space.drawn_parameters(family) if p.name in values}
    return create_trial(state=TrialState.RUNNING, params=values, distributions=distributions)


def ended(trial: FrozenTrial, scores: np.ndarray, best_first: float) -> FrozenTrial:
    """Returns a trial with its folds, or only the first if it is far below the best."""
    means = {fold + 1: float(scores[: fold + 1].mean()) for fold in range(NUM_FOLDS)}
    is_beaten = scores[0] < best_first - FAR
    return create_trial(
        state=TrialState.PRUNED if is_beaten else TrialState.COMPLETE,
        value=None if is_beaten else means[NUM_FOLDS],
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={1: means[1]} if is_beaten else means,
    )


def conduct(score: Surrogate, space: Space, family: Family, contender: Contender, seed: int) -> dict[int, Outcome]:
    """Conducts a study; returns its outcome after each budget."""
    rng = np.random.default_rng((seed, 1))
    of_folds = rng.normal(scale=FOLD_SD, size=NUM_FOLDS)
    sampler, best_first = Sampler(contender.sampler, seed), -np.inf
    trials: list[FrozenTrial] = []
    truth: list[float] = []
    for number in range(max(BUDGETS) + AT_WORK - 1):
        if number < max(BUDGETS):
            trials.append(begun(space, family, sampler, [*contender.others(number, seed), *trials]))
            truth.append(score(trials[-1].params))
        if number >= AT_WORK - 1:
            oldest = number - AT_WORK + 1
            scores = truth[oldest] + of_folds + rng.normal(scale=RECIPE_SD, size=NUM_FOLDS)
            trials[oldest] = ended(trials[oldest], scores, best_first)
            best_first = max(best_first, scores[0])
    outcomes = {}
    for budget in BUDGETS:
        observed = [-np.inf if trial.state is TrialState.PRUNED else trial.value for trial in trials[:budget]]
        outcomes[budget] = (truth[int(np.argmax(observed))], float(np.mean(truth[budget // 2 : budget])))
    return outcomes


def controls(number: int, seed: int) -> list[FrozenTrial]:
    """Returns five controls that are better than nine in ten draws."""
    return [create_trial(value=score, intermediate_values={NUM_FOLDS: score}) for score in np.linspace(1.3, 2.1, 5)]


def families(number: int, seed: int) -> list[FrozenTrial]:
    """Returns the trials of two other families, as many of each as of the family, and as good."""
    rng = np.random.default_rng((seed, 2))
    distribution = optuna.distributions.FloatDistribution(0, 1)
    return [
        create_trial(
            value=score,
            params={f"family {place % 2}": share},
            distributions={f"family {place % 2}": distribution},
            intermediate_values={NUM_FOLDS: score},
        )
        for place, (score, share) in enumerate(zip(rng.normal(size=2 * number), rng.random(2 * number), strict=True))
    ]


CONTENDERS = {
    "random": Contender("random"),
    "sobol": Contender("sobol"),
    "tpe": Contender("tpe"),
    "gp": Contender("gp"),
    "tpe, in one study with controls": Contender("tpe", controls),
    "tpe, in one study with two families": Contender("tpe", families),
}


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40, help="random functions of each space (40)")
    usual = [name for name in CONTENDERS if name != "gp"]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CONTENDERS,
        default=usual,
        metavar="NAME",
        help="contenders; gp is slow (all but gp)",
    )
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    console = Console(width=160)
    for name in SPACES:
        space = load_space(name)
        (family,) = space.families
        parameters, study = (
            space.drawn_parameters(family),
            optuna.create_study(sampler=optuna.samplers.RandomSampler(0)),
        )
        draws = [space.draw(study.ask(), family).values for _ in range(300)]
        scores = [Surrogate(parameters, draws, seed) for seed in range(options.seeds)]
        table = Table("sampler", *(f"best of {n}" for n in BUDGETS), *(f"late of {n}" for n in BUDGETS), "ms a draw")
        for title in options.only:
            began = time.perf_counter()
            results = [conduct(score, space, family, CONTENDERS[title], n) for n, score in enumerate(scores)]
            each = (time.perf_counter() - began) / options.seeds / max(BUDGETS)
            cells = []
            for which in (0, 1):
                for budget in BUDGETS:
                    column = np.array([result[budget][which] for result in results])
                    cells.append(f"{column.mean():.2f} ± {column.std() / len(column) ** 0.5:.2f}")
            table.add_row(title, *cells, f"{1000 * each:.0f}")
        console.print(f"{name}: {len(parameters)} parameters")
        console.print(table)


if __name__ == "__main__":
    main()
