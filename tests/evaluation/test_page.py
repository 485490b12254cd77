"""The page for a browser: whole, readable by any XML reader, and safe against any name."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from raysk.evaluation.attention_record import ConfidentError
from raysk.evaluation.comparison_tables import ComparisonTable
from raysk.evaluation.leaderboard import Leaderboard, Row
from raysk.evaluation.page import MOST_CHART_ROWS, html_page

NASTY = "<script>alert('x')</script> & \"q\" $css"


def make_row(place: int, name: str, **scores: float) -> Row:
    return Row(
        key=f"key{place}", name=name, kind="two-stage", scores={"test_macro_f1": 0.9 - place / 100, **scores},
        chosen_on="<folds>", scored_on="test part", seconds=60, images=1, commit="abc",
        command="raysk tune \\\n  'a<b'", settings="",
    )  # fmt: skip


TABLE = ComparisonTable(f"Title {NASTY}", "more", ("", NASTY), 1, ((NASTY, -0.5), ("none", None)), f"Note {NASTY}")
BOARD = Leaderboard(
    (make_row(0, NASTY, test_accuracy=0.5, test_f1_a=0.5), make_row(1, "plain")), ("a",), {NASTY: NASTY}, (TABLE,)
)

ERRORS = tuple(
    ConfidentError(label=label, predicted="a", probability=0.5, image=NASTY, picture="AAAA")
    for label in (NASTY, NASTY, "a")
)


def parsed(leaderboard: Leaderboard) -> ElementTree.Element:
    return ElementTree.fromstring(html_page(leaderboard))


def test_the_page_is_whole_and_shows_names_unchanged() -> None:
    page = parsed(BOARD)
    assert not list(page.iter("script"))
    texts = ["".join(cell.itertext()) for cell in page.iter("td")]
    assert texts.count(NASTY) == 3  # two tables of rows, and the further one
    assert next(element.text for element in page.iter("dd")) == NASTY
    assert [element.text for element in page.iter("pre")] == [BOARD.rows[0].command] * 2


def test_the_page_loads_nothing() -> None:
    page = parsed(BOARD)
    assert not {"script", "link", "img", "iframe", "object"} & {element.tag for element in page.iter()}
    names = {name for element in page.iter() for name in element.attrib}
    assert not {"src", "href"} & names
    assert not re.search(r"@import|url\(|https?:", html_page(BOARD))


def test_confident_errors_are_pictures_in_the_page_under_their_class() -> None:
    page = parsed(replace(BOARD, chosen="key0", errors=ERRORS))
    section = next(element for element in page.iter("section") if element.get("id") == "errors")
    assert [element.text for element in section.iter("h3")] == [NASTY, "a"]
    pictures = list(section.iter("img"))
    assert [picture.get("src") for picture in pictures] == ["data:image/jpeg;base64,AAAA"] * 3
    assert pictures[0].get("alt") == f"{NASTY}: {NASTY} taken for a, 0.50"
    assert not [element for element in parsed(BOARD).iter("section") if element.get("id") == "errors"]


def test_each_headline_score_has_a_chart() -> None:
    figures = list(parsed(BOARD).iter("figure"))
    assert ["".join(figure[0].itertext()) for figure in figures] == ["macro-F1", "accuracy"]
    assert [len(list(figure.iter("circle"))) for figure in figures] == [2, 1]


@pytest.mark.parametrize(
    ("scores", "beginning"),
    [
        ({"test_macro_f1_low": 0.5, "test_macro_f1_high": 0.95}, "macro-F1; lines: 95% interval"),
        ({"test_macro_f1_sd": 0.1}, "macro-F1; lines: standard deviation over the folds"),
    ],
)
def test_the_caption_of_a_chart_explains_its_lines(scores: dict[str, float], beginning: str) -> None:
    caption = next(parsed(Leaderboard((make_row(0, "a", **scores),), ())).iter("figcaption")).text
    assert caption is not None
    assert caption.startswith(beginning)


def test_without_test_scores_the_charts_are_out_of_fold() -> None:
    rows = tuple(replace(row, scores={"oof_macro_f1": 0.5, "oof_macro_f1_crossfit": 0.4}) for row in BOARD.rows)
    page = parsed(replace(BOARD, rows=rows))
    assert [element.text for element in page.iter("figcaption")] == ["macro-F1"]
    assert "macro-F1, as chosen" in [element.text for element in page.iter("th")]


def test_a_long_leaderboard_has_short_charts_and_long_tables() -> None:
    rows = tuple(make_row(place, f"row {place}") for place in range(MOST_CHART_ROWS + 5))
    page = parsed(Leaderboard(rows, ()))
    assert len(list(page.iter("circle"))) == MOST_CHART_ROWS
    assert [len(list(table.iter("tr"))) for table in page.iter("table")] == [1 + len(rows)] * 2
    assert "the 30 best of 35 rows" in html_page(Leaderboard(rows, ()))


def test_all_lines_of_a_table_have_equally_many_cells() -> None:
    for table in parsed(BOARD).iter("table"):
        assert len({len(line) for line in table.iter("tr")}) == 1


NAMES = ("cross_entropy", "ensemble: plain average", "class-centre triplet: trial 17 + stage two 1", "x" * 90, NASTY)
CLASSES = ("akiec", "bcc", "bkl", "df", "melanoma_in_situ", "nv", "vasc")
# Measures the page in frames of several widths; the frames follow the page's own rules for narrow windows.
MEASURE = """<!DOCTYPE html><body><script>
const page = %s, widths = %s, found = {};
let waiting = widths.length;
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.onload = () => {
    const root = frame.contentDocument.documentElement, all = [...root.querySelectorAll("body *")];
    found[width] = {
      sideways: root.scrollWidth - root.clientWidth,
      clipped: Math.max(...all.map(e => e.matches(".wide, main, pre") ? e.scrollWidth - e.clientWidth : 0)),
      font: Math.min(...all.filter(e => e.textContent).map(e => parseFloat(getComputedStyle(e).fontSize))),
      name: Math.min(...all.filter(e => e.matches(".who, td.name")).map(e => e.getBoundingClientRect().width)),
      tables: all.filter(e => e.matches("table") && getComputedStyle(e).display === "table").length,
      outside: all.filter(e => !e.closest("svg") && e.getBoundingClientRect().right > root.clientWidth + 1).length,
    };
    if (!--waiting) document.body.textContent = JSON.stringify(found);
  };
  frame.srcdoc = page;
  document.body.append(frame);
}
</script></body>"""


def measured(page: str, tmp_path: Path, *widths: int) -> dict[str, dict[str, float]]:
    """Returns what a browser measures of a page in windows of several widths."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(MEASURE % (json.dumps(page).replace("</", "<\\/"), list(widths)))
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=10000 --dump-dom"
    )
    words = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", wrapper.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<body>(\{.*?\})</body>", done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    result: dict[str, dict[str, float]] = json.loads(unescape(found[1]))
    return result


