"""A recipe: one validated value that specifies everything that a trial does.

Stage one learns a representation; stage two fits a classifier, on the frozen encoder or end to end. A recipe without
stage one is a one-stage recipe: the same stage two, trained end to end from the start. With a frozen encoder, it is a
probe: the encoder comes ready, and no stage trains it.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import numpy as np

from raysk.artifacts import digest_of
from raysk.data.crop import Crop
from raysk.data.views import training_views
from raysk.errors import ConfigError
from raysk.model import Model
from raysk.parts.attention import attentions
from raysk.parts.heads import heads
from raysk.parts.losses import EmbeddingLoss, LogitLoss, losses
from raysk.parts.losses.contrastive import SupCon
from raysk.parts.mixing import Mixing, NoMixing, mixings
from raysk.parts.samplers import samplers
from raysk.parts.tasks import Classification, Task, tasks
from raysk.records import RECIPE_SCHEMA, Part, job_id
from raysk.registry import Registry
from raysk.settings import Between, Settings, check_within
from raysk.stage import Stage
from raysk.stage_two import StageTwo

# The nodes of a recipe that name a part. Below them the settings depend on the part, which checks them.
PART_NODES: dict[str, Registry[Any]] = {
    "loss": losses,
    "classifier_loss": losses,
    "sampler": samplers,
    "head": heads,
    "mixing": mixings,
    "attention": attentions,
    "task": tasks,
}
# The settings of a recipe that determine a frozen encoder, and what is fitted to its features before stage two.
_OF_THE_ENCODER = ("model", "image_size", "crop", "stage_one", "seed")


@dataclass(frozen=True, kw_only=True)
class StageOne(Stage):
    """Learns the representation: loss_weight L(g(f(x)), y) + CE(W f(x), y). Either term may be left out.

    Both terms together are the combined objective of Zeng et al. 2022; the first alone is SuperCon, and the second
    alone is the first stage of decoupling (Kang et al. 2020).

    Args:
        loss: A loss on the embeddings g(f(x)); None for none.
        loss_weight: lambda, the weight of the loss on embeddings.
        classifier_loss: A loss on the logits of a classifier, which is trained and kept with the encoder; None for
            none. The classifier is linear, W f(x) + b, or the head that the loss requires.
        views: The training view of each copy of an image; SuperCon sees the plain image and an augmented one.
        copies: How many copies of an image each of the `views` shows: [gravis] and 20 are twenty views of each image.
        projection: Width of the embedding that the loss sees; the projection head is dropped afterwards.
        normalise: Whether the loss sees the directions z / |z| of the embeddings, or z itself.
        mixing: How to mix the images of a batch; only without a loss on embeddings.
        patience: Epochs without a rise of the probe (see `training.health`) that end stage one; 0 trains all epochs.
    """

    loss: Annotated[EmbeddingLoss, losses] | None = field(default_factory=SupCon)
    loss_weight: Annotated[float, Between(0, 1000, open_low=True)] = 1.0
    classifier_loss: Annotated[LogitLoss, losses] | None = None
    views: tuple[Annotated[str, training_views], ...] = ("none", "supercon")
    copies: Annotated[int, Between(1, 20)] = 1
    projection: Annotated[int, Between(2, 65536)] = 128
    normalise: bool = True
    mixing: Annotated[Mixing, mixings] = field(default_factory=NoMixing)
    patience: Annotated[int, Between(0, 100_000)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss is None and self.classifier_loss is None:
            raise ConfigError("loss must be given if classifier_loss is null, but both are null: give one")
        least_views = 1 if self.loss is None else self.loss.least_views
        name = f"the loss {losses.name_of(type(self.loss))}" if self.loss else "a training"
        if len(self.views) * self.copies < least_views:
            raise ConfigError(f"views must name at least {least_views} for {name}, but got {[*self.views]}: add a view")
        if not self.normalise and (self.loss is None or self.loss.needs_unit_length):
            raise ConfigError(f"normalise must be true for {name}, but got false: leave it out, or choose gravis")
        if self.loss is not None and not isinstance(self.mixing, NoMixing):
            raise ConfigError(
                "mixing must be none with a loss on embeddings, since a mixed image has no class, but got "
                f"{mixings.name_of(type(self.mixing))}: set loss=null and classifier_loss.name"
            )

    @property
    def needs_labels(self) -> bool:
        """Whether a loss needs labels, so that unlabelled rows cannot take part."""
        return self.classifier_loss is not None or self.loss is None or self.loss.needs_labels

    @property
    def reads_labels(self) -> bool:
        """Whether the weights depend on labels: a loss needs them, or the probe ends the stage."""
        return self.needs_labels or self.patience > 0


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """The complete specification of a trial.

    Args:
        model: The network.
        image_size: Side of the square images, in pixels.
        crop: The part of each picture that becomes the image.
        stage_one: Learns the representation; None for a one-stage recipe or a probe.
        stage_two: Fits the classifier, or the decoder of masks.
        task: What is predicted: the class of an image, or the mask of its lesion.
        test_views: "dihedral" (eight views of each image are predicted and averaged) or "none".
        seed: The seed of weights, sampling, views and shares of labels.
        label_share: The share of the training groups of each class that keep their labels, at least one group; the
            other training rows are unlabelled. Held-out rows and the test part keep all labels.
    """

    model: Model = field(default_factory=Model)
    image_size: Annotated[int, Between(16, 4096)] = 48
    crop: Crop = field(default_factory=Crop)
    stage_one: StageOne | None = field(default_factory=StageOne)
    stage_two: StageTwo = field(default_factory=StageTwo)
    task: Annotated[Task, tasks] = field(default_factory=Classification)
    test_views: Literal["dihedral", "none"] = "dihedral"
    seed: Annotated[int, Between(0, 2**31 - 1)] = 0
    label_share: Annotated[float, Between(0, 1, open_low=True)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_unused()
        if self.crop.region != "none" and self.reads_regions:
            raise ConfigError(
                "crop.region must be none where masks or boxes guide the attention, but got "
                f"{self.crop.region}: choose one of the two"
            )
        if self.is_probe and not self.model.has_weights:
            raise ConfigError(
                "model must have trained weights for a frozen encoder without a stage one, but has none: set "
                "model.checkpoint=FILE, model.weights=DIR or model.pretrained=true, or give stage_one, or set "
                "stage_two.frozen=false"
            )

    def _check_unused(self) -> None:
        """Refuses settings that the task does not read."""
        for part, name in (path.split(".") for path in self.task.unused):
            settings: Settings = getattr(self, part)
            value, usual = (each.to_plain()[name] for each in (settings, type(settings)()))
            if value != usual:
                got, default = (each["name"] if isinstance(each, dict) else each for each in (value, usual))
                raise ConfigError(
                    f"{part}.{name} must be {default} for task.name={tasks.name_of(type(self.task))}, which does not "
                    f"read it, but got {got}: remove it"
                )

    @property
    def uses_kept_features(self) -> bool:
        """Whether stage two reads the features of an encoder that never changes: they are computed once and kept."""
        return self.stage_two.uses_kept_features and self.task.reads_features

    @property
    def is_probe(self) -> bool:
        """Whether the encoder comes ready: no stage trains its weights."""
        return self.stage_one is None and self.stage_two.frozen

    @property
    def reads_regions(self) -> bool:
        """Whether it learns masks, or masks or boxes of the table guide its attention."""
        return self.task.reads_masks or (self.stage_two.care is not None and self.stage_two.care.reads_regions)

    @cached_property
    def key(self) -> str:
        """The name of this recipe, made from its settings."""
        return digest_of({"schema": RECIPE_SCHEMA, "recipe": self.choices()})

    @cached_property
    def encoder_key(self) -> str | None:
        """The name of the frozen encoder, made from the settings that determine it; None if stage two trains it."""
        if self.stage_one is None and not self.is_probe:
            return None
        reads_labels = self.stage_one is not None and self.stage_one.reads_labels
        names = (*_OF_THE_ENCODER, *["label_share"] * reads_labels)
        read = {name: value for name, value in self.choices().items() if name in names}
        return digest_of({"schema": RECIPE_SCHEMA, "encoder": read})

    def check_rows(self, class_counts: np.ndarray, num_unlabelled: int = 0) -> None:
        """Refuses training rows that the recipe cannot train on.

        Args:
            class_counts: Number of training rows of each class in a fold, (C,).
            num_unlabelled: Number of unlabelled rows in stage one.

        Raises:
            ConfigError: A sampler cannot make its batches, or a loss does not fit the classes.
        """
        one, two = self.stage_one, self.stage_two
        if one is not None:
            check_within("stage_one.sampler", partial(one.sampler.check, class_counts, one.batch_size, num_unlabelled))
            if one.classifier_loss is not None:
                check_within("stage_one.classifier_loss", partial(one.classifier_loss.check, class_counts))
        check_within("stage_two.sampler", partial(two.sampler.check, class_counts, two.batch_size))
        check_within("stage_two.loss", partial(two.loss.check, class_counts))

    @property
    def kind(self) -> Literal["two-stage", "one-stage", "probe"]:
        """Its kind in the leaderboard."""
        if self.is_probe:
            return "probe"
        return "one-stage" if self.stage_one is None else "two-stage"


@dataclass(frozen=True)
class Job:
    """The unit of work: one recipe on one fold.

    Args:
        recipe: The recipe.
        fold: The held-out fold.
        part: "held_out" trains the recipe and predicts the held-out rows of the fold; "test" predicts the locked test
            part with the trained classifier.
        has_references: Whether it fits the reference heads as well, since a search of stage two follows its recipe.
    """

    recipe: Recipe
    fold: int
    part: Part = "held_out"
    has_references: bool = False

    @property
    def id(self) -> str:
        """The name of the job, made from its content."""
        return job_id(self.recipe.key, self.fold, self.part)

    @property
    def trained_encoder(self) -> str | None:
        """The name of the encoder that this job trains or reads; no other job may have it at the same time.

        A ready encoder encodes the rows of all folds at once, in the first job that has it.
        """
        if self.part == "test" or self.recipe.encoder_key is None:
            return None
        return self.recipe.encoder_key if self.recipe.is_probe else f"{self.recipe.encoder_key}-{self.fold}"

    def for_test(self) -> "Job":
        """Returns the job that predicts the locked test part."""
        return replace(self, part="test", has_references=False)

    def to_plain(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "kind": "job",
            "recipe": self.recipe.to_plain(),
            "fold": self.fold,
            "part": self.part,
            "has_references": self.has_references,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Job":
        """Reads the JSON form."""
        return cls(Recipe.from_plain(plain["recipe"]), plain["fold"], plain["part"], plain["has_references"])
