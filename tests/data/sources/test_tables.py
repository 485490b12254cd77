"""Users' own tables in any spelling: the right label for each image or an error, and never a wrong label."""

import csv
import io
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysk.data.regions import regions_of
from raysk.data.sources import DataSettings, load_manifest
from raysk.errors import DataError, RayskError

FILES = ("1.png", "in/2.JPG", "in/3.tiff", "köpfe/é 4.png", "05.webp", "a.b.png")
NOTHING = ("", "NaN", " nan ", "NULL", "N/A")
SPELLINGS = {
    "plain": lambda root, name: name,
    "spaces": lambda root, name: f"  {name} ",
    "dot": lambda root, name: f"./{name}",
    "absolute": lambda root, name: str(root / name),
    "around": lambda root, name: f"../{root.name}/{name}",
    "windows": lambda root, name: name.replace("/", "\\"),
    "no suffix": lambda root, name: str(Path(name).with_suffix("")),
}
LABELS = st.sampled_from(["nv", "01", "1", "1.0", "true", "mel;x", 'a "b", c', "none", "  nv ", *NOTHING])


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[str, str, str, str]]:
    """Rows of (file, spelling, label, group)."""
    files = draw(st.lists(st.sampled_from(FILES), unique=True, min_size=2))
    spelling = st.sampled_from(sorted(SPELLINGS))
    group = st.sampled_from(["g", "007", "7", *NOTHING])
    return [(file, draw(spelling), draw(LABELS), draw(group)) for file in files]


@given(tables(), st.sampled_from([",", ";"]), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_row_gets_its_label_or_is_refused(
    rows: list[tuple[str, str, str, str]], delimiter: str, marked: bool, as_parquet: bool
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        for name in FILES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"")
        written = [(SPELLINGS[spelling](root, file), label, group) for file, spelling, label, group in rows]
        path = root / ("t.parquet" if as_parquet else "t.csv")
        if as_parquet:
            pq.write_table(
                pa.table(dict(zip(("image", "label", "group"), zip(*written, strict=True), strict=True))), path
            )
        else:
            text = io.StringIO()
            csv.writer(text, delimiter=delimiter).writerows([("image", "label", "group"), *written])
            path.write_bytes((b"\xef\xbb\xbf" if marked else b"") + text.getvalue().encode())
        blank = [row for row, (_, _, label, _) in enumerate(rows) if label in NOTHING]
        try:
            manifest = load_manifest(DataSettings(source="csv", path=str(path)), Path(folder))
        except DataError as error:
            assert "\n" not in str(error)
            assert f"t.{path.suffix[1:]} must have a label, but row {blank[0]} " in str(error)
            return
        assert not blank
        labels = dict(
            zip([path.resolve() for path in manifest.paths], manifest.table.column("label").to_pylist(), strict=True)
        )
        assert labels == {(root / file).resolve(): label.strip() for file, _, label, _ in rows}
        named = manifest.table.column("group").to_pylist()
        for (_, _, _, group), name in zip(rows, named, strict=True):
            # Rows without a group do not form a group together.
            assert named.count(name) == 1 if group in NOTHING else name == group


def write(folder: Path, text: str, *images: str) -> DataSettings:
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(b"")
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return DataSettings(source="csv", path=str(folder / "t.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n1.png,a\n1.png,b\n", r"'1.png' is in 2"),
        ("image,label\n1.png,a\n./1.png,b\n", r"'1.png' is in 2"),
        ("image,label\n1.png,a\n1,b\n", r"'1.png' is in 2"),
        ("image,label\n1.png,a\n,b\n", r"must have an image, but row 1 of t.csv has none"),
        ("image,label\n1.png,a\nnan,b\n", r"must have an image, but row 1 of t.csv has none"),
        ("image,label\n1.png,a\n2,b\n", r"'2' is 2.jpg and also 2.png in .*: write the suffix"),
        ("image,label\n1.png,a\n../out.png,b\n", r"\.\./out.png of row 1 is not"),
        ("image,labels\n1.png,a\n2.png,b\n", r"data.label must be a column of t.csv, but got 'label'"),
    ],
)
def test_a_row_without_exactly_one_image_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_manifest(write(tmp_path, text, "1.png", "2.jpg", "2.png"), tmp_path)


