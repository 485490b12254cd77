"""Where the files of search spaces are, and what they say of themselves; light, so that a list answers at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import raysk
from raysk.errors import ConfigError, in_one_line
from raysk.registry import unknown_name

_SECTIONS = ("about", "settings", "search", "starts", "controls", "grid", "families", "include")
# Pieces that several spaces share.
_FRAGMENTS = Path(raysk.__file__).parent / "conf" / "fragments"


def spaces_folder() -> Path:
    """Returns where the shipped spaces are: inside an installed package, beside it in a source tree."""
    package = Path(raysk.__file__).parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def list_spaces() -> Iterator[tuple[str, str]]:
    """Yields the name and the sentence of every shipped space."""
    for path in sorted(spaces_folder().glob("*.yaml")):
        yield path.stem, " ".join(read_space_file(path)["about"].split())


def find_space(name: str) -> Path:
    """Returns the file of a space: of a shipped one by its name, or the file that is named.

    Raises:
        ConfigError: There is none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else spaces_folder() / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name("a search space", name, [known for known, _ in list_spaces()])
    return path


def show_space(name: str) -> str:
    """Returns the file of a space, and the fragments that it includes.

    Raises:
        ConfigError: There is no such space.
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
        ConfigError: It is not YAML, says nothing of itself, or has a section that means nothing.
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
    """Lays a space over the searched settings and controls of a fragment."""
    known = {found.stem: found for found in sorted(_FRAGMENTS.glob("*.yaml"))}
    if name not in known:
        raise unknown_name(f"a fragment that {path} includes", name, list(known))
    fragment = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    shared = {section: {**entries, **(content.get(section) or {})} for section, entries in fragment.items()}
    return {**content, **shared}
