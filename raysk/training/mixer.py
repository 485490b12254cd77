"""Mixed batches: which row is mixed with which, the same for any number of workers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysk.parts.mixing import Mixed, Mixing, PairedBatch
from raysk.training.world import World


@dataclass(frozen=True)
class Mixer:
    """Mixes the images of a global batch in pairs, of which each rank makes its share.

    Args:
        mixing: How a pair is mixed.
        counts: Rows of each class in the training rows, (C,).
        seed: Of pairs, shares and boxes.
        world: Who shares the batch.
    """

    mixing: Mixing
    counts: Tensor
    seed: int
    world: World

    def mix(self, images: Tensor, labels: Tensor, epoch: int, number: int) -> Mixed:
        """Mixes this rank's share of the batch `number` of an epoch, images (B/W, V, H, W, 3) and labels (B/W,)."""
        random = np.random.default_rng((self.seed, epoch, number))
        every_image, every_label = self.world.gather(images), self.world.gather(labels)
        partners = torch.from_numpy(random.permutation(len(every_label)))
        mine = partners.chunk(self.world.size)[self.world.rank].to(images.device)
        pairs = PairedBatch(images, labels, every_image[mine], every_label[mine])
        return self.mixing.mix(pairs, self.counts, random)
