"""Images as a caller has them, at the sizes that a bundle needs."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raysk.data.store.decoding import Pixels, decode, decode_content, decode_picture
from raysk.errors import DataError, in_one_line

# A path, the content of an image file, an opened image, or pixels (H, W, 3) or (H, W) in uint8.
AnyImage: TypeAlias = Union[str, "os.PathLike[str]", bytes, Image.Image, np.ndarray]


def pixels_of(image: AnyImage, sizes: Sequence[int], bits: int | None = None) -> list[Pixels] | str:
    """Returns the pixels of an image at every size, (size, size, 3), or the reason why it cannot be read.

    A file is decoded as it is in training.

    Args:
        image: The image.
        sizes: The sizes in pixels.
        bits: The depth of a picture of 16 bits a pixel whose file states none; None takes all 16 bits.

    Raises:
        DataError: The image is of another type.
    """
    if isinstance(image, (str, os.PathLike)):
        try:
            return decode(Path(image), sizes, bits)
        except (DataError, ValueError) as error:  # reading is not permitted, or no file can have this name
            return in_one_line(error)
    if isinstance(image, bytes):
        return decode_content(image, sizes, bits)
    if isinstance(image, Image.Image):
        return decode_picture(image, sizes, bits)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or not image.size:
            raise DataError(
                "pixels must be uint8 of the shape (height, width, 3) or (height, width), but got "
                f"{image.dtype} {image.shape}: convert them"
            )
        return decode_picture(Image.fromarray(image), sizes)
    raise DataError(
        f"an image must be a path, bytes, a PIL image or an array, but got a {type(image).__name__}: convert it"
    )


def as_list(images: Any) -> list[AnyImage]:
    """Returns the images of a collection.

    Raises:
        DataError: It is a single image.
    """
    is_single = isinstance(images, (str, bytes, os.PathLike, Image.Image)) or not isinstance(images, Iterable)
    if is_single or (isinstance(images, np.ndarray) and images.ndim in (2, 3) and images.dtype == np.uint8):
        raise DataError(f"images must be a collection, but got one {type(images).__name__}: write [image]")
    return list(images)


def read_ahead(
    images: Iterable[AnyImage], sizes: Sequence[int], ahead: int, bits: int | None = None
) -> Generator[list[Pixels] | str, None, None]:
    """Yields what `pixels_of` returns for each image, in order; threads decode the next images meanwhile.

    Args:
        images: Any number of images; no more than `ahead` of them are decoded before they are asked for.
        sizes: The sizes in pixels.
        ahead: The most images that are decoded and not yet asked for.
        bits: As in `pixels_of`.
    """
    pending: deque[Future[list[Pixels] | str]] = deque()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decoder") as pool:
        try:
            for image in images:
                pending.append(_decoding(image, sizes, bits, pool))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decoding(
    image: AnyImage, sizes: Sequence[int], bits: int | None, pool: ThreadPoolExecutor
) -> "Future[list[Pixels] | str]":
    if not isinstance(image, Image.Image):
        return pool.submit(pixels_of, image, sizes, bits)
    # Pillow reads a picture when it is first used, which two threads must not do at once.
    done: Future[list[Pixels] | str] = Future()
    done.set_result(pixels_of(image, sizes, bits))
    return done


def stacked(pixels: Sequence[list[Pixels]], sizes: Sequence[int], device: torch.device) -> dict[int, Tensor]:
    """Returns the images of a batch by size, each (B, size, size, 3) uint8."""
    return {
        size: torch.from_numpy(np.stack([of_image[place] for of_image in pixels])).to(device)
        for place, size in enumerate(sizes)
    }
