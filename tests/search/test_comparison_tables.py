import copy
from dataclasses import replace
from itertools import combinations

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from raysk.evaluation.comparison import ChoiceScore
from raysk.recipe import Job
from raysk.scoring import read_held_out
from raysk.search.candidates import read_candidates
from raysk.search.comparison_tables import score_of_best, study_tables
from raysk.search.results import best_single, read_entries, result_rows, select_ensemble, study_facts
from raysk.search.trial_records import TrialRecord
from raysk.spaces.grids import GridPoint


@pytest.fixture(scope="module")
def ended(finished_search):
    """The candidates with a row, and all rows of the leaderboard."""
    run = finished_search.run
    candidates = read_candidates(run, finished_search.complete)
    ensemble, crossed = select_ensemble(run, [read_held_out(run, candidate.recipe.key) for candidate in candidates])
    entries = read_entries(run, candidates)
    return entries, result_rows(run, entries, ensemble, crossed)


@pytest.fixture(scope="module")
def tables(finished_search, ended):
    all_tables = study_tables(finished_search.run, finished_search.space, finished_search.trials, *ended)
    return {table.label: table for table in all_tables}


def test_every_row_has_its_scores_its_cost_and_its_command(finished_search, ended):
    rows = {row.name: row for row in ended[1]}
    assert len(rows) == 6 + 2
    best, alone = rows["decouple: crt + stage two 1"], rows["decouple: crt"]
    # Three folds of two stages, and what the search took.
    assert (best.seconds, alone.seconds) == (3 * 4.0 + 7.0, 3 * 4.0)
    assert best.images == 600
    # The settings of a row are the stage two that the search found, and what the trial itself drew.
    assert best.settings.startswith("seed=1, stage_two.")
    assert f"stage_two.epochs={finished_search.run.recipe(best.key).stage_two.epochs}, " in best.settings
    search = finished_search.run.search("search of decouple: crt")
    assert best.scores["oof_macro_f1"] == pytest.approx(search.score)
    assert best.scores["oof_macro_f1_crossfit"] == search.crossfit
    assert "oof_macro_f1_crossfit" not in alone.scores
    assert best.command.startswith(f"raysk recipe {finished_search.run.folder} {best.key} > ")


def test_an_average_was_chosen_on_what_chose_its_members(finished_search, ended):
    entries, rows = ended
    by_name = {row.name: row.chosen_on for row in rows}
    assert by_name["ensemble: greedy"] == "held-out folds"
    assert by_name["ensemble: plain average"] in {entry.candidate.chosen_on for entry in entries} - {"nothing"}


def test_the_facts_name_rare_classes_and_count_the_openings_of_the_test_part(finished_search, ended):
    run, rows = finished_search.run, ended[1]
    best = best_single(run, rows)
    facts, again = (
        study_facts(run, rows, best, ChoiceScore(0.5, num_openings > 1), num_openings) for num_openings in (1, 3)
    )
    assert facts["test part"].startswith("opened once")
    assert again["test part"].startswith("opened 3 times")
    assert facts.keys() == again.keys() - {"how that choice is scored"}
    test = run.folds.test_rows
    for label, name in enumerate(run.manifest.class_names):
        num_groups = len(set(run.manifest.groups[test][run.manifest.labels[test] == label]))
        assert (f"{name} ({num_groups})" in facts.get("few groups in the test part", "")) == (num_groups < 15)


def test_the_budget_table_counts_every_trial_including_stopped_ones(finished_search, tables):
    table = tables["expected-best"]
    assert table.headings == ("family", "recipes", "k = 1", "k = 2")
    lines = {line[0]: line[1:] for line in table.cells}
    trials = {trial.user_attrs["point"]: trial for trial in finished_search.trials}
    stopped = trials["focal: trial 6"].intermediate_values[1]
    focal = [trials["focal: paper"].value, trials["focal: trial 5"].value, stopped]
    crossfits = [finished_search.run.search(f"search of decouple: {name}").crossfit for name in ("crt", "trial 3")]
    for family, scores in (("focal", focal), ("decouple", crossfits)):
        pairs = [max(pair) for pair in combinations(scores, 2)]
        assert lines[family] == (str(len(scores)), pytest.approx(np.mean(scores)), pytest.approx(np.mean(pairs)))


def test_a_trial_that_a_later_driver_repeats_counts_once(finished_search, ended, tables):
    repeated = optuna.trial.create_trial(
        state=TrialState.FAIL,
        user_attrs=TrialRecord(point="focal: paper", family="focal", kind="start").attributes,
        intermediate_values={1: 0.9},
    )
    again = study_tables(finished_search.run, finished_search.space, [*finished_search.trials, repeated], *ended)
    assert {table.label: table for table in again}["expected-best"] == tables["expected-best"]


