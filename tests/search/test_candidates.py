import itertools
from dataclasses import replace

import pytest

from raysk.search.candidates import read_candidates
from raysk.search.results import command


def by_name(finished_search):
    return {one.name: one for one in read_candidates(finished_search.run, finished_search.complete)}


def test_a_trial_offers_its_recipe_and_what_its_search_has_kept(finished_search):
    found, recipes = by_name(finished_search), finished_search.recipes
    assert set(found) == {
        "cross_entropy", "focal: paper", "focal: trial 5", "decouple: crt", "decouple: crt + stage two 1",
        "decouple: crt + stage two 2", "decouple: crt + stage two 3", "decouple: trial 3 + stage two 1",
        "decouple: trial 3 + stage two 2",
    }  # fmt: skip
    assert found["decouple: crt"].recipe == recipes["decouple: crt"]
    assert found["decouple: crt + stage two 2"].recipe == recipes["decouple: crt, kept 2"]
    assert {one.family for one in found.values()} == {"", "decouple", "focal"}
    assert found["cross_entropy"].overrides == ("seed=0",)


def test_each_recipe_is_there_once(finished_search):
    keys = [one.recipe.key for one in read_candidates(finished_search.run, finished_search.complete)]
    assert len(keys) == len(set(keys))


def test_of_a_search_only_the_best_has_a_row_and_the_trial_where_it_was_named(finished_search):
    rows = {name for name, one in by_name(finished_search).items() if one.has_row}
    assert rows == {
        "cross_entropy", "focal: paper", "focal: trial 5", "decouple: crt", "decouple: crt + stage two 1",
        "decouple: trial 3 + stage two 1",
    }  # fmt: skip


def test_a_drawn_trial_that_its_search_found_no_better_than_has_its_row_all_the_same(finished_search):
    found = by_name(finished_search)["decouple: trial 3 + stage two 1"]
    assert found.recipe == finished_search.recipes["decouple: trial 3"]
    assert found.crossfit is not None


def test_what_chose_a_recipe_is_told(finished_search):
    chosen = {name: one.chosen_on for name, one in by_name(finished_search).items()}
    assert chosen["cross_entropy"] == chosen["focal: paper"] == chosen["decouple: crt"] == "nothing"
    assert chosen["focal: trial 5"] == "held-out folds"
    assert chosen["decouple: crt + stage two 1"] == "held-out folds, best of 3 stage-two settings"


def test_the_best_of_a_search_alone_has_the_score_of_the_choice(finished_search):
    found = by_name(finished_search)
    search = finished_search.run.search("search of decouple: crt")
    assert found["decouple: crt + stage two 1"].crossfit == search.crossfit
    scores = {name: one.crossfit for name, one in found.items() if one.crossfit is not None}
    assert set(scores) == {"decouple: crt + stage two 1", "decouple: trial 3 + stage two 1"}
    assert (found["decouple: crt"].seconds, found["decouple: crt + stage two 1"].seconds) == (0.0, 7.0)


def test_the_command_of_a_row_prints_and_trains_its_recipe(finished_search):
    one, run = by_name(finished_search)["focal: paper"], finished_search.run
    assert command(run, one) == (f"raysk recipe {run.folder} {one.recipe.key} > recipe.yaml && raysk train recipe.yaml")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_searches_that_come_to_one_recipe_take_no_row_from_the_paper_or_from_a_best(
    finished_search, order, tmp_path, monkeypatch
):
    """One search keeps, as second and third, a recipe of the paper's and the best of another search."""
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
    found = {one.recipe.key: one for one in read_candidates(run, trials)}
    assert [(found[key].name, found[key].has_row) for key in shared] == [
        ("focal: paper", True), ("decouple: crt + stage two 1", True),
    ]  # fmt: skip
    assert found[shared[0]].chosen_on == "nothing"
