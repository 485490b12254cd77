"""Explains predictions: overlays of attention maps, and whether the attention lies on the lesion."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from raysk.artifacts import replacing, write_text
from raysk.data.regions import rows_with
from raysk.errors import DataError
from raysk.evaluation.attention_scores import AttentionScores, attention_scores
from raysk.inference.attention import AttentionMaps
from raysk.inference.images import read_ahead, stacked
from raysk.inference.overlays import draw_overlay
from raysk.inference.predictor import Predictor
from raysk.inference.tables import NamedImage
from raysk.run import Run

# Overlays of the most confident errors of each class.
_ERRORS = 4


@dataclass(frozen=True, eq=False)
class Explained:
    """An image with what a classifier says of it, and where it looks.

    Attributes:
        pixels: (S, S, 3), uint8.
        attention: (S, S), in [0, 1].
        label: The code of the class that the attention is about.
        probability: The probability of this class.
    """

    pixels: npt.NDArray[np.uint8]
    attention: npt.NDArray[np.float32]
    label: int
    probability: float


class Explainer:
    """Explains images, in batches.

    Args:
        predictor: The classifier.

    Raises:
        ConfigError: An encoder has no attention maps.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.maps = AttentionMaps(predictor.bundle, predictor.device)

    def explain(self, paths: Sequence[str], labels: Sequence[int] | None = None) -> Iterator[Explained]:
        """Yields images with the attention to their most probable class, or to given ones.

        Args:
            paths: Image files.
            labels: The code of the class of each; None takes the most probable one.

        Raises:
            DataError: An image cannot be read.
        """
        sizes, length = self.predictor.sizes, self.predictor.batch_length
        pixels = read_ahead(paths, sizes, length, self.predictor.bundle.facts.bits)
        for start in range(0, len(paths), length):
            batch = list(islice(pixels, length))
            for path, content in zip(paths[start:], batch, strict=False):
                if isinstance(content, str):
                    raise DataError(f"an image must be readable, but {path} is not ({content}): leave it out")
            given = None if labels is None else labels[start : start + length]
            yield from self._of_batch([content for content in batch if not isinstance(content, str)], given)

    def _of_batch(self, pixels: list[list[npt.NDArray[np.uint8]]], given: Sequence[int] | None) -> Iterator[Explained]:
        probabilities = self.predictor.predict_pixels(pixels).probabilities
        labels = probabilities.argmax(axis=1) if given is None else np.array(given)
        device = self.predictor.device
        classes = torch.from_numpy(labels.astype(np.int64)).to(device)
        attention = self.maps.of(stacked(pixels, self.predictor.sizes, device), classes).cpu().numpy()
        for place, (content, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            yield Explained(content[-1], attention[place], label, float(probabilities[place, label]))


def explain_images(explainer: Explainer, images: Sequence[NamedImage], folder: Path, label: int | None) -> list[str]:
    """Writes an overlay of each image into a folder; returns a line on each.

    Args:
        explainer: The classifier.
        images: The images.
        folder: The folder.
        label: The class that the attention is about; None takes each image's most probable one.
    """
    labels = None if label is None else [label] * len(images)
    lines = []
    for number, (image, found) in enumerate(
        zip(images, explainer.explain([image.path for image in images], labels), strict=True)
    ):
        name = f"{number:04d}-{Path(image.name).stem}.png"
        _save(folder / name, found, None)
        lines.append(f"{name}: {explainer.predictor.classes_[found.label]} {found.probability:.3f}")
    return lines


def explain_test_part(
    explainer: Explainer, run: Run, folder: Path, progress: Callable[[int, int], None] | None = None
) -> str:
    """Writes what the classifier looks at in the test part; returns the table of its scores, in Markdown.

    The folder gets the table as `attention.md`, and for each class overlays of the images of this class that the
    classifier most confidently takes for another one: the attention to what it predicts.

    Args:
        explainer: The classifier, a row of the run.
        run: The run.
        folder: The folder.
        progress: Called with the number of images done and the total.
    """
    rows, manifest = run.folds.test_rows, run.manifest
    size = max(explainer.predictor.sizes)
    lesions = run.regions(size).masks[rows] > 0 if rows_with(manifest, "mask")[rows].any() else None
    attention = np.zeros((len(rows), size, size), np.float32)
    errors: dict[int, list[tuple[float, int, Explained]]] = {}
    paths = [str(manifest.paths[row]) for row in rows]
    for place, found in enumerate(explainer.explain(paths)):
        attention[place], truth = found.attention, int(manifest.labels[rows[place]])
        if found.label != truth:
            errors.setdefault(truth, []).append((found.probability, place, found))
            errors[truth] = sorted(errors[truth], key=lambda error: -error[0])[:_ERRORS]
        done = place + 1
        if progress is not None and (done % explainer.predictor.batch_length == 0 or done == len(rows)):
            progress(done, len(rows))  # images come in batches
    for truth, worst in sorted(errors.items()):
        for number, (probability, place, found) in enumerate(worst):
            taken = manifest.class_names[found.label]
            name = f"error-{manifest.class_names[truth]}-{number}-as-{taken}-{probability:.2f}.png"
            _save(folder / name.replace("/", "_"), found, None if lesions is None else lesions[place].astype(np.uint8))
    table = _table(attention, lesions, manifest.labels[rows], manifest.class_names)
    write_text(folder / "attention.md", table + "\n")
    return table


def _table(
    attention: npt.NDArray[np.float32],
    lesions: npt.NDArray[np.bool_] | None,
    labels: npt.NDArray[np.int64],
    class_names: Sequence[str],
) -> str:
    if lesions is None:
        return "No image of the test part has a mask, so that nothing tells whether the attention lies on the lesion."
    groups = {name: labels == label for label, name in enumerate(class_names)} | {"all": labels >= 0}
    lines = ["| class | images | energy inside | pointing game | area of the lesion |", "| --- " + "| ---: " * 4 + "|"]
    for name, chosen in groups.items():
        scores = attention_scores(attention[chosen], lesions[chosen])
        lines.append(f"| {name} | {_cells(scores)} |")
    return "\n".join([
        *lines, "",
        "Energy inside: mean share of the attention to the predicted class that lies inside the lesion. Pointing game: "
        "share of the images whose greatest attention lies inside it. An attention that is the same everywhere has the "
        "area of the lesion in the first.",
    ])  # fmt: skip


def _cells(scores: AttentionScores) -> str:
    if not scores.count:
        return "0 | – | – | –"
    return f"{scores.count} | {scores.energy:.3f} | {scores.pointing:.3f} | {scores.area:.3f}"


def _save(path: Path, found: Explained, lesion: npt.NDArray[np.uint8] | None) -> None:
    with replacing(path) as temporary:
        draw_overlay(found.pixels, found.attention, lesion).save(temporary, "PNG")
