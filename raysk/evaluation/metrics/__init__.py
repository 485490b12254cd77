"""Metrics by name; a new metric is one decorated class in a file of this folder."""

from raysk.evaluation.metrics.base import DEFAULT_METRIC, Metric, metrics, parse_metric
from raysk.registry import import_modules

import_modules(__name__, __path__)

__all__ = ["DEFAULT_METRIC", "Metric", "metrics", "parse_metric"]
