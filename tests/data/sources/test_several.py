import logging
import shutil

import pytest

from raysk.data.folds.assignment import TRAIN_ONLY
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import Manifest
from raysk.data.sources import DataSettings, load_manifest
from raysk.errors import ConfigError, DataError

USUAL = {"map": "usual"}


@pytest.fixture
def places(tmp_path, write_images, write_table):
    """A small HAM10000 and a small ISIC 2019, with different images and lesions under the same names."""
    names = [f"ISIC_{number}" for number in range(4)]
    for place in ("ham", "isic"):
        write_images(tmp_path / place / "images", [f"{name}.jpg" for name in names])
        names.reverse()
    write_table(tmp_path / "ham" / "HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age",
                "L1,ISIC_0,nv,histo,50", "L1,ISIC_1,nv,histo,50", "L2,ISIC_2,mel,histo,",
                "L3,ISIC_3,akiec,histo,40")  # fmt: skip
    write_table(tmp_path / "isic" / "ISIC_2019_Training_GroundTruth.csv", "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
                "ISIC_0,0,1,0,0,0,0,0,0,0", "ISIC_1,1,0,0,0,0,0,0,0,0", "ISIC_2,0,0,0,1,0,0,0,0,0",
                "ISIC_3,0,0,0,0,0,0,0,1,0")  # fmt: skip
    write_table(tmp_path / "isic" / "ISIC_2019_Training_Metadata.csv", "image,age,lesion_id", "ISIC_0,old,L1",
                "ISIC_1,young,L1", "ISIC_2,old,")  # fmt: skip
    return tmp_path


def both(places, ham=None, isic=None, **settings):
    members = [{"source": "ham10000", "name": "ham", "path": str(places / "ham"), **(ham or {})},
               {"source": "isic2019", "name": "isic", "path": str(places / "isic"), **(isic or {})}]  # fmt: skip
    plain = {"source": "several", "collections": members, **settings}
    return load_manifest(DataSettings.from_plain(plain), places / "cache")


def test_rows_are_joined_under_usual_names(places):
    manifest = both(places, isic={"role": "train_only"}, map="usual")
    table = manifest.table
    assert table.column("image").to_pylist() == [
        f"{place}/images/ISIC_{number}.jpg" for place in ("ham", "isic") for number in range(4)
    ]
    assert table.column("label").to_pylist() == ["nv", "nv", "mel", "akiec", "nv", "mel", "akiec", "scc"]
    # Both collections name their lesions L1, L2, ..., but these are different lesions.
    assert manifest.groups.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert manifest.roles == [""] * 4 + ["train_only"] * 4
    assert table.column("source").to_pylist() == ["ham"] * 4 + ["isic"] * 4
    assert table.column("age").to_pylist() == ["50", "50", None, "40", "old", "young", "old", None]
    assert table.column("dx_type").to_pylist() == ["histo"] * 4 + [None] * 4
    assert all(path.is_file() for path in manifest.paths)


def test_a_class_map_renames_classes_and_leaves_out_the_others(places, caplog):
    with caplog.at_level(logging.WARNING):
        manifest = both(places, isic={"classes_map": {"NV": "nv", "AK": "akiec"}})
    assert manifest.table.column("label").to_pylist() == ["nv", "nv", "mel", "akiec", "nv", "akiec"]
    message = (
        "isic/ISIC_2019_Training_GroundTruth.csv: left out 2 rows of classes that data.classes_map leaves out: MEL 1"
    )
    assert message in caplog.text
    manifest = both(places, isic={"classes_map": {"SCC": "akiec"}, "map": "usual"})
    assert manifest.table.column("label").to_pylist()[4:] == ["nv", "mel", "akiec", "akiec"]


def test_a_collection_may_add_images_of_one_class_only(places):
    manifest = both(places, isic={"classes_map": {"MEL": "mel"}, "role": "train_only"})
    assert manifest.class_counts.tolist() == [1, 2, 2]
    assert manifest.table.column("image").to_pylist()[-1] == "isic/images/ISIC_1.jpg"


