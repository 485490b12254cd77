"""Explains the rows of a run on its test part: one row into a folder, or all of them as columns of the board."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from raysk.artifacts import write_text
from raysk.data.manifest import Manifest
from raysk.errors import ArtifactError, ConfigError
from raysk.evaluation.attention_record import ATTENTION_FILE, AttentionRecord, ConfidentError
from raysk.evaluation.attention_scores import AttentionScores, attention_columns, mean_scores
from raysk.evaluation.board_attention import explained_row
from raysk.evaluation.formats import write_leaderboard
from raysk.evaluation.leaderboard import Leaderboard
from raysk.inference.explaining import Explainer, save_overlay
from raysk.inference.looking import Error, Looks, knows_masks, look_at_test_part
from raysk.inference.overlays import draw_overlay
from raysk.inference.packing import pack_row
from raysk.inference.predictor import Predictor, usable_device
from raysk.run import Run

# The pictures in a page: the most of them, the width of each in pixels and its quality as a JPEG file. Each has about
# 10 kB.
_MOST_PICTURES, _WIDTH, _QUALITY = 40, 320, 80

Progress = Callable[[int, int], None]


def explain_test_part(explainer: Explainer, run: Run, folder: Path, progress: Progress | None = None) -> str:
    """Writes what a row looks at in the test part; returns the table of its scores, in Markdown.

    The folder gets the table as `attention.md`, and for each class overlays of the images of this class that the
    row most confidently takes for another one: the attention to what it predicts.

    Args:
        explainer: The row.
        run: The run.
        folder: The folder.
        progress: Called with the number of images done and the total.
    """
    names = run.manifest.class_names
    looks = look_at_test_part(explainer, run, progress)
    for truth, errors in looks.errors.items():
        for number, error in enumerate(errors):
            found = error.explained
            name = f"error-{names[truth]}-{number}-as-{names[found.label]}-{found.probability:.2f}.png"
            save_overlay(folder / name.replace("/", "_"), found, error.lesion)
    table = _table(looks.of_images, run.manifest.labels[run.folds.test_rows], names)
    write_text(folder / "attention.md", table + "\n")
    return table


def explain_board(run: Run, device: str | None = None, progress: Progress | None = None) -> AttentionRecord:
    """Scores the attention of all rows of a finished run, and writes the leaderboard with these columns.

    What is done is kept in `attention.json` after each row, and is not done again. Without a mask in the test part only
    the chosen row is explained, for the pictures of its errors.

    Args:
        run: The run.
        device: Where it computes; None takes a GPU if there is one.
        progress: Called with the number of images done and the total, over all rows.

    Raises:
        ArtifactError: The study has not ended, or another process uses the run.
        ConfigError: There is no such device, or the run predicts masks.
        DataError: An image cannot be read.
    """
    if not run.class_names:
        raise ConfigError(
            f"a run must predict classes to be explained, but {run.folder} predicts masks: look at its masks.png"
        )
    usable = usable_device(device)
    board, path = Leaderboard.read(run.folder / "leaderboard.json"), run.folder / ATTENTION_FILE
    new = AttentionRecord(num_images=len(run.folds.test_rows), scores={}, left_out={})
    record = AttentionRecord.read(path) if path.exists() else new
    shown = explained_row(board)
    rows = sorted(board.rows, key=lambda row: row is not shown) if knows_masks(run) else [row for row in [shown] if row]
    waiting = [row for row in rows if row.key not in record.scores or (row is shown and row.key != record.errors_of)]
    with Run.reserved(run.folder):
        for place, row in enumerate(waiting):
            of_row = None if progress is None else partial(_of_row, progress, place, len(waiting))
            try:
                explainer = Explainer(Predictor(pack_row(run, row.key), usable))
            except (ArtifactError, ConfigError) as error:  # it sees cropped pictures, or has no maps
                record = replace(record, left_out=record.left_out | {row.key: str(error)})
            else:
                looks = look_at_test_part(explainer, run, of_row)
                record = _with_row(record, run, row.key, looks)
                if row is shown:
                    record = replace(record, errors_of=row.key, errors=_pictured(looks, run.manifest))
            record.write(path)
        write_leaderboard(board, run.folder)
    return record


def _of_row(progress: Progress, place: int, num_rows: int, done: int, total: int) -> None:
    progress(place * total + done, num_rows * total)


def _with_row(record: AttentionRecord, run: Run, key: str, looks: Looks) -> AttentionRecord:
    manifest, rows = run.manifest, run.folds.test_rows
    columns = attention_columns(looks.of_images, manifest.labels[rows], manifest.groups[rows], manifest.class_names)
    every = mean_scores(looks.of_images)
    return replace(
        record,
        num_lesions=every.count,
        area=every.area if every.count else 0.0,
        scores=record.scores | {key: columns},
        left_out={other: reason for other, reason in record.left_out.items() if other != key},
    )


def _pictured(looks: Looks, manifest: Manifest) -> tuple[ConfidentError, ...]:
    """Returns the errors with small pictures: equally many of each class at most."""
    of_class = max(1, _MOST_PICTURES // max(1, len(looks.errors)))
    errors = [error for of_truth in looks.errors.values() for error in of_truth[:of_class]]
    return tuple(_as_record(error, manifest) for error in errors[:_MOST_PICTURES])


def _as_record(error: Error, manifest: Manifest) -> ConfidentError:
    found, names = error.explained, manifest.class_names
    picture = draw_overlay(found.pixels, found.attention, error.lesion)
    small = picture.resize((_WIDTH, _WIDTH * picture.height // picture.width), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=_QUALITY)
    return ConfidentError(
        label=names[manifest.labels[error.row]],
        predicted=names[found.label],
        probability=found.probability,
        image=manifest.paths[error.row].name,
        picture=base64.b64encode(content.getvalue()).decode(),
    )


def _table(of_images: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], class_names: Sequence[str]) -> str:
    if np.isnan(of_images).all():
        return "No image of the test part has a mask, so that nothing tells whether the attention lies on the lesion."
    groups = {name: labels == label for label, name in enumerate(class_names)} | {"all": labels >= 0}
    lines = ["| class | images | energy inside | pointing game | area of the lesion |", "| --- " + "| ---: " * 4 + "|"]
    lines += [f"| {name} | {_cells(mean_scores(of_images[chosen]))} |" for name, chosen in groups.items()]
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
