"""Plants every kind of leak and error once; the audit finds each, and nothing in a clean collection."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysk.data.audit.auditing import Audit, audit
from raysk.data.audit.joining import components, joined_groups, shared_extras, write_table
from raysk.data.audit.shortcuts import find_shortcuts
from raysk.data.audit.splits import Entries, entries_of, read_split
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import Manifest, make_manifest
from raysk.data.sources import DataSettings, load_manifest

NUM = 24  # images of the clean collection, in two classes and groups of two


def photograph(seed: int, side: int = 64) -> Image.Image:
    random = np.random.default_rng(seed)
    colour = np.zeros((side, side, 3))
    for coarse in (4, 9, 30):
        rough = Image.fromarray(random.integers(60, 200, (coarse, coarse, 3), dtype=np.uint8))
        colour += np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC)) / 3
    return Image.fromarray(colour.astype(np.uint8))


@pytest.fixture
def clean(tmp_path: Path) -> Manifest:
    """Twelve lesions, each photographed twice; the photographs differ."""
    folder = tmp_path / "images"
    folder.mkdir()
    for row in range(NUM):
        photograph(row).save(folder / f"{row:02}.png")
    return make_manifest(
        [f"{row:02}.png" for row in range(NUM)],
        ["nv" if row % 4 < 2 else "mel" for row in range(NUM)],
        root=folder,
        groups=[f"lesion{row // 2}" for row in range(NUM)],
        attributes={"age": [30 + row * 7 % 40 for row in range(NUM)]},
    )


def titles(report: Audit) -> dict[str, str]:
    return {finding.title: finding.severity for finding in report.findings}


def rows_of(report: Audit, title: str) -> list[int]:
    (finding,) = [finding for finding in report.findings if finding.title == title]
    return finding.rows


def lists_of(manifest: Manifest, parts: Callable[[int], str], **changes: object) -> Entries:
    """The manifest as the lists of a split, with lesions as metadata."""
    entries = entries_of(manifest)
    ties = {"lesion_id": entries.ties["group"]}
    names = [Path(image).stem for image in entries.images]
    changed = {"names": names, "parts": [parts(row) for row in range(len(entries))], "ties": ties, "folded": False}
    return replace(entries, **(changed | changes))  # type: ignore[arg-type]


def by_lesion(row: int) -> str:
    return "test" if row >= 16 else "train"


def test_a_clean_collection_and_a_clean_split_have_no_findings(clean: Manifest) -> None:
    assert titles(audit(entries_of(clean), num_parts=4)) == {}
    report = audit(lists_of(clean, by_lesion))
    assert titles(report) == {} and report.leaks == [] and report.num_files == NUM and report.alike == []


def test_the_same_image_in_two_parts_leaks(clean: Manifest) -> None:
    entries = lists_of(clean, by_lesion)
    doubled = replace(entries, names=[*entries.names[:-1], entries.names[0]])
    report = audit(doubled)
    assert titles(report)["the same image in two parts"] == "leak"
    assert rows_of(report, "the same image in two parts") == [0, NUM - 1]
    assert report.exposed(report.leaks) >= {NUM - 1} and 0 not in report.exposed(report.leaks)


def test_the_same_image_twice_in_a_part_is_a_hint_and_with_two_labels_an_error(clean: Manifest) -> None:
    entries = lists_of(clean, by_lesion)
    report = audit(replace(entries, names=[entries.names[1], *entries.names[1:]]))
    assert titles(report) == {"the same image twice in a part": "hint"}
    report = audit(replace(entries, names=[entries.names[2], *entries.names[1:]]))
    assert titles(report) == {"the same image twice in a part": "hint", "one image with two labels": "error"}


def test_the_same_lesion_in_two_parts_leaks(clean: Manifest) -> None:
    report = audit(lists_of(clean, lambda row: "test" if row >= 15 else "train"))
    assert titles(report) == {"the same lesion_id in two parts": "leak"}
    assert rows_of(report, "the same lesion_id in two parts") == [14, 15]
    assert report.exposed(report.leaks) == {15}
    assert report.counts(report.exposed(report.leaks)) == {("test", "mel"): 1}


def test_a_group_in_two_roles_leaks(clean: Manifest) -> None:
    roles = ["test" if row > 18 else "" for row in range(NUM)]
    table = clean.table.set_column(3, "role", [roles])
    report = audit(entries_of(replace(clean, table=table)))
    assert titles(report) == {"the same group in two parts": "leak"}
    assert rows_of(report, "the same group in two parts") == [18, 19]


def test_unknown_ties_connect_no_rows(clean: Manifest) -> None:
    assert (
        titles(audit(lists_of(clean, lambda row: "test" if row % 2 else "train", ties={"lesion_id": [""] * NUM}))) == {}
    )


def plant(manifest: Manifest, row: int, change: Callable[[Image.Image], Image.Image], of: int = 0) -> None:
    with Image.open(manifest.paths[of]) as image:
        change(image.convert("RGB")).save(manifest.paths[row])


def test_the_same_bytes_in_two_parts_leak(clean: Manifest) -> None:
    clean.paths[20].write_bytes(clean.paths[0].read_bytes())
    assert titles(audit(entries_of(clean))) == {"the same bytes in two groups": "leak"}
    report = audit(lists_of(clean, by_lesion))
    assert titles(report) == {"the same bytes in two parts": "leak"}
    assert rows_of(report, "the same bytes in two parts") == [0, 20] and report.alike == [(0, 20)]
    assert titles(audit(lists_of(clean, lambda row: "train"))) == {"the same bytes twice in a part": "hint"}


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.transpose(Image.Transpose.ROTATE_90),
        lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        lambda image: image.resize((78, 78)),
        lambda image: image.point(lambda value: value * 9 // 10),
    ],
)
def test_the_same_picture_in_two_groups_leaks(clean: Manifest, change: Callable[[Image.Image], Image.Image]) -> None:
    plant(clean, 20, change)
    report = audit(entries_of(clean))
    assert titles(report) == {"the same picture in two groups": "leak"}
    assert rows_of(report, "the same picture in two groups") == [0, 20]
    assert titles(audit(lists_of(clean, by_lesion))) == {"the same picture in two parts": "leak"}
    assert titles(audit(lists_of(clean, lambda row: "train"))) == {"the same picture twice in a part": "hint"}


def test_the_same_picture_in_one_group_does_not_leak(clean: Manifest) -> None:
    plant(clean, 1, lambda image: image.resize((70, 70)))
    report = audit(entries_of(clean))
    assert titles(report) == {} and report.alike == [(0, 1)]


def test_one_picture_with_two_labels_is_an_error(clean: Manifest) -> None:
    plant(clean, 2, lambda image: image.resize((70, 70)))
    report = audit(entries_of(clean))
    assert titles(report)["one picture with two labels"] == "error"
    assert rows_of(report, "one picture with two labels") == [0, 2]


def test_bad_files_are_reported(clean: Manifest) -> None:
    paths = clean.paths
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:900])
    paths[2].write_bytes(b"no image")
    paths[3].unlink()
    photograph(4, side=20).save(paths[4])
    for row in (5, 6):
        Image.new("RGB", (64, 64), (row, row, row)).save(paths[row])
    report = audit(entries_of(clean))
    assert titles(report) == {
        "a file that cannot be read": "error",
        "an image of a single colour": "error",
        "an image with a side of less than 32 pixels": "hint",
    }
    assert rows_of(report, "a file that cannot be read") == [0, 1, 2, 3]
    assert rows_of(report, "an image of a single colour") == [5, 6]
    assert rows_of(report, "an image with a side of less than 32 pixels") == [4]
    assert report.findings[0].notes[0] == "the file is empty" and "no such file" in report.findings[0].notes[3]


def test_rows_without_a_file_are_errors_if_other_rows_have_files(clean: Manifest) -> None:
    entries = lists_of(clean, by_lesion)
    report = audit(replace(entries, paths=[None, *entries.paths[1:]]))
    assert titles(report) == {"a row without an image file": "error"}
    assert titles(audit(replace(entries, paths=[None] * NUM))) == {}


def test_classes_with_too_few_groups_or_missing_from_train_are_errors(clean: Manifest) -> None:
    report = audit(entries_of(clean), num_parts=7)
    assert [finding.note for finding in report.findings] == [
        f"{name}: 6 groups for 7 parts; lower folds.k, or map it to another class" for name in ("mel", "nv")
    ]
    report = audit(lists_of(clean, lambda row: "test" if row % 4 < 2 else "train"))
    assert titles(report) == {"a class that train lacks": "error"} and report.findings[0].note == "nv"


def test_attributes_and_file_sizes_that_predict_the_label_are_hints(clean: Manifest) -> None:
    for row in range(2, NUM, 4):
        for member in (row, row + 1):
            photograph(member, side=80).save(clean.paths[member])
    kinds = ["seen again" if label == "nv" else "cut out" for label in clean.table.column("label").to_pylist()]
    report = audit(entries_of(replace(clean, table=clean.table.append_column("dx_type", [kinds]))))
    assert {"dx_type gives the label away", "width of the image gives the label away"} <= titles(report).keys()
    assert set(titles(report).values()) == {"hint"}
    (kind,) = [finding for finding in report.findings if finding.title.startswith("dx_type")]
    assert kind.note == "balanced accuracy 1.00, chance 0.50; rows with 'seen again' are all 'nv'"


def test_identifiers_and_random_attributes_are_not_shortcuts() -> None:
    random = np.random.default_rng(0)
    labels = ["a", "b", "c"] * 200
    attributes = {
        "id": [f"x{row}" for row in range(600)],
        "one": ["same"] * 600,
        "chance": random.normal(size=600).tolist(),
        "place": random.choice(["arm", "leg"], 600).tolist(),
        "group": [str(row // 6) for row in range(600)],
    }
    groups = [str(row // 6) for row in range(600)]
    assert find_shortcuts(attributes, labels, groups) == []
    missing = [None if label == "a" else 1.0 for label in labels]
    (shortcut,) = find_shortcuts({"missing": missing}, labels, groups)
    assert shortcut.name == "missing"
    assert (shortcut.score, shortcut.chance) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_numbers_of_any_magnitude_are_ranked() -> None:
    labels = ["a", "b"] * 60
    groups = [str(row) for row in range(120)]
    large = [10**40 + (row % 2) * 10**38 for row in range(120)]
    near = [2**30 + row % 2 for row in range(120)]
    shortcuts = find_shortcuts({"large": large, "near": near, "past": ["1e999", "-1e999"] * 60}, labels, groups)
    assert {shortcut.name: shortcut.score for shortcut in shortcuts} == {"large": 1, "near": 1, "past": 1}


def test_the_rows_of_findings_are_written_as_csv(clean: Manifest, tmp_path: Path) -> None:
    clean.paths[20].write_bytes(clean.paths[0].read_bytes())
    audit(lists_of(clean, by_lesion)).write(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["part"], line["row"], line["image"], line["lesion_id"]) for line in lines] == [
        ("train", "0", "00.png", "lesion0"),
        ("test", "4", "20.png", "lesion10"),
    ]
    assert {line["severity"] for line in lines} == {"leak"} and {line["case"] for line in lines} == {"0"}


def test_components_match_those_of_the_graph() -> None:
    assert components(6, [(4, 1), (5, 4), (2, 0)]).tolist() == [0, 1, 0, 2, 1, 1]
    assert components(3, []).tolist() == [0, 1, 2]


def test_folds_keep_joined_groups_whole_and_the_table_reads_back(clean: Manifest, tmp_path: Path) -> None:
    plant(clean, 20, lambda image: image.rotate(180))
    report = audit(entries_of(clean))
    joined = joined_groups(clean, report.alike)
    names = joined.table.column("group").to_pylist()
    assert names[20] == names[21] == names[0] == "lesion0" and names[2:20] == [f"lesion{r // 2}" for r in range(2, 20)]
    assert audit(entries_of(joined)).findings == []
    folds = make_folds(joined, FoldSettings(k=2, test_share=0.2))
    assert len(set(folds.fold[[0, 1, 20, 21]].tolist())) == 1
    for path in (tmp_path / "joined.parquet", tmp_path / "elsewhere" / "joined.parquet"):
        write_table(joined, path)
        again = load_manifest(DataSettings(source="csv", path=str(path)), tmp_path)
        assert again.table.column("group").to_pylist() == names and again.grouped
        assert [path.resolve() for path in again.paths] == [path.resolve() for path in clean.paths]
        assert again.table.column("age").to_pylist() == clean.table.column("age").to_pylist()


def test_train_only_rows_of_scored_groups_can_be_left_out(clean: Manifest) -> None:
    clean.paths[20].write_bytes(clean.paths[0].read_bytes())
    roles = ["train_only" if row > 15 else "" for row in range(NUM)]
    manifest = replace(clean, table=clean.table.set_column(3, "role", [roles]))
    joined = joined_groups(manifest, audit(entries_of(manifest)).alike)
    assert shared_extras(manifest) == [] and shared_extras(joined) == [20, 21]
    kept = joined.without(shared_extras(joined))
    assert audit(entries_of(kept)).leaks == []
    assert make_folds(kept, FoldSettings(k=2)).train_rows(0).size


def test_different_pictures_of_one_name_do_not_leak_but_copies_do(clean: Manifest, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for row in range(4):
            photograph(row + 100 * (part == "test")).save(tmp_path / part / f"{row}.png")
        (tmp_path / f"{part}.txt").write_text("".join(f"{part}/{row}.png nv\n" for row in range(4)))
    lists = {part: tmp_path / f"{part}.txt" for part in ("train", "test")}
    assert titles(audit(read_split(lists))) == {}
    with Image.open(tmp_path / "train" / "3.png") as image:
        image.resize((80, 80)).save(tmp_path / "test" / "3.png")
    report = audit(read_split(lists))
    assert titles(report)["the same picture in two parts"] == "leak" and report.exposed(report.leaks) == {7}


def test_joining_groups_ungrouped_rows_by_their_pictures(tmp_path: Path) -> None:
    manifest = make_manifest(["a", "b", "c"], ["x", "y", "x"], root=tmp_path)
    assert not joined_groups(manifest, []).grouped
    joined = joined_groups(manifest, [(0, 2)])
    assert joined.grouped and joined.groups.tolist() == [0, 1, 0]


def test_a_split_is_audited_from_lists_images_and_metadata(clean: Manifest, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"images/{row:02}.png nv\n" for row in range(15)))
    (tmp_path / "test.txt").write_text("".join(f"{row:02}.PNG nv\n" for row in range(15, NUM)) + "03.png nv\n")
    (tmp_path / "meta.csv").write_text(
        "image_id;patient_id\n" + "".join(f"{row:02};p{row // 2}\n" for row in range(NUM))
    )
    lists = {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    report = audit(read_split(lists, tmp_path / "images", tmp_path / "meta.csv"))
    assert titles(report) == {"the same image in two parts": "leak", "the same patient_id in two parts": "leak"}
    assert len(report.exposed(report.leaks)) == 2
