"""Where a dataset comes from: each source turns its settings into a collection, and that becomes a manifest.

A new source is one function in a file of this folder, with one decorator, which says what settings it reads.
"""

from raysk.data.sources.base import IMAGE_SUFFIXES, Collection, sources
from raysk.data.sources.normalising import load_manifest
from raysk.data.sources.settings import DataSettings
from raysk.registry import import_modules

import_modules(__name__, __path__)

__all__ = ["IMAGE_SUFFIXES", "Collection", "DataSettings", "load_manifest", "sources"]
