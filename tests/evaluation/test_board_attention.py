"""The file of a run with the attention of its rows, and what it adds to the leaderboard in every format."""

import base64
import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from raysk.errors import ArtifactError
from raysk.evaluation.attention_record import ATTENTION_FILE, AttentionRecord, ConfidentError
from raysk.evaluation.board_attention import with_attention
from raysk.evaluation.formats import formats, write_leaderboard
from raysk.evaluation.leaderboard import Leaderboard, Row

PICTURE = base64.b64encode(b"a picture").decode()
SCORES = {
    "test_attention_energy": 0.4321, "test_attention_energy_low": 0.4, "test_attention_energy_high": 0.5,
    "test_attention_pointing": 0.8765, "test_attention_pointing_low": 0.8, "test_attention_pointing_high": 0.9,
    "test_energy_mel": 0.3456, "test_pointing_mel": 0.7654,
}  # fmt: skip


def make_row(key: str, score: float) -> Row:
    return Row(
        key=key, name=f"row {key}", kind="one-stage", scores={"oof_macro_f1": score, "test_macro_f1": score},
        chosen_on="", scored_on="", seconds=1, images=1, commit="", command="", settings="",
    )  # fmt: skip


BOARD = Leaderboard((make_row("a", 0.7), make_row("b", 0.6)), ("mel", "nv"), {"space": "x"}, chosen="b")
ERROR = ConfidentError(label="mel", predicted="nv", probability=0.987, image="<i>.jpg", picture=PICTURE)
RECORD = AttentionRecord(
    num_images=9, num_lesions=7, area=0.25, scores={"b": SCORES}, left_out={"a": "it sees cropped pictures"},
    errors_of="b", errors=(ERROR,),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    RECORD.write(tmp_path / ATTENTION_FILE)
    write_leaderboard(BOARD, tmp_path)
    return tmp_path


def test_a_run_without_the_file_has_the_board_as_it_is(tmp_path: Path) -> None:
    assert with_attention(BOARD, tmp_path) is BOARD


def test_every_format_has_the_columns_of_the_rows_that_have_scores(folder: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_text())))
    assert [line["test_attention_energy"] for line in lines] == ["", "0.4321"]
    assert Leaderboard.read(folder / "leaderboard.json").rows[1].scores["test_pointing_mel"] == 0.7654
    for name in ("md", "tex", "html"):
        text = (folder / f"leaderboard.{name}").read_text()
        for word in ("Attention inside the lesion", "0.432", "0.876", "0.346", "7 of 9 images"):
            assert word in text, name
    assert "row a: it sees cropped pictures" in (folder / "leaderboard.md").read_text()


def test_the_page_shows_the_errors_of_the_chosen_row_only(folder: Path) -> None:
    page = (folder / "leaderboard.html").read_text()
    assert "Most confident errors of row b" in page
    assert f'src="data:image/jpeg;base64,{PICTURE}"' in page
    assert "taken for nv, 0.99" in page and "&lt;i&gt;.jpg" in page and "<i>.jpg" not in page
    assert PICTURE not in (folder / "leaderboard.json").read_text()
    assert not with_attention(replace(BOARD, chosen="a"), folder).errors
    assert not with_attention(replace(BOARD, chosen=""), folder).errors


def test_the_only_row_of_a_board_is_the_chosen_one(folder: Path) -> None:
    assert with_attention(replace(BOARD, rows=BOARD.rows[1:], chosen=""), folder).errors == (ERROR,)


def test_what_is_read_back_gives_the_same_page(folder: Path) -> None:
    board = with_attention(Leaderboard.read(folder / "leaderboard.json"), folder)
    assert formats["html"](board) == (folder / "leaderboard.html").read_text()


def test_a_reason_goes_when_its_row_has_scores(folder: Path) -> None:
    replace(RECORD, scores={"a": SCORES, "b": SCORES}, left_out={}).write(folder / ATTENTION_FILE)
    board = with_attention(Leaderboard.read(folder / "leaderboard.json"), folder)
    assert set(board.meta) == {"space", "masks in the test part"}


def test_without_masks_there_are_errors_and_no_columns(folder: Path) -> None:
    replace(RECORD, num_lesions=0, scores={"b": {}}, left_out={}).write(folder / ATTENTION_FILE)
    board = with_attention(BOARD, folder)
    assert board.meta == {"space": "x"} and board.errors == (ERROR,)
    assert "Attention inside the lesion" not in str(formats["md"](board))


def test_a_picture_that_is_no_base64_is_refused(folder: Path) -> None:
    path = folder / ATTENTION_FILE
    path.write_text(path.read_text().replace(PICTURE, '\\"/><script>'))
    with pytest.raises(ArtifactError, match=r"must be a AttentionRecord of this raysk, but errors\.0\.picture"):
        with_attention(BOARD, folder)
