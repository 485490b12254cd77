"""Opens a trained classifier: a bundle file, or a row of a run directory."""

from pathlib import Path
from typing import TYPE_CHECKING

from raysk.errors import ArtifactError
from raysk.inference.bundle import Bundle

if TYPE_CHECKING:
    from raysk.run import Run


def open_bundle(path: str | Path, row: str | None = None, *, refitted: bool = False) -> Bundle:
    """Returns the classifier of a file or of a run.

    Args:
        path: A file that `raysk bundle` wrote, or a run directory.
        row: Place, name or key of a row of the run; None takes the greedy ensemble. A file has one classifier.
        refitted: Whether to take the models of `raysk refit` rather than those of the folds.

    Raises:
        ArtifactError: The path is neither, the row does not match, or a file is damaged.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        # A file needs none of the packages with which a run is read.
        from raysk.evaluation.ensemble import GREEDY
        from raysk.inference.packing import pack_row
        from raysk.run import Run

        return pack_row(Run.open(path), GREEDY if row is None else row, refitted=refitted)
    refuse_row(path, row, refitted)
    return Bundle.read(path)


def mask_run(path: str | Path) -> "Run | None":
    """Returns the run of a directory whose task is segmentation; None for any other path."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return None
    from raysk.run import Run

    run = Run.open(folder)
    return None if run.class_names else run


def refuse_row(path: Path, row: str | None, refitted: bool = False) -> None:
    """Refuses the choice of a row for a file, which has one classifier.

    Raises:
        ArtifactError: A row is given, or the models of `raysk refit` are asked for.
    """
    if row is not None or refitted:
        name = "--refitted" if row is None else f"--row {row}"
        raise ArtifactError(
            f"a row must be chosen when the bundle is made, but got {name} for {path}: leave it out, or give the "
            "run directory"
        )