def test_a_proposal_that_two_trials_completed_counts_once(finished_search, ended, tables):
    """A driver can die after it queued a repetition and before it gave up the trial: both then end."""
    first = next(trial for trial in finished_search.trials if trial.user_attrs["point"] == "focal: paper")
    twin = copy.deepcopy(first)
    twin.number, twin.user_attrs["origin"] = len(finished_search.trials), first.number
    again = study_tables(finished_search.run, finished_search.space, [*finished_search.trials, twin], *ended)
    assert {table.label: table for table in again}["expected-best"] == tables["expected-best"]


@pytest.mark.parametrize("folds", [{}, {1: 0.9}])
def test_a_recipe_that_failed_counts_with_the_worst_score(finished_search, ended, tables, folds):
    failed = optuna.trial.create_trial(
        state=TrialState.FAIL,
        user_attrs=TrialRecord(point="focal: trial 9", family="focal", kind="drawn", reason="no number").attributes,
        intermediate_values=folds,
    )
    failed.number = len(finished_search.trials)
    again = study_tables(finished_search.run, finished_search.space, [*finished_search.trials, failed], *ended)
    before, after = (
        {line[0]: line for line in {table.label: table for table in some}["expected-best"].cells}
        for some in (tables.values(), again)
    )
    assert after["decouple"] == before["decouple"]
    assert (before["focal"][1], after["focal"][1]) == ("3", "4")
    assert after["focal"][2] == pytest.approx(before["focal"][2] * 3 / 4)


def test_the_winners_of_the_families_are_compared_with_each_other_and_the_first_control(ended, tables):
    rows = {row.name: row for row in ended[1]}
    winners = {
        "decouple": "decouple: crt + stage two 1",
        "focal": max(("focal: paper", "focal: trial 5"), key=lambda name: rows[name].scores["oof_macro_f1"]),
        "control cross_entropy": "cross_entropy",
    }
    table = tables["significance"]
    assert {frozenset(line[:2]) for line in table.cells} == {frozenset(pair) for pair in combinations(winners, 2)}
    for first, second, difference, low, high, *_ in table.cells:
        scores = [rows[winners[name]].scores["test_macro_f1"] for name in (first, second)]
        assert difference == pytest.approx(scores[0] - scores[1])
        assert low <= high


def test_the_cross_fitted_score_decides_the_winner_of_a_family(finished_search, ended):
    """Of two rows of a family, the better cross-fitted score wins, not the luckier best."""
    entries, rows = ended
    lucky = "decouple: crt + stage two 1"
    entries = [
        replace(entry, candidate=replace(entry.candidate, crossfit=0.0)) if entry.candidate.name == lucky else entry
        for entry in entries
    ]
    rows = [
        replace(row, scores=row.scores | {"oof_macro_f1_crossfit": 0.0}) if row.name == lucky else row for row in rows
    ]
    tables = study_tables(finished_search.run, finished_search.space, finished_search.trials, entries, rows)
    (table,) = [table for table in tables if table.label == "significance"]
    scores = {row.name: row.scores for row in rows}
    worth = {
        name: scores[name].get("oof_macro_f1_crossfit", scores[name]["oof_macro_f1"])
        for name in ("decouple: crt", "decouple: trial 3 + stage two 1")
    }
    winner, control = scores[max(worth, key=worth.get)], scores["cross_entropy"]
    (line,) = [line for line in table.cells if {*line[:2]} == {"decouple", "control cross_entropy"}]
    assert abs(line[2]) == pytest.approx(abs(winner["test_macro_f1"] - control["test_macro_f1"]))


def test_a_single_family_has_no_comparison_tables(finished_search, ended):
    alone = replace(finished_search.space, families=finished_search.space.families[:1])
    assert study_tables(finished_search.run, alone, finished_search.trials, *ended) == []


def test_a_grid_is_a_table_in_order_with_gaps_for_failed_rows(finished_search, ended):
    names = ("focal: trial 5", "no such row", "focal: paper")
    space = replace(finished_search.space, families=(), grid={name: GridPoint(name, "", ()) for name in names})
    (table,) = study_tables(finished_search.run, space, finished_search.trials, *ended)
    assert (table.label, tuple(line[0] for line in table.cells)) == ("ablation", names)
    assert set(table.cells[1][1:]) == {None}
    rows = {row.name: row for row in ended[1]}
    assert table.cells[2][-1] == f"{100 * rows['focal: paper'].scores['test_macro_f1']:.1f}"


