"""HTML, for a browser."""

from raysk.evaluation.formats.base import formats
from raysk.evaluation.leaderboard import Leaderboard
from raysk.evaluation.page import html_page


@formats.register("html")
def as_html(leaderboard: Leaderboard) -> str:
    """Returns a page for a browser in one file: the content of the Markdown, and a chart of each headline score."""
    return html_page(leaderboard)
