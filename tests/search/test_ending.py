"""The time that is kept free for the end of a study."""

import pytest

from raysk.records import JobRecord, StageRecord
from raysk.search import ending
from raysk.search.ending import Needed, TimeOfEnd


class Standings:
    """Trials that are complete."""

    def __init__(self, trials):
        self.trials = trials

    def complete(self):
        return self.trials


def end_of(search, trials=None, num_lanes=1, repeats=0, **rehearsal):
    end = TimeOfEnd(search.run, Standings(search.complete if trials is None else trials), repeats)
    end._rehearsal = tuple(rehearsal.values()) or None
    return end.needed(num_lanes)


def test_nothing_is_needed_without_a_complete_recipe(finished_search):
    assert end_of(finished_search, trials=[]) == Needed(0.0, 0.0)


def test_the_test_part_takes_what_the_held_out_rows_took_for_each(finished_search):
    """Each fold model took no second beside its training for its held-out rows: 4 - 2 - 2."""
    free = end_of(finished_search, of_choice=0.0, of_row=0.0)
    assert free.end == ending._LEAVING_S
    run, key = finished_search.run, finished_search.recipes["cross_entropy"].key
    (path,) = run.folder.glob(f"jobs/{key}-fold1-held_out.json")
    before = path.read_bytes()
    record = JobRecord.read(path)
    stage = StageRecord(seconds=0.5, images=1)
    JobRecord(**{**vars(record), "stage_one": stage, "stage_two": stage}).write(path)
    try:
        for num_lanes in (1, 2):
            slower = end_of(finished_search, num_lanes=num_lanes, of_choice=0.0, of_row=0.0)
            rows = len(run.folds.test_rows) / len(run.folds.held_out_rows(1))
            assert slower.end - free.end == pytest.approx(ending._CAUTION * 3 * rows / num_lanes)
    finally:
        path.write_bytes(before)


def test_a_finalist_takes_the_training_time_of_the_longest_recipe_for_each_other_seed(finished_search):
    """Each recipe took four seconds for each of its three folds."""
    free, more = (
        end_of(finished_search, repeats=repeats, num_lanes=2, of_choice=0.0, of_row=0.0).end for repeats in (0, 6)
    )
    assert more - free == pytest.approx(ending._CAUTION * 6 * 3 * 4.0 / 2)


def test_each_candidate_and_each_row_take_their_time(finished_search):
    free = end_of(finished_search, of_choice=0.0, of_row=0.0).end
    # Candidates: one control, three kept, two kept of which one is the trial's own, two of focal. Rows: a control,
    # the best of each search, two of focal, and two ensembles.
    assert end_of(finished_search, of_choice=1.0, of_row=0.0).end - free == pytest.approx(ending._CAUTION * 9)
    assert end_of(finished_search, of_choice=0.0, of_row=1.0).end - free == pytest.approx(ending._CAUTION * 8)


def test_what_is_not_told_is_rehearsed_once(finished_search):
    end = TimeOfEnd(finished_search.run, Standings(finished_search.complete))
    assert end.needed(1).end > ending._LEAVING_S
    rehearsed = end._rehearsal
    assert all(seconds > 0 for seconds in rehearsed)
    end._estimated_at = -1e9
    end.needed(1)
    assert end._rehearsal is rehearsed


def test_a_search_gets_the_time_of_the_longest_one(finished_search):
    needed = end_of(finished_search, of_choice=0.0, of_row=0.0)
    assert needed.search == 7.0
    assert needed.with_search == needed.end + 7.0
    assert needed.with_short_search == needed.end + 3.5
