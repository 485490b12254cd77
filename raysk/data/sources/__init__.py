"""Where a dataset comes from: each source turns its settings into a manifest.

A new source is one function in a file of this folder, with one decorator, and the file is named here.
"""

from raysk.data.sources import drawn, ham10000, huggingface, isic, isic2024, padufes20, several, tables
from raysk.data.sources.base import IMAGE_SUFFIXES, Collection, sources
from raysk.data.sources.normalising import load_manifest
from raysk.data.sources.settings import DataSettings

__all__ = [
    "IMAGE_SUFFIXES",
    "Collection",
    "DataSettings",
    "drawn",
    "ham10000",
    "huggingface",
    "isic",
    "isic2024",
    "load_manifest",
    "padufes20",
    "several",
    "sources",
    "tables",
]
