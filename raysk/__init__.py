"""Search, train and ensemble classifiers for class-imbalanced images."""

__version__ = "0.2.0"