def test_the_digest_does_not_depend_on_where_collections_lie(places, tmp_path):
    first = both(places, **USUAL)
    moved = tmp_path / "moved"
    shutil.copytree(places / "ham", moved / "ham")
    shutil.copytree(places / "isic", moved / "isic")
    second = both(moved, **USUAL)
    assert second.digest == first.digest and second.root != first.root
    assert both(places, isic={"role": "test"}, **USUAL).digest != first.digest
    first.write(tmp_path / "manifest.parquet")
    read = Manifest.read(tmp_path / "manifest.parquet")
    assert read.digest == first.digest and read.paths[5].read_bytes() == first.paths[5].read_bytes()


def test_a_written_manifest_is_a_source(places, load, tmp_path):
    first = both(places, isic={"role": "train_only"}, **USUAL)
    first.write(tmp_path / "manifest.parquet")
    again = load("parquet", tmp_path / "manifest.parquet")
    assert again.digest == first.digest and set(again.attributes) == set(first.attributes)


def test_classes_that_differ_only_in_case_are_refused_and_synonyms_give_a_warning(places, caplog):
    with pytest.raises(
        DataError, match=r"got 'mel' \(ham\) and 'MEL' \(isic\): set data.map=usual, or 'data.isic.classes_map={"
    ) as refused:
        both(places)
    assert str(refused.value).endswith("classes_map={AK: AK, MEL: mel, NV: nv, SCC: SCC}'")
    with caplog.at_level(logging.WARNING):
        manifest = both(places, isic={"classes_map": {"NV": "nv", "MEL": "mel", "AK": "ak", "SCC": "scc"}})
    assert "'akiec' (ham) and 'ak' (isic) stay two classes" in caplog.text and "ak" in manifest.class_names


@pytest.mark.parametrize(
    ("ham", "isic", "more", "message"),
    [
        ({"path": None}, {}, {}, r"data.ham.path must be given for the source 'ham10000'"),
        ({}, {"name": "ham"}, {}, r"two collections with different names, but got \[ham, ham\]"),
        ({}, {"classes_map": {"AKIEC": "akiec"}}, USUAL, r"data.isic.classes_map must map classes of .* got 'AKIEC'"),
        (
            {},
            {"group_by": "patient"},
            USUAL,
            r"data.isic.group_by must be a grouping of .* \(lesion\), but got 'patient'",
        ),
        ({}, {"role": "val"}, USUAL, r"data.isic.role must be train_only, test or unlabelled"),
        ({}, {"source": "several"}, USUAL, r"data.isic must be a single collection"),
        ({}, {}, USUAL | {"path": "/x"}, r"data.path must be null for several collections, but got /x"),
        ({}, {}, USUAL | {"classes": ["nv", "mel", "akiec"]}, r"got 'scc' in row 7 \('isic/ISIC_3'\) of ham\+isic"),
    ],
)
def test_errors_name_the_collection(places, ham, isic, more, message):
    with pytest.raises((ConfigError, DataError), match=message):
        both(places, ham, isic, **more)


def test_missing_images_are_refused_or_left_out_in_all_collections(places):
    (places / "isic" / "images" / "ISIC_2.jpg").unlink()
    with pytest.raises(DataError, match=r"ISIC_2 of row 2 is not"):
        both(places, **USUAL)
    assert len(both(places, on_error="skip", **USUAL)) == 7


def test_rows_of_a_train_only_collection_only_train(tmp_path, write_images, write_table):
    for place in ("clinic", "outside"):
        names = [f"{number}.png" for number in range(24)]
        write_images(tmp_path / place, names if place == "clinic" else names[::-1])
        lines = [
            f"{name},{'nv' if number % 2 else 'mel'},g{number // 2 % 6}{number % 2}"
            for number, name in enumerate(names)
        ]
        write_table(tmp_path / place / "table.csv", "image,label,group", *lines)
    members = [
        {"source": "csv", "name": place, "path": str(tmp_path / place / "table.csv")} for place in ("clinic", "outside")
    ]
    members[1]["role"] = "train_only"
    settings = DataSettings.from_plain({"source": "several", "collections": members})
    folds = make_folds(load_manifest(settings, tmp_path / "cache"), FoldSettings(k=2))
    assert (folds.fold[24:] == TRAIN_ONLY).all() and (folds.fold[:24] != TRAIN_ONLY).all()
    assert set(range(24, 48)) <= set(folds.train_rows(0).tolist()) & set(folds.train_rows(1).tolist())
    assert DataSettings.from_plain(settings.to_plain()) == settings
