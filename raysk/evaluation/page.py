"""The leaderboard as a page for a browser, without network access or scripts."""

from collections.abc import Mapping
from html import escape
from string import Template

from raysk.evaluation import page_pictures, page_tables
from raysk.evaluation.board_attention import explained_row
from raysk.evaluation.charts import score_chart
from raysk.evaluation.grids import Style, headline_metrics, headline_part, leaderboard_grids, with_cost
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.page_tables import INTERVAL, html_table

# The most rows of a chart; the tables show all rows.
MOST_CHART_ROWS = 30


def _escape(text: str) -> str:
    return escape(" ".join(text.split()))


HTML = Style(
    _escape,
    Template("<b>$x</b>"),
    INTERVAL,
    Template(" <small>± $sd</small>"),
    "–",
)

# The policy blocks scripts and loading, whatever a name contains; pictures are in the page. XHTML syntax, so that any
# XML reader parses the page.
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>Leaderboard</title>
<style>
$css
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")

CSS = """:root {
  --paper: #fff; --ink: #1c2024; --quiet: #5c6670; --line: #d9dee3; --accent: #0b62b0; --shade: #f4f6f8;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --ink: #e6e9ec; --quiet: #9aa5b0; --line: #343b42; --accent: #6cb2f5; --shade: #1d2226; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
body { overflow-wrap: break-word; }
main { max-width: 1360px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
dl { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .1rem 1rem; margin: 0; }
dt, figcaption, .note, small { color: var(--quiet); }
dt, dd { overflow-wrap: anywhere; }
dd { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), 1fr)); gap: 1.5rem; }
.charts + .wide { margin-top: 1.2rem; }
figure { margin: 0; min-width: 0; }
.chart { display: grid; grid-template-columns: fit-content(40%) 1fr auto; column-gap: 1rem; font-size: 13px; }
.chart { line-height: 1.3; font-variant-numeric: tabular-nums; }
.who { text-align: right; overflow-wrap: anywhere; padding: .15rem 0; }
.who, .value { align-self: center; }
.track { position: relative; min-height: 1.4rem; }
.track svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.axis text { fill: var(--ink); font-size: 12px; }
.tick { stroke: var(--line); }
.span { stroke: var(--accent); stroke-width: 2; stroke-linecap: round; opacity: .55; }
.dot { fill: var(--accent); }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
details dl { margin: .5rem 0 .5rem 1.1rem; }
pre { background: var(--shade); padding: .7rem; margin: .5rem 0 .5rem 1.1rem; white-space: pre-wrap; }
pre { overflow-wrap: anywhere; }
@media (max-width: 44rem) {
  main { padding: 1rem; }
  dl { grid-template-columns: minmax(0, 1fr); }
  dd { margin-bottom: .5rem; }
  .axis text:nth-child(even) { display: none; }
  pre, details dl { margin-left: 0; }
}"""


def html_page(leaderboard: Leaderboard) -> str:
    """Returns the page: charts, tables, confident errors, and the origin and the command of each row."""
    parts = ["<h1>Leaderboard</h1>", _facts(leaderboard.meta)]
    charts, styles = _charts(leaderboard), [CSS, page_tables.CSS]
    for grid in leaderboard_grids(leaderboard, HTML):
        first = grid.label == "scores"
        shown = with_cost(grid, leaderboard, HTML) if first else grid
        parts.append(f'<section id="{grid.label}">\n<h2>{grid.title}</h2>')
        parts += charts if first else []
        table, style = html_table(shown)
        styles.append(style)
        parts.append(f"{table}\n</section>")
    explained = explained_row(leaderboard)
    if leaderboard.errors and explained is not None:
        parts.append(page_pictures.errors_section(leaderboard.errors, explained.name))
        styles.append(page_pictures.CSS)
    if leaderboard.rows:
        parts.append('<section id="origins">\n<h2>What the scores rest on</h2>')
        parts += [_origin(place, row) for place, row in enumerate(leaderboard.rows, start=1)]
        parts.append("</section>")
    return PAGE.substitute(css="\n".join(dict.fromkeys(styles)), body="\n".join(part for part in parts if part))


def _facts(pairs: Mapping[str, str]) -> str:
    lines = [f"<dt>{_escape(name)}</dt><dd>{_escape(text)}</dd>" for name, text in pairs.items()]
    return "\n".join(["<dl>", *lines, "</dl>"]) if lines else ""


def _charts(leaderboard: Leaderboard) -> list[str]:
    figures = []
    for metric in headline_metrics(leaderboard):
        column = f"{headline_part(leaderboard)}_{metric.name}"
        rows = [row for row in leaderboard.rows if column in row.scores]
        if not rows:
            continue
        notes = [_escape(metric.title)]
        if any(f"{column}_low" in row.scores for row in rows):
            notes.append("lines: 95% interval from resamples of whole groups")
        elif any(f"{column}_sd" in row.scores for row in rows):
            notes.append("lines: standard deviation over the folds")
        if len(rows) > MOST_CHART_ROWS:
            notes.append(f"the {MOST_CHART_ROWS} best of {len(rows)} rows")
        chart = score_chart(rows[:MOST_CHART_ROWS], column, metric)
        figures.append(f"<figure>\n<figcaption>{'; '.join(notes)}</figcaption>\n{chart}\n</figure>")
    return ['<div class="charts">', *figures, "</div>"] if figures else []


def _origin(place: int, row: Row) -> str:
    facts = {
        "settings": row.settings or "the defaults",
        "chosen on": row.chosen_on,
        "scored on": row.scored_on,
        "key": row.key,
        "commit": row.commit,
    }
    summary = f"<summary>{place}. {_escape(row.name)}</summary>"
    return f"<details>\n{summary}\n{_facts(facts)}\n<pre>{escape(row.command.strip())}</pre>\n</details>"
