"""`raysk data show` and `raysk data prepare`, and data=[several,collections]."""

import argparse
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysk.cli.data import add_data_commands
from raysk.config import compose_plain, read_config
from raysk.data.manifest import Manifest
from raysk.data.sources import DataSettings, load_manifest, sources
from raysk.errors import ConfigError


def run(*words):
    parser = argparse.ArgumentParser()
    add_data_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args(words)
    return arguments.run_command(arguments)


@pytest.fixture
def ham(tmp_path):
    """HAM10000 as it is published, with few images: two of a lesion."""
    root = tmp_path / "ham"
    (root / "HAM10000_images_part_1").mkdir(parents=True)
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    rng = np.random.default_rng(0)
    for number in range(20):
        pixels = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "HAM10000_images_part_1" / f"ISIC_{number:02d}.jpg")
        lines.append(f"HAM_{number // 2},ISIC_{number:02d},{'mel' if number < 6 else 'nv'},histo,,male,back")
    (root / "HAM10000_metadata.csv").write_text("\n".join(lines))
    return root


def test_show_has_a_line_and_a_sheet_of_unlabelled_rows(ham, tmp_path, capfd):
    table = (
        (ham / "HAM10000_metadata.csv").read_text().replace("ISIC_07,nv", "ISIC_07,").replace("ISIC_08,nv", "ISIC_08,")
    )
    (ham / "HAM10000_metadata.csv").write_text(table)
    words = ["data=ham10000", f"data.path={ham}", "data.on_blank=unlabelled", f"cache={tmp_path / 'cache'}"]
    assert run("show", *words, "--out", str(tmp_path / "out")) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert {"nv 12 7 66.67%", "mel 6 3 33.33%", "unlabelled 2 2", "all 20 10"} <= set(lines)
    assert "10 groups: 0 of one image, the largest of 2." in lines, "no group has several classes"
    assert sorted(path.name for path in (tmp_path / "out" / "sheets").iterdir()) == [
        "00-mel.png", "01-nv.png", "unlabelled.png",
    ]  # fmt: skip


def test_show_prints_classes_groups_and_sizes_and_draws_sheets(ham, tmp_path, capfd):
    words = ["data=ham10000", f"data.path={ham}", f"cache={tmp_path / 'cache'}"]
    assert run("show", *words, "--out", str(tmp_path / "out")) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert {"class images groups share", "nv 14 7 70.00%", "mel 6 3 30.00%", "all 20 10"} <= set(lines)
    assert "10 groups: 0 of one image, the largest of 2." in lines
    assert "16 × 12 20" in lines
    assert {"age 0 0", "sex 20 1 male (20)", "image_id 20 20"} <= set(lines)
    assert lines[-1].startswith("Next, ") and lines[-1].endswith(f"raysk data audit {' '.join(words)}")
    sheets = sorted((tmp_path / "out").rglob("*"))
    assert [path.name for path in sheets] == ["sheets", "00-mel.png", "01-nv.png"]
    assert all(f"contact sheet of {path.stem[3:]}: {path}" in lines for path in sheets[1:])
    assert not (tmp_path / "cache").exists(), "show decodes nothing"


def test_show_prints_values_unchanged_and_counts_values_without_text(tmp_path, capfd):
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    columns = {
        "image": [f"{number}.png" for number in range(4)], "label": ["[/x]", "[nv]"] * 2, "[/y]": ["[/z]"] * 4,
        "bytes": [b"\xff", b"\xff", None, b"\xff"], "list": [["a"]] * 4,
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    words = ["data=parquet", f"data.path={tmp_path / 't.parquet'}"]
    assert run("show", *words, "--out", str(tmp_path / "out")) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert {"[/x] 2 2 50.00%", "[nv] 2 2 50.00%", "[/y] 4 1 [/z] (4)", "bytes 3", "list 4"} <= set(lines)


def test_a_pipe_among_the_images_is_counted_and_not_waited_for(ham, tmp_path, capfd):
    path = ham / "HAM10000_images_part_1" / "ISIC_19.jpg"
    path.unlink()
    os.mkfifo(path)
    assert run("show", "data=ham10000", f"data.path={ham}", "--out", str(tmp_path / "out")) == 0
    lines = [" ".join(line.split()) for line in capfd.readouterr().out.splitlines()]
    assert "cannot be read 1" in lines


def test_prepare_writes_the_manifest_and_prints_the_next_command(ham, tmp_path, capfd):
    (ham / "HAM10000_images_part_1" / "ISIC_19.jpg").write_bytes(b"broken")
    words = ["data=ham10000", f"data.path={ham}", f"cache={tmp_path / 'cache'}", "data.on_error=skip"]
    assert run("prepare", *words, "image_size=16", "--out", str(tmp_path / "out")) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("left out: row 19, ")
    assert lines[-1] == (
        f"Next, search for the best classifier: raysk tune --space supcon {' '.join(words)} image_size=16"
    )
    manifest = Manifest.read(tmp_path / "out" / "manifest.parquet")
    assert len(manifest) == 19 and all(path.is_file() for path in manifest.paths)
    assert len(list((tmp_path / "cache").glob("store-*"))) == 1
    again = DataSettings(source="parquet", path=str(tmp_path / "out" / "manifest.parquet"))
    assert load_manifest(again, tmp_path / "cache").digest == manifest.digest


def test_the_next_command_can_be_pasted_into_a_shell(ham, tmp_path, capfd):
    spaced = ham.rename(tmp_path / "my images")
    words = [f"data.path='{spaced}'", f"cache={tmp_path / 'cache'}"]
    assert run("prepare", "data=ham10000", *words, "--out", str(tmp_path / "out")) == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert "image_size=48" in last and f"""'data.path='"'"'{spaced}'"'"''""" in last


def test_every_source_has_its_settings_in_the_tree():
    keys = None
    for name in sources:
        node = compose_plain(f"data={name}")["data"]
        assert node["source"] == name
        keys = keys or set(node)
        assert set(node) == keys
    assert keys == {*DataSettings().to_plain()} - {"name", "collections"}


def test_several_collections_have_settings_of_their_own():
    words = ("data=[ham10000,clinic:csv]", "data.ham10000.path=/a", "data.clinic.path=/b", "data.clinic.group=id+who",
             "data.ham10000.role=train_only", "data.clinic.classes_map={SCC: akiec}", "data.on_error=skip")  # fmt: skip
    data = read_config(compose_plain("data=csv", *words)).data
    ham, clinic = data.collections
    assert (data.source, data.on_error) == ("several", "skip")
    assert (ham.name, ham.source, ham.path, ham.role) == ("ham10000", "ham10000", "/a", "train_only")
    assert (clinic.name, clinic.source, clinic.path, clinic.group) == ("clinic", "csv", "/b", "id+who")
    assert clinic.classes_map.to_plain() == {"SCC": "akiec"}
    assert DataSettings.from_plain(data.to_plain()) == data


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=[ham1000,csv]"], "did you mean ham10000"),
        (["data=[csv,csv]"], "another collection or of a setting, but got 'csv': write"),
        (["data=[path:csv,folder]"], "but got 'path'"),
        (["data=[csv,folder]", "data.csv.pth=x"], "did you mean data.path"),
        (["data=csv", "data.folder.path=x"], "the key of an override must be a known name, but got 'data.folder.path'"),
        (["data=_every"], "data must be a known name, but got '_every'"),
        (["data=[csv,folder]", "data.csv.classes_map=[a]"], r"data.collections.classes_map must be a mapping"),
    ],
)
def test_an_invalid_choice_of_collections_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        read_config(compose_plain(*words))
