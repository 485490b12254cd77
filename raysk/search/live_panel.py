"""A panel below the printed lines of a terminal, which redraws itself and survives a resized window."""

import os
import threading
from contextlib import suppress

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.segment import ControlType, Segment


class LivePanel(RenderHook):
    """Keeps a panel below all lines that its console prints, and draws it several times a second.

    `rich.live.Live` takes the last frame to have as many rows as it drew. But a terminal whose window changes breaks
    the frame's lines anew, so that rows of it would stay. This panel counts the rows that the lines of its last frame
    have in the window as it is now.

    Args:
        console: A terminal.
        panel: What to draw; it has the window's width and height to fill.
        redraws_per_second: How often it is drawn.
    """

    def __init__(self, console: Console, panel: RenderableType, redraws_per_second: float = 4) -> None:
        self.console, self.panel, self.redraws_per_second = console, panel, redraws_per_second
        self._widths: list[int] = []  # of the lines of the last frame
        self.lock = threading.RLock()  # held while anything is printed: the erasure of a frame belongs to the next one
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._redraw, name="panel", daemon=True)

    def start(self) -> None:
        """Shows the panel from now on."""
        self.console.show_cursor(False)
        self.console.push_render_hook(self)
        self._thread.start()

    def stop(self) -> None:
        """Erases the panel."""
        self._is_over.set()
        self._thread.join()
        with self.lock:
            self.console.pop_render_hook()
            self.console.control(self._erasure())
            self.console.show_cursor(True)

    def draw(self) -> None:
        """Draws the panel as it is now."""
        with self.lock:
            self.console.print(Control())

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Returns what the console prints: it erases the last frame, prints, and draws the next frame."""
        self._measure_window()
        return [self._erasure(), *renderables, self]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a frame, which has no spaces at the ends of its lines, since terminals may break these or not."""
        # The options are those of a printed line, which may be wider than the window.
        lines = console.render_lines(self.panel, console.options, pad=False)[: console.height]
        frame = [_without_end_spaces(line) for line in lines]
        self._widths = [Segment.get_line_length(line) for line in frame]
        for number, line in enumerate(frame):
            if number:
                yield Segment.line()
            yield from line

    def _redraw(self) -> None:
        while not self._is_over.wait(1 / self.redraws_per_second):
            self.draw()

    def _measure_window(self) -> None:
        """Sets the console's size, since rich would ask the standard streams, which are a file."""
        with suppress(OSError, ValueError):  # no window
            columns, lines = os.get_terminal_size(self.console.file.fileno())
            if columns and lines:
                self.console.size = (columns, lines)

    def _erasure(self) -> Control:
        """Returns the codes that erase the last frame and leave the cursor at its beginning."""
        if not self._widths:
            return Control()
        rows = sum(max(1, -(-width // self.console.width)) for width in self._widths)
        self._widths = []
        erase = (ControlType.ERASE_IN_LINE, 2)
        return Control(ControlType.CARRIAGE_RETURN, erase, *((ControlType.CURSOR_UP, 1), erase) * (rows - 1))


def _without_end_spaces(line: list[Segment]) -> list[Segment]:
    kept = list(line)
    while kept:
        last = kept.pop()
        text = last.text.rstrip()
        if text:
            return [*kept, Segment(text, last.style)]
    return []
