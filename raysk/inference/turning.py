"""The test-time views of `raysk.data.views` on tensors, so that a graph of the whole classifier can hold them."""

from collections.abc import Callable

from torch import Tensor

# Each maps images (B, H, W, 3) to the same view as the function of this name in `raysk.data.views`.
TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "rot90": lambda images: images.transpose(1, 2).flip(1),
    "rot180": lambda images: images.flip(1, 2),
    "rot270": lambda images: images.transpose(1, 2).flip(2),
    "hflip": lambda images: images.flip(2),
    "vflip": lambda images: images.flip(1),
    "transpose": lambda images: images.transpose(1, 2),
    "transverse": lambda images: images.flip(1, 2).transpose(1, 2),
}
