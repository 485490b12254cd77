"""What the service answers."""

from pydantic import BaseModel, Field

from raysk.inference.bundle import BundleFacts


class ImageAnswer(BaseModel):
    """The prediction of one image."""

    name: str = Field(description="The file name that the client gave.")
    label: str = Field(description="The most probable class.")
    decision: str | None = Field(description="The class at the operating points; null for a model without any.")
    probabilities: dict[str, float] = Field(description="The probability of each class; they sum to 1.")
    disagreement: float = Field(description="The weighted share of the members that would choose another class.")


class Answer(BaseModel):
    """The predictions of the images of a request, in their order."""

    images: list[ImageAnswer]


class Health(BaseModel):
    """Whether the service can predict."""

    status: str = "ok"
    model: str = Field(description="The name of the classifier.")
    digest: str = Field(description="The digest of its file.")
    requests: int = Field(description="The requests for predictions that are being answered.")


class Accepted(BaseModel):
    """What the service accepts."""

    request_bytes: int
    image_bytes: int
    images: int


class ModelAnswer(BaseModel):
    """What is known of the classifier."""

    digest: str = Field(description="The digest of its file.")
    facts: BundleFacts = Field(description="All facts of the file.")
    card: str = Field(description="The model card, in Markdown.")
    accepted: Accepted


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str
