"""Unlabelled copies of pictures: they must stay out of exactly the folds that hold the originals out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageEnhance, ImageOps

from raysk.data.audit.auditing import audit
from raysk.data.audit.cases import cases_of
from raysk.data.audit.splits import entries_of
from raysk.data.folds.assignment import TEST, UNLABELLED, WHOLE, Folds
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import Manifest, make_manifest
from raysk.errors import ArtifactError, DataError
from tests.data.audit.test_near_duplicates import photograph

NUM_LABELLED = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Folds, Path]:
    """Labelled photographs, two to a lesion, and an unlabelled copy of each in other disguise, and strangers."""
    root = tmp_path_factory.mktemp("photographs")
    images, labels, groups, roles = [], [], [], []
    for row in range(NUM_LABELLED):
        photograph(row).save(root / f"{row:02d}.png")
        images.append(f"{row:02d}.png")
        labels.append(("nv", "mel")[row // 2 % 2])
        groups.append(f"lesion {row // 2}")
    disguises = [
        lambda image: ImageOps.mirror(image),
        lambda image: image.rotate(90, expand=True),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    ]
    for row in range(NUM_LABELLED):
        disguises[row % 3](photograph(row)).save(root / f"copy{row:02d}.jpg", quality=70)
        images.append(f"copy{row:02d}.jpg")
    for row in range(4):
        photograph(1000 + row).save(root / f"other{row}.jpg", quality=90)
        images.append(f"other{row}.jpg")
    # A second unlabelled photograph of the first lesion, which looks different.
    photograph(2000).save(root / "same_lesion.png")
    images.append("same_lesion.png")
    num_unlabelled = len(images) - NUM_LABELLED
    labels += [""] * num_unlabelled
    groups += [*images[NUM_LABELLED:-1], "lesion 0"]
    roles = [""] * NUM_LABELLED + ["unlabelled"] * num_unlabelled
    manifest = make_manifest(images, labels, groups=groups, roles=roles, root=root)
    folds = make_folds(manifest, FoldSettings(k=3, repeats=2), cases_of(manifest, "x", root / "cache"))
    return manifest, folds, root


def test_a_copy_of_a_held_out_picture_is_left_out_in_its_folds_only(world):
    manifest, folds, _ = world
    admitted = [set(folds.unlabelled_rows(fold).tolist()) for fold in range(len(folds))]
    for row in range(NUM_LABELLED):
        copy = NUM_LABELLED + row
        for fold in range(len(folds)):
            scored = {*folds.held_out_rows(fold).tolist(), *folds.test_rows.tolist()}
            assert (copy in admitted[fold]) == (row not in scored)
    strangers = set(range(2 * NUM_LABELLED, 2 * NUM_LABELLED + 4))
    assert all(strangers <= rows for rows in admitted)
    same_lesion = len(manifest) - 1
    for fold in range(len(folds)):
        is_held_out = 0 in folds.held_out_rows(fold) or folds.fold[0] == TEST
        assert (same_lesion in admitted[fold]) != is_held_out
    locked = {NUM_LABELLED + row for row in folds.test_rows.tolist()}
    assert locked, "the test part has copies, too"
    assert not locked & set(folds.unlabelled_rows(WHOLE).tolist())
    held_out = {NUM_LABELLED + row for row in folds.held_out_rows(0).tolist()}
    assert held_out <= set(folds.unlabelled_rows(WHOLE).tolist())


def test_unlabelled_rows_are_in_no_fold_and_no_count(world):
    manifest, folds, _ = world
    unlabelled = set(manifest.unlabelled_rows.tolist())
    assert set(np.flatnonzero(folds.fold == UNLABELLED).tolist()) == unlabelled
    for fold in (WHOLE, *range(len(folds))):
        assert not unlabelled & {*folds.train_rows(fold).tolist(), *folds.held_out_rows(fold).tolist()}
    assert not unlabelled & set(folds.test_rows.tolist())
    assert manifest.class_counts.sum() == NUM_LABELLED


def test_the_folds_of_the_labelled_rows_are_those_without_unlabelled_ones(world):
    manifest, folds, _ = world
    alone = make_folds(manifest.without(manifest.unlabelled_rows.tolist()), FoldSettings(k=3, repeats=2))
    assert alone.divisions.tolist() == folds.divisions[:, :NUM_LABELLED].tolist()


def test_folds_are_read_as_written_and_their_digest_has_the_cases(world, tmp_path):
    manifest, folds, _ = world
    folds.write(tmp_path / "folds.parquet")
    read = Folds.read(tmp_path / "folds.parquet")
    assert read.digest == folds.digest
    assert read.cases.tolist() == folds.cases.tolist()
    by_group = make_folds(manifest, FoldSettings(k=3, repeats=2))
    assert by_group.divisions.tolist() == folds.divisions.tolist()
    assert by_group.digest != folds.digest


def test_rows_without_a_case_and_cases_that_cut_a_group_are_refused(world):
    manifest, folds, _ = world
    with pytest.raises(DataError, match=r"each of the 53 rows must have a case if some are unlabelled, but 0 have one"):
        Folds(folds.divisions, folds.k, folds.seed, manifest.digest)
    cut = Folds(folds.divisions, folds.k, folds.seed, manifest.digest, np.arange(len(manifest)))
    with pytest.raises(ArtifactError, match="cases must not cut a group, but these cut 'lesion 0'"):
        cut.check(manifest)


def test_the_cases_are_kept_under_the_content_of_the_rows(world):
    manifest, folds, root = world
    (kept,) = (root / "cache").glob("cases-*.parquet")
    before = kept.stat().st_mtime_ns
    assert cases_of(manifest, "x", root / "cache").tolist() == folds.cases.tolist()
    assert kept.stat().st_mtime_ns == before
    kept.write_text("damaged")
    assert cases_of(manifest, "x", root / "cache").tolist() == folds.cases.tolist()
    cases_of(manifest, "other pixels", root / "cache")
    assert len(list((root / "cache").glob("cases-*.parquet"))) == 2


def test_a_picture_that_cannot_be_compared_is_refused(world, tmp_path):
    manifest, _, root = world
    moved = Manifest(manifest.table, tmp_path, manifest.class_names, manifest.grouped)
    for path in root.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "03.png").unlink()
    with pytest.raises(DataError, match=r"so that its unlabelled copies are found, but .*03\.png is not \(there is no"):
        cases_of(moved, "y", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_an_audit_hints_at_copies_that_the_folds_leave_out(world):
    manifest, _, _ = world
    report = audit(entries_of(manifest))
    assert not report.leaks
    (hint,) = [finding for finding in report.findings if finding.title.startswith("unlabelled rows of labelled")]
    assert {NUM_LABELLED + row for row in range(NUM_LABELLED)} <= set(hint.rows)
    assert len(manifest) - 1 in hint.rows
    assert not set(range(2 * NUM_LABELLED, 2 * NUM_LABELLED + 4)) & set(hint.rows)
    assert not any(report.leaks_between(first, second) for first, second in report.alike)
