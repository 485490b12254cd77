"""The end of a command: a table that fits any window, the verdict, and where the files are."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from raysk.evaluation.leaderboard import Kind, Leaderboard, Row
from raysk.evaluation.metrics import parse_metric
from raysk.evaluation.requirement_checks import RequirementCheck
from raysk.evaluation.summary import BEST_SINGLE, MOST_ROWS, TEST_OPENED, cross_fitted_fact, show_summary

NASTY = "[bold]x[/bold] \\ with_a_name_that_never_ends_" + "and_on" * 12


def make_row(place: int, name: str, kind: Kind = "two-stage", chosen_on: str = "held-out folds", **more: float) -> Row:
    test = 0.7 - place / 100
    scores = {
        "test_macro_f1": test, "test_macro_f1_low": test - 0.1, "test_macro_f1_high": test + 0.1,
        "test_balanced_accuracy": 0.61, "oof_macro_f1": 0.65 - place / 1000, "oof_macro_f1_sd": 0.02,
    }  # fmt: skip
    return Row(
        key=f"key{place}", name=name, kind=kind, scores=scores | more, chosen_on=chosen_on,
        scored_on="locked test part", seconds=60, images=1, commit="abc", command="raysk tune", settings="",
    )  # fmt: skip


FACTS = {BEST_SINGLE: "best", cross_fitted_fact(parse_metric("macro_f1")): "0.530"}
STUDY = Leaderboard(
    (
        make_row(0, "ensemble: plain average", "ensemble", "nothing"),
        make_row(1, "ensemble: greedy", "ensemble"),
        make_row(2, "best"),
        make_row(3, NASTY),
        *(make_row(place, f"row {place}") for place in range(4, 14)),
    ),
    ("a", "b"),
    FACTS,
)


def shown(leaderboard: Leaderboard, width: int = 120, is_terminal: bool = False) -> list[str]:
    stream = io.StringIO()
    # As the command line makes it: soft wrap keeps its other lines whole.
    console = Console(file=stream, width=width, force_terminal=is_terminal, soft_wrap=True, color_system=None)
    show_summary(leaderboard, "runs/x", console)
    return stream.getvalue().splitlines()


def test_the_table_has_the_ten_best_rows_with_their_scores() -> None:
    lines = shown(STUDY)
    assert lines[:2] == ["", "Leaderboard: the 10 best of 14 rows, by macro-F1 out of fold"]
    assert sum("0.610" in line for line in lines) == MOST_ROWS
    (greedy,) = [line for line in lines if "greedy" in line and "[0.590, 0.790]" in line and "Macro" not in line]
    assert greedy.split() == ["2", "ensemble:", "greedy", "ensemble", "0.649", "0.690", "[0.590,", "0.790]", "0.610"]


def test_the_verdict_names_what_was_chosen_on_the_held_out_folds() -> None:
    text = " ".join(" ".join(shown(STUDY)).split())
    assert (
        "Best single recipe, chosen on the held-out folds: best. Macro-F1 0.530 out of fold, cross-fitted over that "
        "choice; 0.680 [0.580, 0.780] on the locked test part."
    ) in text
    assert (
        "ensemble: greedy, chosen on the held-out folds. Macro-F1 0.649 out of fold, with cross-fitted weights; "
        "0.690 [0.590, 0.790] on the locked test part."
    ) in text
    assert "plain average, chosen" not in text


def test_a_test_part_that_was_opened_again_is_said() -> None:
    text = " ".join(" ".join(shown(replace(STUDY, meta=FACTS | {TEST_OPENED: "opened 2 times"}))).split())
    assert "test part: opened 2 times." in text


def test_the_last_line_says_where_the_files_are() -> None:
    assert shown(STUDY, width=20)[-1] == "Files: runs/x/leaderboard.md, .csv, .html, .json, .parquet, .tex"


@pytest.mark.parametrize("width", [200, 120, 100, 80, 70, 60, 50, 40, 30])
def test_the_table_fits_the_window_and_shows_whole_scores(width: int) -> None:
    lines = shown(STUDY, width, is_terminal=True)
    assert max(map(len, lines[:-1])) <= width
    text = "\n".join(lines)
    assert all(f"{0.7 - place / 100:.3f}" in text for place in range(10))
    assert "…" not in text, "nothing is cut off"
    assert ("kind" in text, "balanced" in text, "[0.600, 0.800]" in text) == (width >= 70, width >= 80, width >= 50)


CHECK = RequirementCheck(requirement="sensitivity@a>=0.9", score=0.95, bound=0.88, is_met=False)
LONG = "partial AUC of a (above sensitivity 0.8)"
STRICT = Leaderboard(
    tuple(
        replace(row, requirements=(CHECK,), scores=row.scores | {"test_pauc@a:0.8": 0.1, "oof_pauc@a:0.8": 0.12})
        for row in STUDY.rows[:3]
    ),
    ("a", "b"),
    {BEST_SINGLE: "best", "Requirement sensitivity@a>=0.9": "no row meets it, the closest is best with 0.950"},
    metric="pauc@a:0.8",
)


@pytest.mark.parametrize("width", [200, 120, 90, 60, 40, 30])
def test_a_long_metric_is_wrapped_and_requirements_are_shown_where_they_fit(width: int) -> None:
    lines = shown(STRICT, width, is_terminal=True)
    assert max(map(len, lines[:-1])) <= width
    text = " ".join(" ".join(lines).split())
    assert f"by {LONG} out of fold" in text
    assert ("sensitivity@a>=0.9 out of fold" in text or "0.950 not met" in text) == (width >= 90)
    assert "Requirement sensitivity@a>=0.9: no row meets it, the closest is best with 0.950." in text
    assert "Partial AUC of a (above sensitivity 0.8) 0.120 out of fold" in text


def test_names_are_shown_as_they_are() -> None:
    text = "".join("".join(shown(STUDY, 300)).split())
    assert "".join(NASTY.split()) in text


def test_a_single_row_has_its_scores_in_a_sentence() -> None:
    scores = "macro-F1 0.650 out of fold, mean of the folds; 0.700 [0.600, 0.800] on the locked test part."
    for chosen_on, name in (("nothing", "mine"), ("held-out folds", "mine, chosen on the held-out folds")):
        lines = shown(Leaderboard((make_row(0, "mine", chosen_on=chosen_on),), ()), width=200)
        assert lines[1] == "Leaderboard: 1 row, by macro-F1 out of fold"
        assert lines[-2] == f"{name}: {scores}"


def test_scores_that_are_missing_are_no_error() -> None:
    bare = Row(
        key="k", name="bare", kind="one-stage", scores={}, chosen_on="", scored_on="", seconds=0, images=0, commit="",
        command="", settings="",
    )  # fmt: skip
    for leaderboard in (Leaderboard((bare,), (), {BEST_SINGLE: "bare"}), Leaderboard((), ()), Leaderboard((bare,), ())):
        lines = shown(leaderboard)
        assert lines[1].endswith("by macro-F1 out of fold")
        assert lines[-1].startswith("Files: ")
