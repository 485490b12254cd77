"""Charts of scores as SVG: one dot with its interval per row, in the colours of the surrounding page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor

from raysk.evaluation.leaderboard import Row

# The most letters of a name that fit the chart.
MOST_LETTERS = 30

# In units of the chart, which scales with the page. Names are left of the axis, values are right of it.
WIDTH, LEFT, RIGHT = 640, 236, 60
ROW_HEIGHT, TICK_HEIGHT = 22, 24

# An axis takes the finest step that divides it into at most MOST_STEPS.
STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MOST_STEPS = 6


@dataclass(frozen=True)
class Axis:
    """An axis between two multiples of a step."""

    first: int
    last: int
    step: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "Axis":
        """Returns the axis that covers scores in [0, 1], which may all be equal."""
        low, high = min(values), max(values)
        step = next((step for step in STEPS if (high - low) / step <= MOST_STEPS - 1), STEPS[-1])
        first = floor(low / step)
        return cls(first, max(ceil(high / step), first + 1), step)

    @property
    def ticks(self) -> list[float]:
        """The values at the ticks."""
        return [place * self.step for place in range(self.first, self.last + 1)]

    def x(self, value: float) -> float:
        """Returns the horizontal position of a value."""
        return LEFT + (value / self.step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)


def score_chart(rows: Sequence[Row], column: str, heading: str) -> str:
    """Returns the chart of one score, with the intervals, or the spreads over folds, of rows that have them.

    Args:
        rows: At least one row with the score, in display order.
        column: The name of the score.
        heading: The title of the score.
    """
    spans = [_span(row, column) for row in rows]
    axis = Axis.around([end for span in spans for end in span])
    bottom = ROW_HEIGHT * len(rows) + 4
    label = f"{heading}, one dot per row from {axis.ticks[0]:.3f} to {axis.ticks[-1]:.3f}"
    parts = [f'<svg viewBox="0 0 {WIDTH} {bottom + TICK_HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in axis.ticks:
        x = f"{axis.x(tick):.1f}"
        parts.append(f'<line class="tick" x1="{x}" x2="{x}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{_tick_label(tick, axis.step)}</text>')
    for place, (row, (low, high)) in enumerate(zip(rows, spans, strict=True)):
        y, value = ROW_HEIGHT * place + ROW_HEIGHT / 2 + 2, row.scores[column]
        parts += [
            f"<g><title>{escape(_one_line(row.name))}</title>",
            f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(_shortened(row.name))}</text>',
            f'<line class="span" x1="{axis.x(low):.1f}" x2="{axis.x(high):.1f}" y1="{y}" y2="{y}"/>',
            f'<circle class="dot" cx="{axis.x(value):.1f}" cy="{y}" r="4"/>',
            f'<text x="{WIDTH - RIGHT + 14}" y="{y + 4}">{value:.3f}</text></g>',
        ]
    return "\n".join([*parts, "</svg>"])


def _span(row: Row, column: str) -> tuple[float, float]:
    """Returns the ends of the line through the dot; both equal the score if it has no interval or spread."""
    value, spread = row.scores[column], row.scores.get(f"{column}_sd", 0.0)
    low = row.scores.get(f"{column}_low", value - spread)
    high = row.scores.get(f"{column}_high", value + spread)
    # A spread can reach beyond the range of scores.
    return max(low, 0.0), min(high, 1.0)


def _tick_label(tick: float, step: float) -> str:
    return f"{tick:.3f}" if step < 0.01 else f"{tick:.2f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shortened(name: str) -> str:
    name = _one_line(name)
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…"
