"""Does the search of two speeds find better recipes than a flat search in the same time?

    python benchmarks/flat_search.py [--seeds 3] [--trials 6] [OVERRIDE ...]

Both search the space of SuperCon without its starts and controls, on the same rows and folds. The flat search draws
`--trials` recipes with one stage-two setting each. The search of two speeds then gets the time of this whole command,
from its start to the leaderboard, as its time budget, and draws as many encoders as fit. The benchmark compares the
macro-F1 of choosing the best recipe, cross-fitted (each fold is scored with the choice of the others; after a race only
its last fold), and the macro-F1 of that recipe on the locked test part, which chose nothing. Without overrides the
images are the embedded ones; a search takes a few minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from raysk.evaluation.leaderboard import Leaderboard
from raysk.evaluation.summary import BEST_SINGLE, cross_fitted_fact
from raysk.spaces.files import read_space_file, spaces_folder


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        seconds: Of the whole command.
        recipes: Number of recipes with all folds.
        settings: Number of stage-two settings tried on all folds.
        cross_fitted: Macro-F1 of choosing the best recipe.
        test: Macro-F1 of that recipe on the locked part.
    """

    seconds: float
    recipes: int
    settings: int
    cross_fitted: float
    test: float


def search(folder: Path, space: Path, options: list[str]) -> SearchResult | None:
    """Runs a study and reads its result; None if the time was over before a recipe had all its folds."""
    command = [sys.executable, "-m", "raysk.cli", "tune", "--space", str(space), "--run", str(folder), *options]
    began = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    if "the time budget was too short" in ended.stderr:
        return None
    if ended.returncode:
        sys.exit(ended.stderr)
    board = Leaderboard.read(folder / "leaderboard.json")
    singles = [row for row in board.rows if row.kind != "ensemble"]
    best = next(row for row in singles if row.name == board.meta[BEST_SINGLE])
    searches = list((folder / "searches").glob("*.json"))
    recipes = len(searches) or len(singles)
    tried = sum(path.read_text().count('"stage_two"') for path in searches) or recipes
    cross_fitted = float(board.meta[cross_fitted_fact(board.ranked_by)])
    return SearchResult(seconds, recipes, tried, cross_fitted, best.scores["test_macro_f1"])


def drawn_space(folder: Path) -> Path:
    """Writes the space of SuperCon without its named recipes."""
    content = read_space_file(spaces_folder() / "supcon.yaml")
    path = folder / "drawn.yaml"
    path.write_text(yaml.safe_dump({name: content[name] for name in ("about", "settings", "search")}))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=6, help="number of recipes of the flat search")
    arguments = parser.parse_args()
    print("| seed | search | seconds | recipes | settings of stage two | macro-F1, cross-fitted | on the test part |")
    print("|--:|---|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        space = drawn_space(Path(name))
        for seed in range(arguments.seeds):
            shared = [f"seed={seed}", *arguments.overrides]
            flat = search(
                Path(name) / f"flat{seed}",
                space,
                ["--trials", str(arguments.trials), "stage_two.search=0", *shared],
            )
            show(seed, "flat", flat)
            if flat is None:
                continue
            budget = ["--trials", "1000", "--time-budget", f"{flat.seconds:.0f}"]
            show(seed, "two speeds", search(Path(name) / f"two{seed}", space, [*budget, *shared]))


def show(seed: int, name: str, result: SearchResult | None) -> None:
    if result is None:
        print(f"| {seed} | {name} | no recipe has all its folds | | | | |", flush=True)
        return
    cells = [seed, name, f"{result.seconds:.0f}", result.recipes, result.settings]
    print(f"| {' | '.join(map(str, cells))} | {result.cross_fitted:.3f} | {result.test:.3f} |", flush=True)


if __name__ == "__main__":
    main()
