"""The command line in this process: what it prints, and the one line of an error."""

from collections.abc import Iterable

import pytest

from raysk.cli.main import main


def said(words: Iterable[object], capfd: pytest.CaptureFixture[str], status: int = 0) -> str:
    """Returns what a command prints."""
    capfd.readouterr()
    assert main([str(word) for word in words]) == status
    return capfd.readouterr().out


def refused(words: Iterable[object], capfd: pytest.CaptureFixture[str]) -> str:
    """Returns the line of the error that ends a command."""
    capfd.readouterr()
    assert main([str(word) for word in words]) == 2
    errors = capfd.readouterr().err
    assert len(errors.splitlines()) == 1, errors
    return errors.removeprefix("raysk: ").strip()
