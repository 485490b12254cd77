"""Probabilities and labels to score."""

import numpy as np
from hypothesis import strategies as st

Task = tuple[np.ndarray, np.ndarray]


def make_task(num_rows: int, num_classes: int, seed: int, decimals: int = 6) -> Task:
    """Returns probabilities that are better than chance, with ties when there are few decimals, and labels."""
    random = np.random.default_rng(seed)
    labels = random.choice(num_classes, size=num_rows, p=random.dirichlet(np.ones(num_classes)))
    logits = random.normal(size=(num_rows, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.round(decimals), labels


tasks = st.builds(make_task, st.integers(1, 40), st.integers(2, 6), st.integers(0, 10_000), st.sampled_from([1, 2, 6]))
