"""What `raysk explain RUN --all` found, as the file attention.json of a run."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, FiniteFloat

from raysk.records import Record

ATTENTION_FILE = "attention.json"


@dataclass(frozen=True, kw_only=True)
class ConfidentError(Record):
    """An image of the test part that a row takes for another class, with its attention to that class.

    Args:
        label: Its class.
        predicted: The class that it is taken for.
        probability: The probability of that class.
        image: The name of its file.
        picture: The image beside its attention: a JPEG file in base64.
    """

    label: str
    predicted: str
    probability: float
    image: str
    picture: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")]


@dataclass(frozen=True, kw_only=True)
class AttentionRecord(Record):
    """The attention of the rows of a leaderboard on the locked test part.

    Args:
        num_images: Number of images of the test part.
        num_lesions: Number of those whose mask is known.
        area: Mean share of these that the lesion covers; 0 without any.
        scores: For the key of each row the scores by name; see `attention_columns`.
        left_out: For the key of each row without scores the reason.
        errors_of: Key of the row of the errors; "" without any.
        errors: Its most confident errors, class by class.
    """

    num_images: int
    num_lesions: int = 0
    area: float = 0.0
    scores: dict[str, dict[str, FiniteFloat]]
    left_out: dict[str, str]
    errors_of: str = ""
    errors: tuple[ConfidentError, ...] = ()
