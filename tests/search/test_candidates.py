import itertools
from dataclasses import replace

import pytest

from raysk.search.candidates import read_candidates
from raysk.search.results import command


def by_name(finished_search):
    return {candidate.name: candidate for candidate in read_candidates(finished_search.run, finished_search.complete)}


def test_a_trial_gives_its_recipe_and_the_recipes_that_its_search_kept(finished_search):
    candidates, recipes = by_name(finished_search), finished_search.recipes
    assert set(candidates) == {
        "cross_entropy", "focal: paper", "focal: trial 5", "decouple: crt", "decouple: crt + stage two 1",
        "decouple: crt + stage two 2", "decouple: crt + stage two 3", "decouple: trial 3 + stage two 1",
        "decouple: trial 3 + stage two 2",
    }  # fmt: skip
    assert candidates["decouple: crt"].recipe == recipes["decouple: crt"]
    assert candidates["decouple: crt + stage two 2"].recipe == recipes["decouple: crt, kept 2"]
    assert {candidate.family for candidate in candidates.values()} == {"", "decouple", "focal"}
    assert candidates["cross_entropy"].overrides == ("seed=0",)


def test_each_recipe_occurs_once(finished_search):
    keys = [candidate.recipe.key for candidate in read_candidates(finished_search.run, finished_search.complete)]
    assert len(keys) == len(set(keys))


def test_only_the_best_of_a_search_and_named_trials_have_rows(finished_search):
    rows = {name for name, candidate in by_name(finished_search).items() if candidate.has_row}
    assert rows == {
        "cross_entropy", "focal: paper", "focal: trial 5", "decouple: crt", "decouple: crt + stage two 1",
        "decouple: trial 3 + stage two 1",
    }  # fmt: skip


def test_a_drawn_trial_that_is_the_best_of_its_search_has_the_row_of_that_best(finished_search):
    candidate = by_name(finished_search)["decouple: trial 3 + stage two 1"]
    assert candidate.recipe == finished_search.recipes["decouple: trial 3"]
    assert candidate.crossfit is not None


def test_candidates_name_the_rows_that_chose_them(finished_search):
    chosen = {name: candidate.chosen_on for name, candidate in by_name(finished_search).items()}
    assert chosen["cross_entropy"] == chosen["focal: paper"] == chosen["decouple: crt"] == "nothing"
    assert chosen["focal: trial 5"] == "held-out folds"
    assert chosen["decouple: crt + stage two 1"] == "held-out folds, best of 3 stage-two settings"


def test_only_the_best_of_a_search_has_a_cross_fitted_score(finished_search):
    candidates = by_name(finished_search)
    search = finished_search.run.search("search of decouple: crt")
    assert candidates["decouple: crt + stage two 1"].crossfit == search.crossfit
    scores = {name: candidate.crossfit for name, candidate in candidates.items() if candidate.crossfit is not None}
    assert set(scores) == {"decouple: crt + stage two 1", "decouple: trial 3 + stage two 1"}
    assert (candidates["decouple: crt"].seconds, candidates["decouple: crt + stage two 1"].seconds) == (0.0, 7.0)


def test_the_command_of_a_row_prints_and_trains_its_recipe(finished_search):
    candidate, run = by_name(finished_search)["focal: paper"], finished_search.run
    assert command(run, candidate) == (
        f"raysk recipe {run.folder} {candidate.recipe.key} > recipe.yaml && raysk train recipe.yaml"
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_recipe_that_two_trials_give_keeps_the_row_of_the_paper_or_of_the_best(
    finished_search, order, tmp_path, monkeypatch
):
    """One search keeps, as second and third, the paper's recipe and the best of another search."""
    run, recipes = finished_search.run, finished_search.recipes
    greedy = run.search("search of decouple: trial 3")
    shared = [recipes["focal: paper"].key, recipes["decouple: crt, kept 1"].key]
    replace(greedy, kept=(greedy.kept[0], *shared)).write(tmp_path / "greedy.json")
    usual = run.search_file
    monkeypatch.setattr(
        type(run), "search_file",
        lambda self, name: tmp_path / "greedy.json" if name == "search of decouple: trial 3" else usual(name),
    )  # fmt: skip
    names = ["decouple: trial 3", "focal: paper", "decouple: crt"]
    trials = [next(t for t in finished_search.trials if t.user_attrs["point"] == names[place]) for place in order]
    by_key = {candidate.recipe.key: candidate for candidate in read_candidates(run, trials)}
    assert [(by_key[key].name, by_key[key].has_row) for key in shared] == [
        ("focal: paper", True), ("decouple: crt + stage two 1", True),
    ]  # fmt: skip
    assert by_key[shared[0]].chosen_on == "nothing"
