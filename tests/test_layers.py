"""A module imports only modules above it in docs/architecture.md, and the command line starts with few imports."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import raysk

PACKAGE = Path(__file__).parents[1] / "raysk"

# From the top: a module imports only modules above its own line. Modules of one package may import one another without
# a cycle, unless they have lines of their own here.
ORDER = [
    "raysk.errors",
    "raysk.registry",
    "raysk.artifacts",
    "raysk.records",
    "raysk.settings",
    "raysk.supervision",
    "raysk.overrides",
    "raysk.data.parquet",
    "raysk.data.manifest",
    "raysk.data.table_files",
    "raysk.data.synthetic_lesions",
    "raysk.data.synthetic",
    "raysk.data.folds",
    "raysk.data.dicom",
    "raysk.data.decodable",
    "raysk.data.regions",
    "raysk.data.crop",
    "raysk.data.sources",
    "raysk.data.store",
    "raysk.data.views",
    "raysk.data",
    "raysk.evaluation",
    "raysk.parts",
    "raysk.stage",
    "raysk.stage_two",
    "raysk.model",
    "raysk.recipe",
    "raysk.config",
    "raysk.spaces",
    "raysk.run_facts",
    "raysk.job_rows",
    "raysk.run_checks",
    "raysk.run",
    "raysk.initial_weights",
    "raysk.loading",
    "raysk.scoring",
    "raysk.mask_sheet",
    "raysk.reranking",
    "raysk.notebook",
    "raysk.training",
    "raysk.inference",
    "raysk.retraining",
    "raysk.refitting",
    "raysk.search",
    "raysk.deploy",
    "raysk.cli",
]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """Every module that the file imports, also inside functions; names from a package count as its modules."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, [above, node.module]))
            names = {f"{source}.{alias.name}" for alias in node.names}
            imported |= (names & FILES.keys()) | ({source} if names - FILES.keys() else set())
    return imported


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> int:
    """The first line of ORDER that contains the module."""
    lines = [line for line, name in enumerate(ORDER) if inside(module, name)]
    assert lines, f"{module} has no place in the order of imports: give it one here and in docs/architecture.md"
    return lines[0]


MODULES = [module for module in FILES if module != "raysk"]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_modules_above_it(module: str) -> None:
    for other in imports(module) & set(MODULES):
        assert layer(other) <= layer(module), f"{module} imports {other}, which stands below it"


def test_imports_have_no_cycles() -> None:
    TopologicalSorter({module: imports(module) & set(MODULES) for module in MODULES}).prepare()


@pytest.mark.parametrize("package", ["raysk.data", "raysk.evaluation"])
def test_data_and_evaluation_need_neither_torch_nor_ray(package: str) -> None:
    for module in MODULES:
        if inside(module, package):
            assert not {name.partition(".")[0] for name in imports(module)} & {"torch", "torchvision", "timm", "ray"}


def test_only_the_search_and_deployment_import_ray_and_only_the_backbones_import_timm() -> None:
    importers = {name: {m for m in MODULES if any(inside(i, name) for i in imports(m))} for name in ("ray", "timm")}
    assert all(inside(module, "raysk.search") or inside(module, "raysk.deploy") for module in importers["ray"])
    assert importers["timm"] <= {"raysk.parts.backbones"}


def test_the_package_itself_imports_nothing_before_a_name_is_used() -> None:
    script = "import sys, typing; before = set(sys.modules); import raysk; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["raysk"]


def test_the_names_of_the_package_are_found_when_they_are_used() -> None:
    assert all(hasattr(raysk, name) and name in dir(raysk) for name in raysk.__all__)
    with pytest.raises(AttributeError, match="module 'raysk' has no attribute 'open_runs'"):
        _ = raysk.open_runs


def loaded_by(*arguments: str) -> set[str]:
    """The top-level packages that `python -X importtime ARGUMENTS` loads."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    rows = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {row.rpartition("|")[2].strip().partition(".")[0] for row in rows}


@pytest.mark.parametrize("arguments", [("-c", "import raysk"), ("-m", "raysk.cli", "--help")])
def test_light_commands_load_no_heavy_package(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)
    assert "raysk" in loaded
    assert not loaded & {"torch", "ray", "timm", "sklearn", "albumentations", "optuna"}


@pytest.mark.parametrize("module", list(FILES))
def test_files_stay_short(module: str) -> None:
    lines = FILES[module].read_text(encoding="utf-8").count("\n")
    assert lines <= 300, f"{module} has {lines} lines: split it into two modules with one purpose each"
