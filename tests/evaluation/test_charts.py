"""Charts of scores: the positions of dots and lines."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysk.evaluation.charts import STEPS, Axis, score_chart
from raysk.evaluation.leaderboard import Row
from raysk.evaluation.metrics import parse_metric


def make_row(name: str, **scores: float) -> Row:
    return Row(
        key=name, name=name, kind="one-stage", scores=scores, chosen_on="", scored_on="", seconds=1, images=1,
        commit="", command="", settings="",
    )  # fmt: skip


def chart_of(*rows: Row) -> ElementTree.Element:
    return ElementTree.fromstring(score_chart(rows, "test_macro_f1", parse_metric("macro_f1")))


def positions(picture: ElementTree.Element, path: str, name: str) -> list[float]:
    return [float(element.attrib[name].removesuffix("%")) for element in picture.iterfind(path)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_an_axis_holds_all_values_on_few_ticks(values: list[float]) -> None:
    axis = Axis.around(values)
    assert 2 <= len(axis.ticks) <= 8
    assert axis.step in STEPS
    for value in values:
        assert -1e-6 <= axis.x(value) <= 100 + 1e-6
    assert axis.x(axis.ticks[0]) == pytest.approx(0, abs=1e-6)
    assert axis.x(axis.ticks[-1]) == pytest.approx(100)


def test_dots_and_lines_have_their_positions_on_the_axis() -> None:
    picture = chart_of(
        make_row("a", test_macro_f1=0.6, test_macro_f1_low=0.5, test_macro_f1_high=0.8),
        make_row("b", test_macro_f1=0.4, test_macro_f1_sd=0.1),
        make_row("c", test_macro_f1=0.3),
    )
    axis = Axis.around([0.3, 0.8])
    assert positions(picture, ".//circle", "cx") == pytest.approx([axis.x(v) for v in (0.6, 0.4, 0.3)], abs=0.06)
    low, high = ([axis.x(v) for v in ends] for ends in ((0.5, 0.3, 0.3), (0.8, 0.5, 0.3)))
    assert positions(picture, ".//line[@class='span']", "x1") == pytest.approx(low, abs=0.06)
    assert positions(picture, ".//line[@class='span']", "x2") == pytest.approx(high, abs=0.06)
    assert [span.text for span in picture.iterfind("span[@class='value']")] == ["0.600", "0.400", "0.300"]


def test_a_spread_is_cut_at_the_range_of_scores() -> None:
    picture = chart_of(make_row("a", test_macro_f1=0.9, test_macro_f1_sd=0.3))
    expected = Axis.around([0.6, 1.0]).x(1.0)
    assert positions(picture, ".//line[@class='span']", "x2") == pytest.approx([expected], abs=0.06)


def test_names_are_escaped_and_whole() -> None:
    name = "</svg><script>&" + "x" * 60
    picture = chart_of(make_row(name, test_macro_f1=0.5))
    assert [span.text for span in picture.iterfind("span[@class='who']")] == [name]
