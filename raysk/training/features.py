"""Features of rows from a frozen encoder, computed once per encoder, fold and view, and kept in the run.

Those of an encoder that came ready do not depend on the fold; see `ready_features`.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.store.image_store import ImageStore
from raysk.data.views import view_names
from raysk.parts.encoder import Encoder
from raysk.recipe import Job
from raysk.records import Part
from raysk.run import Run
from raysk.training.checkpoints import FeatureCheckpoint
from raysk.training.images import DrawnViews, Draws, Images, plain_images, turned_images
from raysk.training.ready_features import ReadyFeatures
from raysk.training.world import World

# Large enough to fill a GPU, small enough for the memory of a laptop.
_BATCH = 256


def encode(encoder: nn.Module, rows: np.ndarray, images: Images, world: World, batch_size: int = _BATCH) -> Tensor:
    """Encodes rows in evaluation mode, without gradient; leaves the encoder unchanged.

    Args:
        encoder: Maps images to rows of numbers: features, or the shares of a mask.
        rows: (N,).
        images: Returns the images (B, H, W, 3) of each batch of rows.
        world: Each rank encodes its share.
        batch_size: Number of images that are encoded together.

    Returns:
        What the encoder gives, (N, D), the same on every rank.
    """
    was_training = encoder.training
    encoder.eval()
    # Shares must have equal size to be gathered: if N does not divide, the first rows are encoded again at the end.
    padded = np.resize(rows, -(-len(rows) // world.size) * world.size)
    share = np.split(padded, world.size)[world.rank]
    batches = [share[start : start + batch_size] for start in range(0, len(share), batch_size)]
    features = []
    with torch.inference_mode():
        for batch in images(batches):
            features.append(encoder(batch.to(world.device, non_blocking=True)))
        gathered = world.gather(torch.cat(features))[: len(rows)]
    encoder.train(was_training)
    # A clone is not an inference tensor, so heads can be trained on it.
    return gathered.clone()


class FrozenFeatures:
    """The features of a job's frozen encoder on its fold.

    Args:
        job: Names the encoder and the fold.
        run: Keeps the files.
        world: The workers that encode together; all of them must make the same calls.
        load: Reads the encoder if a file is missing.
    """

    def __init__(self, job: Job, run: Run, world: World, load: Callable[[Job, Run], Encoder]) -> None:
        self.job, self.run, self.world, self._load = job, run, world, load

    def training(self, view: str, passes: int) -> Tensor:
        """Returns the features of the training rows in `passes` drawn views, (P, N, D)."""
        # Recipes with other shares of labels may use the same encoder, so the file has the rows of all shares.
        rows = self.run.folds.train_rows(self.job.fold)
        images = [self._drawn(view, number) for number in range(passes)]
        if self.job.recipe.is_probe:
            seed = self.job.recipe.seed
            names = ["identity" if view == "none" else f"{view}-{number}-{seed}" for number in range(passes)]
            features = torch.stack([self._ready(*named, rows) for named in zip(names, images, strict=True)])
        else:
            names = [f"train-{view}-{number}" for number in range(passes)]
            features = torch.stack([self._features(name, rows, of) for name, of in zip(names, images, strict=True)])
        is_labelled = np.isin(rows, self.run.train_rows(self.job))
        return features if is_labelled.all() else features[:, np.flatnonzero(is_labelled)]

    def part(self, part: Part) -> Tensor:
        """Returns the features of a part's rows in every test-time view of the recipe, (V, N, D)."""
        rows = self.run.folds.test_rows if part == "test" else self.run.folds.held_out_rows(self.job.fold)
        views = view_names(self.job.recipe.test_views)
        if self.job.recipe.is_probe:
            return torch.stack([self._ready(view, turned_images(self._store, view), rows) for view in views])
        return torch.stack([self._features(f"{part}-{view}", rows, turned_images(self._store, view)) for view in views])

    def _ready(self, name: str, images: Images, rows: np.ndarray) -> Tensor:
        """Returns the features of rows, (N, D), cut out of those of all rows, which all folds share."""
        kept = ReadyFeatures.of(self.job.recipe, name, self._store, self.run, self.world)
        return kept.of_rows(rows, lambda every: encode(self._encoder, every, images, self.world))

    def _features(self, name: str, rows: np.ndarray, images: Images) -> Tensor:
        path = self.run.features_file(self.job, name)
        key = str(self.job.recipe.encoder_key)
        if not self.world.agree(path.exists()):
            features = encode(self._encoder, rows, images, self.world)
            if self.world.is_main_rank:
                FeatureCheckpoint(key, self.job.fold, {"name": name}, {"features": features}).write(path)
            self.world.barrier()
        return FeatureCheckpoint.read(path, key, self.job.fold).tensors["features"].to(self.world.device)

    def _drawn(self, view: str, number: int) -> Images:
        if view == "none":
            return plain_images(self._store)
        draw = DrawnViews(self._store, (view,), self.job.recipe.seed, self.world)
        # A pass is drawn as an epoch that draws each row once.
        return lambda batches: (
            views.images[:, 0] for views in draw(number, [Draws(rows, np.zeros_like(rows)) for rows in batches])
        )

    @cached_property
    def _store(self) -> ImageStore:
        return self.run.images(self.job.recipe)

    @cached_property
    def _encoder(self) -> Encoder:
        return self._load(self.job, self.run).to(self.world.device)
