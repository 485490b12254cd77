"""The documents agree with the program."""

import re
from pathlib import Path

from raysk.cli.catalogue import catalogue
from raysk.spaces.files import list_spaces

ROOT = Path(__file__).parents[1]


def test_methods_lists_every_part_and_setting_as_the_program_prints_them() -> None:
    document = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert document.endswith(f"## Names\n\n{catalogue()}"), "write what `raysk parts` prints below '## Names'"


def test_methods_lists_every_space() -> None:
    document = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (?:one|two|both) ", document, re.MULTILINE)
    assert sorted(listed) == sorted(name for name, _ in list_spaces())
