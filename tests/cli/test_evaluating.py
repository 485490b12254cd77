"""`raysk evaluate`: the promised scores on the test part itself, groups, maps of classes, and refusals."""

import csv
import json

import pytest

from raysk.evaluation.ensemble import GREEDY
from tests.command_line import refused, said


@pytest.fixture(scope="module")
def table(finished_run, tmp_path_factory):
    """Writes a table of rows of the study, with other names of classes if asked."""
    folder = tmp_path_factory.mktemp("tables")

    def write(rows, renamed=None, header=("image", "label", "lesion_id")):
        path = folder / f"{len(list(folder.iterdir()))}.csv"
        manifest = finished_run.manifest
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for row in rows:
                label = manifest.class_names[manifest.labels[row]]
                writer.writerow([manifest.paths[row], (renamed or {}).get(label, label), f"L{manifest.groups[row]}"])
        return path

    return write


def scores(folder):
    content = json.loads((folder / "evaluation.json").read_text())
    return {line["name"]: line for line in (*content["scores"], *content["classes"])}, content


def test_on_the_test_part_the_promise_is_kept_to_the_last_digit(finished_run, bundle_file, table, tmp_path, capfd):
    path = table(finished_run.folds.test_rows)
    output = said(["evaluate", bundle_file, "data=csv", f"data.path={path}", "--output", tmp_path / "new"], capfd)
    assert output.startswith(f"{GREEDY} on {len(finished_run.folds.test_rows)} images of data=csv")
    assert "too good" not in output
    lines, content = scores(tmp_path / "new")
    for name in ("macro_f1", "balanced_accuracy"):
        for end in ("value", "low", "high"):
            assert lines[name]["here"][end] == pytest.approx(lines[name]["promised"][end], abs=1e-9)
    for name in finished_run.manifest.class_names:
        assert lines[name]["here"] == lines[name]["promised"]
    assert content["num_groups"] < content["num_images"], "lesions are recognised"
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        f"evaluation.{kind}" for kind in ("json", "md", "csv")
    }


def test_rows_that_trained_the_model_are_said(finished_run, bundle_file, table, tmp_path, capfd):
    test_rows, train_rows = finished_run.folds.test_rows, finished_run.folds.train_rows(0)[:40]
    path = table([*test_rows, *train_rows])
    words = ["data=csv", f"data.path={path}"]
    output = said(["evaluate", finished_run.folder, *words], capfd)
    assert f"40 of {len(test_rows) + 40} images were among the rows that trained" in " ".join(output.split())
    assert "too good" not in said(["evaluate", bundle_file, *words], capfd), "a file does not know the rows"
    whole = tmp_path / "manifest.parquet"
    finished_run.manifest.write(whole)
    output = said(["evaluate", bundle_file, "data=parquet", f"data.path={whole}"], capfd)
    assert "the rows of the study itself" in output


def test_unlabelled_rows_are_left_out_with_a_note(finished_run, bundle_file, table, tmp_path, capfd):
    path = table(finished_run.folds.test_rows)
    lines = path.read_text().splitlines()
    blank = [",".join([line.split(",")[0], "", line.split(",")[2]]) for line in lines[-2:]]
    (path.parent / "blank.csv").write_text("\n".join([*lines[:-2], *blank]))
    words = ["evaluate", bundle_file, "data=csv", f"data.path={path.parent / 'blank.csv'}"]
    assert "set data.on_blank=unlabelled" in refused(words, capfd)
    output = said([*words, "data.on_blank=unlabelled", "--output", tmp_path / "new"], capfd)
    assert "2 images are unlabelled and are left out." in output
    assert scores(tmp_path / "new")[1]["num_images"] == len(lines) - 3


def test_unknown_classes_are_refused_with_the_map_to_write(finished_run, bundle_file, table, capfd):
    path = table(finished_run.folds.test_rows, {"mel": "Melanoma", "nv": "nevus", "df": "other"})
    words = ["evaluate", bundle_file, "data=csv", f"data.path={path}"]
    line = refused(words, capfd)
    assert "classes of the images must be those of the model" in line
    assert "but got Melanoma, nevus, other" in line
    override = line.partition('with "": ')[2].strip("'")
    assert "Melanoma: mel" in override
    output = said([*words, override], capfd)
    assert "No image shows df." in output


def test_an_unreadable_image_is_refused_or_left_out(finished_run, bundle_file, table, tmp_path, capfd):
    path = table(finished_run.folds.test_rows)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    path.write_text(path.read_text() + f"{broken},nv,L9999\n")
    words = ["evaluate", bundle_file, "data=csv", f"data.path={path}"]
    line = refused(words, capfd)
    assert f"1 of {len(finished_run.folds.test_rows) + 1} are not, first {broken}" in line
    assert "1 images cannot be read and are left out" in said([*words, "data.on_error=skip"], capfd)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "evaluate must get labelled images, but got no data=: write for example data=ham10000"),
        (["data.path=table.csv"], "evaluate must get labelled images"),
        (["data=cvs"], "did you mean csv"),
        (["data=csv", "data.path=none.csv"], "data.path must be a table"),
        (["data=csv", "data.path=table.csv", "data.label=lable"], "nearest first: label"),
        (["data=csv", "data.path=table.csv", "--row", "1"], "a row must be chosen when the bundle is made"),
        (["data=csv", "data.path=table.csv", "--device", "gpu"], "device must be one of this machine"),
        (["data=csv", "data.path=table.csv", "--output", "old"], "--output must be a new folder, but old has an"),
        (["data=csv", "data.path=table.csv", "--output", "table.csv"], "but table.csv is a file"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused_in_one_line(
    words, message, finished_run, bundle_file, table, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text(table(finished_run.folds.test_rows).read_text())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "evaluation.json").write_text("{}")
    assert message in refused(["evaluate", bundle_file, *words], capfd)
