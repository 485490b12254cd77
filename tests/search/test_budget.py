"""What a study tries next, by its budget; on spaces, records and costs without a run."""

from collections import Counter

import pytest
from optuna.trial import TrialState, create_trial

from raysk.search.budget import Budget
from raysk.search.trial_records import TrialRecord
from raysk.spaces.space import Point, load_space

SUPCON_STARTS = ["paper, 10 epochs", "from_scratch"]


def trial_of(step, state=TrialState.COMPLETE):
    """Returns an ended trial of what a budget decided."""
    name, family = (step.name, step.family) if isinstance(step, Point) else ("a draw", step.name)
    record = TrialRecord(point=name, family=family)
    value = 0.5 if state is TrialState.COMPLETE else None
    return create_trial(state=state, value=value, user_attrs=record.attributes)


def spend(budget, at_most=100, **of_next):
    """Returns the names of what a budget tries, one after another; a draw as the name of its family and a star."""
    trials, names = [], []
    while len(trials) < at_most and (step := budget.next(trials, **of_next)) is not None:
        trials.append(trial_of(step))
        names.append(step.name if isinstance(step, Point) else f"{step.name}*")
    return names


def controls(space):
    return [point.name for point in space.control_points()]


def test_by_default_a_space_has_its_starts_one_control_and_three_draws():
    assert spend(Budget(load_space("supcon"))) == [*SUPCON_STARTS, "cross_entropy", *["supcon*"] * 3]


@pytest.mark.parametrize("name", ["focal", "longtail", "mislas"])
def test_every_space_draws_three_recipes_by_default(name):
    space = load_space(name)
    names = spend(Budget(space))
    assert names == [*(point.name for point in space.starts()), "cross_entropy", *[f"{name}*"] * 3]


@pytest.mark.parametrize("number", [1, 2, 3, 9, 10, 30, 60])
def test_the_controls_have_at_most_a_quarter_of_what_follows_the_starts(number):
    space = load_space("supcon")
    names, every = spend(Budget(space, number)), controls(space)
    assert len(names) == number
    assert names[:2] == SUPCON_STARTS[:number]
    later = names[2:]
    for place in range(1, len(later) + 1):
        tried = [name for name in later[:place] if name in every]
        assert tried == every[: max(1, place // 4)], "the controls in their order, the first before any draw"


def test_all_controls_come_before_the_draws_if_asked_for():
    space = load_space("supcon", ["controls=all"])
    every = [*SUPCON_STARTS, *controls(space)]
    assert spend(Budget(space)) == [*every, *["supcon*"] * 3]
    assert spend(Budget(space, 5)) == every[:5]


def test_with_a_time_budget_alone_only_the_time_ends_the_study():
    budget = Budget(load_space("metric"), seconds=lambda trial: 1.0)
    assert budget.num_trials is None
    assert len(spend(budget, at_most=50)) == 50
    assert len(spend(Budget(load_space("metric"), 9, seconds=lambda trial: 1.0))) == 9


@pytest.mark.parametrize("cost", [0.5, 1.0, 4.0, 30.0])
def test_with_a_time_budget_the_controls_have_at_most_a_quarter_of_the_training_time(cost):
    """The first control runs whatever it costs; later ones wait until the draws have used three times as much."""
    space = load_space("supcon")
    every = set(controls(space))

    def seconds(trial):
        return cost if TrialRecord.of(trial).point in every else 1.0

    names = spend(Budget(space, seconds=seconds), at_most=80)[2:]
    costs = [cost if name in every else 1.0 for name in names]
    for place in range(2, len(names) + 1):
        of_controls = sum(c for name, c in zip(names[:place], costs, strict=False) if name in every)
        if names[place - 1] in every:
            assert of_controls <= sum(costs[:place]) / 4
    num_controls = sum(name in every for name in names)
    assert num_controls == {0.5: 7, 1.0: 7, 4.0: 6, 30.0: 1}[cost]


def test_with_a_time_budget_a_control_waits_until_the_cost_of_the_others_is_known():
    space = load_space("supcon")
    budget = Budget(space, seconds=lambda trial: 1.0)
    trials = [trial_of(point) for point in space.starts()]
    (family,) = space.families
    trials += [trial_of(space.control_points()[0], TrialState.RUNNING), *(trial_of(family) for _ in range(20))]
    assert budget.next(trials) is family
    trials[2] = trial_of(space.control_points()[0])
    assert budget.next(trials).name == controls(space)[1]


def test_the_controls_that_a_study_did_not_begin_are_named():
    space = load_space("metric")
    budget = Budget(space)
    assert budget.left_out([]) == ["cross_entropy", "balanced_softmax", "logit_adjustment"]
    assert budget.left_out([trial_of(space.control_points()[0])]) == ["balanced_softmax", "logit_adjustment"]


def test_a_space_without_a_search_runs_all_that_it_names():
    ablation = load_space("focal_ablation")
    assert spend(Budget(ablation)) == spend(Budget(ablation, 20)) == list(ablation.grid)
    assert spend(Budget(ablation, seconds=lambda trial: 1.0)) == list(ablation.grid)
    assert len(spend(Budget(ablation, 2))) == 2


def test_an_exhausted_family_leaves_its_place_to_the_controls():
    assert spend(Budget(load_space("metric"), 9), spent={"metric"}) == [
        "batch_hard", "centre_triplet", "cross_entropy", "balanced_softmax", "logit_adjustment",
    ]  # fmt: skip
    assert spend(Budget(load_space("metric"), 9), spent={"batch_hard"})[0] == "centre_triplet"


@pytest.mark.parametrize(("asked", "each"), [(None, 2), (16, 1), (17, 2), (27, 3), (75, 9), (3, 1)])
def test_the_families_of_a_tournament_get_equal_numbers(asked, each):
    space = load_space("tournament")
    budget = Budget(space, asked)
    trials = []
    while (step := budget.next(trials)) is not None:
        trials.append(trial_of(step))
    families = Counter(TrialRecord.of(trial).family for trial in trials)
    num_controls = families.pop("")
    assert families == dict.fromkeys((family.name for family in space.families), each)
    assert len(trials) == budget.num_trials == len(space.families) * each + num_controls
    assert asked is None or asked == 3 or len(trials) <= asked
    assert num_controls >= 1


def test_families_take_turns_so_that_a_study_that_the_clock_ends_has_equal_numbers():
    space = load_space("tournament")
    budget = Budget(space, seconds=lambda trial: 1.0)
    trials = []
    for _ in range(60):
        trials.append(trial_of(budget.next(trials)))
        begun = Counter(TrialRecord.of(trial).family for trial in trials)
        numbers = [begun[family.name] for family in space.families]
        assert max(numbers) - min(numbers) <= 1
