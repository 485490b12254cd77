"""Every format of the leaderboard, with names that try to break it."""

import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysk.evaluation.comparison_tables import ComparisonTable
from raysk.evaluation.formats import formats, write_leaderboard
from raysk.evaluation.leaderboard import Leaderboard, Row

NASTY = 'R&D_50% {$x^2} #1 ~a\\b | <i> "q" `c` [d] *e* -- τ≥0.1 é'
CLASSES = ("mel_1", "n&v", "[bkl]")


def make_row(place: int, name: str) -> Row:
    scores = {"test_macro_f1": 0.9 - place / 100, "oof_macro_f1": 0.5, "oof_macro_f1_sd": 0.0123}
    scores |= {"test_macro_f1_low": 0.3, "test_macro_f1_high": 0.95}
    scores |= {f"test_f1_{label}": 0.25 for label in CLASSES}
    return Row(
        key=f"key{place}", name=name, kind="two-stage", scores=scores, chosen_on="out-of-fold rows & 3 folds",
        scored_on="test part", seconds=3700, images=1_234_567, commit="abc1234",
        command="raysk tune --space supcon \\\n  data=ham10000", settings="loss=supcon | τ=0.1",
    )  # fmt: skip


TABLE = ComparisonTable(
    "Ablation of R&D_50%", "ablation", ("", "F1 | %", "change"), 1,
    ((NASTY, "90.0", -0.0123), ("none", None, 0.5)), "p < 0.05 & [so] *on*",
)  # fmt: skip

BOARD = Leaderboard(
    (make_row(0, NASTY), make_row(1, "[first] *plain*\nwith a line"), make_row(2, "plain")),
    CLASSES,
    {"data": "ham_10000 | 100%"},
    (TABLE,),
)


def text(name: str, leaderboard: Leaderboard = BOARD) -> str:
    content = formats[name](leaderboard)
    return content if isinstance(content, str) else content.decode()


def split_md(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")]


def test_all_formats_are_written_and_json_is_read_back(tmp_path: Path) -> None:
    write_leaderboard(BOARD, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"leaderboard.{name}" for name in formats}
    assert set(formats) >= {"md", "csv", "tex", "json", "parquet", "html"}
    assert Leaderboard.read(tmp_path / "new" / "leaderboard.json") == BOARD


@pytest.mark.parametrize("name", list(formats))
def test_every_format_can_show_an_empty_leaderboard(name: str) -> None:
    assert formats[name](Leaderboard((), CLASSES))


def test_csv_has_the_exact_values() -> None:
    rows = list(csv.DictReader(io.StringIO(text("csv"))))
    assert [row["name"] for row in rows] == [row.name for row in BOARD.rows]
    assert float(rows[1]["test_macro_f1"]) == BOARD.rows[1].scores["test_macro_f1"]
    assert rows[0]["command"] == BOARD.rows[0].command


def test_parquet_has_types_and_metadata(tmp_path: Path) -> None:
    write_leaderboard(BOARD, tmp_path)
    table = pq.read_table(tmp_path / "leaderboard.parquet")
    assert table.drop_columns([]).to_pydict() == BOARD.to_table().to_pydict()
    metadata = json.loads(table.schema.metadata[b"raysk.leaderboard"])
    assert metadata == {"class_names": list(CLASSES), "meta": dict(BOARD.meta)}


def test_md_tables_have_equally_many_cells_in_every_line() -> None:
    blocks = [block.splitlines() for block in text("md").split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 4
    for place, block in enumerate(blocks, start=1):
        widths = {len(split_md(line)) for line in block}
        assert len(widths) == 1
        assert len(block) == 2 + len(TABLE.cells if place == len(blocks) else BOARD.rows)


def test_md_shows_further_tables_after_the_others() -> None:
    page = text("md")
    assert "| --- | ---: | ---: |\n" in page
    assert page.index("## F1 of each class") < page.index("## Ablation of R&D_50%") < page.index("## What the scores")
    assert "| none | – | 0.500 |\n\np \\< 0.05 & \\[so\\] \\*on\\*\n" in page


def test_tex_shows_further_tables_whole() -> None:
    table = text("tex").split("\\begin{table}")[-1]
    assert "\\label{tab:leaderboard-ablation}" in table
    assert "{@{}lrr@{}}" in table
    assert "90.0 & $-$0.012 \\\\\n    none & -- & 0.500 \\\\" in table
    assert "\\caption{Ablation of R\\&D\\_50\\%. p \\textless{} 0.05" in table


def test_md_summary_shows_scores_and_cost() -> None:
    lines = [line.replace("\u00a0", " ") for line in text("md").splitlines()]
    heading = next(line for line in lines if "macro-F1" in line)
    assert split_md(heading) == ["", "name", "kind", "macro-F1 out of fold", "macro-F1", "time", "images"]
    last = split_md(lines[lines.index(heading) + 4])
    assert last == ["3", "plain", "two-stage", "**0.500** ± 0.012", "0.880 [0.300, 0.950]", "1.0 h", "1,234,567"]


def test_md_has_the_origin_and_the_command_of_each_row() -> None:
    page = text("md")
    for row in BOARD.rows:
        assert f"- key `{row.key}`, commit `abc1234`\n\n```bash\n{row.command}\n```" in page
    assert page.count("- chosen on: out-of-fold rows & 3 folds") == 3


def test_tex_cuts_long_leaderboards_and_says_so() -> None:
    board = Leaderboard(tuple(make_row(place, f"recipe {place}") for place in range(25)), CLASSES)
    content = text("tex", board)
    assert "% The 20 best of 25 rows" in content
    assert "recipe 19 &" in content
    assert "recipe 20 &" not in content


def test_tex_comments_stay_on_their_lines() -> None:
    head = text("tex").split("\\begin{table}")[0].strip()
    assert all(line.startswith("% ") for line in head.splitlines())


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
@pytest.mark.parametrize("num_classes", [3, 40])
def test_tex_compiles_without_a_warning_and_prints_the_names(tmp_path: Path, num_classes: int) -> None:
    names = CLASSES + tuple(f"class_{place}" for place in range(num_classes - 3))
    scores = {f"test_f1_{name}": 0.5 for name in names}
    rows = tuple(replace(row, scores={**row.scores, **scores}) for row in BOARD.rows)
    write_leaderboard(Leaderboard(rows, names, BOARD.meta, BOARD.tables), tmp_path)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage{graphicx}\n"
        "\\begin{document}\\input{leaderboard.tex}\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout
    assert "Missing character" not in (tmp_path / "paper.log").read_text(errors="replace")
    if shutil.which("pdftotext"):
        subprocess.run(["pdftotext", "-layout", "paper.pdf"], cwd=tmp_path, check=True)
        printed = (tmp_path / "paper.txt").read_text()
        for word in ("R&D", "50%", "{$x", "#1", "[d]", "*e*", "[first] *plain* with a line", "n&v", "[bkl]", "95%"):
            assert word in printed
