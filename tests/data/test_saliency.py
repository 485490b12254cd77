"""What stands out of pictures: fine-grained saliency against loops and OpenCV's, and the boxes of both kinds."""

import cv2
import numpy as np
import pytest

from raysk.data.saliency import fine_grained, salient_box


def drawn():
    image = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    image[6:14, 9:20] //= 4
    return image


def in_loops(image):
    """Montabone and Soto 2010: on and off differences to the mean of the other pixels of six squares."""
    grey = cv2.GaussianBlur(cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (3, 3), 0), (3, 3), 0)
    height, width = grey.shape
    on, off = np.zeros(grey.shape), np.zeros(grey.shape)
    for reach in (12, 24, 48, 28, 56, 112):
        for y in range(height):
            for x in range(width):
                total, num = -int(grey[y, x]), -1
                for v in range(max(0, y - reach + 1), min(height, y + reach + 1)):
                    for u in range(max(0, x - reach + 1), min(width, x + reach + 1)):
                        total, num = total + int(grey[v, u]), num + 1
                difference = int(grey[y, x]) - total / num
                if difference > 0:
                    on[y, x] += int(difference)
                else:
                    off[y, x] += int(-difference)
    on, off = np.floor(255 * on / on.max()), np.floor(255 * off / off.max())
    return (on + off) / max(on.max(), off.max())


def test_fine_grained_saliency_is_its_definition():
    image = drawn()[4:15, 5:18]
    np.testing.assert_allclose(fine_grained(image), in_loops(image), atol=1e-12)


def test_fine_grained_saliency_is_that_of_opencv():
    """The levels of every fifth row and sixth column, and their sum over all pixels, of OpenCV's contributed module.

    With opencv-contrib-python-headless 5.0.0.93, of `image = np.ascontiguousarray(drawn()[:, :, ::-1])`:
        255 * cv2.saliency.StaticSaliencyFineGrained_create().computeSaliency(image)[1]
    All pixels of this picture and of ten photographs of 150 by 200 pixels agree to 7.5e-8, its single precision.
    """
    levels = 255 * fine_grained(drawn())
    of_opencv = [
        [255, 53, 51, 18, 23, 117],
        [56, 37, 55, 76, 7, 157],
        [57, 32, 231, 226, 35, 100],
        [76, 118, 107, 39, 44, 33],
    ]
    np.testing.assert_allclose(levels[::5, ::6], of_opencv, atol=1e-6)
    assert levels.sum() == pytest.approx(48293, abs=0.01)


@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 30, 3)])
@pytest.mark.parametrize("saliency", ["spectral_residual", "fine_grained"])
def test_nothing_stands_out_of_a_plain_picture(saliency, shape):
    assert salient_box(np.full(shape, 90, np.uint8), saliency) is None


@pytest.mark.parametrize("saliency", ["spectral_residual", "fine_grained"])
def test_the_box_lies_around_what_stands_out(saliency):
    image = np.full((96, 128, 3), 200, np.uint8)
    image[40:64, 20:52] = (60, 30, 20)
    box = salient_box(image, saliency)
    assert box is not None
    assert box.left < 24 and box.right > 48 and box.top < 44 and box.bottom > 60
    assert (box.right - box.left) * (box.bottom - box.top) < 0.75 * image.shape[0] * image.shape[1]


@pytest.mark.parametrize("saliency", ["spectral_residual", "fine_grained"])
def test_a_box_is_in_its_picture_and_turns_with_it(saliency):
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    box, mirrored = (salient_box(np.ascontiguousarray(each), saliency) for each in (image, image[:, ::-1]))
    assert box is not None and mirrored is not None
    assert 0 <= box.left < box.right <= 64 and 0 <= box.top < box.bottom <= 64
    assert mirrored.left == pytest.approx(64 - box.right, abs=2)
