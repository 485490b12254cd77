"""Segmentation: an encoder and a decoder that learn masks, and the masks that they predict."""

from collections.abc import Iterator
from math import isqrt

import numpy as np
import torch
from torch import Tensor, nn

from raysk.data.store.region_store import StoredMasks
from raysk.data.views import MEAN, TURNING_BACK, test_time_views, view_names
from raysk.parts.decoder import decoder_for, maps_of
from raysk.parts.encoder import Encoder
from raysk.parts.precision import at_least_single
from raysk.parts.tasks import Segmentation
from raysk.recipe import Job
from raysk.run import Run
from raysk.training.batches import Inputs, Plan
from raysk.training.checkpoints import ClassifierCheckpoint, load_weights
from raysk.training.features import encode
from raysk.training.images import DrawnViews, turned_images
from raysk.training.loop import Report, StageProgress, Trainer, hash_seed
from raysk.training.networks import blank_encoder
from raysk.training.stage_one import fresh_encoder, load_encoder
from raysk.training.world import World

# Pixels of the images that are predicted together: a decoder has some hundred numbers for each.
_BATCH_PIXELS, _MOST_IMAGES = 1 << 21, 256


class Segmenter(nn.Module):
    """The network of stage two for masks: an encoder and a decoder.

    Args:
        encoder: Its backbone gives the maps.
        task: Settings of the decoder.
        image_size: Side of the images, in pixels.
        frozen: Whether the encoder keeps its weights and its running statistics.
    """

    def __init__(self, encoder: Encoder, task: Segmentation, image_size: int, frozen: bool) -> None:
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.decoder = decoder_for(encoder.backbone, image_size, task.width)
        if frozen:
            encoder.requires_grad_(False)
        else:
            self._freeze_unused(image_size)

    def train(self, mode: bool = True) -> "Segmenter":
        """Sets the mode; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (B, H, W), float32, of one view of each image (B, 1, H, W, 3), uint8."""
        with self.encoder.computing():
            logits = self.decoder(maps_of(self.encoder.backbone, self.encoder.normalised(images.squeeze(1))))
        return at_least_single(logits)

    def _freeze_unused(self, image_size: int) -> None:
        """Freezes the weights after the last map: workers wait for the gradient of each weight that is not frozen."""
        self.eval()
        weights = list(self.encoder.parameters())
        images = torch.zeros(1, 1, image_size, image_size, 3, dtype=torch.uint8)
        gradients = torch.autograd.grad(self(images).sum(), weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.requires_grad_(gradient is not None)
        self.train()


class _Shares(nn.Module):
    """Gives the probability of each pixel as a row, (B, P) float16, of images (B, H, W, 3)."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        return torch.sigmoid(self.segmenter(images.unsqueeze(1))).flatten(1).half()


class MaskBatches:
    """Batches of freshly drawn views with their masks, which turn with them.

    Args:
        job: Its recipe names the images, the view and the order.
        run: Holds images and masks.
        world: The workers that share a batch.
    """

    def __init__(self, job: Job, run: Run, world: World) -> None:
        recipe = job.recipe
        self.rows = run.train_rows(job)
        self.plan = Plan(run.manifest.labels[self.rows], recipe.stage_two, recipe.seed, world)
        lesions = StoredMasks(run.regions(recipe.image_size))
        self._draw = DrawnViews(run.images(recipe), (recipe.stage_two.view,), recipe.seed, world, lesions)

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        return self.plan.num_batches

    def epoch(self, epoch: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Yields images (B/W, 1, H, W, 3) and masks (B/W, H, W), uint8."""
        requests = [share._replace(rows=self.rows[share.rows]) for share in self.plan.shares(epoch)]
        device = self.plan.world.device
        for images, masks in self._draw(epoch, requests):
            assert masks is not None
            yield images.to(device, non_blocking=True), masks.to(device, non_blocking=True)


def fit_segmenter(job: Job, run: Run, world: World, report: Report) -> tuple[StageProgress, nn.Module]:
    """Fits decoder and encoder on masks; of a frozen encoder, the decoder alone."""
    recipe, stage = job.recipe, job.recipe.stage_two
    is_new = recipe.stage_one is None and not stage.frozen
    encoder = fresh_encoder(job, world) if is_new else load_encoder(job, run)
    torch.manual_seed(hash_seed(recipe.seed, job.fold, 2))
    segmenter = _segmenter(job, encoder)
    trainer = Trainer(
        segmenter.to(world.device),
        _task(job).loss(),
        stage,
        hash_seed(recipe.seed, 2),
        world,
        (recipe.key, job.fold),
        run.progress_file(job),
        head_epochs=stage.head_epochs,
    )
    return trainer.fit(MaskBatches(job, run, world), "stage two", report), segmenter


def predict_masks(job: Job, run: Run, world: World, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the probability of the lesion at each pixel of rows, (N, P) float16: the mean over the test-time views.

    Each view is turned back first. The views of eight masks would take eight times the memory, so they are not kept.
    """
    shares = _Shares(load_segmenter(job, run).to(world.device))
    store, views = run.images(job.recipe), view_names(job.recipe.test_views)
    num_pixels = job.recipe.image_size**2
    batch = min(max(1, _BATCH_PIXELS // num_pixels), _MOST_IMAGES)
    total = np.zeros((len(rows), num_pixels), np.float32)
    for view in views:
        total += turned_back(encode(shares, rows, turned_images(store, view), world, batch).cpu().numpy(), view)
    return {MEAN: (total / len(views)).astype(np.float16)}


def encoder_of_job(job: Job, run: Run) -> Encoder:
    """Returns the encoder of a trained job, on the CPU."""
    return load_segmenter(job, run).encoder


def turned_back(masks: np.ndarray, view: str) -> np.ndarray:
    """Returns the masks (N, P) of images in a test-time view as masks of the images themselves."""
    side = isqrt(masks.shape[1])
    turned = test_time_views[TURNING_BACK[view]](masks.reshape(-1, side, side, 1))
    return np.ascontiguousarray(turned).reshape(masks.shape)


def load_segmenter(job: Job, run: Run) -> Segmenter:
    """Returns encoder and decoder of a trained job, on the CPU.

    Raises:
        ArtifactError: The file is missing, broken or from another job.
    """
    segmenter = _segmenter(job, blank_encoder(job.recipe.model, job.recipe.image_size))
    path = run.classifier_file(job)
    load_weights(segmenter, ClassifierCheckpoint.read(path, job.recipe.key, job.fold).tensors, path)
    return segmenter.eval()


def _segmenter(job: Job, encoder: Encoder) -> Segmenter:
    return Segmenter(encoder, _task(job), job.recipe.image_size, job.recipe.stage_two.frozen)


def _task(job: Job) -> Segmentation:
    task = job.recipe.task
    assert isinstance(task, Segmentation)
    return task
