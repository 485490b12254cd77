"""The leaderboard: its rows, their scores and their order."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysk.artifacts import write_json
from raysk.errors import ArtifactError
from raysk.evaluation.comparison_tables import ComparisonTable
from raysk.evaluation.leaderboard import Leaderboard, Row, find_row
from raysk.evaluation.operating_points import OperatingPoint
from raysk.evaluation.requirement_checks import RequirementCheck

NAMES = ("mel", "nv")
TABLE = ComparisonTable(
    "Ablation", "ablation", ("", "F1"), 1, (("full", 0.5), ("none", None), ("half", "50")), "In parts."
)


def make_row(key: str, **scores: float) -> Row:
    return Row(
        key=key, name=f"recipe {key}", kind="two-stage", scores=scores, chosen_on="out of fold", scored_on="test part",
        seconds=12.5, images=300, commit="abc", command="raysk tune", settings="lr=1",
    )  # fmt: skip


def test_rows_are_sorted_by_score_out_of_fold_then_test_score_then_key() -> None:
    rows = [
        make_row("no folds", test_macro_f1=0.99),
        make_row("e", test_macro_f1=0.7, oof_macro_f1=0.1),
        make_row("failed"),
        make_row("d", test_macro_f1=0.4, oof_macro_f1=0.4),
        make_row("c", test_macro_f1=0.4, oof_macro_f1=0.4),
        make_row("b", test_macro_f1=0.5, oof_macro_f1=0.4),
        make_row("a", test_macro_f1=0.1, oof_macro_f1=0.6),
    ]
    keys = [row.key for row in Leaderboard(tuple(rows), NAMES).rows]
    assert keys == ["a", "b", "c", "d", "e", "no folds", "failed"]


def test_rows_are_sorted_by_the_metric_of_the_board_and_its_columns_come_first() -> None:
    rows = [
        make_row("a", test_log_loss=0.9, oof_log_loss=0.4, test_macro_f1=0.9),
        make_row("b", test_log_loss=0.4, oof_log_loss=0.3, test_macro_f1=0.5),
        make_row("c", test_log_loss=0.4, oof_log_loss=0.2, test_macro_f1=0.6),
        make_row("d", test_log_loss=0.2),
    ]
    board = Leaderboard(tuple(rows), NAMES, metric="log_loss")
    assert [row.key for row in board.rows] == ["c", "b", "a", "d"]
    assert board.score_columns == ("test_log_loss", "oof_log_loss", "test_macro_f1")
    board = Leaderboard(tuple(rows[:1]), NAMES, metric="auc@mel")
    assert board.headline[:2] == ("auc@mel", "macro_f1")


def test_the_metric_and_the_chosen_row_survive_the_file(tmp_path: Path) -> None:
    board = Leaderboard((make_row("a"),), NAMES, metric="pauc@mel:0.8", chosen="a")
    write_json(tmp_path / "leaderboard.json", board.to_json())
    assert Leaderboard.read(tmp_path / "leaderboard.json") == board


CHECK = RequirementCheck(requirement="sensitivity@mel>=0.9", score=0.95, bound=0.88, is_met=False)
POINT = OperatingPoint(
    class_name="mel", requirements=("sensitivity@mel>=0.9",), threshold=0.25, sensitivity=0.91, specificity=0.7,
    test_sensitivity=0.85, test_specificity=0.75,
)  # fmt: skip


def test_requirements_and_operating_points_survive_the_file_and_are_columns(tmp_path: Path) -> None:
    unreachable = replace(POINT, threshold=None, sensitivity=None, specificity=None, test_sensitivity=None)
    rows = (
        replace(make_row("a", oof_macro_f1=0.5), requirements=(CHECK,), operating_points=(POINT,)),
        replace(make_row("b"), requirements=(replace(CHECK, is_met=True),), operating_points=(unreachable,)),
    )
    board = Leaderboard(rows, NAMES)
    write_json(tmp_path / "leaderboard.json", board.to_json())
    again = Leaderboard.read(tmp_path / "leaderboard.json")
    assert again == board
    assert again.rows[0].operating_points == (POINT,)
    table = board.to_table()
    assert table.column("oof_sensitivity@mel>=0.9").to_pylist() == [0.95, 0.95]
    assert table.column("oof_sensitivity@mel>=0.9_bound").to_pylist() == [0.88, 0.88]
    assert table.column("oof_sensitivity@mel>=0.9_met").to_pylist() == [False, True]
    assert table.column("operating_threshold_mel").to_pylist() == [0.25, None]
    assert table.column("operating_sensitivity_mel").to_pylist() == [0.91, None]
    assert table.column("operating_test_specificity_mel").to_pylist() == [0.75, 0.75]


def test_rows_with_different_requirements_are_refused() -> None:
    with pytest.raises(ArtifactError, match="must have the same requirements"):
        Leaderboard((make_row("a"), replace(make_row("b"), requirements=(CHECK,))), NAMES)


@pytest.mark.parametrize("change", [{"requirements": [{"score": 1}]}, {"operating_points": [{"theshold": 1}]}])
def test_a_row_with_a_broken_record_is_refused_in_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    content = Leaderboard((make_row("a"),), NAMES).to_json()
    content["rows"][0] |= change
    write_json(tmp_path / "leaderboard.json", content)
    with pytest.raises(ArtifactError, match=r"leaderboard\.json must be a (RequirementCheck|OperatingPoint)") as caught:
        Leaderboard.read(tmp_path / "leaderboard.json")
    assert "\n" not in str(caught.value)


def test_two_rows_with_one_key_are_refused() -> None:
    other = replace(make_row("a"), name="another")
    with pytest.raises(ArtifactError, match="a has two, 'recipe a' and 'another'"):
        Leaderboard((make_row("a"), make_row("b"), other), NAMES)


@pytest.mark.parametrize(
    "scores", [{"test_macro_f1": float("nan")}, {"test_macro_f1": float("inf")}, {"macro_f1": 0.5}]
)
def test_invalid_scores_are_refused(scores: dict[str, float]) -> None:
    with pytest.raises(ArtifactError, match="macro_f1="):
        make_row("a", **scores)


def test_an_unknown_kind_is_refused() -> None:
    kind: Any = "three-stage"
    with pytest.raises(ArtifactError, match="got 'three-stage'"):
        replace(make_row("a"), kind=kind)


def test_the_table_has_a_column_per_score_and_null_for_missing_scores() -> None:
    first = make_row("a", test_macro_f1=0.6, test_macro_f1_high=0.7, test_macro_f1_low=0.5, oof_f1_nv=0.1)
    second = make_row("b", oof_macro_f1=0.4, oof_macro_f1_sd=0.1, oof_accuracy=0.5)
    table = Leaderboard((second, first), NAMES).to_table()
    assert table.column_names == [
        "key", "name", "kind", "settings", "encoder",
        "test_macro_f1", "test_macro_f1_low", "test_macro_f1_high", "oof_macro_f1", "oof_macro_f1_sd",
        "oof_accuracy", "oof_f1_nv",
        "chosen_on", "scored_on", "seconds", "images", "commit", "command",
    ]  # fmt: skip
    assert table.column("key").to_pylist() == ["b", "a"]
    assert table.column("test_macro_f1").to_pylist() == [None, 0.6]
    assert table.column("oof_macro_f1").to_pylist() == [0.4, None]
    assert table.column("images").to_pylist() == [300, 300]


def test_the_cross_fitted_score_of_a_choice_decides_its_place_not_the_flattered_one() -> None:
    first = make_row("a", oof_macro_f1=0.6, oof_macro_f1_sd=0.1, oof_macro_f1_crossfit=0.2, oof_accuracy=0.5)
    board = Leaderboard((first, make_row("b", oof_macro_f1=0.5, oof_macro_f1_crossfit=0.5)), NAMES)
    assert [row.key for row in board.rows] == ["b", "a"]
    assert board.score_columns == ("oof_macro_f1", "oof_macro_f1_sd", "oof_macro_f1_crossfit", "oof_accuracy")


def test_in_tables_flattered_scores_stand_apart_from_honest_ones() -> None:
    chosen = make_row("a", oof_macro_f1=0.6, oof_macro_f1_sd=0.1, oof_macro_f1_crossfit=0.2, oof_accuracy=0.5,
                      test_accuracy=0.4)  # fmt: skip
    plain = make_row("b", oof_macro_f1=0.5, oof_macro_f1_sd=0.1, oof_accuracy=0.7)
    tables = Leaderboard((chosen, plain), NAMES).for_tables
    assert [row.key for row in tables.rows] == ["b", "a"]
    assert tables.rows[0] == plain
    assert tables.rows[1].scores == {"oof_macro_f1": 0.2, "oof_macro_f1_chosen": 0.6, "test_accuracy": 0.4}
    assert tables.for_tables == tables


def test_tables_keep_their_order(tmp_path: Path) -> None:
    board = Leaderboard((make_row("a"),), NAMES, {"data": "x"}, (TABLE, replace(TABLE, label="again", cells=())))
    write_json(tmp_path / "leaderboard.json", board.to_json())
    assert Leaderboard.read(tmp_path / "leaderboard.json") == board


def test_a_leaderboard_of_an_older_version_without_tables_is_read(tmp_path: Path) -> None:
    board = Leaderboard((make_row("a"),), NAMES)
    content = {name: value for name, value in board.to_json().items() if name != "tables"}
    write_json(tmp_path / "leaderboard.json", content)
    assert Leaderboard.read(tmp_path / "leaderboard.json") == board


def test_two_tables_with_one_label_are_refused() -> None:
    with pytest.raises(ArtifactError, match="different labels"):
        Leaderboard((), NAMES, {}, (TABLE, replace(TABLE, title="Another")))


@pytest.mark.parametrize(
    "spoiled",
    [
        [],
        {},
        {"rows": [{"key": "a"}], "class_names": [], "meta": {}},
        {"rows": 3},
        {"rows": [], "class_names": []},
        {"rows": [], "class_names": [], "meta": {}, "tables": [{"label": "a"}]},
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, spoiled: object) -> None:
    write_json(tmp_path / "leaderboard.json", spoiled)
    with pytest.raises(ArtifactError, match="must hold a leaderboard"):
        Leaderboard.read(tmp_path / "leaderboard.json")


NAMED = (("ab12", "paper", 0.5), ("ab34", "trial 7", 0.7), ("cd56", "2", 0.6), ("ef78", "twin", 0.4),
         ("09ab", "twin", 0.3), ("7777777", "other", 0.2))  # fmt: skip
BOARD = Leaderboard(tuple(replace(make_row(key, test_macro_f1=score), name=name) for key, name, score in NAMED), NAMES)


@pytest.mark.parametrize(
    ("wanted", "key"),
    [("1", "ab34"), ("5", "09ab"), ("paper", "ab12"), ("trial 7", "ab34"), ("cd56", "cd56"), ("e", "ef78"),
     ("09", "09ab"), ("2", "cd56"), ("777777", "7777777")],
)  # fmt: skip
def test_a_row_is_found_by_place_name_or_start_of_its_key(wanted: str, key: str) -> None:
    assert find_row(BOARD, wanted).key == key


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [("ab", "'ab' matches 2 rows"), ("twin", "'twin' matches 2 rows"), ("7", "got '7'"), ("77", "got '77'"),
     ("0.7", "got '0.7'"), ("", "'' matches 6 rows")],
)  # fmt: skip
def test_no_match_or_several_list_all_rows(wanted: str, reason: str) -> None:
    with pytest.raises(ArtifactError, match="ROW must be a place, a name or a key of one row") as caught:
        find_row(BOARD, wanted)
    assert reason in str(caught.value)
    assert "1 'trial 7', 2 '2', 3 'paper'" in str(caught.value)


def test_a_mistyped_name_gets_the_nearest() -> None:
    with pytest.raises(ArtifactError, match=r"but got 'papr': did you mean 'paper'\?"):
        find_row(BOARD, "papr")
