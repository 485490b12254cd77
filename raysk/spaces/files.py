"""Finds and reads the files of search spaces. Imports little, so that `raysk spaces` answers at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import raysk
from raysk.errors import ConfigError, in_one_line
from raysk.registry import unknown_name

_SECTIONS = ("about", "settings", "search", "starts", "controls", "grid", "families", "include")
# Sections that several spaces share.
_FRAGMENTS = Path(raysk.__file__).parent / "conf" / "fragments"


def spaces_folder() -> Path:
    """Returns the folder of the shipped spaces: inside an installed package, beside it in a source tree."""
    package = Path(raysk.__file__).parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def list_spaces() -> Iterator[tuple[str, str]]:
    """Yields the name and the `about` sentence of every shipped space."""
    for path in sorted(spaces_folder().glob("*.yaml")):
        yield path.stem, " ".join(read_space_file(path)["about"].split())


def find_space(name: str) -> Path:
    """Returns the file of a space, given the name of a shipped space or a path.

    Raises:
        ConfigError: The file does not exist.
    """
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else spaces_folder() / f"{name}.yaml"
    if is_path and not path.is_file():
        raise ConfigError(f"a search space must be a name or a file, but {name} is no file: correct the path")
    if not path.is_file():
        raise unknown_name("a search space", name, [shipped for shipped, _ in list_spaces()])
    return path


def show_space(name: str) -> str:
    """Returns the text of a space and of the fragments that it includes.

    Raises:
        ConfigError: The space does not exist.
    """
    path = find_space(name)
    included = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("include", [])
    fragments = [_FRAGMENTS / f"{fragment}.yaml" for fragment in included]
    texts = [path.read_text(encoding="utf-8")]
    texts += [f"# ---- included: {file.stem} ----\n{file.read_text(encoding='utf-8')}" for file in fragments]
    return "\n".join(texts)


def read_space_file(path: Path) -> dict[str, Any]:
    """Reads the file of a space.

    Raises:
        ConfigError: It is not YAML, has no `about`, or has an unknown section.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} must be YAML, but {in_one_line(error)}: correct it") from error
    if not isinstance(content, dict) or "about" not in content:
        raise ConfigError(f"{path} must be a search space, but has no sentence `about`: add it")
    for section in content:
        if section not in _SECTIONS:
            raise unknown_name(f"a section of {path}", str(section), list(_SECTIONS))
    for name in content.pop("include", []):
        content = _included(path, name, content)
    return content


def _included(path: Path, name: str, content: dict[str, Any]) -> dict[str, Any]:
    """Adds the searched settings and controls of a fragment to a space; the space takes precedence."""
    fragments = {file.stem: file for file in sorted(_FRAGMENTS.glob("*.yaml"))}
    if name not in fragments:
        raise unknown_name(f"a fragment that {path} includes", name, list(fragments))
    fragment = yaml.safe_load(fragments[name].read_text(encoding="utf-8"))
    shared = {section: {**entries, **(content.get(section) or {})} for section, entries in fragment.items()}
    return {**content, **shared}
