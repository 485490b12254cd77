"""The most confident errors on the page for a browser, each with its attention, as pictures inside the page."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from raysk.evaluation.attention_record import ConfidentError

CSS = """.errors { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.errors img { display: block; width: 100%; height: auto; }
.errors figcaption { font-size: 13px; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .5rem; }"""

_NOTE = (
    "Images of the test part that the row takes for another class with the greatest probability; right of each image "
    "what it looks at (Grad-CAM of the class that it predicts, brightest where most), outlined the lesion where its "
    "mask is known."
)


def errors_section(errors: Sequence[ConfidentError], name: str) -> str:
    """Returns the section of the errors of a row, class by class.

    Args:
        errors: At least one error; those of a class follow one another.
        name: The name of the row.
    """
    parts = [f'<section id="errors">\n<h2>Most confident errors of {_text(name)}</h2>', f'<p class="note">{_NOTE}</p>']
    for label, of_class in groupby(errors, key=lambda error: error.label):
        parts += [f"<h3>{_text(label)}</h3>", '<div class="errors">', *map(_figure, of_class), "</div>"]
    return "\n".join([*parts, "</section>"])


def _figure(error: ConfidentError) -> str:
    said = f"{error.predicted}, {error.probability:.2f}"
    about = f"{error.image}: {error.label} taken for {said}"
    picture = f'<img src="data:image/jpeg;base64,{escape(error.picture)}" alt="{_text(about)}"/>'
    return f"<figure>{picture}<figcaption>taken for {_text(said)}<br/>{_text(error.image)}</figcaption></figure>"


def _text(text: str) -> str:
    return escape(" ".join(text.split()))
