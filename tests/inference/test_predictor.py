"""`raysk.load`: scikit-learn's manners, any kind of image, many threads, and few imports."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import raysk
from raysk.cli.main import main
from raysk.errors import ConfigError, DataError
from raysk.evaluation.operating_points import OperatingPoint
from raysk.inference.card import card_of
from raysk.inference.predictor import Predictor

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(bundle_file):
    return raysk.load(bundle_file, device="cpu")


@pytest.fixture(scope="module")
def files(cache):
    return sorted((cache / "drawn" / "images").iterdir())[:12]


def test_every_kind_of_image_gives_the_same_prediction(model, files):
    expected = model.predict_proba(files)
    assert expected.shape == (12, len(model.classes_))
    assert expected.dtype == np.float64
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
    pictures = [Image.open(file) for file in files]
    forms = {
        "texts": [str(file) for file in files],
        "bytes": [file.read_bytes() for file in files],
        "pictures": pictures,
        "arrays": [np.asarray(picture.convert("RGB")) for picture in pictures],
        "a stack": np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]),
        "a generator": (file for file in files),
    }
    for form, images in forms.items():
        np.testing.assert_allclose(model.predict_proba(images), expected, atol=1e-6, err_msg=form)


def test_labels_are_the_most_probable_classes(model, files):
    labels = model.predict(files)
    assert labels.tolist() == model.classes_[model.predict_proba(files).argmax(axis=1)].tolist()
    assert set(labels) <= set(model.classes_)


def test_a_row_does_not_depend_on_its_neighbours(model, files):
    together = model.predict_proba(files)
    alone = np.concatenate([model.predict_proba([file]) for file in files])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_images_give_no_rows(model):
    assert model.predict_proba([]).shape == (0, len(model.classes_))
    assert model.predict([]).shape == (0,)


def test_eight_threads_get_what_one_gets(model, files):
    expected = model.predict_proba(files)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: model.predict_proba(files), range(16)):
            np.testing.assert_array_equal(result, expected)


def test_a_run_can_be_loaded_too(finished_run, model, files):
    np.testing.assert_array_equal(raysk.load(finished_run.folder).predict_proba(files), model.predict_proba(files))
    assert "linear" in repr(raysk.load(str(finished_run.folder), "linear"))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("photograph.png", "images must be a collection, but got one str: write"),
        (Path("photograph.png"), "images must be a collection"),
        (np.zeros((8, 8, 3), np.uint8), "images must be a collection, but got one ndarray"),
        (3, "images must be a collection, but got one int"),
        ([None], "an image must be a path, bytes, a PIL image or an array, but got a NoneType"),
        ([np.zeros((8, 8, 3))], r"pixels must be uint8 of the shape .* but got float64 \(8, 8, 3\)"),
        ([np.zeros((8, 8, 4), np.uint8)], "pixels must be uint8"),
        ([np.zeros((0, 8, 3), np.uint8)], "pixels must be uint8"),
        (["gone.png"], "an image must be readable, but gone.png is not .FileNotFoundError.*: leave it out"),
        ([b"no image"], "an image must be readable, but image 0 is not .UnidentifiedImageError"),
    ],
)
def test_wrong_images_are_refused_in_one_line(model, images, message):
    with pytest.raises(DataError, match=message) as caught:
        model.predict_proba(images)
    assert "\n" not in str(caught.value)


def test_an_unknown_device_is_refused(bundle_file):
    with pytest.raises(ConfigError, match="device must be one of this machine, such as cpu or cuda, but got tpu9"):
        raysk.load(bundle_file, device="tpu9")


def test_a_file_is_loaded_without_ray_optuna_and_the_training(bundle_file, files):
    script = f"""
import sys, raysk
raysk.load({str(bundle_file)!r}).predict([{str(files[0])!r}])
loaded = {{name.partition(".")[0] for name in sys.modules}}
print(sorted(loaded & {{"ray", "optuna", "albumentations", "cv2", "sklearn", "pandas", "hydra", "scipy"}}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_operating_points_decide(bundle, files, tmp_path):
    last = Predictor(bundle, "cpu").predict_proba(files)[:, -1]
    threshold = float(np.sort(last)[8])
    point = OperatingPoint(class_name=bundle.facts.class_names[-1], requirements=("sensitivity",), threshold=threshold)
    deciding = replace(bundle, facts=replace(bundle.facts, operating_points=(point,)))
    model = Predictor(deciding, "cpu")
    probabilities = model.predict_proba(files)
    decisions = model.decide(probabilities)
    reaches = last >= threshold
    assert reaches.sum() == 4
    assert set(decisions[reaches]) == {model.classes_[-1]}
    assert (decisions[~reaches] == model.classes_[probabilities[~reaches, :-1].argmax(axis=1)]).all()
    deciding.write(tmp_path / "deciding.raysk")
    words = [tmp_path / "deciding.raysk", *files, "--output", tmp_path / "p.csv"]
    assert main(["predict", *map(str, words)]) == 0
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.columns[:4]) == ["image", "label", "decision", "disagreement"]
    assert table["decision"].tolist() == decisions.tolist()
    assert f"| {threshold:.3f} |" in card_of(deciding.facts)


def test_pictures_of_fewer_bits_are_read_as_in_training(bundle, tmp_path):
    levels = np.random.default_rng(0).integers(0, 4096, (32, 32), dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "twelve.png")
    Image.fromarray((levels >> 4).astype(np.uint8)).save(tmp_path / "eight.png")
    of_twelve_bits = Predictor(replace(bundle, facts=replace(bundle.facts, bits=12)), "cpu")
    expected = of_twelve_bits.predict_proba([tmp_path / "eight.png"])
    for image in (tmp_path / "twelve.png", (tmp_path / "twelve.png").read_bytes()):
        np.testing.assert_allclose(of_twelve_bits.predict_proba([image]), expected, atol=0.02)
        assert abs(Predictor(bundle, "cpu").predict_proba([image]) - expected).max() > 0.02, "black without the setting"
