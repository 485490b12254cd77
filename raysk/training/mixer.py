"""Mixes batches in pairs that are the same for any number of workers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysk.parts.mixing import Mixed, Mixing, NoMixing, PairedBatch
from raysk.training.world import World


@dataclass(frozen=True)
class Mixer:
    """Mixes the images of a global batch in pairs; each rank mixes its share.

    Args:
        mixing: Mixes a pair.
        counts: Rows of each class in the training rows, (C,).
        seed: Seed of pairs, shares and boxes.
        world: The workers that share the batch.
    """

    mixing: Mixing
    counts: Tensor
    seed: int
    world: World

    def mix(self, images: Tensor, labels: Tensor, epoch: int, number: int) -> Mixed:
        """Mixes this rank's share of batch `number` of an epoch: images (B/W, V, H, W, 3) and labels (B/W,)."""
        random = np.random.default_rng((self.seed, epoch, number))
        all_images, all_labels = self.world.gather(images), self.world.gather(labels)
        partners = torch.from_numpy(random.permutation(len(all_labels)))
        local_partners = partners.chunk(self.world.size)[self.world.rank].to(images.device)
        pairs = PairedBatch(images, labels, all_images[local_partners], all_labels[local_partners])
        return self.mixing.mix(pairs, self.counts, random)


def mixer_for(mixing: Mixing, counts: Tensor, seed: int, world: World) -> Mixer | None:
    """Returns the mixer of a stage, None if its images stay as they are; the arguments are those of `Mixer`."""
    return None if isinstance(mixing, NoMixing) else Mixer(mixing, counts.to(world.device), seed, world)
