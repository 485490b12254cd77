import pytest

from raysk.data.sources import DataSettings
from raysk.data.sources.classes import USUAL_NAMES, mapped_labels, usual_name
from raysk.errors import DataError


@pytest.mark.parametrize(
    ("published", "usual"),
    [("NV", "nv"), ("NEV", "nv"), ("nevus", "nv"), ("MEL", "mel"), ("Melanoma", "mel"), ("AK", "akiec"),
     ("ACK", "akiec"), ("AKIEC", "akiec"), ("SEK", "sek"), ("seborrheic_keratosis", "sek"), ("BKL", "bkl"),
     ("SCC", "scc"), ("Something Else", "something else")],
)  # fmt: skip
def test_usual_names(published, usual):
    assert usual_name(published) == usual


def test_no_synonym_names_two_classes():
    synonyms = [word for name, others in USUAL_NAMES.items() for word in (name, *others)]
    assert len(set(synonyms)) == len(synonyms)


def mapped(labels, **settings):
    return mapped_labels(labels, DataSettings.from_plain(settings), "t.csv")


def test_class_maps_and_usual_names_combine():
    assert mapped(["NV", "x"]) == ["NV", "x"]
    assert mapped(["NV", "x"], map="usual") == ["nv", "x"]
    assert mapped(["NV", "x"], classes_map={"x": "y"}) == [None, "y"]
    assert mapped(["NV", "x"], classes_map={"x": "y"}, map="usual") == ["nv", "y"]
    with pytest.raises(DataError, match=r"classes of t.csv, but got 'NEV'; classes, nearest first: NV, x"):
        mapped(["NV", "x"], classes_map={"NEV": "nv"})
