"""Mistyped words: the usage, one line with the nearest known word, and status 2."""

import pytest

from raysk.cli.main import main


def refused(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Returns the usage and the error line."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    output, errors = capfd.readouterr()
    assert output == ""
    usage, _, line = errors.rstrip("\n").rpartition("\n")
    return usage, line


@pytest.mark.parametrize(
    ("words", "command", "message"),
    [
        (["tnue"], "raysk", "but got tnue: did you mean tune?"),
        (["leaderbord", "runs/x"], "raysk", "did you mean leaderboard?"),
        (["xyzzy"], "raysk", "COMMAND must be one of tune, train, recipe"),
        (["data", "shwo"], "raysk data", "must be one of show, prepare, audit, but got shwo: did you mean show?"),
        (["tune", "--spcae", "supcon"], "raysk tune", "but got --spcae: did you mean --space?"),
        (["tune", "--space", "supcon", "--trails", "3"], "raysk tune", "but got --trails: did you mean --trials?"),
        (["tune", "--space", "supcon", "--trails=3"], "raysk tune", "but got --trails: did you mean --trials?"),
        (["tune", "--space", "supcon", "--zzz"], "raysk tune", "but got --zzz: --help lists them"),
        (["tune", "--space", "supcon", "-trials", "3"], "raysk tune", "but got -trials: did you mean --trials?"),
        (["tune", "-space", "supcon"], "raysk tune", "but got -space: did you mean --space?"),
        (["leaderboard", "runs/x", "--fromat", "md"], "raysk leaderboard", "did you mean --format?"),
        (["train", "r.yaml", "--gpus-per-worker", "2"], "raysk train", "--gpus-per-worker must be one of 0, 1, but"),
        (["--debgu", "spaces"], "raysk", "did you mean --debug?"),
        (["--vresion"], "raysk", "did you mean --version?"),
        (["tune"], "raysk tune", "the following arguments are required: --space"),
        ([], "raysk", "the following arguments are required: COMMAND"),
        (["spaces", "x", "y"], "raysk spaces", "unrecognized arguments: y"),
        (["spaces", "-x"], "raysk spaces", "unrecognized arguments: -x"),
        (["tune", "--space"], "raysk tune", "expected one argument"),
    ],
)  # fmt: skip
def test_a_mistyped_word_gets_the_nearest_known_one(
    words: list[str], command: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    usage, line = refused(words, capfd)
    assert usage.startswith(f"usage: {command} ")
    assert line.startswith(f"{command}: error: ")
    assert message in line


def test_what_follows_two_dashes_is_no_option(capfd: pytest.CaptureFixture[str]) -> None:
    _, line = refused(["spaces", "supcon", "--", "--spcae"], capfd)
    assert line == "raysk spaces: error: unrecognized arguments: -- --spcae" or line.endswith("--spcae")


def test_an_option_may_be_shortened_where_it_could_be_before(capfd: pytest.CaptureFixture[str]) -> None:
    _, line = refused(["train", "--res"], capfd)
    assert line == "raysk train: error: the following arguments are required: FILE"
