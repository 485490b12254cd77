"""What rows were chosen on, and how often a study has looked at its test part."""

import pytest

from raysk.artifacts import read_json, write_json
from raysk.errors import ArtifactError
from raysk.run import Run
from raysk.scoring import HELD_OUT, NOTHING, count_opening, strictest


def test_an_average_was_chosen_on_nothing_only_if_all_its_members_were() -> None:
    assert strictest([NOTHING, NOTHING]) == NOTHING
    assert strictest([NOTHING, f"{HELD_OUT}, best of 4", HELD_OUT]) == f"{HELD_OUT}, best of 4"


def test_openings_of_the_test_part_count_and_the_same_recipes_again_do_not(run: Run) -> None:
    assert count_opening(run, ["b", "a"]) == 1
    assert count_opening(run, ["a", "b"]) == 1, "as after a crash while the test part is scored"
    assert count_opening(run, ["a", "b", "c"]) == 2
    assert read_json(run.folder / "test_openings.json") == [["a", "b"], ["a", "b", "c"]]


def test_a_run_that_did_not_count_has_opened_the_test_part_if_it_has_a_leaderboard(run: Run) -> None:
    write_json(run.folder / "leaderboard.json", {})
    assert count_opening(run, ["a"]) == 2


def test_a_file_of_something_else_is_refused(run: Run) -> None:
    write_json(run.folder / "test_openings.json", {"a": 1})
    with pytest.raises(ArtifactError, match="must be a list of openings, but got"):
        count_opening(run, ["a"])
