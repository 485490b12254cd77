"""An exported graph predicts what its bundle predicts, for any number of images."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from raysk.cli.main import main
from raysk.errors import ArtifactError
from raysk.inference import exporting
from raysk.inference.bundle import Bundle
from raysk.inference.exporting import TOLERANCE, export_onnx, export_torch
from raysk.inference.images import pixels_of, stacked
from raysk.inference.predictor import Predictor
from tests.inference.drawn_bundles import CLASSES, draw_bundle

TWO_SIZES = draw_bundle(
    [("test_resnet", 24), ("test_convnext", 32), ("test_vit", 160)],
    [(0, "cosine"), (1, "ncm"), (2, "mlp"), (2, "lws")],
    ["rot90", "transverse"],
)


@pytest.fixture(scope="module")
def predictor():
    return Predictor(TWO_SIZES, "cpu")


@pytest.fixture(scope="module")
def pixels(manifest, predictor):
    return [pixels_of(path, predictor.sizes) for path in manifest.paths[:11]]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("graphs")
    assert export_onnx(TWO_SIZES, folder / "model.onnx", pixels[:3]) < TOLERANCE
    assert export_torch(TWO_SIZES, folder / "model.pt2") < TOLERANCE
    return folder


@pytest.fixture(scope="module")
def of_onnx(graphs):
    return onnxruntime.InferenceSession(graphs / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def of_torch(graphs):
    return torch.export.load(graphs / "model.pt2").module()


def arrays(pixels, sizes) -> dict[int, np.ndarray]:
    return {size: tensor.numpy() for size, tensor in stacked(pixels, sizes, torch.device("cpu")).items()}


@pytest.mark.parametrize("number", [1, 3, 7])
def test_graphs_predict_what_the_bundle_predicts(of_onnx, of_torch, predictor, pixels, number):
    batch = pixels[-number:]
    expected = predictor.predict_pixels(batch)
    inputs = arrays(batch, predictor.sizes)
    outputs = of_onnx.run(None, {f"images_{size}": images for size, images in inputs.items()})
    with torch.no_grad():
        tensors = of_torch(*map(torch.from_numpy, inputs.values()))
    for probabilities, disagreement in (outputs, tensors):
        assert probabilities.shape == (number, 3)
        np.testing.assert_allclose(np.asarray(probabilities), expected.probabilities, atol=1e-5, rtol=0)
        np.testing.assert_allclose(np.asarray(disagreement), expected.disagreement, atol=1e-5, rtol=0)
    assert expected.probabilities.max() - expected.probabilities.min() > 0.05  # an equal mean could not differ
    assert expected.disagreement.max() > 0


def test_a_graph_says_what_it_is_and_nothing_of_the_machine(graphs):
    model = onnx.load(graphs / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images_24", "images_32", "images_160"]
    assert [value.name for value in model.graph.output] == ["probabilities", "disagreement"]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    files = dict.fromkeys(metadata, "")
    torch.export.load(graphs / "model.pt2", extra_files=files)
    assert files == metadata
    assert json.loads(metadata["raysk.class_names"]) == list(CLASSES)
    assert json.loads(metadata["raysk.image_sizes"]) == [24, 32, 160]
    assert metadata["raysk.card"] == TWO_SIZES.card
    assert [path.name for path in graphs.iterdir()] == ["model.onnx", "model.pt2"]
    for path in graphs.iterdir():
        assert b"network.py" not in path.read_bytes()


def test_a_graph_is_one_file_with_each_weight_once(graphs):
    weights = sum(tensor.nbytes for tensor in TWO_SIZES.tensors.values())
    assert weights < (graphs / "model.onnx").stat().st_size < 1.1 * weights


@pytest.mark.parametrize(("write", "name"), [(export_onnx, "model.onnx"), (export_torch, "model.pt2")])
def test_a_graph_that_predicts_otherwise_is_refused_and_leaves_nothing(tmp_path, monkeypatch, write, name):
    bundle = draw_bundle([("test_resnet", 24)], [(0, "linear")], ["hflip"])
    turns = exporting.TURNS | {"hflip": exporting.TURNS["vflip"]}
    monkeypatch.setattr(exporting, "TURNS", turns)
    with pytest.raises(ArtifactError, match=r"to 0\.0001, but differs by "):
        write(bundle, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_one_message_of_protobuf_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_MOST_BYTES", 1000)
    with pytest.raises(ArtifactError, match="smaller than 2 GB"):
        export_onnx(TWO_SIZES, tmp_path / "model.onnx")


def test_the_command_exports_a_file_and_a_row_of_a_run(tmp_path, finished_run, manifest, capsys):
    draw_bundle([("test_resnet", 24)], [(0, "linear")], ["identity"]).write(tmp_path / "lesions.raysk")
    images = [str(path) for path in manifest.paths[:2]]
    words = ["export", str(tmp_path / "lesions.raysk"), "--torch", str(tmp_path / "a.pt2"), "--check", *images]
    assert main(words) == 0
    assert "on 2 images" in capsys.readouterr().out
    files = {"raysk.bundle": ""}
    torch.export.load(tmp_path / "a.pt2", extra_files=files)
    assert files["raysk.bundle"] == Bundle.read(tmp_path / "lesions.raysk").digest != ""
    run = str(finished_run.folder)
    assert main(["export", run, "--row", "end to end", "--torch", str(tmp_path / "b.pt2")]) == 0
    assert "on drawn noise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --onnx FILE or --torch FILE"),
        (["--torch", "model.onnx"], "a file that ends with .pt2"),
        (["--onnx", "x.onnx", "--row", "1"], "a row must be chosen when the bundle is made"),
        (["--onnx", "x.onnx", "--check", "{folder}/empty"], "found none in"),
        (["--torch", "x.pt2", "--check", "{folder}/lesions.raysk"], "must name readable images"),
        (["--torch", "/proc/x.pt2"], "/proc/x.pt2 must be writable"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    draw_bundle([("test_resnet", 24)], [(0, "linear")], ["identity"]).write(tmp_path / "lesions.raysk")
    words = [word.format(folder=tmp_path) for word in words]
    assert main(["export", str(tmp_path / "lesions.raysk"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
