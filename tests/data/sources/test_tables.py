"""A user's own tables, however they are written: the right label for each image, or an error; never a wrong label."""

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.sources import DataSettings, load_manifest
from raysk.errors import DataError

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
def test_every_row_has_its_own_label_or_is_refused(
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
        one_class = len({label.strip() for _, _, label, _ in rows}) < 2
        try:
            manifest = load_manifest(DataSettings(source="csv", path=str(path)), Path(folder))
        except DataError as error:
            assert "\n" not in str(error)
            assert f"t.{path.suffix[1:]} must have a label, but row {blank[0]} " in str(error) if blank else one_class
            return
        assert not blank and not one_class
        found = dict(
            zip([path.resolve() for path in manifest.paths], manifest.table.column("label").to_pylist(), strict=True)
        )
        assert found == {(root / file).resolve(): label.strip() for file, _, label, _ in rows}
        named = manifest.table.column("group").to_pylist()
        for (_, _, _, group), name in zip(rows, named, strict=True):
            # Rows of which nothing is known are not one group.
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
        ("image, label\n1.png,a\n2.png,b\n", r"data.label must be a column of t.csv, but got 'label'"),
    ],
)
def test_what_is_not_one_image_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_manifest(write(tmp_path, text, "1.png", "2.jpg", "2.png"), tmp_path)


def test_numbers_in_parquet_are_names_and_nan_is_none(tmp_path: Path) -> None:
    write(tmp_path, "", "1.png", "2.png")
    table = pa.table({"image": ["1.png", "2.png"], "label": [0, 1], "group": [1.0, float("nan")]})
    pq.write_table(table, tmp_path / "t.parquet")
    manifest = load_manifest(DataSettings(source="parquet", path=str(tmp_path / "t.parquet")), tmp_path)
    assert manifest.table.column("label").to_pylist() == ["0", "1"]
    assert manifest.table.column("group").to_pylist() == ["1", "2.png"]
    with pytest.raises(DataError, match="take data=csv"):
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
