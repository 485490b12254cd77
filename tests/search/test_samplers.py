"""The samplers on conditional parameters, and what they learn from."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from raysk.search.samplers import NUM_STARTUP, Sampler
from raysk.spaces.sweeps import Parameter

# A choice; of "a" and of "b", a number of its own.
CHOICE = Parameter("loss", CategoricalDistribution(["a", "b"]))
OF_A = Parameter("gamma", FloatDistribution(0, 1), ((("loss"), ("a",)),))
OF_B = Parameter("tau", FloatDistribution(0.01, 1, log=True), ((("loss"), ("b",)),))
PARAMETERS = (CHOICE, OF_A, OF_B)
NAMES = ["tpe", "gp", "random", "sobol"]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def drawn(sampler, trials, **of_proposal):
    """Returns the values of a draw, as a space draws them."""
    proposal = sampler.propose(PARAMETERS, trials, **of_proposal)
    values = {}
    for parameter in PARAMETERS:
        if parameter.exists(values):
            values[parameter.key] = parameter.draw(proposal)
    return values


def trial_of(values, score, state=TrialState.COMPLETE):
    distributions = {parameter.name: parameter.distribution for parameter in PARAMETERS if parameter.key in values}
    is_complete = state is TrialState.COMPLETE
    return create_trial(
        state=state, value=score if is_complete else None, params=values, distributions=distributions,
        intermediate_values={3 if is_complete else 1: score},
    )  # fmt: skip


def conduct(name, score, number, state=lambda score: TrialState.COMPLETE, direction="maximize"):
    """Returns the values that a sampler draws, one after another."""
    trials, draws = [], []
    for _ in range(number):
        draws.append(drawn(Sampler(name, 0, direction), trials))
        result = score(draws[-1])
        trials.append(trial_of(draws[-1], result, state(result)))
    return draws


def near(values):
    """A score that is best at a gamma of 0.8."""
    return 1 - abs(values["gamma"] - 0.8) if values["loss"] == "a" else 0.0


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_has_a_value_for_each_parameter_that_exists_and_is_repeatable(name):
    draws = conduct(name, near, number=NUM_STARTUP + 3)
    for values in draws:
        assert values.keys() == ({"loss", "gamma"} if values["loss"] == "a" else {"loss", "tau"})
    assert conduct(name, near, number=NUM_STARTUP + 3) == draws
    assert drawn(Sampler(name, 0), [], attempt=1) != drawn(Sampler(name, 0), []), "a draw that is repeated differs"
    assert drawn(Sampler(name, 1), []) != drawn(Sampler(name, 0), [])


@pytest.mark.parametrize("name", NAMES)
def test_fixed_values_stay(name):
    assert drawn(Sampler(name, 0), [], fixed={"loss": "b", "tau": 0.25}) == {"loss": "b", "tau": 0.25}
    assert drawn(Sampler(name, 0), [], fixed={"loss": "a"})["loss"] == "a"


@pytest.mark.parametrize("name", ["tpe", "gp"])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_late_draws_are_better_than_chance(name, direction):
    """Chance gives a mean of 0.32: half of the draws score 0."""
    sign = 1 if direction == "maximize" else -1
    late = conduct(name, lambda values: sign * near(values), number=18, direction=direction)[12:]
    assert np.mean([near(values) for values in late]) > 0.5


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_a_stopped_trial_teaches_where_not_to_draw(name):
    def state(score):
        return TrialState.PRUNED if score < 0.6 else TrialState.COMPLETE

    late = conduct(name, near, number=18, state=state)[12:]
    assert np.mean([near(values) for values in late]) > 0.5


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_trials_that_run_are_taken_into_account(name):
    trials = [trial_of(values, near(values)) for values in conduct("random", near, number=12)]
    running = [trial_of({"loss": "a", "gamma": 0.8}, 0.0, TrialState.RUNNING)] * 3
    assert drawn(Sampler(name, 0), [*trials, *running]) != drawn(Sampler(name, 0), trials)


@pytest.mark.parametrize("has_bound", [False, True])
def test_a_gaussian_process_learns_of_requirements(has_bound):
    """Large values of gamma score best, but miss a requirement."""
    trials = [trial_of({"loss": "b", "tau": tau}, -1.0) for tau in (0.02, 0.2, 0.9)]
    trials += [trial_of({"loss": "a", "gamma": gamma}, gamma) for gamma in np.linspace(0, 1, 9)]
    for trial in trials:
        if has_bound:
            trial.set_constraint("recall>=0.5", trial.params.get("gamma", 0.0) - 0.6)
    draws = [drawn(Sampler("gp", seed), trials) for seed in range(3)]
    gammas = [values["gamma"] for values in draws if values["loss"] == "a"]
    assert gammas
    assert bool(np.mean(gammas) < 0.75) is has_bound, gammas


def test_sobol_points_fill_the_space_more_evenly_than_chance():
    draws = [drawn(Sampler("sobol", 5), [trial_of({"loss": "a", "gamma": 0.5}, 0.0)] * n) for n in range(32)]
    counts = [sum(values["loss"] == choice for values in draws) for choice in ("a", "b")]
    assert counts == [16, 16]
    gammas = sorted(values["gamma"] for values in draws if values["loss"] == "a")
    assert max(np.diff([0.0, *gammas, 1.0])) < 4 / 16