def usual_board() -> Leaderboard:
    """A leaderboard with all scores, intervals and spreads, and with names of all lengths."""
    scores: dict[str, Any] = {f"test_f1_{name}": 0.5 for name in CLASSES}
    for score in ("macro_f1", "balanced_accuracy", "macro_auc", "accuracy"):
        scores |= {f"test_{score}": 0.5, f"oof_{score}": 0.5, f"oof_{score}_sd": 0.01}
        scores |= {f"test_{score}_low": 0.4, f"test_{score}_high": 0.6}
    rows = [replace(make_row(place, name, **scores), images=123_456_789) for place, name in enumerate(NAMES)]
    lines = (("class-centre triplet", "x" * 60, 0.123, -0.5), ("a", "b", None, 1234.5))
    table = ComparisonTable("Pairs " + "y" * 200, "pairs", ("one", "other", "difference", "p"), 2, lines, "note")
    facts = {"command": "raysk tune " + "z" * 300, f"not ranked: {'w' * 120}": "stopped"}
    return Leaderboard(tuple(rows), CLASSES, facts, (table,), chosen="key0", errors=ERRORS)


def test_no_page_scrolls_sideways_and_no_column_is_clipped(tmp_path: Path) -> None:
    many = tuple(f"class_{number}_of_many" for number in range(25))
    scores = {f"test_recall_{name}": 0.5 for name in many}
    usual = usual_board()
    rows = tuple(replace(row, scores={**row.scores, **scores}) for row in usual.rows)
    widths = (390, 700, 800, 1000, 1200, 1400, 1900)
    for board in (usual, replace(usual, rows=rows, class_names=CLASSES + many)):
        for width, page in measured(html_page(board), tmp_path, *widths).items():
            assert (page["sideways"], page["clipped"], page["outside"]) == (0, 0, 0), width
            assert page["font"] >= 11, width
            assert page["name"] >= 100, width


def test_a_table_that_fits_the_window_is_a_table_and_another_has_cards(tmp_path: Path) -> None:
    found = measured(html_page(usual_board()), tmp_path, 390, 800, 1400)
    # Scores on the test part and out of fold, F1 of each class, mean recall, and pairs.
    assert {width: page["tables"] for width, page in found.items()} == {"390": 0, "800": 2, "1400": 5}


def test_the_measure_sees_a_page_that_scrolls(tmp_path: Path) -> None:
    wide = escape("x" * 500)
    page = f"<!DOCTYPE html><main><p class='who' style='font-size: 9px'>{wide}</p></main>"
    found = measured(page, tmp_path, 390)["390"]
    assert found["sideways"] > 0 and found["clipped"] > 0 and found["font"] == 9
