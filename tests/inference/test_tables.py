"""The images that a command names: files, folders and tables, in order, with duplicates, without masks."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysk.errors import ConfigError, DataError
from raysk.inference.tables import list_images


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with images, which need not be readable to be listed."""
    for name in ("b.png", "a.jpg", "deep/c.PNG", ".hidden/d.png", ".e.png", "notes.txt", "a_mask.png",
                 "masks/a.jpg", "f_segmentation.png", "f_superpixels.png"):  # fmt: skip
        path = tmp_path / "photographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources, column=None):
    return [image.name for image in list_images(sources, column)]


def test_a_folder_gives_its_images_sorted_without_hidden_files_and_masks(here):
    images = list_images(["photographs"])
    assert [image.name for image in images] == ["photographs/a.jpg", "photographs/b.png", "photographs/deep/c.PNG"]
    assert all(os.path.isfile(image.path) for image in images)


def test_a_loop_of_links_ends(here):
    (here / "photographs" / "deep" / "again").symlink_to(here / "photographs")
    assert len(names("photographs")) == 3


def test_sources_keep_their_order_and_duplicates(here):
    (here / "t.csv").write_text("image\nphotographs/b.png\nphotographs/b.png\n")
    assert names("photographs/b.png", "t.csv", "photographs/deep", "photographs/b.png") == [
        "photographs/b.png", "photographs/b.png", "photographs/b.png", "photographs/deep/c.PNG", "photographs/b.png",
    ]  # fmt: skip


def test_paths_of_a_table_start_from_the_table_and_may_lack_their_suffix(here, monkeypatch):
    (here / "photographs" / "t.tsv").write_text("isic_id\tage\na\t3\ndeep/c\t4\n007\t5\n")
    (here / "photographs" / "007.jpeg").write_bytes(b"x")
    monkeypatch.chdir("/")
    images = list_images([str(here / "photographs" / "t.tsv")])
    assert [image.name for image in images] == ["a", "deep/c", "007"]
    assert [os.path.relpath(image.path, here / "photographs") for image in images] == [
        "a.jpg",
        "deep/c.PNG",
        "007.jpeg",
    ]


@pytest.mark.parametrize("name", ["Image", "file", "File Name", "image_path", "ISIC_ID", "img_id"])
def test_the_column_of_images_is_recognised(here, name):
    (here / "t.csv").write_text(f"age;{name}\n3;photographs/b.png\n")
    assert names("t.csv") == ["photographs/b.png"]


def test_the_surest_column_wins_and_another_can_be_named(here):
    pq.write_table(pa.table({"image_id": ["x"], "image": ["photographs/a.jpg"], "other": ["y"]}), "t.parquet")
    assert names("t.parquet") == ["photographs/a.jpg"]
    assert names("t.parquet", column="image_id") == ["x"]
    assert names("t.parquet", column="other") == ["y"]


def test_a_missing_image_is_listed_for_the_list_of_unreadable_ones(here):
    (here / "t.csv").write_text("image\ngone.png\n")
    assert [image.path for image in list_images(["gone.jpg", "t.csv"])] == ["gone.jpg", "gone.png"]


@pytest.mark.parametrize(
    ("sources", "column", "error", "message"),
    [
        (["photo"], None, ConfigError, "IMAGES must be image files, folders or tables, but got 'photo'"),
        ([""], None, ConfigError, "IMAGES must be image files, folders or tables, but got ''"),
        (["empty"], None, DataError, "a folder must hold images, but empty holds none"),
        (["none.csv"], None, DataError, "none.csv must be a CSV or Parquet table"),
        (["t.csv"], None, DataError, "must have a column of images, called image, path, file or the like, but t.csv"),
        (["t.csv"], "imag", DataError, "--column must be a column of t.csv, but got 'imag'; columns, nearest first"),
        (["photographs"], "image", ConfigError, "--column must name a column of a table, but got 'image' without"),
        (["bytes.parquet"], None, DataError, "--column must be a column of text or numbers"),
    ],
)
def test_wrong_sources_are_refused_in_one_line(here, sources, column, error, message):
    (here / "empty").mkdir()
    (here / "t.csv").write_text("picture,age\nb.png,3\n")
    pq.write_table(pa.table({"image": [{"bytes": b"x"}]}), "bytes.parquet")
    with pytest.raises(error, match=message) as caught:
        list_images(sources, column)
    assert "\n" not in str(caught.value)
