from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.folds.assignment import WHOLE
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.folds.label_shares import labelled_rows
from raysk.data.manifest import Manifest, make_manifest

COUNTS = {"nv": 90, "mel": 30, "df": 6}
SETTINGS = FoldSettings(k=3, test_share=0.2)


def lesions(seed: int, order_seed: int | None = None) -> Manifest:
    """Groups of one to three rows; some hold rows of two classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for label, count in COUNTS.items():
        for group in range(count):
            size = int(rng.integers(1, 4))
            rows += [(label, f"{label}{group}")] * size
            if rng.random() < 0.2:
                rows.append(("nv", f"{label}{group}"))
    order = np.arange(len(rows)) if order_seed is None else np.random.default_rng(order_seed).permutation(len(rows))
    images = [f"{row}.png" for row in order]
    labels, groups = zip(*[rows[row] for row in order], strict=True)
    return make_manifest(images, labels, groups=groups, root=Path())


@settings(max_examples=25, deadline=None)
@given(world=st.integers(0, 50), seed=st.integers(0, 2**31 - 1), fold=st.sampled_from([WHOLE, 0, 1, 2]))
def test_shares_are_nested_whole_groups_of_all_classes_from_the_training_rows(world, seed, fold):
    manifest = lesions(world)
    folds = make_folds(manifest, SETTINGS)
    smaller: set[int] = set()
    for share in (1e-6, 0.01, 0.1, 0.5, 0.99, 1.0):
        rows = labelled_rows(manifest, folds, fold, share, seed)
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert set(rows.tolist()) <= set(folds.train_rows(fold).tolist())
        assert smaller <= set(rows.tolist()), "the rows of a smaller share lie in those of a larger one"
        assert manifest.count_classes(rows).all(), "each class keeps a group"
        others = np.setdiff1d(folds.train_rows(fold), rows)
        assert not np.intersect1d(manifest.groups[rows], manifest.groups[others]).size, "no group is cut"
        smaller = set(rows.tolist())
    assert smaller == set(folds.train_rows(fold).tolist())


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_each_class_keeps_its_share_of_groups(share):
    images = [f"{row}.png" for row in range(700)]
    manifest = make_manifest(images, ["nv"] * 600 + ["mel"] * 100, root=Path())
    folds = make_folds(manifest, FoldSettings(k=2, test_share=0))
    counts = manifest.count_classes(labelled_rows(manifest, folds, 0, share, 0))
    assert counts.tolist() == [round(50 * share), round(300 * share)]


def test_the_draw_follows_from_the_seed_and_the_names_of_the_groups_alone():
    manifest, shuffled = lesions(0), lesions(0, order_seed=1)

    def drawn(manifest: Manifest, seed: int) -> set[str]:
        rows = labelled_rows(manifest, make_folds(manifest, SETTINGS), 0, 0.3, seed)
        return set(manifest.group_names[rows].tolist())

    assert drawn(manifest, 0) == drawn(shuffled, 0)
    assert drawn(manifest, 0) != drawn(manifest, 1)


def test_the_folds_keep_mostly_the_same_labels():
    """One order of the groups serves all folds, as if few lesions had been labelled once."""
    manifest = lesions(3)
    folds = make_folds(manifest, SETTINGS)
    first, second = (labelled_rows(manifest, folds, fold, 0.2, 0) for fold in (0, 1))
    shared = np.intersect1d(first, folds.train_rows(1))
    assert np.isin(shared, second).mean() > 0.7, "independent draws would share 0.2"
