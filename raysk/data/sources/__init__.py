"""Data sources: each one turns its settings into a collection, which becomes a manifest.

A new source is a function in a file of this folder; its decorator names the settings that it reads.
"""

from raysk.data.sources.base import IMAGE_SUFFIXES, Collection, sources
from raysk.data.sources.normalising import load_manifest
from raysk.data.sources.settings import DataSettings
from raysk.registry import import_modules

import_modules(__name__, __path__)

__all__ = ["IMAGE_SUFFIXES", "Collection", "DataSettings", "load_manifest", "sources"]
