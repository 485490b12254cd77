"""The file `run.json` of a run, and what must not change when the run is resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import raysk
from raysk.artifacts import digest_of, read_json, write_json
from raysk.data.crop import Crop
from raysk.data.folds.assignment import WHOLE, Folds
from raysk.data.manifest import Manifest
from raysk.data.store.image_store import ImageStore
from raysk.data.store.region_store import RegionStore
from raysk.errors import ArtifactError
from raysk.records import RECIPE_SCHEMA, RunFacts

# Schema of a run's files. Raise the second number when a record changes.
_SCHEMA = f"{RECIPE_SCHEMA}.5"

# Between the size and the crop in the name of a store.
_BEFORE_CROP = ", "

# The facts that must not change when a run is resumed.
_SAME = (
    "manifest",
    "pixels",
    "folds",
    "metric",
    "requirements",
    "recipe",
    "space",
    "overrides",
    "content_of_the_space",
    "initial_weights",
)


def check_same_facts(before: RunFacts, now: RunFacts, folder: Path) -> None:
    """Refuses to continue a run with other rows, pixels, folds or settings.

    Args:
        before: The facts of the run.
        now: The facts of the command that continues it.
        folder: The run directory, for the error.

    Raises:
        ArtifactError: One of them differs.
    """
    for name in _SAME:
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            remedy = "repeat the first command, or choose another --run"
            if name == "metric":
                remedy = f"raysk leaderboard {folder} --metric {new} ranks a finished study anew"
            raise ArtifactError(
                f"--resume must find the {name.replace('_', ' ')} that {folder} was started with, {_text(old)}, "
                f"but got {_text(new)}: {remedy}"
            )


def _text(value: str | tuple[str, ...] | None) -> str:
    """Returns a fact for an error."""
    return (value if isinstance(value, str) else ", ".join(value or ())) or "none"


def write_facts(folder: Path, facts: RunFacts) -> None:
    """Writes `run.json`."""
    write_json(folder / "run.json", facts.to_plain() | {"schema": _SCHEMA, "version": raysk.__version__})


def read_facts(folder: Path) -> RunFacts:
    """Reads `run.json`.

    Raises:
        ArtifactError: It is missing, of another schema, or no `RunFacts`.
    """
    path = folder / "run.json"
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise ArtifactError(f"{path} must hold named facts, but got {facts!r:.40}: restore it")
    # The defaults are those of the last version that did not record them.
    schema, version = facts.pop("schema", 2), facts.pop("version", "0.1.0")
    if schema != _SCHEMA:
        raise ArtifactError(
            f"{folder} must be a run of schema {_SCHEMA}, but raysk {version} made it with schema {schema}: "
            f"read it with that version (pip install raysk=={version})"
        )
    return RunFacts.from_plain(facts, path)


def unlabelled_facts(folds: Folds) -> dict[str, str]:
    """Returns what a study says of its unlabelled rows, as a leaderboard's fact; nothing without any."""
    num_rows = folds.num_unlabelled
    if not num_rows:
        return {}
    num_locked = num_rows - len(folds.unlabelled_rows(WHOLE))
    left_out = [num_rows - num_locked - len(folds.unlabelled_rows(fold)) for fold in range(len(folds))]
    of_folds = ", ".join(map(str, left_out))
    sentence = (
        f"{num_rows} join stage one where its loss needs no labels, and nothing else. Left out, since they share a "
        f"group or a picture: {num_locked} with the test part, and {of_folds} with the held-out rows of the folds"
    )
    return {"unlabelled images": sentence}


def data_digest(manifest: Manifest, stores: Mapping[str, ImageStore], regions: Mapping[int, RegionStore]) -> str:
    """Returns a name made from the rows, their pixels and, if recipes read them, their masks and boxes.

    Args:
        manifest: The rows.
        stores: Their images by `store_name`; of each crop the first one counts, since its other sizes follow from it.
        regions: Their masks and boxes by size.
    """
    of_crop: dict[str, str] = {}
    for name, store in stores.items():
        of_crop.setdefault(name.partition(_BEFORE_CROP)[2], store.digest)
    first = next(iter(of_crop))
    facts: dict[str, Any] = {"manifest": manifest.digest, "pixels": of_crop.pop(first)}
    lesions = {str(size): region.digest for size, region in regions.items()}
    return digest_of(facts | ({"crops": of_crop} if of_crop else {}) | ({"regions": lesions} if lesions else {}))


def store_name(size: int, crop: Crop) -> str:
    """Returns the name under which a run knows the images of a size and a crop."""
    return _BEFORE_CROP.join(filter(None, [str(size), crop.name]))