def test_numbers_in_parquet_become_text_and_nan_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "", "1.png", "2.png")
    table = pa.table({"image": ["1.png", "2.png"], "label": [0, 1], "group": [1.0, float("nan")]})
    pq.write_table(table, tmp_path / "t.parquet")
    manifest = load_manifest(DataSettings(source="parquet", path=str(tmp_path / "t.parquet")), tmp_path)
    assert manifest.table.column("label").to_pylist() == ["0", "1"]
    assert manifest.table.column("group").to_pylist() == ["1", "2.png"]
    with pytest.raises(DataError, match="use data=csv"):
        load_manifest(DataSettings(source="parquet", path=str(tmp_path / "t.csv")), tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match=r"broken.parquet must be a Parquet table"):
        load_manifest(DataSettings(source="parquet", path=str(tmp_path / "broken.parquet")), tmp_path)


def test_several_columns_of_groups_are_joined(tmp_path: Path) -> None:
    text = "image,label,lesion,patient\n1.png,a,1,p\n2.png,b,2,p\n3.png,a,2,\n4.png,b,,\n"
    plain = write(tmp_path, text, *[f"{number}.png" for number in range(1, 5)])
    manifest = load_manifest(DataSettings.from_plain(plain.to_plain() | {"group": "lesion+patient"}), tmp_path)
    assert manifest.groups.tolist() == [0, 0, 0, 1]
    assert {"lesion", "patient"} <= set(manifest.attributes)


def test_folders_of_parts_are_refused_as_classes(tmp_path: Path, write_images: Callable[..., None]) -> None:
    for names in (["train", "test"], ["Train", "extra"], ["my_train", "my_test"]):
        root = tmp_path / names[0]
        write_images(root, [f"{name}/nv/1.png" for name in names])
        with pytest.raises(DataError, match=r"are named as parts: use data=hf"):
            load_manifest(DataSettings(source="folder", path=str(root)), tmp_path)


