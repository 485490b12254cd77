"""The place of a trial's jobs in the queue; test_study covers a trial with a broker."""

from raysk.search.trials import place_in_queue

LANES = 2


def in_order(*steps):
    """Returns the names of steps (name, number of the trial, step, is raced, scores) in the order of the queue."""
    return [name for name, *step in sorted(steps, key=lambda named_step: place_in_queue(*named_step[1:], lanes=LANES))]


def test_recipes_that_run_all_folds_come_first_the_oldest_first():
    steps = [("drawn", 0, 1, True, [0.9]), ("second", 2, 0, False, []), ("first, fold 3", 1, 2, False, [0.1, 0.1])]
    assert in_order(*steps) == ["first, fold 3", "second", "drawn"]


def test_of_recipes_with_a_score_the_best_comes_first_with_all_its_steps():
    steps = [("new", 0, 0, True, []), ("worse", 1, 1, True, [0.3]), ("better", 2, 2, True, [0.5, 0.3]),
             ("better, stage two", 2, 3, True, [0.5, 0.3])]  # fmt: skip
    assert in_order(*steps) == ["better", "better, stage two", "worse", "new"]


def test_as_many_recipes_begin_as_there_are_lanes_before_any_works_ahead():
    steps = [(f"{number}.{step}", number, step, True, []) for number in range(3) for step in range(2)]
    assert in_order(*steps) == ["0.0", "1.0", "0.1", "2.0", "1.1", "2.1"]
