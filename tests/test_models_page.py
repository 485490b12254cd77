"""Every line of docs/models.md runs, in order, on a tiny run."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from raysk.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[list[str]]:
    """The words of each command of a console block; a line without a dollar is output."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


@pytest.fixture
def here(finished_run, cache, tmp_path, monkeypatch):
    """A folder as the page has it: a run, photographs, and tables of them."""
    shutil.copytree(finished_run.folder, tmp_path / "runs" / "first")
    shutil.copytree(cache / "drawn" / "images", tmp_path / "images")
    (tmp_path / "photographs").mkdir()
    for name, image in zip("ab", sorted((tmp_path / "images").iterdir()), strict=False):
        shutil.copy(image, tmp_path / "photographs" / f"{name}.png")
    table = pd.read_csv(cache / "drawn" / "metadata.csv").iloc[:60]
    for name in ("lesions.csv", "clinic.csv"):
        table.to_csv(tmp_path / name, index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_line_of_the_page_runs(here, capfd):
    seen: dict[str, object] = {}
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 6
    for language, block in blocks:
        if language == "python":
            exec(block, seen)
            continue
        for program, *words in commands(block):
            assert program == "raysk", f"the test does not know how to run {program}"
            assert main(words) == 0, capfd.readouterr().err
    assert pd.read_csv(here / "predictions.csv")["image"].tolist() == ["photographs/a.png", "photographs/b.png"]
    assert len(pd.read_parquet(here / "predictions.parquet")) == 60
    assert list(seen["labels"]) == pd.read_csv(here / "predictions.csv")["label"].tolist()
    assert sum(seen["by_class"].values()) == pytest.approx(1)
    assert "# ensemble: greedy" in capfd.readouterr().out
    assert {path.name for path in (here / "clinic").iterdir()} >= {"evaluation.json", "evaluation.md", "evaluation.csv"}
    assert (here / "refitted.raysk").stat().st_size < (here / "lesions.raysk").stat().st_size
