"""Stage two of a recipe: the settings of the classifier, and the rules between them."""

from dataclasses import dataclass, field
from typing import Annotated

from raysk.data.views import training_views
from raysk.errors import ConfigError
from raysk.parts.attention import Attention, Care, NoAttention, attentions
from raysk.parts.heads import FrozenHead, Head, LinearHead, heads
from raysk.parts.losses import LogitLoss, losses
from raysk.parts.losses.classification import CrossEntropy
from raysk.parts.mixing import Mixing, NoMixing, mixings
from raysk.settings import Between
from raysk.stage import Optimizer, Stage


@dataclass(frozen=True, kw_only=True)
class StageTwo(Stage):
    """Fits the classifier.

    Args:
        loss: A loss on logits.
        head: Turns features into logits.
        frozen: Whether to keep the encoder of stage one unchanged (weights and running statistics), so that its
            features are computed once.
        view: The training view.
        passes: Number of drawn views of each row that a frozen encoder encodes; epochs cycle through them.
        head_epochs: Number of epochs, from the first, that train the head alone, before an encoder that is not frozen.
        shift_batch_norm: Whether a frozen encoder's batch norm learns the statistics of the resampled images, while the
            weights stay (Zhong et al. 2021, shifted batch norm). Images are then drawn and encoded again in each epoch.
        mixing: How to mix the images of a batch; not for features that are computed once.
        attention: What guides the attention of the classifier to the lesion; only with an encoder that trains.
        adjustment: tau of the post-hoc logit adjustment (Menon et al. 2021, equation 9): predictions use
            z - tau log(n_k / N), with the shares of the training rows.
    """

    # On cached features an epoch takes milliseconds.
    epochs: Annotated[int, Between(1, 100_000)] = 20
    batch_size: Annotated[int, Between(2, 1_000_000)] = 256
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(name="adamw", lr=0.01, weight_decay=1e-4))
    loss: Annotated[LogitLoss, losses] = field(default_factory=CrossEntropy)
    head: Annotated[Head, heads] = field(default_factory=LinearHead)
    frozen: bool = True
    view: Annotated[str, training_views] = "none"
    passes: Annotated[int, Between(1, 1000)] = 1
    head_epochs: Annotated[int, Between(0, 100_000)] = 0
    shift_batch_norm: bool = False
    mixing: Annotated[Mixing, mixings] = field(default_factory=NoMixing)
    attention: Annotated[Attention, attentions] = field(default_factory=NoAttention)
    adjustment: Annotated[float, Between(0, 10)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        head, mixing = heads.name_of(type(self.head)), mixings.name_of(type(self.mixing))
        wanted = dict(self.loss.head or {})
        if wanted and wanted != {"name": head} | self.head.to_plain():
            loss, name = losses.name_of(type(self.loss)), wanted.pop("name")
            values = "".join(f" with the {key} {value:g}" for key, value in wanted.items())
            remedy = "".join(f" and head.{key}={value:g}" for key, value in wanted.items())
            raise ConfigError(
                f"head must be {name}{values} for the loss {loss}, but got {head}: set head.name={name}{remedy}"
            )
        for name in ("head_factor", "layer_decay"):
            if self.frozen and getattr(self.optimizer, name) != 1:
                raise ConfigError(
                    f"optimizer.{name} must be 1 with a frozen encoder, which leaves the head alone to train, but got "
                    f"{getattr(self.optimizer, name):g}: set optimizer.lr, or frozen=false"
                )
        if self.head_epochs >= (1 if self.frozen else self.epochs):
            rule = "0 with frozen=true" if self.frozen else f"less than epochs {self.epochs}"
            raise ConfigError(f"head_epochs must be {rule}, but got {self.head_epochs}: change one of them")
        if isinstance(self.head, FrozenHead) and not self.frozen:
            raise ConfigError(f"head must be trainable with frozen=false, but got {head}: choose linear or cosine")
        if not isinstance(self.mixing, NoMixing) and self.uses_kept_features:
            raise ConfigError(
                f"mixing must be none with a frozen encoder, whose features are computed once, but got {mixing}: "
                "set frozen=false"
            )
        if self.care is not None and (self.frozen or not isinstance(self.mixing, NoMixing)):
            reason = "a frozen encoder" if self.frozen else f"mixing {mixing}, whose images have two lesions"
            raise ConfigError(
                f"attention must be none with {reason}, but got {attentions.name_of(type(self.attention))}: set "
                f"{'frozen=false' if self.frozen else 'mixing.name=none'}"
            )
        if self.shift_batch_norm and not self.frozen:
            raise ConfigError(
                "shift_batch_norm must be false with frozen=false, which trains batch norm as well, but got true: "
                "set frozen=true"
            )
        if self.shift_batch_norm and isinstance(self.head, FrozenHead) and not self.head.is_trained:
            raise ConfigError(f"head must be trained with shift_batch_norm=true, but got {head}: choose lws or linear")

    @property
    def care(self) -> Care | None:
        """The settings of CARE; None if nothing guides the attention."""
        return self.attention if isinstance(self.attention, Care) else None

    @property
    def uses_kept_features(self) -> bool:
        """Whether the encoder never changes, so that its features are computed once and kept."""
        return self.frozen and not self.shift_batch_norm
