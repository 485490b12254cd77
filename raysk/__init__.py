"""Search, train and ensemble classifiers for class-imbalanced images.

`raysk.open_run` reads a run in a notebook, and `raysk.load` opens a classifier that predicts images. Names are imported
on their first use, so that `import raysk` stays light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysk.errors import RayskError
    from raysk.inference.predictor import Predictor, load
    from raysk.notebook import RunResults, open_run

__version__ = "0.2.0"
__all__ = ["Predictor", "RayskError", "RunResults", "load", "open_run"]

_MODULES = {
    "Predictor": "raysk.inference.predictor",
    "RayskError": "raysk.errors",
    "RunResults": "raysk.notebook",
    "load": "raysk.inference.predictor",
    "open_run": "raysk.notebook",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
