"""The tables that people read, in a style of their own."""

from string import Template

from raysk.evaluation.grids import Style, leaderboard_grids
from raysk.evaluation.leaderboard import Leaderboard, Row

STYLE = Style(str.upper, Template("<$x>"), Template(" $low..$high"), Template(" +- $sd"), "none")


def make_row(key: str, **scores: float) -> Row:
    return Row(
        key=key, name=key, kind="one-stage", scores=scores, chosen_on="", scored_on="", seconds=1, images=1, commit="",
        command="", settings="",
    )  # fmt: skip


def test_a_cell_has_its_value_its_interval_and_the_mark_of_the_best() -> None:
    first = make_row("a", test_macro_f1=0.61, test_macro_f1_low=0.5, test_macro_f1_high=0.71234, test_accuracy=0.5)
    second = make_row("b", test_macro_f1=0.60, test_accuracy=0.7)
    third = make_row("c", test_accuracy=0.70004, oof_macro_f1=0.2, oof_macro_f1_sd=0.01)
    summary, folds, means = leaderboard_grids(Leaderboard((first, second, third), ("x",)), STYLE)
    assert summary.headings == ["", "name", "kind", "macro-F1", "accuracy"]
    assert summary.cells == [
        ["1", "A", "one-stage", "<0.610> 0.500..0.712", "0.500"],
        ["2", "B", "one-stage", "0.600", "<0.700>"],
        ["3", "C", "one-stage", "none", "<0.700>"],
    ]
    assert "IN BRACKETS" in summary.note
    assert "AFTER ±" not in summary.note
    assert [line[2] for line in folds.cells] == ["none", "none", "<0.200> +- 0.010"]
    assert "AFTER ±" in folds.note
    assert [line[2] for line in means.cells] == ["<0.610>", "0.600", "none"]


def test_classes_stand_in_their_order_with_their_mean() -> None:
    found = {"test_macro_f1": 0.5, "test_f1_z": 0.25, "test_f1_a": 0.75, "test_recall_a": 1, "test_precision_z": 0.125}
    grids = leaderboard_grids(Leaderboard((make_row("r", **found),), ("z", "a")), STYLE)
    by_label = {grid.label: grid for grid in grids}
    assert list(by_label) == ["scores", "f1", "recall", "precision"]
    assert by_label["f1"].headings == ["", "name", "Z", "A", "mean"]
    assert by_label["f1"].cells == [["1", "R", "0.250", "0.750", "0.500"]]
    assert by_label["recall"].headings == ["", "name", "A"]
    assert by_label["f1"].note == ""


def test_without_test_scores_all_tables_are_out_of_fold() -> None:
    found = {"oof_macro_f1": 0.5, "oof_macro_f1_sd": 0.1, "oof_f1_a": 0.3}
    summary, classes = leaderboard_grids(Leaderboard((make_row("r", **found),), ("a",)), STYLE)
    assert summary.title == "Scores out of fold"
    assert summary.cells == [["1", "R", "one-stage", "0.500 +- 0.100"]]
    assert classes.title == "F1 of each class out of fold"
    assert classes.cells == [["1", "R", "0.300", "0.500"]]


def test_no_rows_give_no_tables() -> None:
    assert leaderboard_grids(Leaderboard((), ("a",)), STYLE) == []
