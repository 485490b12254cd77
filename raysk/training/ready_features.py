"""Features of all rows from an encoder that came ready: no fold trained it, so that folds and studies share them.

They are kept in the cache of each machine under a name that is made from their content: the weights, the pixels, the
view, and how the layers are pooled. A machine that lacks them encodes the rows itself.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from raysk.artifacts import digest_of, locked
from raysk.data.folds.assignment import WHOLE
from raysk.data.store.image_store import ImageStore
from raysk.errors import ArtifactError
from raysk.model import Model
from raysk.parts.backbones import published_weights
from raysk.parts.precision import compute_dtype
from raysk.parts.weights import read_weights
from raysk.recipe import Recipe
from raysk.run import Run
from raysk.training.checkpoints import FeatureCheckpoint
from raysk.training.world import World

# Raise it when the features of an encoder change.
_VERSION = 1
# Libraries on whose versions the digits of features depend.
_LIBRARIES = ("torch", "timm")

# Encodes rows, (N,) to (N, D); all ranks call it together.
Encode = Callable[[np.ndarray], Tensor]


@dataclass(frozen=True)
class ReadyFeatures:
    """The features of all N rows in one view.

    Args:
        key: The name, made from the content.
        path: The file in the cache of this machine.
        num_rows: N.
        world: The workers that encode together; all of them must make the same calls.
    """

    key: str
    path: Path
    num_rows: int
    world: World

    @classmethod
    def of(cls, recipe: Recipe, view: str, store: ImageStore, run: Run, world: World) -> Self:
        """Names the features.

        Args:
            recipe: Has the encoder.
            view: Name of a test-time view, or of drawn views.
            store: The images of all rows.
            run: Has the cache.
            world: See above; its devices and the model set the precision.
        """
        model = recipe.model
        content = {
            "version": _VERSION,
            "libraries": [version(name) for name in _LIBRARIES],
            "dtype": [world.device.type, str(compute_dtype(world.device, model.precision))],
            "backbone": model.backbone,
            "weights": weights_digest(model),
            "pooling": [model.pooling, model.layers, model.output_stride],
            "pixels": store.digest,
            "view": view,
        }
        key = digest_of(content)
        return cls(key, run.cache / "features" / f"{key}.safetensors", len(store), world)

    def of_rows(self, rows: np.ndarray, encode: Encode) -> Tensor:
        """Returns the features of rows, (N, D), on the device; encodes all rows if no process has done so before."""
        if not self._is_kept():
            # Another process of this machine may encode them: the main rank waits for it, and the others for that rank.
            with locked(self.path.with_suffix(".lock")) if self.world.is_main_rank else nullcontext():
                if not self._is_kept():
                    self._keep(encode(np.arange(self.num_rows)))
        return self._read(rows).to(self.world.device)

    def _is_kept(self) -> bool:
        """Returns whether all ranks, which may be on several machines, find the features."""
        found = torch.tensor([float(self.path.exists())], device=self.world.device)
        return bool(self.world.gather(found).all())

    def _keep(self, features: Tensor) -> None:
        if not self.path.exists():
            FeatureCheckpoint(self.key, WHOLE, {}, {"features": features}).write(self.path)
        self.world.barrier()

    def _read(self, rows: np.ndarray) -> Tensor:
        """Reads the features of rows from the mapped file: others stay on the disk."""
        try:
            with safe_open(self.path, "pt") as file:
                features: Tensor = file.get_tensor("features")
                return features[torch.from_numpy(rows)]
        except (OSError, SafetensorError, IndexError) as error:
            raise ArtifactError(f"{self.path} must hold features of all rows, but {error}: remove it") from error


def weights_digest(model: Model) -> str:
    """Returns a name of the weights: the digest of their file, or the name under which they are published."""
    if model.file is None:
        return f"published: {published_weights(model.backbone)}"
    try:
        status = model.file.stat()
        state = (status.st_size, status.st_mtime_ns)
    except OSError:
        state = (0, 0)  # reading the file gives the error
    return _file_digest(model.file, state)


@cache
def _file_digest(path: Path, state: tuple[int, int]) -> str:
    """Returns the digest of a file, which is read once in each of its states."""
    return read_weights(path).digest
