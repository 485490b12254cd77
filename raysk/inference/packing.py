"""Packs a leaderboard row of a run into a bundle."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version

import numpy as np
from torch import Tensor

from raysk.data.views import view_names
from raysk.errors import ArtifactError
from raysk.evaluation.ensemble import Ensemble
from raysk.evaluation.leaderboard import Leaderboard, Row, find_row
from raysk.inference.bundle import SCHEMA, Bundle, BundleFacts, EncoderFacts, HeadFacts, Provenance
from raysk.inference.card import card_of
from raysk.recipe import Job, Recipe
from raysk.run import GREEDY, Run
from raysk.training.checkpoints import pack
from raysk.training.networks import Encoder
from raysk.training.predict import load_classifier, log_shares

# Libraries on whose versions the digits of a prediction depend.
_LIBRARIES = ("raysk", "torch", "timm", "pillow", "numpy")


def pack_row(run: Run, wanted: str = GREEDY, *, weights_licence: str = "", data_licence: str = "") -> Bundle:
    """Packs a row of a finished run.

    Args:
        run: The run directory.
        wanted: Place, name or key of the row.
        weights_licence: A line on the licence of the weights; "" says what is known.
        data_licence: A line on the licence of the images.

    Raises:
        ArtifactError: No row matches, several do, or a file of the run is missing or damaged.
    """
    board = run.folder / "leaderboard.json"
    if not board.exists():
        raise ArtifactError(f"{board} must exist, but the study has not ended: wait, or continue it with --resume")
    row = find_row(Leaderboard.read(board), wanted)
    weights = _weights(run, row)
    packing = _Packing(run)
    for key, of_view in weights.items():
        packing.add(run.recipe(key), of_view, range(len(run.folds)))
    recipes = [run.recipe(key) for key in weights]
    provenance = _provenance(run, row, weights_licence or _weights_licence(recipes), data_licence)
    facts = BundleFacts(
        schema_version=SCHEMA,
        class_names=run.manifest.class_names,
        encoders=tuple(packing.encoders),
        heads=tuple(packing.heads),
        provenance=provenance,
    )
    return Bundle(facts, packing.tensors, card_of(facts))


def _weights(run: Run, row: Row) -> dict[str, dict[str, float]]:
    """Returns the weight of each recipe of a row, by test-time view; all weights sum to 1."""
    if row.kind != "ensemble":
        views = view_names(run.recipe(row.key).test_views)
        return {row.key: dict.fromkeys(views, 1 / len(views))}
    ensemble = Ensemble.read(run.ensemble_file(row.name))
    weights: dict[str, dict[str, float]] = defaultdict(dict)
    for member, weight in zip(ensemble.members, ensemble.weights, strict=True):
        weights[member.recipe_key][member.view] = weight / sum(ensemble.weights)
    return weights


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
            # Recipes with one stage one share its encoders; an encoder that was trained with its head is its own.
            name = str(recipe.encoder_key if recipe.stage_two.frozen else recipe.key)
            place = self._place(name, fold, recipe, encoder)
            self.tensors |= pack(f"heads/{len(self.heads)}", head.state_dict())
            shift = recipe.stage_two.adjustment * log_shares(self.run.class_counts(fold))
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
                    backbone=model.backbone, pooling=model.pooling, image_size=recipe.image_size, mean=mean, std=std
                )
            )
            self.tensors |= pack(f"encoders/{place}", encoder.state_dict())
        return self._places[name, fold]


def _provenance(run: Run, row: Row, weights_licence: str, data_licence: str) -> Provenance:
    manifest, folds = run.manifest, run.folds
    trained = np.setdiff1d(np.arange(len(manifest)), folds.test_rows)
    counts = np.bincount(manifest.labels[trained], minlength=len(manifest.class_names))
    return Provenance(
        name=row.name,
        key=row.key,
        kind=row.kind,
        settings=row.settings,
        chosen_on=row.chosen_on,
        scored_on=row.scored_on,
        scores=dict(row.scores),
        refitted=False,
        class_counts=tuple(counts.tolist()),
        num_groups=len(np.unique(manifest.groups[trained])) if manifest.grouped else 0,
        num_locked=len(folds.test_rows),
        data=run.facts["data"],
        folds=run.facts["divide"],
        manifest=manifest.digest,
        command=row.command,
        commit=row.commit,
        created=f"{date.today():%Y-%m-%d}",
        versions={name: version(name) for name in _LIBRARIES},
        weights_licence=weights_licence,
        data_licence=data_licence or "not stated: give --data-licence",
    )


def _weights_licence(recipes: Sequence[Recipe]) -> str:
    """Returns what a run knows of the licence of its weights."""
    published = sorted({recipe.model.backbone for recipe in recipes if recipe.model.pretrained})
    files = sorted({str(recipe.model.checkpoint) for recipe in recipes if recipe.model.checkpoint})
    started = [f"the published weights {name}" for name in published] + [f"the file {name}" for name in files]
    if not started:
        return "trained from scratch: only the licence of the images restricts the weights"
    return f"trained from {', '.join(started)}: their licence applies"
