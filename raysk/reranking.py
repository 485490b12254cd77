"""Ranks a finished run anew, by another metric, from its predictions; without torch."""

from dataclasses import replace

from raysk.errors import ConfigError
from raysk.evaluation.board_attention import with_attention
from raysk.evaluation.goals import Goal
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.metrics import Metric
from raysk.evaluation.summary import BEST_SINGLE, cross_fitted_fact
from raysk.run import Run
from raysk.run_checks import check_goal
from raysk.scoring import all_scores, probabilities_on_test, read_held_out

# The table of published scores, which no metric changes.
_ABLATION = "ablation"


def rerank(run: Run, metric: str) -> Leaderboard:
    """Returns the leaderboard of a finished run by another metric, and writes nothing.

    The rows stay those that the study chose by its own metric, and so do the members of the ensembles. What only a
    search by the new metric would know is left out: cross-fitted scores of choices, budgets and paired tests.

    Args:
        run: The run directory.
        metric: Its text, such as "auc@mel".

    Raises:
        ArtifactError: The run has no leaderboard, or lacks a prediction.
        ConfigError: The metric does not exist, is not defined on each part of the rows, or does not score what the run
            predicts.
    """
    board = Leaderboard.read(run.folder / "leaderboard.json")
    goal = Goal.parse(metric, (), run.manifest.class_names)
    ranked_by = goal.metric
    if ranked_by == board.ranked_by:
        return board
    if ranked_by.form != board.ranked_by.form:
        raise ConfigError(
            f"metric must score {board.ranked_by.form.name}, which the run predicts, but got {ranked_by.name}: choose "
            f"for example {board.ranked_by.form.usual[0]}"
        )
    check_goal(goal, run.manifest, run.folds)
    rows = tuple(replace(row, scores=_scores(run, row, ranked_by)) for row in board.rows)
    meta = {name: fact for name, fact in board.meta.items() if name != cross_fitted_fact(board.ranked_by)}
    if BEST_SINGLE in meta:
        singles = [row for row in rows if row.kind != "ensemble"]
        meta[BEST_SINGLE] = max(singles, key=lambda row: ranked_by.oriented(row.scores[f"oof_{ranked_by.name}"])).name
    meta["ranked anew"] = f"by {ranked_by.title}; the study searched by {board.ranked_by.title}"
    tables = tuple(table for table in board.tables if table.label == _ABLATION)
    anew = Leaderboard(rows, board.class_names, meta, tables, ranked_by.name, board.chosen)
    return with_attention(anew, run.folder)


def _scores(run: Run, row: Row, metric: Metric) -> dict[str, float]:
    held_out = read_held_out(run, row.key)
    return all_scores(run, held_out, held_out.mean(), probabilities_on_test(run, row), metric)