def test_a_grid_with_choices_has_a_table_of_methods_by_choices_first(finished_search, ended):
    names = {"focal: paper": GridPoint("focal", "seed 0", ()), "focal: trial 5": GridPoint("focal", "seed 1", ())}
    space = replace(finished_search.space, families=(), grid=names)
    table, ablation = study_tables(finished_search.run, space, finished_search.trials, *ended)
    assert (table.label, table.headings, ablation.label) == ("choices", ("", "seed 0", "seed 1"), "ablation")
    scores = [{row.name: row for row in ended[1]}[name].scores["test_macro_f1"] for name in names]
    assert [cell.partition(" ")[0] for cell in table.cells[0][1:]] == [f"{score:.3f}" for score in scores]


def choice_by_hand(search, fold):
    """Returns the score on a fold of the best on the other folds, of all recipes and settings with all folds."""
    scores = []
    for trial in search.complete:
        recipe = search.run.recipe(trial.user_attrs["recipe"])
        scores.append([search.run.record(Job(recipe, number)).score for number in range(3)])
        if "search" in trial.user_attrs:
            scores += [setting.scores for setting in search.run.search(trial.user_attrs["search"]).tried]
    others = [np.mean([score for place, score in enumerate(of_folds) if place != fold]) for of_folds in scores]
    return scores[int(np.argmax(others))][fold]


def test_without_a_race_the_choice_of_the_best_is_scored_on_folds_that_did_not_choose(finished_search):
    expected = np.mean([choice_by_hand(finished_search, fold) for fold in range(3)])
    assert score_of_best(finished_search.run, finished_search.complete) == (pytest.approx(expected), False)


def test_after_a_race_the_last_fold_alone_scores_the_choice(finished_search):
    expected = choice_by_hand(finished_search, 2)
    assert score_of_best(finished_search.run, finished_search.trials) == (pytest.approx(expected), True)


@pytest.fixture(scope="module")
def by_loss(finished_by_loss):
    """The rows of a search by the log loss with a requirement, and its tables."""
    run, trials = finished_by_loss.run, finished_by_loss.complete
    candidates = read_candidates(run, trials)
    ensemble, crossed = select_ensemble(run, [read_held_out(run, candidate.recipe.key) for candidate in candidates])
    entries = read_entries(run, candidates)
    rows = result_rows(run, entries, ensemble, crossed)
    all_tables = study_tables(run, finished_by_loss.space, finished_by_loss.trials, entries, rows)
    return {row.name: row for row in rows}, {table.label: table for table in all_tables}


def test_by_a_loss_the_smallest_is_the_best(finished_by_loss, by_loss):
    rows, tables = by_loss
    lines = {line[0]: line[2:] for line in tables["expected-best"].cells}
    for line in lines.values():
        assert line[0] > line[1] > 0, "the expected best of two losses is the smaller one"
    crossfits = [finished_by_loss.run.search(f"search of decouple: {name}").crossfit for name in ("crt", "trial 3")]
    assert lines["decouple"] == pytest.approx((np.mean(crossfits), min(crossfits)))
    (title,) = {table.title for label, table in tables.items() if label == "significance"}
    assert title == "Differences in log loss on the test part"
    first, second, difference = tables["significance"].cells[0][:3]
    named = {
        "decouple": "decouple: crt + stage two 1",
        "focal": "focal: paper",
        "control cross_entropy": "cross_entropy",
    }
    expected = [rows[named[name]].scores["test_log_loss"] for name in (first, second)]
    assert difference == pytest.approx(expected[0] - expected[1])


def test_rows_that_meet_the_requirement_come_before_a_better_score(finished_by_loss, by_loss):
    rows, _ = by_loss
    run = finished_by_loss.run
    assert best_single(run, list(rows.values())).name == "decouple: crt + stage two 1"
    for row in rows.values():
        (check,) = row.requirements
        assert check.requirement == "accuracy>=0.66"
        assert check.is_met == (check.bound >= 0.66)
        assert check.bound <= check.score
        assert row.operating_points == ()
    assert rows["decouple: crt + stage two 1"].requirements[0].score > 0.9
    losses = run.search("search of decouple: crt")
    chosen = score_of_best(run, finished_by_loss.complete).score
    tried = {setting.recipe: setting.scores for setting in losses.tried}
    assert chosen == pytest.approx(np.mean(tried[losses.kept[0]])), "every fold chooses the setting that meets it"
