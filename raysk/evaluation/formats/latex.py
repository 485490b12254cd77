"""LaTeX tables, for a paper."""

import unicodedata
from dataclasses import replace
from string import Template

from raysk.evaluation.formats.base import formats, one_line
from raysk.evaluation.grids import Grid, Style, leaderboard_grids
from raysk.evaluation.leaderboard import Leaderboard

# The most rows that fit a table in a paper.
MOST_TEX_ROWS = 20


def _greek_command(letter: str) -> str:
    """Returns "tau" for τ and "Gamma" for Γ."""
    size, _, name = unicodedata.name(letter).replace("LAMDA", "LAMBDA").split()[1:]
    return name.lower() if size == "SMALL" else name.capitalize()


GREEK = {letter: _greek_command(letter) for letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"}
SYMBOLS = {"±": "pm", "×": "times", "÷": "div", "·": "cdot", "≤": "leq", "≥": "geq", "≈": "approx", "→": "to"}
TEX_CHARACTERS = {
    **{character: rf"$\{name}$" for character, name in (GREEK | SYMBOLS).items()},
    **{character: f"\\{character}" for character in "{}&%$#_"},
    # At the start of a line, LaTeX would read these as options of the line break before them.
    **{character: f"{{{character}}}" for character in "[]*"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "−": "$-$"},
}


def _tex_escape(text: str) -> str:
    escaped = "".join(TEX_CHARACTERS.get(character, character) for character in one_line(text))
    return escaped.replace("--", "-{}-")  # which would print as one dash


TEX = Style(
    _tex_escape,
    Template(r"\textbf{$x}"),
    Template(r" {\scriptsize [$low, $high]}"),
    Template(r" {\scriptsize $$\pm$$ $sd}"),
    "--",
)


@formats.register("tex")
def as_tex(leaderboard: Leaderboard) -> str:
    """Returns the tables of the best rows for a paper; comments give each row's key, commit and command."""
    shown = replace(leaderboard, rows=leaderboard.rows[:MOST_TEX_ROWS])
    lines = [
        "Written by raysk. The preamble needs \\usepackage{booktabs} and \\usepackage{graphicx};",
        "pdfLaTeX needs \\usepackage[T1]{fontenc} for letters such as ł; other scripts need XeLaTeX.",
        f"The {len(shown.rows)} best of {len(leaderboard.rows)} rows; leaderboard.csv has all of them.",
        *(f"{row.name}: key {row.key}, commit {row.commit}: {row.command}" for row in shown.rows),
    ]
    parts = ["\n".join(f"% {one_line(line)}" for line in lines)]
    for grid in leaderboard_grids(shown, TEX):
        origin = _tex_origin(shown) if grid.label == "scores" else ""
        parts.append(_tex_table(grid, " ".join(filter(None, [f"{grid.title}.", grid.note, origin]))))
    return "\n\n".join(parts) + "\n"


def _tex_table(grid: Grid, caption: str) -> str:
    start = int(grid.placed)
    lines = [" & ".join(line[start:]) + r" \\" for line in [grid.headings, *grid.cells]]
    body = "\n".join(f"    {line}" for line in [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    # Every score begins with one digit and the point, so left alignment aligns the points, whatever follows. Numbers in
    # comparison tables can have a sign or more digits, and nothing follows them.
    num_right = 0 if grid.placed else len(grid.headings) - grid.num_text
    columns = "l" * (len(grid.headings) - start - num_right) + "r" * num_right
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"  \centering\small\setlength{\tabcolsep}{4pt}",
            f"  \\caption{{{caption}}}\\smallskip",
            f"  \\label{{tab:leaderboard-{grid.label}}}",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"  \\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            body,
            r"  \end{tabular}}",
            r"\end{table}",
        ]
    )


def _tex_origin(leaderboard: Leaderboard) -> str:
    """Returns what the rows were chosen and scored on, without repetition."""
    chosen = "; ".join(dict.fromkeys(_tex_escape(row.chosen_on) for row in leaderboard.rows))
    scored = "; ".join(dict.fromkeys(_tex_escape(row.scored_on) for row in leaderboard.rows))
    return f"Chosen on: {chosen}. Scored on: {scored}."
