"""A picture of what a run that predicts masks found: the best, median and worst masks of its test part."""

from dataclasses import replace
from math import isqrt

import numpy as np

from raysk.data.contact_sheets import COLUMNS, Captioned, draw_found_masks
from raysk.data.regions import read_regions
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.metrics.masks import scores_of_pictures
from raysk.run import Run
from raysk.scoring import probabilities_on_test

SHEET = "masks.png"


def write_mask_sheet(run: Run, board: Leaderboard) -> None:
    """Draws the masks of the chosen row of a board, or of its first, as `masks.png`: six each by their Dice.

    Args:
        run: A run that predicts masks.
        board: Its leaderboard.
    """
    row = next((row for row in board.rows if row.key == board.chosen), board.rows[0])
    title = f"{row.name}: best, median and worst of {len(run.folds.test_rows)} masks of the test part; white: given, "
    draw_found_masks(f"{title}orange: found", sheet_images(run, row), run.folder / SHEET, run.manifest.bits)


def sheet_images(run: Run, row: Row) -> list[Captioned]:
    """Returns the pictures of the test part whose masks by a row are best, median and worst, six each."""
    rows = run.folds.test_rows
    found = probabilities_on_test(run, row) >= 0.5
    values, side = scores_of_pictures(found, run.truth[rows])["dice"], isqrt(found.shape[1])
    best_first = np.argsort(-values, kind="stable")
    middle = max(0, (len(rows) - COLUMNS) // 2)
    parts = {
        "best": best_first[:COLUMNS],
        "median": best_first[middle : middle + COLUMNS],
        "worst": best_first[-COLUMNS:],
    }
    regions, paths = read_regions(run.manifest), run.manifest.paths
    return [
        Captioned(
            paths[rows[place]],
            (f"{part}: Dice {values[place]:.3f}",),
            replace(regions[rows[place]], box=None),
            found[place].reshape(side, side),
        )
        for part, places in parts.items()
        for place in places
    ]
