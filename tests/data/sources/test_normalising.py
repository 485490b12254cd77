"""Checks of every collection: only settings that its source reads, and plausible groups."""

import pytest

from raysk.config import compose_plain, read_config
from raysk.data.sources import DataSettings, load_manifest, sources
from raysk.data.sources.base import DESCRIBING
from raysk.data.sources.normalising import normalised
from raysk.errors import ConfigError

HAM = ["image_id,dx,lesion_id,localization", "ISIC_1,nv,L1,back", "ISIC_2,mel,L2,face"]


@pytest.fixture
def ham(tmp_path, write_images, write_table):
    write_images(tmp_path / "ham", ["ISIC_1.jpg", "ISIC_2.jpg"])
    return write_table(tmp_path / "ham" / "HAM10000_metadata.csv", *HAM).parent


@pytest.fixture
def table(tmp_path, write_images, write_table):
    write_images(tmp_path / "own", ["1.png", "2.png"])
    return write_table(tmp_path / "own" / "t.csv", "image,label,lesion_id", "1.png,a,x", "2.png,b,x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": "patient_id"}, "data.group must not be set for the source 'ham10000', .*set data.group_by"),
        ({"label": "localization"}, "data.label must not be set .* got 'localization': remove it, or use data=csv"),
        ({"image": "isic_id"}, "data.image must not be set"),
    ],
)
def test_a_publishers_collection_refuses_settings_of_user_tables(ham, load, settings, message):
    with pytest.raises(ConfigError, match=message):
        load("ham10000", ham, **settings)


def test_sources_of_user_data_refuse_settings_that_they_do_not_read(table, load, tmp_path):
    with pytest.raises(ConfigError, match=r"data.group_by must not be set .*: name the columns in data.group"):
        load("csv", table, group_by="lesion")
    for source in ("folder", "synthetic"):
        (tmp_path / "classes" / "nv").mkdir(parents=True, exist_ok=True)
        (tmp_path / "classes" / "nv" / "1.png").touch()
        with pytest.raises(ConfigError, match=r"data.group must not be set .*: remove it, or use data=csv"):
            load_manifest(
                DataSettings(source=source, group="lesion_id", size=90 if source == "synthetic" else None,
                             path=None if source == "synthetic" else str(tmp_path / "classes")), tmp_path / "cache"
            )  # fmt: skip


@pytest.mark.parametrize("setting", [{"group": "lesion_id"}, {"role": "train_only"}, {"group_by": "lesion"}])
def test_several_collections_refuse_settings_for_all_of_them(table, tmp_path, setting):
    (name,) = setting
    members = [{"source": "csv", "name": member, "path": str(table)} for member in ("a", "b")]
    plain = {"source": "several", "collections": members, **setting}
    with pytest.raises(ConfigError, match=rf"data.{name} must be given for each .*: give data.a.{name} instead"):
        load_manifest(DataSettings.from_plain(plain), tmp_path / "cache")


@pytest.mark.parametrize("source", list(sources))
def test_the_defaults_of_a_source_are_never_refused(source, collection):
    for settings in (DataSettings(source=source), read_config(compose_plain(f"data={source}")).data):
        assert settings.source == source and normalised(collection, settings)


def test_sources_read_existing_settings():
    assert set(DESCRIBING) < set(DataSettings().to_plain())
    for name in sources:
        assert set(sources[name].reads) <= set(DESCRIBING), name
        assert set(sources[name].defaults) <= set(DataSettings().to_plain()), name


@pytest.fixture
def collection(table, tmp_path):
    return sources["csv"].read(DataSettings(source="csv", path=str(table)), tmp_path)


@pytest.mark.parametrize(("num_rows", "warned"), [(51, True), (50, False)])
def test_a_group_of_too_many_rows_gives_a_warning(tmp_path, load, write_table, caplog, num_rows, warned):
    lines = [f"{row}.png,{'ab'[row % 2]},{'unknown' if row < num_rows else row}" for row in range(520)]
    for row in range(520):
        (tmp_path / f"{row}.png").touch()
    load("csv", write_table(tmp_path / "t.csv", "image,label,group", *lines))
    assert "holds" not in caplog.text, "less than a tenth of the rows"
    load("csv", write_table(tmp_path / "t.csv", "image,label,group", *lines[:100]))
    message = f"t.csv: one group, 'unknown', holds {num_rows} of 100 rows, which no fold cuts: leave 'group' blank"
    assert (message in caplog.text) == warned


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "image"}, "data.label must be another column than data.image, but both are 'image': correct one"),
        ({"image": "label"}, "data.label must be another column than data.image, but both are 'label'"),
        ({"group": "label"}, "data.group must be another column than data.label, but both are 'label'"),
        ({"group": "image"}, "data.group must be another column than data.image"),
        ({"group": "lesion_id+label"}, "data.group must be another column than data.label"),
    ],
)
def test_a_column_with_two_meanings_is_refused(table, load, tmp_path, settings, message):
    for source in ("csv", "hf"):
        with pytest.raises(ConfigError, match=message):
            load(source, table if source == "csv" else table.parent, **settings)
    members = [{"source": "csv", "name": name, "path": str(table), **settings} for name in ("a", "b")]
    plain = {"source": "several", "collections": members}
    with pytest.raises(ConfigError, match=message.replace("data.", "data.a.")):
        load_manifest(DataSettings.from_plain(plain), tmp_path / "cache")


def test_recognised_groups_of_several_collections_name_their_setting(tmp_path, write_images, write_table, caplog):
    for name in ("a", "b"):
        write_images(tmp_path / name, [f"{name}{row}.png" for row in range(4)])
        lines = [f"{name}{row}.png,{'xy'[row % 2]},{row // 2}" for row in range(4)]
        write_table(tmp_path / name / "t.csv", "image,label,lesion_id" if name == "a" else "image,label,age", *lines)
    members = [{"source": "csv", "name": name, "path": str(tmp_path / name / "t.csv")} for name in ("a", "b")]
    plain = {"source": "several", "collections": members}
    manifest = load_manifest(DataSettings.from_plain(plain), tmp_path / "cache")
    assert "t.csv: groups: lesion_id (data.a.group=none to refuse)" in caplog.text
    assert manifest.groups.tolist() == [0, 0, 1, 1, 2, 3, 4, 5]
    assert manifest.grouped_by == {"a/t.csv": ("lesion_id",), "b/t.csv": ()}


def test_one_row_is_a_row(tmp_path, write_images, write_table, load, caplog):
    write_images(tmp_path, ["1.png", "2.png", "3.png"])
    table = write_table(tmp_path / "t.csv", "image,label,group", "1.png,a,x", "2.png,b,", "3.png,c,x", "4.png,a,x")
    load("csv", table, on_error="skip", classes_map={"a": "a", "b": "b"})
    for words in ("left out 1 row of classes that data.classes_map leaves out: c 1", "left out 1 row without an image",
                  "1 row without a value of 'group'; each is its own group"):  # fmt: skip
        assert words in caplog.text
