"""File formats of the leaderboard: for readers, for papers and for programs."""

import io
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import Template

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from raysk.artifacts import replacing
from raysk.evaluation.grids import Grid, Style, leaderboard_grids, with_cost
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.page import html_page
from raysk.registry import Registry

Format = Callable[[Leaderboard], str | bytes]

formats: Registry[Format] = Registry("leaderboard format")

# The most rows that fit a table in a paper.
MOST_TEX_ROWS = 20


def write_leaderboard(leaderboard: Leaderboard, folder: Path) -> None:
    """Writes the leaderboard in every format, as leaderboard.<format>; `Leaderboard.read` reads leaderboard.json."""
    for name in formats:
        content = formats[name](leaderboard)
        with replacing(folder / f"leaderboard.{name}") as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@formats.register("json")
def as_json(leaderboard: Leaderboard) -> str:
    """Returns the whole leaderboard as JSON, which `Leaderboard.read` reads."""
    return json.dumps(leaderboard.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@formats.register("csv")
def as_csv(leaderboard: Leaderboard) -> bytes:
    """Returns one line per row and one column per score, empty where a row has none."""
    sink = io.BytesIO()
    pa_csv.write_csv(leaderboard.to_table(), sink)
    return sink.getvalue()


@formats.register("parquet")
def as_parquet(leaderboard: Leaderboard) -> bytes:
    """Returns the columns of the CSV with their types; the schema's metadata has the class names and the meta facts."""
    metadata = {"class_names": leaderboard.class_names, "meta": dict(leaderboard.meta)}
    table = leaderboard.to_table().replace_schema_metadata({"raysk.leaderboard": json.dumps(metadata)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _md_escape(text: str) -> str:
    # Underscores within words are no markup, and names are full of them.
    return re.sub(r"([\\`*<>\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", _one_line(text))


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
    escaped = "".join(TEX_CHARACTERS.get(character, character) for character in _one_line(text))
    return escaped.replace("--", "-{}-")  # which would print as one dash


TEX = Style(
    _tex_escape,
    Template(r"\textbf{$x}"),
    Template(r" {\scriptsize [$low, $high]}"),
    Template(r" {\scriptsize $$\pm$$ $sd}"),
    "--",
)


@formats.register("html")
def as_html(leaderboard: Leaderboard) -> str:
    """Returns a page for a browser in one file: the content of the Markdown, and a chart of each headline score."""
    return html_page(leaderboard)


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
    parts = ["\n".join(f"% {_one_line(line)}" for line in lines)]
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
