"""A part is one file: a new file in a copy of the package is found without a list to edit."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import raysk

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
LOSS = """
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from raysk.parts.losses.base import LogitLoss, losses
from raysk.parts.precision import at_least_single


@losses.register("brier")
@dataclass(frozen=True, kw_only=True)
class Brier(LogitLoss):
    '''The Brier score: the mean squared difference of probabilities and classes.'''

    def module(self, counts: Tensor) -> nn.Module:
        return _Brier()


class _Brier(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_single(logits)
        return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).square().sum(1).mean()
"""
SOURCE = """
from pathlib import Path

from raysk.data.sources.base import Collection, register_source
from raysk.data.sources.settings import DataSettings


@register_source("names", reads=("path",), label="first")
def read_names(settings: DataSettings, cache: Path) -> Collection:
    '''Reads a folder in which the first letter of a name is the class.'''
    names = sorted(path.name for path in Path(settings.path).iterdir())
    return Collection(settings.path, Path(settings.path), names, names, [name[0] for name in names])
"""
METRIC = """
import numpy as np

from raysk.evaluation.metrics.base import Metric, metrics


"""
FORMAT = """
from raysk.evaluation.formats.base import formats
from raysk.evaluation.leaderboard import Leaderboard


@formats.register("names")
def names(leaderboard: Leaderboard) -> str:
    return "\\n".join(row.name for row in leaderboard.rows)
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one more loss, source, format, metric and space; the metric is that of the docs."""
    folder = tmp_path_factory.mktemp("extended")
    package = Path(raysk.__file__).parent
    shutil.copytree(package, folder / "raysk", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "search_spaces", folder / "search_spaces")
    (folder / "raysk/parts/losses/brier.py").write_text(LOSS)
    (folder / "raysk/data/sources/names.py").write_text(SOURCE)
    (folder / "raysk/evaluation/formats/names.py").write_text(FORMAT)
    (example,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (folder / "raysk/evaluation/metrics/top_two.py").write_text(METRIC + example)
    (folder / "search_spaces/brier.yaml").write_text(
        "about: The Brier score.\nsettings: [stage_one=null, stage_two.frozen=false, stage_two.loss.name=brier]\n"
        "search:\n  stage_two.optimizer.lr: tag(log, interval(0.001, 0.1))\n"
    )
    return folder


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["parts", "brier"], "| `brier` | The Brier score:"),
        (["parts", "top_two"], "| `top_two` | The share of rows whose class is among the two most probable ones. |"),
        (["config", "metric=top_two"], "\nmetric: top_two "),
        (["parts", "names"], "| `names` | Reads a folder in which the first letter"),
        (["config", "data", "data=names", "data.path=/x"], "\nlabel: first "),
        (["config", "stage_two.loss", "--space", "brier"], "name: brier "),
        (["spaces"], "brier: The Brier score.\n"),
        (["leaderboard", "nowhere", "--format", "names"], "must exist"),
    ],
)
def test_a_new_part_is_listed(extended: Path, words: list[str], part: str) -> None:
    done = subprocess.run([sys.executable, "-m", "raysk.cli", *words], cwd=extended, capture_output=True, text=True)
    assert part in done.stdout + done.stderr


def test_contracts_cover_a_new_metric_without_a_list_to_edit(extended: Path) -> None:
    shutil.copytree(Path(__file__).parent / "contracts", extended / "tests" / "contracts", dirs_exist_ok=True)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts/test_metrics.py", "-k", "top_two"]
    done = subprocess.run([sys.executable, *words], cwd=extended, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_contracts_cover_a_new_loss_without_a_list_to_edit(extended: Path) -> None:
    tests = extended / "tests"
    shutil.copytree(Path(__file__).parent / "contracts", tests / "contracts", dirs_exist_ok=True)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts/test_losses.py", "-k", "Brier or brier"]
    done = subprocess.run([sys.executable, *words], cwd=extended, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
