"""Markdown, for a terminal or a repository."""

import re
from string import Template

from raysk.evaluation.formats.base import formats, one_line
from raysk.evaluation.grids import Grid, Style, leaderboard_grids, with_cost
from raysk.evaluation.leaderboard import Leaderboard, Row


def _md_escape(text: str) -> str:
    # Underscores within words are no markup, and names are full of them.
    return re.sub(r"([\\`*<>\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", one_line(text))


# Spaces within a cell do not break, so narrow pages keep intervals whole.
MD = Style(_md_escape, Template("**$x**"), Template(" [$low,\u00a0$high]"), Template("\u00a0±\u00a0$sd"), "–")


@formats.register("md")
def as_md(leaderboard: Leaderboard) -> str:
    """Returns a page of scores, per-class scores and further tables, with the origin and the command of each row."""
    parts = ["# Leaderboard"]
    parts.append("\n".join(f"- {_md_escape(key)}: {_md_escape(text)}" for key, text in leaderboard.meta.items()))
    for grid in leaderboard_grids(leaderboard, MD):
        shown = with_cost(grid, leaderboard, MD) if grid.label == "scores" else grid
        parts += [f"## {grid.title}", _md_table(shown), grid.note]
    parts.append("## What the scores rest on")
    parts += [_md_origin(place, row) for place, row in enumerate(leaderboard.rows, start=1)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _md_table(grid: Grid) -> str:
    words = ["---:" if grid.placed else "---", *["---"] * (grid.num_text - 1)]
    rule = words[: grid.num_text] + ["---:"] * (len(grid.headings) - grid.num_text)
    return "\n".join(f"| {' | '.join(line)} |" for line in [grid.headings, rule, *grid.cells])


def _md_origin(place: int, row: Row) -> str:
    return "\n".join(
        [
            f"### {place}. {_md_escape(row.name)}",
            "",
            f"- settings: {_md_escape(row.settings) or 'the defaults'}",
            f"- chosen on: {_md_escape(row.chosen_on)}",
            f"- scored on: {_md_escape(row.scored_on)}",
            f"- key `{row.key}`, commit `{row.commit}`",
            "",
            "```bash",
            row.command.strip(),
            "```",
        ]
    )
