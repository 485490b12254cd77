"""Charts of scores: one dot with its interval per row, in the colours of the surrounding page.

A chart is a grid of names, tracks and values. The tracks are SVG with positions in percent, so that a chart is as wide
as its place on the page while its text keeps its size, and a long name is wrapped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor

from raysk.evaluation.leaderboard import Row
from raysk.evaluation.metrics import Metric

# An axis takes the finest step that divides it into at most MOST_STEPS.
STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
MOST_STEPS = 6


@dataclass(frozen=True)
class Axis:
    """An axis between two multiples of a step."""

    first: int
    last: int
    step: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "Axis":
        """Returns the axis that covers scores, which may all be equal."""
        low, high = min(values), max(values)
        step = next((step for step in STEPS if (high - low) / step <= MOST_STEPS - 1), STEPS[-1])
        first = floor(low / step)
        return cls(first, max(ceil(high / step), first + 1), step)

    @property
    def ticks(self) -> list[float]:
        """The values at the ticks."""
        return [place * self.step for place in range(self.first, self.last + 1)]

    def x(self, value: float) -> float:
        """Returns the horizontal position of a value, in percent of the track."""
        return (value / self.step - self.first) / (self.last - self.first) * 100

    def percent(self, value: float) -> str:
        """Returns the horizontal position of a value as SVG writes it."""
        return f"{self.x(value):.2f}%"


def score_chart(rows: Sequence[Row], column: str, metric: Metric) -> str:
    """Returns the chart of one score, with the intervals, or the spreads over folds, of rows that have them.

    Args:
        rows: At least one row with the score, in display order.
        column: The name of the score.
        metric: The metric of the score.
    """
    spans = [_span(row, column, metric.range) for row in rows]
    axis = Axis.around([end for span in spans for end in span])
    label = f"{metric.title}, one dot per row from {axis.ticks[0]:.3f} to {axis.ticks[-1]:.3f}"
    ticks = "".join(f'<line class="tick" x1="{x}" x2="{x}" y1="0" y2="100%"/>' for x in map(axis.percent, axis.ticks))
    parts = [f'<div class="chart" role="img" aria-label="{escape(label)}">']
    for row, (low, high) in zip(rows, spans, strict=True):
        value = row.scores[column]
        parts += [
            f'<span class="who">{escape(_one_line(row.name))}</span><span class="track"><svg>{ticks}',
            f'<line class="span" x1="{axis.percent(low)}" x2="{axis.percent(high)}" y1="50%" y2="50%"/>',
            f'<circle class="dot" cx="{axis.percent(value)}" cy="50%" r="4"/></svg></span>',
            f'<span class="value">{value:.3f}</span>',
        ]
    labels = [
        f'<text x="{axis.percent(tick)}" y="1.2em" text-anchor="middle">{_tick_label(tick, axis.step)}</text>'
        for tick in axis.ticks
    ]
    return "\n".join([*parts, '<span></span><span class="track axis"><svg>', *labels, "</svg></span></div>"])


def _span(row: Row, column: str, limits: tuple[float, float]) -> tuple[float, float]:
    """Returns the ends of the line through the dot; both equal the score if it has no interval or spread."""
    value, spread = row.scores[column], row.scores.get(f"{column}_sd", 0.0)
    low = row.scores.get(f"{column}_low", value - spread)
    high = row.scores.get(f"{column}_high", value + spread)
    # A spread can reach beyond the range of scores.
    return max(low, limits[0]), min(high, limits[1])


def _tick_label(tick: float, step: float) -> str:
    return f"{tick:.3f}" if step < 0.01 else f"{tick:.2f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
