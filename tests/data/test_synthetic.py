import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysk.data.synthetic import CLASS_NAMES, HAM10000_COUNTS, make_synthetic
from raysk.errors import ArtifactError, ConfigError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "drawn"
    make_synthetic(folder, num_images=300, size=32, seed=0)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_classes_are_as_unbalanced_as_in_ham10000(drawn: Path) -> None:
    rows = rows_of(drawn)
    counts = Counter(row["label"] for row in rows)
    assert len(rows) == 300 and set(counts) == set(CLASS_NAMES)
    for name, count in zip(CLASS_NAMES, HAM10000_COUNTS, strict=True):
        lesions = {row["group"] for row in rows if row["label"] == name}
        assert counts[name] >= 12 and len(lesions) >= 8
        if 300 * count / 10015 > 12 and name != "nv":
            assert counts[name] == round(300 * count / 10015)


def test_a_lesion_has_one_class_and_up_to_three_photographs(drawn: Path) -> None:
    rows = rows_of(drawn)
    labels = {(row["group"], row["label"]) for row in rows}
    sizes = Counter(row["group"] for row in rows)
    assert len(labels) == len(sizes)
    assert set(sizes.values()) == {1, 2, 3}


def test_photographs_of_a_lesion_differ(drawn: Path) -> None:
    rows = rows_of(drawn)
    pixels = {Image.open(drawn / row["file"]).tobytes() for row in rows}
    assert len(pixels) == len(rows)


def test_masks_and_boxes_enclose_the_lesion(drawn: Path) -> None:
    contrasts = []
    for row in rows_of(drawn):
        image = np.asarray(Image.open(drawn / row["file"])).astype(float)
        mask = np.asarray(Image.open(drawn / row["mask"]))
        x0, y0, x1, y1 = (int(row[key]) for key in ("x0", "y0", "x1", "y1"))
        assert image.shape == (32, 32, 3) and mask.shape == (32, 32) and mask.dtype == bool
        assert 0 <= x0 < x1 <= 32 and 0 <= y0 < y1 <= 32
        outside = mask.copy()
        outside[y0:y1, x0:x1] = False
        assert not outside.any()  # the box holds the mask, and touches it on each side
        inside = mask[y0:y1, x0:x1]
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        contrasts.append(image[~mask].mean() - image[mask].mean())
    assert np.mean(np.array(contrasts) > 5) > 0.8  # a lesion is darker than skin, but not always


def test_a_dataset_depends_on_its_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        make_synthetic(tmp_path / name, num_images=84, size=16, seed=seed)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 84 * 2 + 1
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    images = [file for file in files if file.parent.name == "images"]
    assert all((tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes() for file in images)


def test_too_few_or_too_small_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 84, but got 83"):
        make_synthetic(tmp_path / "few", num_images=83, size=16, seed=0)
    with pytest.raises(ConfigError, match="at least 16 pixels wide, but got 15"):
        make_synthetic(tmp_path / "small", num_images=84, size=15, seed=0)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="must be writable"):
        make_synthetic(tmp_path / "there", num_images=84, size=16, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
