"""The tables that people read, in a style for tests."""

from dataclasses import replace
from string import Template

import pytest

from raysk.evaluation.comparison_tables import ComparisonTable
from raysk.evaluation.grids import Style, leaderboard_grids, with_cost
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.operating_points import OperatingPoint
from raysk.evaluation.requirement_checks import RequirementCheck

STYLE = Style(str.upper, Template("<$x>"), Template(" $low..$high"), Template(" +- $sd"), "none")


def make_row(key: str, **scores: float) -> Row:
    return Row(
        key=key, name=key, kind="one-stage", scores=scores, chosen_on="", scored_on="", seconds=1, images=1, commit="",
        command="", settings="",
    )  # fmt: skip


def test_the_best_score_out_of_fold_is_marked_and_no_score_on_the_test_part() -> None:
    first = make_row("a", oof_macro_f1=0.61, test_macro_f1=0.3, test_macro_f1_low=0.2, test_macro_f1_high=0.41234)
    second = make_row("b", oof_macro_f1=0.60, oof_macro_f1_sd=0.01, test_macro_f1=0.9, test_accuracy=0.7)
    third = make_row("c", oof_macro_f1=0.2)
    board = Leaderboard((first, second, third), ("x",), chosen="b")
    summary, folds, means = leaderboard_grids(board, STYLE)
    assert summary.headings == ["", "name", "kind", "MACRO-F1 out of fold", "MACRO-F1", "ACCURACY"]
    assert summary.cells == [
        ["1", "A", "one-stage", "<0.610>", "0.300 0.200..0.412", "none"],
        ["2", "<B>", "one-stage", "0.600 +- 0.010", "0.900", "0.700"],
        ["3", "C", "one-stage", "0.200", "none", "none"],
    ]
    assert "IN BRACKETS" in summary.note
    assert "BOLD NAME" in summary.note
    assert [line[1:3] for line in folds.cells] == [["A", "<0.610>"], ["<B>", "0.600 +- 0.010"], ["C", "0.200"]]
    assert "AFTER ±" in folds.note
    assert "IN BRACKETS" not in folds.note
    assert [line[2] for line in means.cells] == ["0.300 0.200..0.412", "0.900", "none"]
    assert "BOLD SCORE" not in means.note


def test_what_is_known_of_initial_weights_stands_in_every_row_that_has_it() -> None:
    plain = make_row("a", oof_macro_f1=0.6, test_macro_f1=0.3)
    begun = replace(make_row("b", oof_macro_f1=0.5, test_macro_f1=0.4), encoder="has seen 3 of 9 scored rows")
    summary = leaderboard_grids(Leaderboard((plain, begun), ("x",)), STYLE)[0]
    assert summary.headings[:4] == ["", "name", "kind", "encoder"]
    assert [line[3] for line in summary.cells] == ["", "HAS SEEN 3 OF 9 SCORED ROWS"]
    assert summary.num_text == 4


def test_scores_that_look_the_same_are_marked_the_same() -> None:
    rows = (make_row("a", oof_macro_f1=0.70004), make_row("b", oof_macro_f1=0.7))
    assert [line[3] for line in leaderboard_grids(Leaderboard(rows, ()), STYLE)[0].cells] == ["<0.700>"] * 2


def test_classes_keep_their_order_and_have_their_mean() -> None:
    scores = {"test_macro_f1": 0.5, "test_f1_z": 0.25, "test_f1_a": 0.75, "test_recall_a": 1, "test_precision_z": 0.125}
    grids = leaderboard_grids(Leaderboard((make_row("r", **scores),), ("z", "a")), STYLE)
    by_label = {grid.label: grid for grid in grids}
    assert list(by_label) == ["scores", "f1", "recall", "precision"]
    assert by_label["f1"].headings == ["", "name", "Z", "A", "mean"]
    assert by_label["f1"].cells == [["1", "R", "0.250", "0.750", "0.500"]]
    assert by_label["recall"].headings == ["", "name", "A"]
    assert by_label["f1"].note == ""


def test_without_test_scores_all_tables_are_out_of_fold() -> None:
    scores = {"oof_macro_f1": 0.5, "oof_macro_f1_sd": 0.1, "oof_f1_a": 0.3}
    summary, classes = leaderboard_grids(Leaderboard((make_row("r", **scores),), ("a",)), STYLE)
    assert summary.title == "Scores out of fold"
    assert summary.cells == [["1", "R", "one-stage", "0.500 +- 0.100"]]
    assert classes.title == "F1 of each class out of fold"
    assert classes.cells == [["1", "R", "0.300", "0.500"]]


