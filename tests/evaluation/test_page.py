"""The page for a browser: whole, readable by any XML reader, and safe against any name."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

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
    assert "macro-F1, cross-fitted" in [element.text for element in page.iter("th")]


def test_a_long_leaderboard_has_short_charts_and_long_tables() -> None:
    rows = tuple(make_row(place, f"row {place}") for place in range(MOST_CHART_ROWS + 5))
    page = parsed(Leaderboard(rows, ()))
    assert len(list(page.iter("circle"))) == MOST_CHART_ROWS
    assert [len(list(table.iter("tr"))) for table in page.iter("table")] == [1 + len(rows)] * 2
    assert "the 30 best of 35 rows" in html_page(Leaderboard(rows, ()))


def test_all_lines_of_a_table_have_equally_many_cells() -> None:
    for table in parsed(BOARD).iter("table"):
        assert len({len(line) for line in table.iter("tr")}) == 1
