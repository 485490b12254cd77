from pathlib import Path
from typing import Any

from raysk.data.folds.assignment import Folds
from raysk.data.manifest import Manifest
from raysk.records import RunFacts


def run_facts(manifest: Manifest, folds: Folds, cache: Path, **more: Any) -> RunFacts:
    """Returns the facts of a run of these rows and folds; no other setting is known unless it is given."""
    unknown: dict[str, Any] = {"pixels": "", "data": {}, "divide": {}, "stores": None, "images": {}}
    unknown |= {"metric": "macro_f1", "requirements": ()}
    digests = {"manifest": manifest.digest, "folds": folds.digest}
    return RunFacts(**unknown | digests | {"cache": str(cache)} | more)
