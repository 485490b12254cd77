"""The wheel contains all that a user needs: the code, the search spaces and the Hydra configuration."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without network access."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def relative_files(folder: Path, suffix: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}")}


def test_the_wheel_contains_every_module_config_and_space(unpacked: Path) -> None:
    assert relative_files(unpacked / "raysk", ".py") == relative_files(ROOT / "raysk", ".py")
    assert relative_files(unpacked / "raysk", ".html") == relative_files(ROOT / "raysk", ".html") != set()
    configs = relative_files(ROOT / "raysk/conf", ".yaml")
    assert configs
    assert relative_files(unpacked / "raysk/conf", ".yaml") == configs
    spaces = relative_files(ROOT / "search_spaces", ".yaml")
    assert "supcon.yaml" in spaces
    assert relative_files(unpacked / "raysk/search_spaces", ".yaml") == spaces


def test_the_wheel_contains_nothing_else(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")} == {"raysk"}


def test_the_unpacked_wheel_lists_the_spaces_from_any_folder(unpacked: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    where = subprocess.run(
        [sys.executable, "-c", "import raysk; print(raysk.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(unpacked)
    listed = subprocess.run(
        [sys.executable, "-m", "raysk.cli", "spaces"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"\bsupcon\b", listed.stdout)
    assert list(tmp_path.iterdir()) == []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower()


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # A package of an extra is imported where it is used, with an error that names the extra.
    extras = [line for name in ("hdf5", "dicom", "onnx", "serve") for line in project["optional-dependencies"][name]]
    declared = {normal(line) for line in [*project["dependencies"], *extras]}
    owners = packages_distributions()
    for path in (ROOT / "raysk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"raysk"}:
                providers = {normal(owner) for owner in owners.get(name, [name])}
                assert providers & declared, (
                    f"{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not declare"
                )


def test_constraints_pin_every_declared_package_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    pinned = [normal(line) for line in lines]
    assert len(set(pinned)) == len(pinned)
    assert {normal(line) for line in project["dependencies"] + project["optional-dependencies"]["test"]} <= set(pinned)
