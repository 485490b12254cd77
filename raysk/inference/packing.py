"""Packs a leaderboard row of a run into a bundle."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version

import numpy as np
from torch import Tensor

from raysk.data.folds.assignment import WHOLE
from raysk.data.views import view_names
from raysk.errors import ArtifactError
from raysk.evaluation.class_rates import class_rates
from raysk.evaluation.ensemble import GREEDY, Ensemble
from raysk.evaluation.leaderboard import Leaderboard, Row, find_row
from raysk.evaluation.prior_shift import assumed_shares
from raysk.inference.bundle import SCHEMA, Bundle, BundleFacts, EncoderFacts, HeadFacts, Provenance
from raysk.inference.card import card_of
from raysk.parts.encoder import Encoder
from raysk.recipe import Job, Recipe
from raysk.run import Run
from raysk.scoring import probabilities_on_test, read_held_out
from raysk.training.checkpoints import pack
from raysk.training.classifying import load_classifier, log_shares

# Libraries on whose versions the digits of a prediction depend.
_LIBRARIES = ("raysk", "torch", "timm", "pillow", "numpy")


def pack_row(
    run: Run, wanted: str = GREEDY, *, refitted: bool = False, weights_licence: str = "", data_licence: str = ""
) -> Bundle:
    """Packs a row of a finished run.

    Args:
        run: The run directory.
        wanted: Place, name or key of the row.
        refitted: Whether to take the models of `raysk refit` rather than those of the folds.
        weights_licence: A line on the licence of the weights; "" says what is known.
        data_licence: A line on the licence of the images.

    Raises:
        ArtifactError: No row matches, several do, or a file of the run is missing or damaged.
    """
    row = row_of(run, wanted)
    if not run.class_names:
        raise ArtifactError(
            f"a bundle must be of classifiers, but {row.name} predicts masks: use raysk predict or raysk evaluate with "
            "the run itself"
        )
    weights = recipe_weights(run, row)
    packing = _Packing(run)
    recipes = [run.recipe(key) for key in weights]
    for recipe in recipes:
        if recipe.crop.region != "none":
            raise ArtifactError(
                f"a bundle must see whole pictures, since new ones have no {recipe.crop.region} to crop them to, but "
                f"recipe {recipe.key} has crop.region={recipe.crop.region}: choose another row"
            )
        if refitted:
            check_refitted(run, recipe)
        packing.add(recipe, weights[recipe.key], [WHOLE] if refitted else range(len(run.folds)))
    provenance = _provenance(run, row, refitted, weights_licence or _weights_licence(recipes), data_licence)
    facts = BundleFacts(
        schema_version=SCHEMA,
        class_names=run.manifest.class_names,
        bits=run.manifest.bits,
        operating_points=row.operating_points,
        encoders=tuple(packing.encoders),
        heads=tuple(packing.heads),
        provenance=provenance,
    )
    return Bundle(facts, packing.tensors, card_of(facts))


def row_of(run: Run, wanted: str) -> Row:
    """Returns a row of a finished run by its place, its name or its key.

    Raises:
        ArtifactError: The study has not ended, no row matches, or several do.
    """
    board = run.folder / "leaderboard.json"
    if not board.exists():
        raise ArtifactError(f"{board} must exist, but the study has not ended: wait, or continue it with --resume")
    return find_row(Leaderboard.read(board), wanted)


def recipe_weights(run: Run, row: Row) -> dict[str, dict[str, float]]:
    """Returns the weight of each recipe of a row, by test-time view; all weights sum to 1."""
    if row.kind != "ensemble":
        views = view_names(run.recipe(row.key).test_views)
        return {row.key: dict.fromkeys(views, 1 / len(views))}
    ensemble = Ensemble.read(run.ensemble_file(row.name))
    weights: dict[str, dict[str, float]] = defaultdict(dict)
    for member, weight in zip(ensemble.members, ensemble.weights, strict=True):
        weights[member.recipe_key][member.view] = weight / sum(ensemble.weights)
    return weights


def check_refitted(run: Run, recipe: Recipe) -> None:
    """Refuses a recipe that `raysk refit` has not trained.

    Raises:
        ArtifactError: It has not.
    """
    if not run.classifier_file(Job(recipe, WHOLE)).exists():
        raise ArtifactError(
            f"a row must be refitted before its refitted models are used, but recipe {recipe.key} is not: run raysk "
            f"refit {run.folder} with this row first"
        )


class _Packing:
    """Collects encoders and heads; an encoder that several heads share is kept once.

    Args:
        run: Has the files.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.encoders: list[EncoderFacts] = []
        self.heads: list[HeadFacts] = []
        self.tensors: dict[str, Tensor] = {}
        self._places: dict[tuple[str, int], int] = {}

    def add(self, recipe: Recipe, weights: dict[str, float], folds: Sequence[int]) -> None:
        """Adds the models of a recipe's folds, with equal shares of its weight in each view."""
        for fold in folds:
            encoder, head = load_classifier(Job(recipe, fold), self.run)
            # Recipes with one stage one share its encoders, and all folds a ready one; an encoder that was trained with
            # its head is its own.
            name = str(recipe.encoder_key if recipe.uses_kept_features else recipe.key)
            place = self._place(name, WHOLE if recipe.is_probe else fold, recipe, encoder)
            self.tensors |= pack(f"heads/{len(self.heads)}", head.state_dict())
            shift = recipe.stage_two.adjustment * log_shares(self.run.class_counts(Job(recipe, fold)))
            self.heads.append(
                HeadFacts(
                    encoder=place,
                    settings=recipe.to_plain()["stage_two"]["head"],
                    shift=tuple(shift.tolist()),
                    weights={view: weight / len(folds) for view, weight in weights.items()},
                    recipe=recipe.key,
                    fold=fold,
                )
            )

    def _place(self, name: str, fold: int, recipe: Recipe, encoder: Encoder) -> int:
        """Returns the place of an encoder; adds it if it is new."""
        if (name, fold) not in self._places:
            place = self._places[name, fold] = len(self.encoders)
            mean, std = (tuple(values.flatten().tolist()) for values in (encoder.mean, encoder.std))
            model = recipe.model
            self.encoders.append(
                EncoderFacts(
                    backbone=model.backbone,
                    pooling=model.pooling,
                    layers=model.layers,
                    output_stride=model.output_stride,
                    image_size=recipe.image_size,
                    mean=mean,
                    std=std,
                )
            )
            self.tensors |= pack(f"encoders/{place}", encoder.state_dict())
        return self._places[name, fold]


