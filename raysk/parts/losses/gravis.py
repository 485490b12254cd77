"""GraVIS: ranks the views of an image before all other views, without labels."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from raysk.parts.losses.base import EmbeddingLoss, losses
from raysk.parts.losses.similarities import PreciseLoss, sum_of_blocks
from raysk.settings import Between


@losses.register("gravis")
@dataclass(frozen=True, kw_only=True)
class GraVIS(EmbeddingLoss):
    """Grouped views of images: Zhou et al. 2023, equation 3. This is Smooth-AP with the views of an image as relevant.

        L = 1 - mean_q mean_{i in P_q} R_P(q, i) / R(q, i),    R(q, i) = 1 + sum_{j in I, j != i} G(z_q.z_j - z_q.z_i)

    I holds all views, P_q the views of q's image, including q. R ranks i in I by similarity to q; R_P sums over P_q in
    place of I. G is the sigmoid of x / tau. The paper clips its exponent to 50; a stable sigmoid does not need this,
    and it changes less than 1e-21.

    Args:
        temperature: tau; the smaller, the closer to true ranks. The paper publishes 0.2.
    """

    least_views: ClassVar[int] = 2
    needs_unit_length: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    temperature: Annotated[float, Between(0.01, 10.0)] = 0.2

    def module(self, counts: Tensor, width: int) -> nn.Module:
        """Returns the module; it uses no class counts, width or labels."""
        return _GraVIS(self.temperature)


class _GraVIS(PreciseLoss):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        num_images, num_views, _ = embeddings.shape

        def precisions(z: Tensor, rows: slice) -> Tensor:
            """Returns the sum of R_P / R over the views q of the images in `rows` and over i in P_q."""
            scores = z[rows] @ z.flatten(0, 1).T / self.temperature  # (b, V, B V)
            own_scores = z[rows] @ z[rows].mT / self.temperature  # (b, V, V)
            # The sums include j = i, with G(0) = 1/2.
            ranks = 0.5 + (scores[:, :, None] - own_scores[..., None]).sigmoid().sum(dim=3)  # (b, V, V): q, i
            own_ranks = 0.5 + (own_scores[:, :, None] - own_scores[..., None]).sigmoid().sum(dim=3)
            return (own_ranks / ranks).sum()

        total = sum_of_blocks(precisions, embeddings, num_images, num_images * num_views**3)
        return 1 - total / (num_images * num_views**2)
