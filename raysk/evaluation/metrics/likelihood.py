"""Metrics of the probabilities themselves, which calibration changes."""

import numpy as np

from raysk.evaluation.metrics.base import Metric, Resampler, metrics

# Certainty in a wrong class costs -log of this, about 15.9, as in scikit-learn for float32.
_LEAST = float(np.finfo(np.float32).eps)


@metrics.register("log_loss")
class LogLoss(Metric):
    """The mean of -log p over the rows, where p is the probability of the row's class; 0 to 15.9, smaller is better."""

    wording = "log loss"
    larger_is_better = False

    @property
    def range(self) -> tuple[float, float]:
        """From 0 to the loss of a probability that counts as 0."""
        return 0.0, -float(np.log(_LEAST))

    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Averages the losses of the rows."""
        means: np.ndarray = _losses(probabilities, labels).mean(axis=-1)
        return means

    def resampler(self, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Resampler:
        """Sums each group once: the sum of a resample is that of its groups."""
        sums, sizes = np.bincount(groups, weights=_losses(probabilities, labels)), np.bincount(groups)
        return lambda times: (times @ sums) / (times @ sizes)


def _losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the loss of each row, (..., N)."""
    likelihood = np.take_along_axis(
        probabilities, np.broadcast_to(labels[:, np.newaxis], (*probabilities.shape[:-1], 1)), -1
    )
    return -np.log(np.clip(likelihood[..., 0].astype(float), _LEAST, 1.0))
