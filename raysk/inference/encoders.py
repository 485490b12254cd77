"""The encoder of a leaderboard row as a file of weights, with what it has seen."""

import numpy as np
from torch import Tensor

from raysk.data.folds.assignment import WHOLE
from raysk.data.seen import Identities, Seen
from raysk.errors import ArtifactError, ConfigError
from raysk.evaluation.leaderboard import Row
from raysk.inference.packing import row_of
from raysk.model import Model
from raysk.parts.encoder import Encoder
from raysk.parts.weights import SCHEMA, Origin, read_weights
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.scoring import NOTHING
from raysk.training.learners import learner_of


def encoder_of_row(run: Run, wanted: str, fold: int | None = None) -> tuple[dict[str, Tensor], Origin]:
    """Returns the weights of a row's encoder under timm's names, and where they come from.

    Args:
        run: The run directory.
        wanted: Place, name or key of the row.
        fold: Whose encoder to take, which its held-out rows did not train; None takes the refitted one.

    Raises:
        ArtifactError: No row matches, several do, the row is an ensemble or is not refitted, or a file is missing.
        ConfigError: The run does not have the fold.
        DataError: The file of a picture cannot be read.
    """
    row = row_of(run, wanted)
    if row.kind == "ensemble":
        raise ArtifactError(
            f"ROW must be a single recipe, but {row.name!r} averages several: give the key of one of its members, "
            f"which are in {run.ensemble_file(row.name)}"
        )
    recipe = run.recipe(row.key)
    job = Job(recipe, _fold(run, row, recipe, fold))
    encoder = learner_of(recipe).encoder(job, run)
    seen, is_published = _seen_before(recipe.model)
    if not recipe.is_probe:
        seen |= Identities(run.manifest).seen(_seen_rows(run, row, job))
    mean, std = _normalising(encoder)
    origin = Origin(
        schema_version=SCHEMA,
        backbone=recipe.model.backbone,
        image_size=recipe.image_size,
        mean=mean,
        std=std,
        row=row.name,
        recipe=recipe.key,
        fold=job.fold,
        manifest=run.manifest.digest,
        published=is_published,
        pictures=tuple(sorted(seen.pictures)),
        groups=tuple(sorted(seen.groups)),
    )
    return dict(encoder.backbone.network.state_dict()), origin


def _fold(run: Run, row: Row, recipe: Recipe, fold: int | None) -> int:
    """Returns the fold whose encoder is taken; `WHOLE` for that of all rows, or for one that no fold trained."""
    last = len(run.folds) - 1
    if fold is not None and not 0 <= fold <= last:
        raise ConfigError(f"--fold must be in [0, {last}], but got {fold}: choose one from that range")
    job, is_kept = Job(recipe, WHOLE), recipe.uses_kept_features
    comes_ready = recipe.is_probe and is_kept
    # Rows with one stage one share its encoder.
    whole = run.encoder_file(job) if is_kept else run.classifier_file(job)
    if fold is None and not comes_ready and not whole.exists():
        raise ArtifactError(
            f"an encoder must be one, but {row.name!r} has {last + 1}, one for each fold: train one on all rows with "
            f"raysk refit {run.folder} --row {row.key}, or give --fold 0"
        )
    return WHOLE if fold is None or comes_ready else fold


def _seen_rows(run: Run, row: Row, job: Job) -> np.ndarray:
    """Returns the rows that trained an encoder, unlabelled ones too, and those that chose its recipe."""
    chosen = run.folds.train_rows(job.fold if row.chosen_on == NOTHING else WHOLE)
    return np.union1d(chosen, run.stage_one_rows(job))


def _seen_before(model: Model) -> tuple[Seen, bool]:
    """Returns what the initial weights have seen, and whether they are published ones, of which nobody knows."""
    if model.file is None:
        return Seen(), model.pretrained
    origin = read_weights(model.file).origin
    if origin is None:
        return Seen(), True
    return Seen(frozenset(origin.pictures), frozenset(origin.groups)), origin.published


def _normalising(encoder: Encoder) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    (a, b, c), (d, e, f) = (values.flatten().tolist() for values in (encoder.mean, encoder.std))
    return (a, b, c), (d, e, f)
