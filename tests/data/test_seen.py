from pathlib import Path

import numpy as np
import pytest

from raysk.data.manifest import make_manifest
from raysk.data.seen import Identities, Seen
from raysk.errors import DataError


def dataset(folder: Path, files: dict[str, str], groups: list[str] | None = None):
    """A dataset of files with these contents, in two classes."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    labels = ["a" if row % 2 else "b" for row in range(len(files))]
    return make_manifest(list(files), labels, root=folder, groups=groups)


def rows_seen(first, rows, second):
    """The rows of the second dataset that an encoder of some rows of the first has seen."""
    return np.flatnonzero(Identities(second).among(Identities(first).seen(np.array(rows)))).tolist()


def test_a_picture_is_known_by_its_bytes_wherever_it_is(tmp_path):
    first = dataset(tmp_path / "first", {"a.jpg": "one", "b.jpg": "two", "c.jpg": "three"})
    second = dataset(tmp_path / "second", {"x.jpg": "three", "y.jpg": "four", "z.jpg": "one"})
    assert rows_seen(first, [0, 1], second) == [2]
    assert rows_seen(first, [0, 1, 2], second) == [0, 2]
    assert rows_seen(first, [1], second) == []


def test_a_picture_of_the_archive_is_known_by_its_name_however_it_is_saved(tmp_path):
    first = dataset(tmp_path / "first", {"ISIC_0000001.jpg": "large", "ISIC_0000002.jpg": "large too"})
    second = dataset(tmp_path / "second", {"isic_0000001_downsampled.png": "small", "ISIC_0000003.jpg": "other"})
    assert rows_seen(first, [0, 1], second) == [0]


def test_another_picture_of_a_seen_group_counts_as_seen(tmp_path):
    first = dataset(tmp_path / "first", {"a.jpg": "one", "b.jpg": "two"})
    second = dataset(tmp_path / "second", {"x.jpg": "one", "y.jpg": "new", "z.jpg": "else"}, groups=["p", "p", "q"])
    assert rows_seen(first, [0], second) == [0, 1]


def test_names_of_groups_count_if_an_archive_gave_them_or_a_shared_picture_shows_that_they_mean_the_same(tmp_path):
    first = dataset(tmp_path / "first", {"a.jpg": "one", "b.jpg": "two", "c.jpg": "three"}, ["7", "8", "HAM_0000118"])
    other = dataset(tmp_path / "other", {"x.jpg": "four", "y.jpg": "five", "z.jpg": "six"}, ["7", "8", "HAM_0000118"])
    assert rows_seen(first, [0, 1, 2], other) == [2], "7 and 8 may be other lesions elsewhere"
    shared = dataset(tmp_path / "shared", {"x.jpg": "one", "y.jpg": "five", "z.jpg": "six"}, ["7", "8", "9"])
    assert rows_seen(first, [0, 1], shared) == [0, 1]
    assert rows_seen(first, [0], shared) == [0], "an encoder of one fold has not seen the others"


def test_several_encoders_have_seen_what_each_has(tmp_path):
    data = dataset(tmp_path, {"a.jpg": "one", "b.jpg": "two", "c.jpg": "three"})
    identities = Identities(data)
    both = identities.seen(np.array([0])) | identities.seen(np.array([2]))
    assert identities.among(both).tolist() == [True, False, True]
    assert not identities.among(Seen()).any()


def test_a_missing_file_is_refused_in_one_line(tmp_path):
    data = dataset(tmp_path, {"a.jpg": "one", "b.jpg": "two"})
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"but 1 are not, such as .*b\.jpg: restore them"):
        Identities(data)