def _provenance(run: Run, row: Row, refitted: bool, weights_licence: str, data_licence: str) -> Provenance:
    manifest, test_rows = run.manifest, run.folds.test_rows
    recipes = [run.recipe(key) for key in recipe_weights(run, row)]
    jobs = [Job(recipe, WHOLE) for recipe in recipes]
    trained = np.unique(np.concatenate([run.train_rows(job) for job in jobs]))
    seen = np.unique(np.concatenate([run.stage_one_rows(job) for job in jobs]))
    held_out, test = read_held_out(run, row.key).mean(), probabilities_on_test(run, row)
    rates = class_rates(test, manifest.labels[test_rows], manifest.groups[test_rows], manifest.class_names)
    return Provenance(
        name=row.name,
        key=row.key,
        kind=row.kind,
        settings=", ".join(filter(None, [row.settings, row.encoder and f"encoder: {row.encoder}"])),
        chosen_on=row.chosen_on,
        scored_on=row.scored_on,
        metric=run.goal.metric.name,
        scores=dict(row.scores) | {f"test_{name}": value for name, value in rates.items()},
        refitted=refitted,
        class_counts=tuple(manifest.count_classes(trained).tolist()),
        num_groups=len(np.unique(manifest.groups[trained])) if manifest.grouped else 0,
        num_unlabelled=len(np.setdiff1d(seen, trained)),
        test_counts=tuple(manifest.count_classes(test_rows).tolist()),
        assumed_shares=_assumed_shares(held_out, run),
        data=run.facts.data,
        folds=run.facts.divide,
        manifest=manifest.digest,
        command=row.command,
        commit=row.commit,
        created=f"{date.today():%Y-%m-%d}",
        versions={name: version(name) for name in _LIBRARIES},
        weights_licence=weights_licence,
        data_licence=data_licence or "not stated: give --data-licence",
    )


def _assumed_shares(held_out: np.ndarray, run: Run) -> tuple[float, ...]:
    """Returns the class shares that the probabilities of a row assume, from those out of fold."""
    labels = run.manifest.labels[run.folds.fold >= 0]
    # Rows of a class may all be for training only, but a share must not be 0.
    counts = np.maximum(np.bincount(labels, minlength=held_out.shape[1]), 1)
    return tuple(assumed_shares(held_out, counts / counts.sum()).tolist())


def _weights_licence(recipes: Sequence[Recipe]) -> str:
    """Returns what a run knows of the licence of its weights."""
    files = sorted({recipe.model.file.name for recipe in recipes if recipe.model.file})
    published = sorted({r.model.backbone for r in recipes if r.model.pretrained and not r.model.file})
    started = [f"the published weights {name}" for name in published] + [f"the file {name}" for name in files]
    if not started:
        return "trained from scratch: only the licence of the images restricts the weights"
    return f"trained from {', '.join(started)}: their licence applies"
