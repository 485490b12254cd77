"""Checks of the arrays of predictions."""

from collections.abc import Sequence

import numpy as np

from raysk.errors import ArtifactError

# Sums of float32 probabilities over a thousand classes stay well within this.
SUM_TOLERANCE = 1e-3


def check_arrays(rows: np.ndarray, views: tuple[str, ...], probabilities: np.ndarray, dtype: str) -> None:
    """Refuses arrays whose shapes or types do not match, and a row that occurs twice.

    Raises:
        ArtifactError: They do not match.
    """
    if rows.ndim != 1 or probabilities.ndim != 3 or probabilities.shape[:2] != (len(views), len(rows)) or not views:
        raise ArtifactError(
            f"probabilities must have the shape (views, rows, classes) with {len(views)} views and {len(rows)} rows, "
            f"but got {probabilities.shape}: stack one array per view"
        )
    if rows.dtype != np.int64 or probabilities.dtype != dtype:
        raise ArtifactError(
            f"rows must be int64 and probabilities {dtype}, "
            f"but got {rows.dtype} and {probabilities.dtype}: convert them before the softmax"
        )
    if len(set(views)) != len(views):
        raise ArtifactError(f"views must differ, but got {', '.join(views)}: predict each view once")
    distinct, times = np.unique(rows, return_counts=True)
    if (times > 1).any():
        raise ArtifactError(
            f"a row must be predicted once, but row {distinct[times.argmax()]} occurs {times.max()} times: "
            "predict without a sampler and without padding"
        )


def check_values(rows: np.ndarray, views: tuple[str, ...], probabilities: np.ndarray, is_of_classes: bool) -> None:
    """Refuses probabilities of classes that do not sum to 1, and those of pixels that are not in [0, 1].

    Raises:
        ArtifactError: A value is invalid.
    """
    # Every comparison with NaN is false, so NaN is not valid.
    if is_of_classes:
        valid = (np.abs(probabilities.sum(axis=2) - 1) <= SUM_TOLERANCE) & (probabilities >= 0).all(axis=2)
    else:
        valid = ((probabilities >= 0) & (probabilities <= 1)).all(axis=2)
    if valid.all():
        return
    view, position = np.argwhere(~valid)[0]
    if is_of_classes:
        raise ArtifactError(
            "the probabilities of a row must be 0 or more and sum to 1, but those of "
            f"row {rows[position]}, view {views[view]!r} are {probabilities[view, position].tolist()}: "
            "give the softmax of finite logits"
        )
    raise ArtifactError(
        f"the probabilities of pixels must be in [0, 1], but those of row {rows[position]}, view {views[view]!r} are "
        "not: give the sigmoid of finite logits"
    )


def check_names(images: Sequence[str], class_names: Sequence[str], probabilities: np.ndarray) -> None:
    """Refuses names of images or classes that are not those of the probabilities; masks have no class names.

    Raises:
        ArtifactError: Their numbers differ.
    """
    _, num_rows, num_classes = probabilities.shape
    if (len(images), len(class_names) or num_classes) != (num_rows, num_classes):
        raise ArtifactError(
            f"predictions must name the image of each of {num_rows} rows and each of {num_classes} classes, "
            f"but got {len(images)} images and {len(class_names)} class names: take both from the manifest"
        )
