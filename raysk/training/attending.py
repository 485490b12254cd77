"""A classifier in training whose attention is guided to the lesion: CARE (see `parts.attention`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from raysk.parts.attention import Care, at_map_size, attention_loss, attention_map, region_weights
from raysk.parts.maps import grid, last_maps, pooled
from raysk.parts.precision import at_least_single
from raysk.training.guided import Guided
from raysk.training.networks import Classifier


class AttendingClassifier(nn.Module):
    """A classifier that gives the attention loss of each image beside its logits.

    Args:
        classifier: Encoder and head, which train, and which predict without this module.
        care: Settings of the attention.
    """

    def __init__(self, classifier: Classifier, care: Care) -> None:
        super().__init__()
        self.classifier, self.care = classifier, care

    def forward(self, batch: Guided) -> Tensor:
        """Returns logits, attention losses and whether an image is guided, side by side: (B, C + 2), float32."""
        encoder, head = self.classifier.encoder, self.classifier.head
        with encoder.computing():
            last = last_maps(encoder.backbone, encoder.normalised(batch.images.squeeze(1)))
        last = at_least_single(last)
        logits = at_least_single(head(pooled(encoder.backbone, last)))
        is_guided = (batch.targets >= 0) & (batch.regions > 0).flatten(1).any(dim=1)
        losses = torch.zeros_like(logits[:, 0])
        rows = is_guided.nonzero().squeeze(1)
        if len(rows):
            losses = losses.index_put((rows,), self._attention_losses(last, batch, rows))
        return torch.cat([logits, losses[:, None], is_guided[:, None].float()], dim=1)

    def _attention_losses(self, last: Tensor, batch: Guided, rows: Tensor) -> Tensor:
        """Returns L_a of some rows, (R,)."""
        maps = grid(self.classifier.encoder.backbone, last)[rows]
        attention = attention_map(maps, self._alphas(last, batch.targets, rows))
        inside, outside = region_weights(batch.regions[rows] > 0, self.care.distance)
        height, width = attention.shape[1:]
        weights = at_map_size(inside, height, width), at_map_size(outside, height, width)
        return attention_loss(attention, *weights, self.care.threshold)

    def _alphas(self, last: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        """Returns alpha of some rows, (R, K).

        The gradient is that of the classifier as it predicts: batch norm has its running statistics and nothing drops
        out, so that it is each image's own, and draws no random numbers.
        """
        backbone, head = self.classifier.encoder.backbone, self.classifier.head
        with torch.enable_grad(), _predicting(backbone, head):
            leaf = last.detach().requires_grad_()
            logits = head(pooled(backbone, leaf))
            (gradient,) = torch.autograd.grad(logits[rows, targets[rows]].sum(), leaf)
        return grid(backbone, gradient)[rows].flatten(2).mean(dim=2)


class CareLoss(nn.Module):
    """weight sum L_a + (1 - weight) L(logits), on the outputs of `AttendingClassifier`.

    Args:
        on_logits: L.
        weight: alpha of CARE.
    """

    def __init__(self, on_logits: nn.Module, weight: float) -> None:
        super().__init__()
        self.on_logits, self.weight = on_logits, weight

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of outputs (B, C + 2) and labels (B,)."""
        loss: Tensor = (1 - self.weight) * self.on_logits(outputs[:, :-2], labels)
        return loss + self.weight * outputs[:, -2].sum()


@contextmanager
def _predicting(*modules: nn.Module) -> Iterator[None]:
    """Puts modules into evaluation mode for the block."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode
