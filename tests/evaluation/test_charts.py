"""Charts of scores: the positions of dots and lines."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysk.evaluation.charts import LEFT, RIGHT, STEPS, WIDTH, Axis, score_chart
from raysk.evaluation.leaderboard import Row


def make_row(name: str, **scores: float) -> Row:
    return Row(
        key=name, name=name, kind="one-stage", scores=scores, chosen_on="", scored_on="", seconds=1, images=1,
        commit="", command="", settings="",
    )  # fmt: skip


def chart_of(*rows: Row) -> ElementTree.Element:
    return ElementTree.fromstring(score_chart(rows, "test_macro_f1", "macro-F1"))


def positions(picture: ElementTree.Element, path: str, name: str) -> list[float]:
    return [float(element.attrib[name]) for element in picture.iterfind(path)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_an_axis_holds_all_values_on_few_ticks(values: list[float]) -> None:
    axis = Axis.around(values)
    assert 2 <= len(axis.ticks) <= 8
    assert axis.step in STEPS
    for value in values:
        assert LEFT - 1e-6 <= axis.x(value) <= WIDTH - RIGHT + 1e-6
    assert axis.x(axis.ticks[0]) == pytest.approx(LEFT)
    assert axis.x(axis.ticks[-1]) == pytest.approx(WIDTH - RIGHT)


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
    heights = positions(picture, ".//circle", "cy")
    assert heights == sorted(set(heights))
    assert heights[-1] < float(picture.attrib["viewBox"].split()[3])
    assert [group[-1].text for group in picture.iterfind("g")] == ["0.600", "0.400", "0.300"]


def test_a_spread_is_cut_at_the_range_of_scores() -> None:
    picture = chart_of(make_row("a", test_macro_f1=0.9, test_macro_f1_sd=0.3))
    expected = Axis.around([0.6, 1.0]).x(1.0)
    assert positions(picture, ".//line[@class='span']", "x2") == pytest.approx([expected], abs=0.06)


def test_names_are_escaped_and_long_ones_are_shortened_outside_the_title() -> None:
    name = "</svg><script>&" + "x" * 60
    group = chart_of(make_row(name, test_macro_f1=0.5)).find("g")
    assert group is not None
    title, label = group[0].text, group[1].text
    assert title == name
    assert label is not None
    assert label.endswith("…")
    assert name.startswith(label[:-1])
