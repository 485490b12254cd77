import re
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.config import compose_plain, read_config
from raysk.data.sources import DataSettings, load_manifest
from raysk.data.sources.classes import USUAL_NAMES, check_spellings, class_map_override, mapped_labels, usual_name
from raysk.errors import DataError


@pytest.mark.parametrize(
    ("published", "usual"),
    [("NV", "nv"), ("NEV", "nv"), ("nevus", "nv"), ("MEL", "mel"), ("Melanoma", "mel"), ("AK", "akiec"),
     ("ACK", "akiec"), ("AKIEC", "akiec"), ("SEK", "sek"), ("seborrheic_keratosis", "sek"), ("BKL", "bkl"),
     ("SCC", "scc"), (" basal  cell-carcinoma", "bcc"), ("Something Else", "something else")],
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


def test_an_empty_new_name_leaves_a_class_out():
    for nothing in ("", None):
        assert mapped(["NV", "x"], classes_map={"NV": nothing, "x": "y"}) == [None, "y"]
        assert mapped(["NV", "x"], classes_map={"NV": nothing}, map="usual") == [None, "x"]


@pytest.mark.parametrize(
    "labels",
    [
        ["nevus", "Nevus"], ["nevus", "nevus "], ["nevus", " Nevus\t"], ["basal cell", "basal_cell"],
        ["basal cell", "Basal-Cell"], ["basal  cell", "basal cell"], ["basalcell", "basal cell"], ["nevus_", "nevus"],
        ["T-1", "t1"], ["1-2", "1 2"], ["Straße", "STRASSE"],
    ],
)  # fmt: skip
def test_classes_that_differ_only_in_spelling_are_refused(labels):
    with pytest.raises(DataError, match=r"classes of t.csv must differ in more than case, spaces, hyphens and under"):
        check_spellings(labels, labels, DataSettings(), "t.csv")


@pytest.mark.parametrize(
    "labels",
    [["-1", "1"], ["grade -1", "grade 1"], ["ER-", "ER+", "ER"], ["12", "1-2"], ["01", "1", "1.0"], ["a", "b"]],
)
def test_classes_that_differ_in_more_than_spelling_pass(labels):
    check_spellings(labels, labels, DataSettings(), "t.csv")


def test_listed_classes_stay_apart():
    labels = ["a", "A", "b"]
    check_spellings(labels, labels, DataSettings(classes=("a", "A", "b")), "t.csv")
    with pytest.raises(DataError, match=r"'data.classes_map=\{A: A, a: A, b: b\}'"):
        check_spellings(labels, labels, DataSettings(classes=("A", "b")), "t.csv")


def pasted(message: str) -> list[str]:
    """The override in an error as a shell and Hydra read it."""
    command = re.search(r"join them with (.*), or list all", message)
    assert command
    (override,) = shlex.split(command[1])
    return [override]


ODD = ["Melanoma", "melanoma", "melanoma", "nevus", "Nevus", "it (in situ): a, b=c", "Basal cell", "basal_cell", "7"]


@pytest.mark.parametrize(
    ("more", "joined"),
    [
        ({}, ["melanoma"] * 3 + ["nevus"] * 2 + [ODD[5], "basal_cell", "basal_cell", "7"]),
        ({"map": "usual"}, ["mel"] * 3 + ["nv"] * 2 + [ODD[5].casefold(), "basal cell", "basal cell", "7"]),
        ({"map": "usual", "classes_map": {"7": ""}},
         ["mel"] * 3 + ["nv"] * 2 + [ODD[5].casefold(), "basal cell", "basal cell"]),
        ({"classes_map": {"nevus": "x y", "Nevus": "X-Y", "Melanoma": "m"}}, ["m", "x y", "x y"]),
    ],
)  # fmt: skip
def test_the_override_of_the_error_joins_the_classes(tmp_path, write_images, load, more, joined):
    write_images(tmp_path, [f"{row}.png" for row in range(len(ODD))])
    lines = [f'{row}.png,"{name}"' for row, name in enumerate(ODD)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *lines]))
    with pytest.raises(DataError, match="must differ in more than case") as refused:
        load("csv", tmp_path / "t.csv", **more)
    usual = [f"data.map={more['map']}"] if "map" in more else []
    plain = compose_plain("data=csv", f"data.path={tmp_path / 't.csv'}", *usual, *pasted(str(refused.value)))
    manifest = load_manifest(read_config(plain).data, tmp_path)
    assert manifest.table.column("label").to_pylist() == joined


@given(st.dictionaries(st.text(st.characters(min_codepoint=32, max_codepoint=255), min_size=1), st.text(max_size=9)))
@settings(max_examples=60, deadline=None)
def test_an_override_of_any_names_says_what_it_should(pairs):
    override = class_map_override(pairs)
    if override is not None:
        (word,) = shlex.split(override)
        assert read_config(compose_plain("data=csv", word)).data.classes_map.to_plain() == pairs


@pytest.mark.parametrize("name", ["né", "true", "1.50", "a\nb", "a'b"])
def test_names_that_no_override_can_write_are_corrected_in_the_table(name):
    assert class_map_override({name: "x"}) is None and class_map_override({"x": "${name}"}) is None
    with pytest.raises(DataError, match=r"correct the labels, or list all classes in data.classes"):
        check_spellings([name, "a", "A"], [name, "a", "A"], DataSettings(), "t.csv")
