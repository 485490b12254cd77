"""A classifier on labelled new images: reads them, predicts them, and compares with what its study promised."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import numpy as np

from raysk.data.folds.assignment import TEST
from raysk.data.manifest import Manifest
from raysk.data.sources.classes import class_map_override, usual_name
from raysk.errors import DataError
from raysk.evaluation.promise import Evaluation, Promise, compare
from raysk.inference.bundle import BundleFacts
from raysk.inference.images import read_ahead
from raysk.inference.predictor import Predictor
from raysk.inference.streaming import ProgressCallback, predict_part
from raysk.run import Run

# A class of the new data is taken for one of the model if their names are this alike.
_LIKENESS = 0.6


def evaluate(
    predictor: Predictor, run: Run | None, manifest: Manifest, data: str, on_error: str, progress: ProgressCallback
) -> Evaluation:
    """Predicts labelled images and compares with the promise.

    Args:
        predictor: The classifier.
        run: Its run, which knows the rows that trained it; None for a file.
        manifest: The images, whose classes are among those of the classifier.
        data: A line on the images.
        on_error: "refuse" unreadable images, or "skip" them.
        progress: Called with the number of images done and of all images.

    Raises:
        DataError: A class is unknown, an image cannot be read, or none can.
    """
    facts = predictor.bundle.facts
    check_classes(manifest, facts.class_names)
    notes = seen_rows(manifest, facts, run)
    if num_unlabelled := len(manifest.unlabelled_rows):
        notes.append(f"{num_unlabelled} images are unlabelled and are left out.")
        manifest = manifest.without(manifest.unlabelled_rows.tolist())
    probabilities, reasons = _predicted(predictor, manifest, progress)
    bad = [(path, reason) for path, reason in zip(manifest.paths, reasons, strict=True) if reason is not None]
    if bad and (on_error == "refuse" or len(bad) == len(manifest)):
        raise DataError(
            f"every image must be readable, but {len(bad)} of {len(manifest)} are not, first {bad[0][0]} "
            f"({bad[0][1]}): restore them, or set data.on_error=skip to leave out their rows"
        )
    kept = np.array([reason is None for reason in reasons])
    codes = np.array([facts.class_names.index(name) for name in manifest.class_names])
    if bad:
        notes.append(f"{len(bad)} images cannot be read and are left out.")
    return compare(
        _promise(facts), probabilities, codes[manifest.labels][kept], manifest.groups[kept], data, notes
    )  # fmt: skip


def check_classes(manifest: Manifest, class_names: Sequence[str]) -> None:
    """Refuses images of a class that the classifier does not know.

    Raises:
        DataError: There is one; the message has the override that maps the classes.
    """
    unknown = [name for name in manifest.class_names if name not in class_names]
    if not unknown:
        return
    override = class_map_override({name: _likely(name, class_names) for name in manifest.class_names})
    remedy = "rename them in the table" if override is None else f'map them, and leave out classes with "": {override}'
    raise DataError(
        f"classes of the images must be those of the model, {', '.join(class_names)}, but got {', '.join(unknown)}: "
        f"{remedy}"
    )


def _likely(name: str, class_names: Sequence[str]) -> str:
    """Returns the class that a name most probably means, or ""."""
    if name in class_names:
        return name
    by_usual_name = {usual_name(known): known for known in class_names}
    if usual_name(name) in by_usual_name:
        return by_usual_name[usual_name(name)]
    nearest = get_close_matches(usual_name(name), by_usual_name, n=1, cutoff=_LIKENESS)
    return by_usual_name[nearest[0]] if nearest else ""


def seen_rows(manifest: Manifest, facts: BundleFacts, run: Run | None) -> list[str]:
    """Returns a warning if rows were among those that trained or chose the classifier, as far as that is known."""
    if run is None:
        if manifest.digest != facts.provenance.manifest:
            return []
        return [
            "These are the rows of the study itself: most of them trained the model, and these scores are too good."
        ]
    return seen_by_run(manifest.paths, run)


def seen_by_run(paths: Sequence[Path], run: Run) -> list[str]:
    """Returns a warning if pictures were among those that trained or chose the models of a run."""
    trained = set(np.flatnonzero(run.folds.fold != TEST).tolist())
    files = {os.path.realpath(path) for row, path in enumerate(run.manifest.paths) if row in trained}
    num_seen = sum(os.path.realpath(path) in files for path in paths)
    if not num_seen:
        return []
    return [
        f"{num_seen} of {len(paths)} images were among the rows that trained or chose the model: these scores are "
        "too good."
    ]


def _predicted(
    predictor: Predictor, manifest: Manifest, progress: ProgressCallback
) -> tuple[np.ndarray, list[str | None]]:
    """Returns the probabilities of the readable images, and for each image why it cannot be read, or None."""
    length, total = predictor.batch_length, len(manifest)
    decoded = read_ahead((str(path) for path in manifest.paths), predictor.sizes, 2 * length, manifest.bits)
    reasons: list[str | None] = []
    blocks = []
    progress(0, total)
    while batch := list(islice(decoded, length)):
        predicted, of_batch = predict_part(predictor, batch)
        blocks.append(predicted.probabilities)
        reasons += of_batch
        progress(len(reasons), total)
    return np.concatenate(blocks), reasons


def _promise(facts: BundleFacts) -> Promise:
    provenance = facts.provenance
    return Promise(
        name=provenance.name,
        class_names=facts.class_names,
        metric=provenance.metric,
        scores=provenance.scores,
        class_counts=provenance.class_counts,
        assumed_shares=provenance.assumed_shares,
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Writes evaluation.json, .md and .csv."""
    from raysk.artifacts import write_text
    from raysk.evaluation.promise_tables import as_csv, as_markdown

    evaluation.write(folder / "evaluation.json")
    write_text(folder / "evaluation.md", as_markdown(evaluation))
    write_text(folder / "evaluation.csv", as_csv(evaluation))
