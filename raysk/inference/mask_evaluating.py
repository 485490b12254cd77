"""A row that predicts masks on new pictures with masks, each at its own size, beside what its study promised."""

from collections.abc import Iterator, Sequence

import numpy as np

from raysk.data.decodable import UNREADABLE
from raysk.data.manifest import Manifest
from raysk.data.regions import Region, read_mask, read_regions
from raysk.errors import DataError, in_one_line
from raysk.evaluation.metrics import Metric, parse_metric
from raysk.evaluation.metrics.base import MASKS
from raysk.evaluation.metrics.masks import MaskMetric
from raysk.evaluation.promise import Evaluation, Interval, ScoreLine
from raysk.evaluation.resampling import mean_interval
from raysk.inference.evaluating import seen_by_run
from raysk.inference.masks import Masker
from raysk.inference.streaming import ProgressCallback
from raysk.run import Run


def evaluate_masks(
    masker: Masker, run: Run, manifest: Manifest, data: str, on_error: str, progress: ProgressCallback
) -> Evaluation:
    """Predicts pictures and compares with their masks, at the size of each picture.

    Args:
        masker: Predicts the masks.
        run: Its run.
        manifest: The pictures.
        data: A line on the pictures.
        on_error: "refuse" pictures that cannot be read, or "skip" them.
        progress: Called with the number of pictures done and of all.

    Raises:
        DataError: No picture has a mask, or one cannot be read.
    """
    names = dict.fromkeys((run.goal.metric.name, *MASKS.usual))
    metrics = [metric for metric in map(parse_metric, names) if isinstance(metric, MaskMetric)]
    regions = read_regions(manifest)
    rows = [row for row, region in enumerate(regions) if region.mask is not None]
    if not rows:
        raise DataError(
            f"pictures must have masks to be evaluated, but none of {len(manifest)} has one: add a column mask, or "
            "name yours in data.mask"
        )
    values: dict[int, list[float]] = {}
    num_bad = 0
    for row, of_row in zip(rows, _measured(masker, [regions[row] for row in rows], metrics, progress), strict=True):
        if isinstance(of_row, str):
            if on_error == "refuse":
                raise DataError(
                    f"every picture and its mask must be readable, but {regions[row].picture.name} is not ({of_row}): "
                    "restore it, or set data.on_error=skip to leave out such rows"
                )
            num_bad += 1
        elif of_row:
            values[row] = of_row
    if not values:
        raise DataError(
            f"some picture must have a mask that is not empty, but none of {len(rows)} has, and {num_bad} cannot be "
            "read: correct data.mask"
        )
    kept, table = list(values), np.array(list(values.values()))
    groups, num_bare = manifest.groups[kept], len(manifest) - len(values) - num_bad
    notes = seen_by_run([regions[row].picture for row in kept], run)
    notes += [f"Left out: {num_bare} without a mask, or with an empty one."] if num_bare else []
    notes += [f"Left out: {num_bad} of which the picture or the mask cannot be read."] if num_bad else []
    return Evaluation(
        name=masker.row.name,
        data=data,
        num_images=len(kept),
        num_groups=len(np.unique(groups)),
        scores=tuple(
            _line(metric, masker, of_metric, groups) for metric, of_metric in zip(metrics, table.T, strict=True)
        ),
        classes=(),
        notes=tuple(notes),
    )


def _measured(
    masker: Masker, regions: Sequence[Region], metrics: Sequence[MaskMetric], progress: ProgressCallback
) -> Iterator[list[float] | str]:
    """Yields the values of each picture by all metrics, none if its mask is empty, or why it cannot be read."""
    for place, shares in enumerate(masker.of([region.picture for region in regions])):
        progress(place + 1, len(regions))
        truth = shares if isinstance(shares, str) else _truth(regions[place], shares.shape)
        if isinstance(truth, str) or isinstance(shares, str):
            yield str(truth)
        else:
            yield [metric.of_picture(shares >= 0.5, truth) for metric in metrics if truth.any()]


def _truth(region: Region, shape: tuple[int, ...]) -> np.ndarray | str:
    """Returns the mask of a picture of this shape, (H, W) bool, or why it cannot be read."""
    assert region.mask is not None
    try:
        truth: np.ndarray = np.asarray(read_mask(region.mask, (shape[1], shape[0]))) > 0
    except UNREADABLE as error:
        return in_one_line(error)
    return truth


def _line(metric: Metric, masker: Masker, values: np.ndarray, groups: np.ndarray) -> ScoreLine:
    low, high = mean_interval(values, groups)
    return ScoreLine(
        name=metric.name,
        promised=Interval.of(masker.row.scores, f"test_{metric.name}"),
        here=Interval(value=float(values.mean()), low=low, high=high),
    )
