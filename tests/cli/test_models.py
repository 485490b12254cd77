"""`raysk bundle` and `raysk show`: a file that predicts as its row, a card that a person can read, and refusals."""

import re

import pytest

from raysk.evaluation.ensemble import AVERAGE, GREEDY
from raysk.inference.bundle import Bundle
from tests.command_line import refused, said


def test_a_row_becomes_a_file_with_its_licences(finished_run, tmp_path, capfd):
    path = tmp_path / "new" / "linear.raysk"
    output = said(
        ["bundle", finished_run.folder, "--row", "linear", "--output", path, "--data-licence", "CC BY-NC 4.0"], capfd
    )
    bundle = Bundle.read(path)
    assert output.startswith(f"{path}: linear, ")
    assert bundle.facts.provenance.name == "linear"
    assert bundle.facts.provenance.data_licence == "CC BY-NC 4.0"
    assert f"raysk predict {path} IMAGES" in output


def test_without_a_row_the_greedy_ensemble_is_taken(finished_run, tmp_path, capfd):
    said(["bundle", finished_run.folder, "--output", tmp_path / "best.raysk"], capfd)
    assert Bundle.read(tmp_path / "best.raysk").facts.provenance.name == GREEDY


def test_show_prints_the_card(bundle_file, finished_run, capfd):
    card = said(["show", bundle_file], capfd)
    assert card == Bundle.read(bundle_file).card
    facts = Bundle.read(bundle_file).facts
    scores = facts.provenance.scores
    assert card.startswith(f"# {GREEDY}\n")
    for name, count, num_test in zip(
        facts.class_names, facts.provenance.class_counts, facts.provenance.test_counts, strict=True
    ):
        recall = [f"{scores[f'test_recall_{name}{end}']:.3f}" for end in ("", "_low", "_high")]
        line = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {count} |" in line
        assert f"| {num_test} | {recall[0]} [{recall[1]}, {recall[2]}] |" in line
    low, high = scores["test_macro_f1_low"], scores["test_macro_f1_high"]
    assert f"| macro f1 | {scores['test_macro_f1']:.3f} [{low:.3f}, {high:.3f}] |" in card
    assert "raysk predict FILE.raysk" in card
    assert "no medical device" in card
    assert "csv lesions.csv" in card
    assert "/home/anna" not in card, "a path of the machine is nobody's business"
    assert not re.search(r"\{\w*\}", card), "a field was left open"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "model.zip"], "--output must end in .raysk, but got model.zip: name it model.raysk"),
        (["--output", "model"], "--output must end in .raysk"),
        (["--row", "best", "--output", "m.raysk"], "ROW must be a place, a name or a key of one row, but got 'best'"),
        (["--row", "99", "--output", "m.raysk"], "got '99'"),
        (["--refitted", "--output", "m.raysk"], "a row must be refitted before its refitted models are used"),
        (["--output", "file/m.raysk"], "file/m.raysk must be writable"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(words, message, finished_run, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    assert message in refused(["bundle", finished_run.folder, *words], capfd)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_not_replaced(finished_run, tmp_path, capfd):
    path = tmp_path / "model.raysk"
    path.write_text("mine")
    assert f"--output must be a new file, but {path} exists" in refused(
        ["bundle", finished_run.folder, "--output", path], capfd
    )
    assert path.read_text() == "mine"


def test_a_folder_that_is_no_run_and_a_file_that_is_no_bundle_are_refused(tmp_path, finished_run, capfd):
    assert "run.json must exist" in refused(["bundle", tmp_path, "--output", tmp_path / "m.raysk"], capfd)
    assert "MODEL must be a bundle" in refused(["show", tmp_path / "none.raysk"], capfd)
    assert "MODEL must be a bundle" in refused(["show", finished_run.folder], capfd)
    other = tmp_path / "other.raysk"
    other.write_bytes(b"\x89PNG" + bytes(100))
    assert "must be a bundle that raysk bundle wrote" in refused(["show", other], capfd)


def test_the_average_of_all_recipes_is_a_row_too(finished_run, tmp_path, capfd):
    said(["bundle", finished_run.folder, "--row", AVERAGE, "--output", tmp_path / "all.raysk"], capfd)
    assert len(Bundle.read(tmp_path / "all.raysk").facts.heads) == 3 * len(finished_run.folds)
