"""The reference heads: ten fixed settings of stage two, by which encoders are compared.

The score of an encoder after its stage two was searched follows its score with one setting badly: a setting that suits
one encoder does not suit the next. Ten settings, plain and balanced, with two learning rates, are the same for all
recipes: encoders race on them, and a search of stage two tries those of its space.
"""

from dataclasses import replace
from typing import Any

from raysk.parts.heads import LinearHead
from raysk.parts.losses.classification import BalancedSoftmax, CrossEntropy
from raysk.stage import Optimizer
from raysk.stage_two import StageTwo

# The first one judges an encoder that has one fold, and is the anchor of a search: of the ten, it has the best mean
# over 27 encoders (docs/results.md, "How stage two is chosen").
_REBALANCING: dict[str, dict[str, Any]] = {
    "half adjusted": {"loss": CrossEntropy(), "adjustment": 0.5},
    "cross entropy": {"loss": CrossEntropy()},
    "balanced weights": {"loss": CrossEntropy(weights="balanced")},
    "balanced softmax": {"loss": BalancedSoftmax()},
    "adjusted": {"loss": CrossEntropy(), "adjustment": 1.0},
}
# With 0.001 no head learns enough in the epochs of a small dataset.
_RATES = (0.1, 0.01)


def reference_heads(stage: StageTwo) -> dict[str, StageTwo]:
    """Returns the reference heads by name.

    Args:
        stage: The stage two of a recipe; gives the training view, the batch size and the epochs.
    """
    plain = StageTwo(view=stage.view, passes=stage.passes, epochs=stage.epochs, batch_size=stage.batch_size)
    return {
        f"{name}, lr {rate:g}": replace(
            plain, head=LinearHead(), optimizer=Optimizer(name="adamw", lr=rate, weight_decay=1e-4), **changes
        )
        for rate in _RATES
        for name, changes in _REBALANCING.items()
    }
