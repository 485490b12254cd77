"""The live panel in a terminal that breaks lines anew when its window changes, as most do."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from rich.text import Text

from raysk.search.display import StudyDisplay, Terminal
from raysk.search.live_panel import LivePanel

CODE = re.compile(r"\x1b\[\??([\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


@dataclass
class Row:
    """A row of a screen, which may go on in the next one."""

    text: str = ""
    goes_on: bool = False


@dataclass
class Screen:
    """A terminal of any height: rows, and the row and column of the cursor."""

    width: int
    rows: list[Row] = field(default_factory=lambda: [Row()])
    row: int = 0
    column: int = 0

    def feed(self, text: str) -> None:
        for match in CODE.finditer(text):
            part, code = match[0], match[2]
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self._down()
            elif code == "A":
                self.row = max(0, self.row - int(match[1]))
            elif code == "K":
                self.rows[self.row] = Row()
            elif code is None:
                self._write(part)

    def resize(self, width: int) -> None:
        """Breaks each line anew; the cursor stays at its character."""
        lines, at = [""], (0, 0)
        for number, row in enumerate(self.rows):
            if number == self.row:
                at = (len(lines) - 1, len(lines[-1]) + self.column)
            lines[-1] += row.text
            if not row.goes_on:
                lines.append("")
        self.width, self.rows = width, []
        for number, line in enumerate(lines[:-1]):
            pieces = [line[start : start + width] for start in range(0, len(line), width)] or [""]
            if number == at[0]:
                self.row = len(self.rows) + min(at[1] // width, len(pieces) - 1)
                self.column = at[1] - (self.row - len(self.rows)) * width
            self.rows += [Row(piece, place < len(pieces) - 1) for place, piece in enumerate(pieces)]

    @property
    def lines(self) -> list[str]:
        return [row.text.rstrip() for row in self.rows if row.text.strip()]

    def _write(self, text: str) -> None:
        for character in text:
            if self.column == self.width:
                self.rows[self.row].goes_on = True
                self._down()
                self.column = 0
            row = self.rows[self.row]
            row.text = row.text[: self.column].ljust(self.column) + character + row.text[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append(Row())


class Window:
    """A pseudo-terminal, and the screen that shows what is written to it."""

    def __init__(self, columns: int, lines: int = 40) -> None:
        self.main, terminal = pty.openpty()
        self.stream = os.fdopen(terminal, "w")
        self.screen = Screen(columns)
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int = 40) -> None:
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(columns)

    def shown(self) -> list[str]:
        self.stream.flush()
        os.set_blocking(self.main, False)
        while True:
            try:
                self.screen.feed(os.read(self.main, 1 << 16).decode())
            except BlockingIOError:
                return self.screen.lines


@contextmanager
def panel_in(window: Window, panel: Text) -> Iterator[LivePanel]:
    """Yields a panel that is drawn only by hand."""
    console = Terminal(file=window.stream, force_terminal=True, width=120)
    live = LivePanel(console, panel, redraws_per_second=0.001)
    live.start()
    yield live
    live.stop()


WIDE = Text("\n".join(["recipes " + "and so on " * 6, "lane 0  paper  " + "━" * 40, "lanes busy"]))


@pytest.mark.parametrize("sizes", [(80, 40), (80, 200), (200, 80, 40), (80, 200, 30, 79), (40, 13)])
def test_a_resized_window_shows_the_panel_once(sizes: tuple[int, ...]) -> None:
    window = Window(sizes[0])
    with panel_in(window, WIDE) as live:
        live.console.print("  0:00  starting Ray", soft_wrap=True)
        for width in sizes:
            window.resize(width)
            live.draw()
            lines = window.shown()
            assert "".join(lines).count("lanes busy") == 1, lines
            assert "".join(lines).count("lane 0") == 1, lines
            assert max(map(len, lines)) <= width
            assert "".join(lines).startswith("  0:00  starting Ray")
        live.console.print("  0:01  starting 2 lanes", soft_wrap=True)
        assert "".join(window.shown()).startswith("  0:00  starting Ray  0:01  starting 2 lanes")
        window.resize(sizes[0])
    assert window.shown() == ["  0:00  starting Ray", "  0:01  starting 2 lanes"], "the panel leaves nothing behind"


def test_a_printed_line_that_the_terminal_breaks_does_not_tear_the_panel() -> None:
    window = Window(30)
    with panel_in(window, WIDE) as live:
        for number in range(3):
            live.console.print(f"{number}: a line that is longer than thirty columns", soft_wrap=True)
            assert "".join(window.shown()).count("lanes busy") == 1
    assert len(window.shown()) == 6


def test_a_low_window_cuts_the_panel() -> None:
    window = Window(80, 2)
    with panel_in(window, WIDE) as live:
        live.draw()
        live.draw()
        assert len(window.shown()) == 2


def test_lines_from_several_threads_do_not_tear_the_panel() -> None:
    window = Window(80)
    console = Terminal(file=window.stream, force_terminal=True, width=80)
    heights = iter(range(10_000))

    class Changing:
        def __rich_console__(self, *_: object) -> Iterator[Text]:
            yield from [Text("panel")] * (1 + next(heights) % 4)
            time.sleep(0.001)

    with StudyDisplay(console) as display:
        assert display._live is not None
        display._live.panel = Changing()
        speakers = [
            threading.Thread(target=lambda: [display.say("line") for _ in range(20)]) for _ in range(3)
        ]  # fmt: skip
        drawers = [threading.Thread(target=lambda: [display._live.draw() for _ in range(20)])]
        for thread in speakers + drawers:
            thread.start()
        for thread in speakers + drawers:
            thread.join()
    assert window.shown() == ["  0:00  line"] * 60


def test_the_panel_draws_itself() -> None:
    window = Window(80)
    live = LivePanel(Terminal(file=window.stream, force_terminal=True, width=80), Text("by itself"))
    live.start()
    deadline = time.monotonic() + 10
    while "by itself" not in window.shown() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert window.shown() == ["by itself"]
    live.stop()
    assert window.shown() == []
