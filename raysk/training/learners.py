"""What each task trains and predicts with."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import nn

from raysk.parts.encoder import Encoder
from raysk.parts.tasks import Classification, Segmentation, Task
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.training import classifying, segmenting
from raysk.training.loop import Report, StageProgress
from raysk.training.world import World


class Learner(NamedTuple):
    """The functions of a task.

    Attributes:
        fit: Fits stage two of a job; returns its progress, and the module that is kept.
        predict: Returns the probabilities of rows in each test-time view: (N, C) of classes, (N, P) of pixels.
        encoder: Returns the encoder of a trained job, on the CPU.
    """

    fit: Callable[[Job, Run, World, Report], tuple[StageProgress, nn.Module]]
    predict: Callable[[Job, Run, World, np.ndarray], dict[str, np.ndarray]]
    encoder: Callable[[Job, Run], Encoder]


_LEARNERS: dict[type[Task], Learner] = {
    Classification: Learner(classifying.fit_classifier, classifying.predict_classes, classifying.encoder_of_job),
    Segmentation: Learner(segmenting.fit_segmenter, segmenting.predict_masks, segmenting.encoder_of_job),
}


def learner_of(recipe: Recipe) -> Learner:
    """Returns the functions of a recipe's task."""
    return _LEARNERS[type(recipe.task)]
