"""Attention maps of a bundle against Grad-CAM in plain loops, and what `raysk explain` writes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from raysk.cli.main import main
from raysk.data.views import test_time_views
from raysk.errors import ConfigError
from raysk.inference.attention import AttentionMaps
from raysk.inference.board_explaining import explain_test_part
from raysk.inference.explaining import Explainer
from raysk.inference.overlays import draw_overlay
from raysk.inference.predictor import Predictor
from raysk.parts.maps import grid, last_maps, pooled
from tests.inference.drawn_bundles import CLASSES, draw_bundle

VIEWS = ["identity", "rot90", "rot270", "transpose", "transverse"]
BACK = {"rot90": "rot270", "rot270": "rot90"}


@pytest.fixture(scope="module")
def bundle():
    return draw_bundle([("test_resnet", 64), ("test_vit", 48)], [(0, "linear"), (0, "cosine"), (1, "linear")], VIEWS)


def maps_of(encoder, images):
    return last_maps(encoder.backbone, encoder.normalised(images))


def drawn(num_images, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num_images, size, size, 3), dtype=np.uint8)


def in_loops(network, facts, images, label):
    """Grad-CAM of one image over all members, in loops over heads, views and channels."""
    largest = max(images)
    total = np.zeros((largest, largest))
    for number, head in enumerate(facts.heads):
        encoder = network.encoders[head.encoder]
        size = facts.encoders[head.encoder].image_size
        for view, weight in head.weights.items():
            turned = np.ascontiguousarray(test_time_views[view](images[size][None]))
            last = maps_of(encoder, torch.from_numpy(turned)).detach().requires_grad_()
            score = network.heads[number](pooled(encoder.backbone, last))[0, label]
            (gradient,) = torch.autograd.grad(score, last)
            maps, slopes = (grid(encoder.backbone, values)[0].detach().numpy() for values in (last, gradient))
            seen = np.zeros(maps.shape[1:])
            for channel in range(len(maps)):
                seen += slopes[channel].mean() * maps[channel]
            seen = np.maximum(seen, 0)
            seen = seen / seen.max() if seen.max() > 0 else seen
            scaled = interpolate(
                torch.from_numpy(seen)[None, None], size=(largest, largest), mode="bilinear", align_corners=False
            )
            upright = test_time_views[BACK.get(view, view)](scaled[0, 0].numpy()[None, :, :, None])[0, :, :, 0]
            total += weight * upright
    return total


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_the_maps_are_grad_cam_in_loops(bundle, label):
    maps = AttentionMaps(bundle, torch.device("cpu"))
    images = {size: drawn(3, size, seed=size) for size in (48, 64)}
    tensors = {size: torch.from_numpy(pixels) for size, pixels in images.items()}
    attention = maps.of(tensors, torch.full((3,), label))
    assert attention.shape == (3, 64, 64) and attention.min() >= 0 and attention.max() <= 1 + 1e-6
    for place in range(3):
        expected = in_loops(maps.network, bundle.facts, {size: of[place] for size, of in images.items()}, label)
        np.testing.assert_allclose(attention[place], expected, atol=1e-5)


def wavy_maps(name, size):
    """The maps of a network whose weights are waves, the same with any version of any library."""
    maps = AttentionMaps(draw_bundle([(name, size)], [(0, "linear")], ["identity"]), torch.device("cpu"))
    with torch.no_grad():
        for number, weight in enumerate(maps.network.parameters()):
            if weight.dim() > 1:
                waves = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) ** 1.5 + number)
                weight.copy_(waves.reshape(weight.shape) * (2 / weight[0].numel()) ** 0.5)
    return maps


# What the package grad-cam 1.5.7 gives at the centres of 4 by 4 squares. It is no dependency of the tests, since it
# needs matplotlib, torchvision and ttach, 77 MB. In an environment of its own, with the network and the image below:
#   class Whole(nn.Module): forward(self, x) = maps.network.heads[0](maps.network.encoders[0].backbone(x))
#   GradCAM(model=Whole(), target_layers=[network.layer4])(
#       input_tensor=maps.network.encoders[0].normalised(image), targets=[ClassifierOutputTarget(label)])[0]
# and for test_vit target_layers=[network.blocks[-2]], reshape_transform=lambda t: t[:, 1:].transpose(1, 2).unflatten(
# 2, (4, 4)). Over all pixels and classes the two differ by at most 6e-7, and also with random weights on four images,
# where deit_tiny_patch16_224 was compared too; 4e-6 where a map was nearly the same everywhere. The package shifts each
# map to begin at 0, which ours are not.
OF_THE_PACKAGE = {
    ("test_resnet", 128, 1): [
        [0.04727, 0.13230, 0.77668, 0.58441],
        [0.44339, 0.91900, 0.59159, 0.23200],
        [0.79237, 0.28980, 0.15381, 0.98204],
        [0.00273, 0.18795, 1.00000, 0.38926],
    ],
    ("resnet18", 128, 2): [
        [0.21338, 0.05597, 0.40475, 0.56039],
        [0.92944, 0.99907, 0.89845, 0.31420],
        [0.61295, 0.00000, 0.25896, 0.96411],
        [0.36629, 0.44110, 0.96373, 0.57704],
    ],
    ("test_vit", 64, 1): [
        [0.05009, 0.03099, 0.52186, 0.00000],
        [0.03518, 0.44222, 0.00101, 0.03226],
        [0.65166, 0.10687, 0.05588, 1.00000],
        [0.00000, 0.02543, 0.78811, 0.00000],
    ],
}


@pytest.mark.parametrize(("name", "size", "label"), list(OF_THE_PACKAGE))
def test_the_maps_are_those_of_the_package_grad_cam(name, size, label):
    row, column = np.mgrid[:size, :size] / size
    image = np.stack([128 + 100 * np.sin(9 * row + 7 * column**2 + colour) for colour in range(3)], axis=2)
    tensor = torch.from_numpy(image.astype(np.uint8))[None]
    seen = wavy_maps(name, size).of({size: tensor}, torch.tensor([label]))[0].numpy()
    scaled = (seen - seen.min()) / (seen.max() - seen.min())
    side = size // 4
    np.testing.assert_allclose(
        scaled[side // 2 :: side, side // 2 :: side], OF_THE_PACKAGE[name, size, label], atol=1e-4
    )


def test_a_view_is_turned_back():
    """A network that sees the turned image only looks where the upright one shows what it saw."""
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, :20, :20] = 255
    upright, turned = (
        AttentionMaps(draw_bundle([("test_resnet", 64)], [(0, "linear")], [view]), torch.device("cpu"))
        for view in ("identity", "rot90")
    )
    label = torch.tensor([1])
    seen = turned.of({64: torch.from_numpy(np.ascontiguousarray(np.rot90(image, -1, axes=(1, 2))))}, label)
    expected = upright.of({64: torch.from_numpy(image)}, label)
    np.testing.assert_allclose(np.rot90(seen[0].numpy()), expected[0], atol=1e-6)


def test_an_encoder_with_a_single_position_is_refused():
    with pytest.raises(ConfigError, match="image_size must give a map of attention more than one position"):
        AttentionMaps(draw_bundle([("test_resnet", 32)], [(0, "linear")], ["identity"]), torch.device("cpu"))


@pytest.mark.parametrize("lesion", [None, np.pad(np.ones((20, 20), np.uint8), 14)])
def test_an_overlay_shows_the_image_and_its_attention(lesion):
    attention = np.zeros((48, 48), np.float32)
    attention[:10, :10] = 1
    picture = np.asarray(draw_overlay(np.full((48, 48, 3), 100, np.uint8), attention, lesion))
    assert picture.shape == (256, 512, 3)
    plain, seen = picture[:, :256], picture[:, 256:]
    assert (plain[:20, :20] == 100).all() and (seen[:20, :20] != 100).any()
    assert (seen[200:, 200:] == 100).all()
    assert (plain == 255).all(axis=2).any() == (lesion is not None)


def test_the_test_part_gets_its_scores_and_confident_errors(bundle, run, tmp_path):
    folder = tmp_path / "explained"
    calls = []
    table = explain_test_part(Explainer(Predictor(bundle, "cpu")), run, folder, lambda *done: calls.append(done))
    rows = run.folds.test_rows
    assert calls[-1] == (len(rows), len(rows))
    assert (folder / "attention.md").read_text().startswith("| class | images | energy inside | pointing game |")
    assert f"| all | {len(rows)} |" in table
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures and all(name.startswith("error-") for name in pictures)
    named = {name.split("-")[1] for name in pictures}
    assert named <= set(run.manifest.class_names)
    assert max(sum(name.startswith(f"error-{label}-") for name in pictures) for label in named) <= 4


@pytest.fixture
def saved(bundle, tmp_path):
    bundle.write(tmp_path / "drawn.raysk")
    for number in range(2):
        Image.fromarray(drawn(1, 70, number)[0]).save(tmp_path / f"photograph{number}.png")
    return tmp_path


def test_the_command_draws_each_image(saved, capsys):
    paths = [str(saved / f"photograph{number}.png") for number in range(2)]
    assert main(["explain", str(saved / "drawn.raysk"), *paths, "--output", str(saved / "out"), "--device", "cpu"]) == 0
    assert sorted(path.name for path in (saved / "out").iterdir()) == ["0000-photograph0.png", "0001-photograph1.png"]
    printed = capsys.readouterr().out
    assert "0000-photograph0.png: " in printed and "2 pictures of ensemble, greedy" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "images must be given for a file and with --class, but got "),
        (["PHOTO", "--class", "melanoma"], "--class must be a known name, but got 'melanoma'"),
        (["PHOTO", "--row", "1"], "a row must be chosen when the bundle is made"),
        (["absent.png"], "an image must be readable, but "),
    ],
)
def test_a_users_mistake_is_one_line(saved, capsys, options, message):
    given = [str(saved / "photograph0.png") if option == "PHOTO" else option for option in options]
    assert main(["explain", str(saved / "drawn.raysk"), *given, "--output", str(saved / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(saved.glob("out/*.png"))


def test_an_existing_folder_is_refused(saved, capsys):
    assert main(["explain", str(saved / "drawn.raysk"), str(saved), "--output", str(saved)]) == 2
    assert "--output must be a new folder" in capsys.readouterr().err
