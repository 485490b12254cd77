"""Predicts on a Ray cluster: Ray Data hands parts to a pool of actors that hold the classifier."""

import json
import logging
from typing import Any

import numpy as np
import ray
import ray.data
from ray.exceptions import RayError

from raysk.errors import CutOffError, in_one_line
from raysk.inference.bundle import Bundle
from raysk.inference.parts import Parts
from raysk.inference.predictor import Predicted, Predictor
from raysk.inference.streaming import ProgressCallback, predicted_images
from raysk.search.cluster import connected


class _Member:
    """An actor of the pool: predicts one part at a time. Only the images must be on storage that its node sees.

    Args:
        bundle: The classifier, in the object store.
        device: Where it computes.
    """

    def __init__(self, bundle: "ray.ObjectRef[Bundle]", device: str) -> None:
        self.predictor = Predictor(ray.get(bundle), device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        (paths,) = batch["paths"]
        predicted, reasons = predicted_images(self.predictor, json.loads(paths))
        return {
            "number": batch["number"],
            "probabilities": [predicted.probabilities.tobytes()],
            "disagreement": [predicted.disagreement.tobytes()],
            "reasons": [json.dumps(reasons)],
        }


def predict_on_cluster(bundle: Bundle, parts: Parts, address: str, progress: ProgressCallback) -> None:
    """Predicts all parts that are not finished; this process keeps them as they come.

    Args:
        bundle: The classifier.
        parts: Keeps what is finished.
        address: Of the cluster.
        progress: Called with the number of images done and of all images, at the start and after each part.

    Raises:
        ConfigError: There is no cluster at the address.
        CutOffError: The cluster was lost; the same command continues.
    """
    missing = parts.missing()
    total = len(parts.images)
    done = total - sum(len(parts.images_of(number)) for number in missing)
    progress(done, total)
    if not missing:
        return
    with connected(address):
        try:
            for row in _dataset(bundle, parts, missing).iter_rows():
                number = int(row["number"])
                parts.write(number, _predicted(row, len(bundle.facts.class_names)), json.loads(row["reasons"]))
                done += len(parts.images_of(number))
                progress(done, total)
        except RayError as error:
            raise CutOffError(
                f"a prediction must reach its end, but the cluster failed ({in_one_line(error):.200}): run the same "
                "command again to continue"
            ) from error


def _dataset(bundle: Bundle, parts: Parts, missing: list[int]) -> "ray.data.Dataset":
    """Returns the predictions of the missing parts, one row each, in any order."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    items = [
        {"number": number, "paths": json.dumps([image.path for image in parts.images_of(number)])} for number in missing
    ]
    # A block of each part: it is kept as soon as it is finished.
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Member,
        batch_size=1,
        fn_constructor_args=(ray.put(bundle), "cuda" if gpus else "cpu"),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(items), gpus or _cpus(resources))),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )


def _cpus(resources: dict[str, float]) -> int:
    return max(1, int(resources.get("CPU", 0)))


def _predicted(row: dict[str, Any], num_classes: int) -> Predicted:
    probabilities = np.frombuffer(row["probabilities"], dtype=np.float64).reshape(-1, num_classes)
    return Predicted(probabilities, np.frombuffer(row["disagreement"], dtype=np.float64))