def test_no_column_holds_chosen_and_cross_fitted_scores() -> None:
    chosen = make_row("a", oof_macro_f1=0.61, oof_macro_f1_sd=0.1, oof_macro_f1_crossfit=0.55, oof_accuracy=0.9)
    plain = make_row("b", oof_macro_f1=0.6, oof_accuracy=0.5)
    summary = leaderboard_grids(Leaderboard((chosen, plain), ()), STYLE)[0]
    assert summary.headings == ["", "name", "kind", "MACRO-F1", "MACRO-F1, as chosen", "ACCURACY"]
    assert [line[1:2] + line[3:] for line in summary.cells] == [
        ["B", "<0.600>", "none", "<0.500>"],
        ["A", "0.550", "0.610", "none"],
    ]
    assert "CROSS-FITTED SCORE: EACH FOLD" in summary.note
    assert "TOO HIGH" in summary.note
    tested = replace(plain, scores=plain.scores | {"test_macro_f1": 0.4})
    summary, folds = leaderboard_grids(Leaderboard((chosen, tested), ()), STYLE)[:2]
    assert [line[3] for line in summary.cells] == ["<0.600>", "0.550"]
    assert "CROSS-FITTED SCORE" in summary.note
    assert "AS CHOSEN" not in summary.note
    assert folds.headings[2:4] == ["MACRO-F1", "MACRO-F1, as chosen"]
    assert "AS CHOSEN" in folds.note


def test_further_tables_follow_in_order_and_in_the_style() -> None:
    cells = (("full", 0.12345, "90.0"), ("less", -0.0321, None), ("same", -0.0001, "8"))
    table = ComparisonTable("What if", "what", ("", "change", "percent"), 1, cells, "read it so")
    board = Leaderboard((make_row("r", oof_macro_f1=0.5),), (), {}, (table, replace(table, label="more")))
    grids = leaderboard_grids(board, STYLE)
    assert [grid.label for grid in grids] == ["scores", "f1", "what", "more"]
    assert (grids[2].title, grids[2].note, grids[2].num_text) == ("WHAT IF", "READ IT SO", 1)
    assert grids[2].headings == ["", "CHANGE", "PERCENT"]
    assert grids[2].cells == [["FULL", "0.123", "90.0"], ["LESS", "−0.032", "none"], ["SAME", "0.000", "8"]]


def test_the_cost_follows_the_scores() -> None:
    row = replace(make_row("r", test_macro_f1=0.5, oof_macro_f1=0.4), seconds=3700, images=12_345)
    board = Leaderboard((row,), ())
    grid = with_cost(leaderboard_grids(board, STYLE)[0], board, STYLE)
    assert grid.headings[3:] == ["MACRO-F1 out of fold", "MACRO-F1", "time", "images"]
    assert grid.cells[0][3:] == ["0.400", "0.500", "1.0\u00a0h", "12,345"]
    assert grid.note.startswith("TIME: ")


def test_the_spread_of_the_score_out_of_fold_beside_the_test_score_is_explained() -> None:
    board = Leaderboard((make_row("r", test_macro_f1=0.5, oof_macro_f1=0.4, oof_macro_f1_sd=0.1),), ())
    grid = with_cost(leaderboard_grids(board, STYLE)[0], board, STYLE)
    assert grid.cells[0][3] == "0.400 +- 0.100"
    assert grid.note.startswith("AFTER ±: STANDARD DEVIATION OVER THE FOLDS. TIME: ")


@pytest.mark.parametrize(("metric", "values", "best"), [
    ("log_loss", (10.25, 9.5), "<9.500>"), ("kappa", (-0.25, -0.5), "<−0.250>"), ("auc@x", (0.25, 0.5), "<0.500>"),
])  # fmt: skip
def test_the_metric_of_the_board_comes_first_and_its_best_is_marked(
    metric: str, values: tuple[float, float], best: str
) -> None:
    rows = tuple(make_row(f"r{value}", **{f"oof_{metric}": value, "oof_macro_f1": value}) for value in values)
    scores = leaderboard_grids(Leaderboard(rows, ("x",), metric=metric), STYLE)[0]
    assert scores.headings[3:] == [parse_metric(metric, ("x",)).title.upper(), "MACRO-F1"]
    assert scores.cells[0][3] == best
    assert "<" not in scores.cells[1][3]


def test_requirements_are_columns_of_the_main_table_and_operating_points_a_table() -> None:
    check = RequirementCheck(requirement="sensitivity@x>=0.9", score=0.95, bound=0.88, is_met=False)
    point = OperatingPoint(class_name="x", requirements=(check.requirement,), threshold=0.25, sensitivity=0.91)
    rows = (
        replace(make_row("a", oof_macro_f1=0.5), requirements=(check,), operating_points=(point,)),
        replace(
            make_row("b", oof_macro_f1=0.4),
            requirements=(replace(check, bound=0.9, is_met=True),),
            operating_points=(replace(point, threshold=None, sensitivity=None),),
        ),
    )
    scores, *_, operating = leaderboard_grids(Leaderboard(rows, ("x",)), STYLE)
    assert scores.headings[3:] == ["MACRO-F1", "SENSITIVITY@X>=0.9"]
    assert [line[4] for line in scores.cells] == ["0.950 (0.880) NOT MET", "0.950 (0.900) MET"]
    assert "CONFIDENCE BOUND" in scores.note
    assert operating.label == "operating"
    assert operating.headings == ["", "name", "X: THRESHOLD", "X: SENSITIVITY", "X: SPECIFICITY"]
    assert operating.cells == [["1", "A", "0.250", "0.910", "none"], ["2", "B", "none", "none", "none"]]
    assert "CROSS-FITTED" in operating.note


def test_no_rows_give_no_tables() -> None:
    assert leaderboard_grids(Leaderboard((), ("a",)), STYLE) == []