def test_images_left_out_of_class_folders_give_a_warning(
    tmp_path: Path, write_images: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path, ["nv/1.png", "mel/2.png"])
    for name in ("loose.png", "nv/x.gif", "nv/in/y.JFIF", "mel/z.heic", "mel/notes.txt", "mel/.z.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert len(load_manifest(DataSettings(source="folder", path=str(tmp_path)), tmp_path)) == 2
    assert "left out 1 image outside the class folders, first 'loose.png'" in caplog.text
    assert "left out 3 images of formats that raysk does not read (.gif, .heic, .jfif), first 'mel/z" in caplog.text


@pytest.mark.parametrize("place", ["nv", "köpfe"])
def test_a_file_name_in_latin_1_is_refused(tmp_path: Path, place: str) -> None:
    folder = os.fsencode(tmp_path) + b"/" + place.encode("latin-1")
    (tmp_path / "mel").mkdir()
    (tmp_path / "mel" / "1.png").touch()
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.png", "wb"):
        pass
    with pytest.raises(DataError, match=r"a file name must be in UTF-8, but '.*\\udce9.png' is not: rename"):
        load_manifest(DataSettings(source="folder", path=str(tmp_path)), tmp_path)


def test_an_impossible_file_name_counts_as_missing(tmp_path: Path) -> None:
    plain = write(tmp_path, f"image,label\n1.png,a\n{'x' * 300}.png,b\n{'y' * 300}/3,b\n", "1.png")
    with pytest.raises(DataError, match=r"x.png of row 1 is not \(2 in all\)"):
        load_manifest(plain, tmp_path)


def test_a_table_with_images_inside_names_the_right_source(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"", "path": "1.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": images, "label": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"'image' of t.parquet holds the images themselves: use data=hf"):
        load_manifest(DataSettings(source="parquet", path=str(tmp_path / "t.parquet")), tmp_path)
    write(tmp_path, "", "1.png")
    pq.write_table(pa.table({"image": ["1.png"], "label": [["a"]]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"data.label must be a column of text or numbers, but 'label'"):
        load_manifest(DataSettings(source="parquet", path=str(tmp_path / "t.parquet")), tmp_path)


MASKS = [
    "masks",
    "Mask",
    "HAM10000_segmentations_lesion_tschandl",
    "ISIC2018_Task1_Training_GroundTruth",
    "superpixels",
]


@pytest.mark.parametrize("masks", MASKS)
def test_a_folder_of_masks_is_no_class(
    tmp_path: Path, write_images: Callable[..., None], masks: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    write_images(root, ["mel/1.png", "nv/2.png", f"{masks}/1.png"])
    manifest = load_manifest(DataSettings(source="folder", path=str(root)), tmp_path)
    assert manifest.class_names == ("mel", "nv")
    assert f"left out the folder {masks!r}, which holds masks by its name" in caplog.text


@pytest.mark.parametrize("images", [["images"], ["HAM10000_images_part_1", "HAM10000_images_part_2"]])
def test_the_root_of_a_collection_is_no_folder_of_classes(
    tmp_path: Path, write_images: Callable[..., None], images: list[str]
) -> None:
    root = tmp_path / "data"
    write_images(root, [f"{folder}/{number}.png" for number, folder in enumerate([*images, "masks"])])
    with pytest.raises(DataError, match="seems to hold the images of all classes: use data=csv"):
        load_manifest(DataSettings(source="folder", path=str(root)), tmp_path)


def test_classes_of_people_with_and_without_a_mask_are_classes(
    tmp_path: Path, write_images: Callable[..., None]
) -> None:
    root = tmp_path / "data"
    write_images(root, ["with_mask/1.png", "without_mask/2.png"])
    assert load_manifest(DataSettings(source="folder", path=str(root)), tmp_path).class_names[0] == "with_mask"


@pytest.mark.parametrize("second", ["in/../in/2.png", "folder/2.png", "in/link.png", "in/2"])
def test_rows_of_one_file_are_refused_however_it_is_spelt(tmp_path: Path, second: str) -> None:
    plain = write(tmp_path, f"image,label\nin/2.png,a\n1.png,b\n{second},a\n", "1.png", "in/2.png")
    (tmp_path / "folder").symlink_to("in")
    (tmp_path / "in" / "link.png").symlink_to("2.png")
    message = rf"'in/2.png' is in 2: row 0 \('in/2.png'\) and row 2 \('{second}'\) of t.csv: remove one"
    with pytest.raises(DataError, match=message):
        load_manifest(plain, tmp_path)


def test_a_written_manifest_accepts_other_columns(tmp_path: Path) -> None:
    text = "image,label,role,series\n1.png,a,test,x\n2.png,b,,x\n3.png,a,,y\n"
    load_manifest(write(tmp_path, text, "1.png", "2.png", "3.png"), tmp_path).write(tmp_path / "m.parquet")
    plain = {"source": "parquet", "path": str(tmp_path / "m.parquet")}
    assert not load_manifest(DataSettings.from_plain(plain), tmp_path).grouped
    other = load_manifest(DataSettings.from_plain(plain | {"group": "series", "role": "train_only"}), tmp_path)
    assert other.groups.tolist() == [0, 0, 1] and other.roles == ["train_only"] * 3


LESIONS = "image,label,lesion_id,Patient-No\n1.png,a,01,p\n2.png,b,1,p\n3.png,a,1,\n4.png,b,none,None\n"


def of_lesions(folder: Path, text: str = LESIONS) -> dict[str, object]:
    return write(folder, text, *[f"{number}.png" for number in range(1, 5)]).to_plain()


def test_columns_of_lesions_and_patients_are_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = of_lesions(tmp_path)
    manifest = load_manifest(DataSettings.from_plain(plain), tmp_path)
    assert manifest.groups.tolist() == [0, 0, 0, 1] and manifest.grouped_by == {"t.csv": ("lesion_id", "Patient-No")}
    assert "t.csv: groups: lesion_id + Patient-No (data.group=none to refuse)" in caplog.text
    caplog.clear()
    assert not load_manifest(DataSettings.from_plain(plain | {"group": "none"}), tmp_path).grouped
    assert "groups:" not in caplog.text
    of_lesions(tmp_path, LESIONS.replace("none,None", ","))
    named = load_manifest(DataSettings.from_plain(plain | {"group": "lesion_id+Patient-No"}), tmp_path)
    assert named.digest == manifest.digest and "groups:" not in caplog.text


def test_one_recognised_column_gives_the_groups_that_naming_it_gives(tmp_path: Path) -> None:
    plain = of_lesions(tmp_path, "image,label,CaseID\n1.png,a,01\n2.png,b,1\n3.png,a,01\n4.png,b,\n")
    manifest = load_manifest(DataSettings.from_plain(plain), tmp_path)
    assert manifest.table.column("group").to_pylist() == ["01", "1", "01", "4.png"]
    assert manifest.digest == load_manifest(DataSettings.from_plain(plain | {"group": "CaseID"}), tmp_path).digest


@pytest.mark.parametrize(
    ("header", "values", "settings"),
    [
        ("lesion_id", "abcd", {}),
        ("lesion_id", ["x"] * 4, {}),
        ("lesion_id", [""] * 4, {}),
        ("lesion_type", "aabb", {}),
        ("lesion", "aabb", {"label": "lesion"}),
        ("lesion", ["nv", "mel", "nv", "mel"], {}),
        ("patient", ["test", "", "train", "test"], {"role": "patient"}),
    ],
)
def test_other_columns_are_not_taken_for_groups(
    tmp_path: Path, header: str, values: list[str], settings: dict[str, str]
) -> None:
    lines = [f"{row + 1}.png,{'ab'[row % 2]},{value}" for row, value in enumerate(values)]
    plain = of_lesions(tmp_path, "\n".join([f"image,label,{header}", *lines]))
    assert not load_manifest(DataSettings.from_plain(plain | settings), tmp_path).grouped


def test_a_column_named_group_comes_before_lesions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = of_lesions(tmp_path, LESIONS.replace("Patient-No", "group"))
    manifest = load_manifest(DataSettings.from_plain(plain), tmp_path)
    assert manifest.grouped_by == {"t.csv": ("group",)} and "groups:" not in caplog.text
    refused = load_manifest(DataSettings.from_plain(plain | {"group": "none"}), tmp_path)
    assert not refused.grouped and "source_group" in refused.attributes


def test_a_column_of_lists_is_no_column_of_groups(tmp_path: Path) -> None:
    plain = of_lesions(tmp_path)
    table = pa.table({"image": ["1.png", "2.png"], "label": ["a", "b"], "lesions_id": [1, 2], "lesion": [["x"], ["x"]]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert not load_manifest(DataSettings.from_plain(plain | {"path": str(tmp_path / "t.parquet")}), tmp_path).grouped


def test_a_column_left_out_of_the_groups_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [f"{row}.png,{'ab'[row % 2]},p{row // 3},{row % 3}" for row in range(60)]
    for row in range(60):
        (tmp_path / f"{row}.png").touch()
    plain = write(tmp_path, "\n".join(["image,label,patient_id,lesion_no", *rows])).to_plain()
    manifest = load_manifest(DataSettings.from_plain(plain), tmp_path)
    assert manifest.grouped_by == {"t.csv": ("patient_id",)} and len(set(manifest.groups.tolist())) == 20
    message = "'lesion_no' is not taken for a column of groups, since only few groups would be left (data.group=patient"
    assert message in caplog.text


def test_a_written_manifest_keeps_the_names_of_its_group_columns(tmp_path: Path) -> None:
    load_manifest(DataSettings.from_plain(of_lesions(tmp_path)), tmp_path).write(tmp_path / "m.parquet")
    again = load_manifest(DataSettings(source="parquet", path=str(tmp_path / "m.parquet")), tmp_path)
    assert again.groups.tolist() == [0, 0, 0, 1] and again.grouped_by == {"t.csv": ("lesion_id", "Patient-No")}


def test_rows_of_a_validation_part_join_the_folds_and_are_counted(tmp_path, caplog):
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    roles = ["train", "val", "val", "Validation", "test"]
    lines = [f"{number}.png,{'ab'[number % 2]},{role}" for number, role in enumerate(roles)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label,role", *lines]))
    manifest = load_manifest(DataSettings(source="csv", path=str(tmp_path / "t.csv")), tmp_path)
    assert manifest.roles == ["", "", "", "", "test"]
    assert "t.csv: 2 rows of role 'val' join the folds, which raysk divides" in caplog.text
    assert "t.csv: 1 row of role 'Validation' join" in caplog.text


ONE_HOT = "image,MEL,NV,BCC,sex\n1.png,1,0,0,m\n2.png,0.0,1.0,0,f\n3.png,0,0,1,m\n4.png,1,0,0,f\n"
FOUR = [f"{number}.png" for number in range(1, 5)]


def test_a_one_hot_table_gives_the_column_of_each_row(tmp_path: Path) -> None:
    settings = replace(write(tmp_path, ONE_HOT, *FOUR), label="MEL+NV+BCC")
    manifest = load_manifest(settings, tmp_path)
    assert manifest.table.column("label").to_pylist() == ["MEL", "NV", "BCC", "MEL"]
    assert manifest.attributes == ("sex",)


def test_a_one_hot_table_without_data_label_names_the_override_that_reads_it(tmp_path: Path) -> None:
    settings = write(tmp_path, ONE_HOT, *FOUR)
    with pytest.raises(DataError, match=r"use data\.label=MEL\+NV\+BCC$"):
        load_manifest(settings, tmp_path)
    spaced = write(tmp_path, ONE_HOT.replace("MEL", "malignant melanoma"), *FOUR)
    with pytest.raises(DataError) as raised:
        load_manifest(spaced, tmp_path)
    override = shlex.split(str(raised.value).partition("use ")[2])[0]
    assert load_manifest(replace(spaced, label=override.partition("=")[2]), tmp_path).class_names[0] == "BCC"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("1.png,1,1,0,m", "row 0 of t.csv has 'MEL' and 'NV'"),
        ("1.png,0,0,0,m", "row 0 of t.csv has none"),
        ("1.png,0.5,0.5,0,m", "'MEL' holds '0.5' in row 0 of t.csv"),
        ("1.png,1,,0,m", "'NV' holds '' in row 0 of t.csv"),
        ("1.png,2,0,0,m", "'MEL' holds '2' in row 0 of t.csv"),
    ],
)
def test_a_row_of_a_one_hot_table_has_one_class(tmp_path: Path, row: str, complaint: str) -> None:
    text = ONE_HOT.replace("1.png,1,0,0,m", row)
    with pytest.raises(DataError, match=re.escape(complaint)):
        load_manifest(replace(write(tmp_path, text, *FOUR), label="MEL+NV+BCC"), tmp_path)


@pytest.mark.parametrize(
    ("label", "complaint"),
    [("MEL+NV+NV", "names 'NV' twice"), ("MEL+NO", "'NO'"), ("MEL+image", "both are 'image'"), ("MEL+", "''")],
)
def test_columns_of_a_one_hot_table_are_checked(tmp_path: Path, label: str, complaint: str) -> None:
    with pytest.raises(RayskError, match=re.escape(complaint)):
        load_manifest(replace(write(tmp_path, ONE_HOT, *FOUR), label=label), tmp_path)


def test_a_column_with_a_plus_in_its_name_is_one_column(tmp_path: Path) -> None:
    settings = write(tmp_path, "image,a+b\n1.png,x\n2.png,y\n", "1.png", "2.png")
    assert load_manifest(replace(settings, label="a+b"), tmp_path).class_names == ("x", "y")


REGIONS = "image,label,outline,l,t,r,b\n1.png,mel,m1.png,1,2,3,4\n2.png,nv,,,,,\n"


def test_settings_name_the_columns_of_masks_and_boxes(tmp_path: Path) -> None:
    settings = write(tmp_path, REGIONS, "1.png", "2.png")
    plain = load_manifest(settings, tmp_path)
    assert not {"mask", "x0"} & set(plain.attributes)
    named = load_manifest(replace(settings, mask="outline", box="l+t+r+b"), tmp_path)
    assert [region.mask and region.mask.name for region in regions_of(named)] == ["m1.png", None]
    assert [region.box for region in regions_of(named)] == [(1, 2, 3, 4), None]
    assert named.digest == plain.digest, "the rows are the same"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": "outlin"}, "data.mask of t.csv must be a known name, but got 'outlin'; did you mean outline"),
        ({"box": "l+t+r+bottom"}, "data.box of t.csv must be a known name, but got 'bottom'"),
        (
            {"box": "l+t+r"},
            r"data.box must name the four columns of left, top, right and bottom, but got 'l\+t\+r': write",
        ),
    ],
)
def test_columns_of_regions_that_are_not_there_are_refused(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    settings = write(tmp_path, REGIONS, "1.png", "2.png")
    with pytest.raises(RayskError, match=message):
        load_manifest(replace(settings, **changes), tmp_path)  # type: ignore[arg-type]
