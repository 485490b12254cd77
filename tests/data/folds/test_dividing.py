import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from raysk.data.folds.assignment import TEST, TRAIN_ONLY, WHOLE, Folds
from raysk.data.folds.dividing import FoldSettings, make_folds
from raysk.data.manifest import Manifest, make_manifest
from raysk.errors import ArtifactError, ConfigError, DataError

COUNTS = {"nv": 400, "mel": 66, "bkl": 60, "df": 15}


def lesions(seed: int = 0, counts: dict[str, int] = COUNTS, **columns: object) -> Manifest:
    """Rows in groups of one to three, each group of one class, in shuffled order."""
    rng = np.random.default_rng(seed)
    rows = []
    for label, count in counts.items():
        sizes = rng.choice([1, 1, 1, 2, 3], count)
        rows += [(label, f"{label}{group}") for group in np.repeat(np.arange(count), sizes)[:count]]
    rows = [rows[row] for row in rng.permutation(len(rows))]
    images = [f"{row}.png" for row in range(len(rows))]
    return make_manifest(images, [r[0] for r in rows], groups=[r[1] for r in rows], root=Path(), **columns)


def counts_of(manifest: Manifest, fold: np.ndarray, part: int) -> np.ndarray:
    return np.bincount(manifest.labels[fold == part], minlength=len(manifest.class_names))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), repeats=st.sampled_from([1, 2]), grouped=st.booleans())
def test_the_order_of_the_rows_does_not_change_the_folds(seed: int, repeats: int, grouped: bool) -> None:
    manifest = lesions(seed % 7)
    order = np.random.default_rng(seed).permutation(len(manifest))
    shuffled = manifest.table.take(order)
    columns = [shuffled.column(name).to_pylist() for name in ("image", "label", "group")]
    other = make_manifest(columns[0], columns[1], groups=columns[2] if grouped else None, root=Path())
    if not grouped:
        images, labels = (manifest.table.column(name).to_pylist() for name in ("image", "label"))
        manifest = make_manifest(images, labels, root=Path())
    division = FoldSettings(repeats=repeats, seed=seed)
    first, second = make_folds(manifest, division), make_folds(other, division)
    np.testing.assert_array_equal(second.divisions, first.divisions[:, order])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(2, 5),
    test_share=st.sampled_from([0.0, 0.05, 0.2, 0.4]),
    num_groups=st.integers(30, 80),
    num_classes=st.integers(2, 4),
)
def test_groups_stay_whole_and_every_part_has_every_class(
    seed: int, k: int, test_share: float, num_groups: int, num_classes: int
) -> None:
    rng = np.random.default_rng(seed)
    # Most groups have one class; some mix two, like the lesions of a patient.
    main = np.concatenate([np.repeat(np.arange(num_classes), 8), rng.integers(0, num_classes, num_groups)])
    groups = np.repeat(np.arange(len(main)), rng.integers(1, 5, len(main)))
    labels = np.where(rng.random(len(groups)) < 0.1, rng.integers(0, num_classes, len(groups)), main[groups])
    labels[np.unique(groups, return_index=True)[1]] = main
    manifest = make_manifest(
        [f"{row}" for row in range(len(groups))],
        [f"c{label}" for label in labels],
        groups=[f"g{group}" for group in groups],
        root=Path(),
    )
    folds = make_folds(manifest, FoldSettings(k=k, seed=seed, test_share=test_share))
    parts = [*range(k), TEST] if test_share else [*range(k)]
    assert set(folds.fold.tolist()) == set(parts)
    for group in np.unique(groups):
        assert len(set(folds.fold[groups == group].tolist())) == 1
    for part in parts:
        assert counts_of(manifest, folds.fold, part).all()
    folds.check(manifest)


@pytest.mark.parametrize("seed", range(4))
def test_parts_get_their_share_of_each_class(seed: int) -> None:
    manifest = lesions(seed)
    folds = make_folds(manifest, FoldSettings(k=4, seed=seed, test_share=0.2))
    for part in [*range(4), TEST]:
        # All five shares are 0.2; groups have at most three rows.
        assert np.abs(counts_of(manifest, folds.fold, part) - 0.2 * manifest.class_counts).max() <= 2
    assert abs(len(folds.test_rows) - 0.2 * len(manifest)) <= 3


def largest_deviation(manifest: Manifest, fold: np.ndarray, k: int) -> float:
    counts = np.array([counts_of(manifest, fold, part) for part in range(k)])
    return float(np.abs(counts * k / manifest.class_counts - 1).max())


def test_rare_classes_are_divided_at_least_as_evenly_as_by_scikit_learn() -> None:
    raysk_deviations, sklearn_deviations = [], []
    for seed in range(8):
        manifest = lesions(seed, {"nv": 300, "mel": 50, "df": 17, "vasc": 13})
        raysk_deviations.append(
            largest_deviation(manifest, make_folds(manifest, FoldSettings(k=5, seed=seed, test_share=0)).fold, 5)
        )
        fold = np.zeros(len(manifest), np.int64)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for part, (_, held_out) in enumerate(splitter.split(fold, manifest.labels, manifest.groups)):
            fold[held_out] = part
        sklearn_deviations.append(largest_deviation(manifest, fold, 5))
    assert np.mean(raysk_deviations) <= np.mean(sklearn_deviations)


def test_training_held_out_and_test_rows_are_all_rows() -> None:
    roles = ["train_only" if row in (3, 4) else "" for row in range(40)]
    manifest = make_manifest([str(row) for row in range(40)], ["a", "b"] * 20, roles=roles, root=Path())
    folds = make_folds(manifest, FoldSettings(k=3))
    everything = np.arange(40)
    for fold in range(3):
        train, held_out = folds.train_rows(fold), folds.held_out_rows(fold)
        assert {3, 4} <= set(train.tolist())
        assert sorted([*train, *held_out, *folds.test_rows]) == everything.tolist()
        assert train.dtype == held_out.dtype == np.int64
    assert folds.fold[[3, 4]].tolist() == [TRAIN_ONLY, TRAIN_ONLY]
    with pytest.raises(ConfigError, match="from 0 to 2, but got 3"):
        folds.train_rows(3)
    with pytest.raises(ConfigError, match="got -2"):
        folds.held_out_rows(-2)
    assert len(folds.held_out_rows(WHOLE)) == 0
    assert sorted([*folds.train_rows(WHOLE), *folds.test_rows]) == everything.tolist()


def test_rows_with_the_role_test_are_the_test_part(caplog: pytest.LogCaptureFixture) -> None:
    roles = ["test" if row in (0, 2) else "" for row in range(40)]
    manifest = make_manifest([str(row) for row in range(40)], ["a", "b"] * 20, roles=roles, root=Path())
    with caplog.at_level(logging.WARNING):
        folds = make_folds(manifest, FoldSettings(k=2, test_share=0.5))
    assert folds.test_rows.tolist() == [0, 2]
    assert "the test part has no image of class 'b'" in caplog.text


def test_a_group_with_two_roles_is_refused() -> None:
    doubled = make_manifest(
        ["a", "b", "c", "d"], ["x", "y", "x", "y"], groups=["1", "2", "1", "3"], roles=["test", "", "", ""], root=Path()
    )
    with pytest.raises(DataError, match="those of '1' differ"):
        make_folds(doubled, FoldSettings(k=2))


def test_folds_depend_on_the_seed_alone() -> None:
    manifest = lesions()
    first, again, other = (
        make_folds(manifest, FoldSettings(seed=1)),
        make_folds(manifest, FoldSettings(seed=1)),
        make_folds(manifest, FoldSettings(seed=2)),
    )
    assert first.digest == again.digest and (first.fold == again.fold).all()
    assert first.digest != other.digest


def test_an_error_about_too_few_groups_names_the_class_and_the_remedy() -> None:
    manifest = lesions(counts={"nv": 60, "df": 3})
    with pytest.raises(DataError, match=r"4 parts \(the folds and the test part\), but 'df' has \d .*: lower folds.k"):
        make_folds(manifest, FoldSettings(k=3))


def test_a_class_with_just_enough_groups_reaches_a_tiny_test_part() -> None:
    labels = ["nv"] * 60 + ["df"] * 4
    manifest = make_manifest([str(row) for row in range(64)], labels, root=Path())
    folds = make_folds(manifest, FoldSettings(k=3, test_share=0.02))
    assert sorted(folds.fold[60:].tolist()) == [TEST, 0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 1}, "k must be"),
        ({"test_share": 1.0}, "test_share must be"),
        ({"repeats": 0}, "repeats must be"),
        ({"column": "site", "leave_out": "site"}, "column and leave_out must not both be given"),
        ({"leave_out": "site", "repeats": 2}, "repeats must be 1 if an attribute gives the folds, but got 2"),
    ],
)
def test_invalid_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_folds(lesions(), FoldSettings(**change))


def with_column(values: list[object], k: int, **columns: object) -> Folds:
    rows = len(values)
    manifest = make_manifest(
        [str(row) for row in range(rows)],
        (["a", "b"] * rows)[:rows],
        attributes={"part": values},
        root=Path(),
        **columns,
    )
    return make_folds(manifest, FoldSettings(k=k, column="part"))


def test_folds_of_a_column_are_renumbered() -> None:
    folds = with_column(["1", "1", "2", "2", "4", "4", "test", "-1"], k=3)
    assert folds.fold.tolist() == [0, 0, 1, 1, 2, 2, TEST, TEST]
    roles = ["train_only", "", "", "", "", ""]
    assert with_column([None, 0, 0, 1, 1, 0], k=2, roles=roles).fold.tolist() == [TRAIN_ONLY, 0, 0, 1, 1, 0]


def test_a_column_without_valid_folds_is_refused() -> None:
    with pytest.raises(DataError, match=r"holds 3 and folds.k is 2: set folds.k=3"):
        with_column([0, 0, 1, 1, 2, 2], k=2)
    with pytest.raises(DataError, match="'first' in row 2"):
        with_column(["0", "0", "first", "1"], k=2)
    with pytest.raises(DataError, match="None in row 0"):
        with_column([None, 0, 0, 1], k=2)
    with pytest.raises(DataError, match="cuts 'g'"):
        with_column([0, 0, 1, 1], k=2, groups=["g", "h", "g", "i"])
    with pytest.raises(DataError, match="those of fold 0 lack 'b'"):
        with_column([0, 0, 1, 0, 1, 0], k=2)
    with pytest.raises(ConfigError, match="did you mean part"):
        make_folds(
            make_manifest(["1", "2"], ["a", "b"], attributes={"part": [0, 1]}, root=Path()),
            FoldSettings(k=2, column="parts"),
        )


def test_written_folds_are_read_back(tmp_path: Path) -> None:
    folds = make_folds(lesions(), FoldSettings(k=5, seed=3, repeats=2))
    folds.write(tmp_path / "folds.parquet")
    again = Folds.read(tmp_path / "folds.parquet")
    assert (again.divisions == folds.divisions).all() and again.divisions.dtype == np.int64
    assert (again.k, again.seed, again.manifest_digest, again.digest) == (5, 3, folds.manifest_digest, folds.digest)


def test_read_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="must hold folds"):
        Folds.read(tmp_path / "none.parquet")
    pq.write_table(pa.table({"fold": [0, 1]}), tmp_path / "other.parquet")
    with pytest.raises(ArtifactError, match="another Parquet file"):
        Folds.read(tmp_path / "other.parquet")


def test_check_refuses_another_manifest_and_cut_groups() -> None:
    manifest = lesions()
    folds = make_folds(manifest)
    folds.check(manifest)
    with pytest.raises(ArtifactError, match="of manifest"):
        folds.check(lesions(seed=1))
    group = np.flatnonzero(np.bincount(manifest.groups) > 1)[0]
    cut = folds.fold.copy()
    row = np.flatnonzero(manifest.groups == group)[0]
    cut[row] = (cut[row] + 1) % 3
    with pytest.raises(ArtifactError, match="must not cut a group"):
        Folds(cut[None], folds.k, folds.seed, manifest.digest).check(manifest)


def test_invalid_parts_are_refused() -> None:
    with pytest.raises(DataError, match="got 3"):
        Folds(np.array([[0, 1, 2, 3]]), 3, 0, "")
    with pytest.raises(DataError, match="fold 1 has none"):
        Folds(np.array([[0, 0, TEST]]), 2, 0, "")
    with pytest.raises(DataError, match="the same in all repeats, but row 0 is in it only in some"):
        Folds(np.array([[0, 1, TEST], [TEST, 1, 0]]), 2, 0, "")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 4), repeats=st.integers(2, 4))
def test_repeats_divide_the_same_rows_and_share_the_test_part(seed: int, k: int, repeats: int) -> None:
    manifest = lesions(seed % 7)
    folds = make_folds(manifest, FoldSettings(k=k, seed=seed, repeats=repeats))
    assert len(folds) == k * repeats
    once = make_folds(manifest, FoldSettings(k=k, seed=seed))
    assert (folds.divisions[0] == once.fold).all() and (folds.test_rows == once.test_rows).all()
    folds.check(manifest)
    everything = sorted(set(range(len(manifest))) - set(folds.test_rows.tolist()))
    for repeat in range(repeats):
        numbers = range(repeat * k, repeat * k + k)
        held_out = np.concatenate([folds.held_out_rows(number) for number in numbers])
        assert sorted(held_out.tolist()) == everything
        for number in numbers:
            sides = [*folds.train_rows(number), *folds.held_out_rows(number)]
            assert sorted(sides) == everything
            assert (np.bincount(manifest.labels[folds.held_out_rows(number)], minlength=4) > 0).all()
    assert len({tuple(division.tolist()) for division in folds.divisions}) == repeats


def of_sites(sites: list[str | None], **columns: object) -> Manifest:
    names = [str(row) for row in range(len(sites))]
    return make_manifest(names, ["a", "b"] * (len(sites) // 2), attributes={"site": sites}, root=Path(), **columns)


def test_each_source_is_left_out_once_and_the_test_part_is_drawn_from_all() -> None:
    sites = ["rome"] * 40 + ["oslo"] * 60 + ["lima"] * 20
    manifest = of_sites(sites)
    folds = make_folds(manifest, FoldSettings(k=7, leave_out="site", test_share=0.25))
    assert (folds.k, len(folds)) == (3, 3)
    for number, site in enumerate(["lima", "oslo", "rome"]):
        assert {sites[row] for row in folds.held_out_rows(number)} == {site}
        assert site not in {sites[row] for row in folds.train_rows(number)}
    assert len(folds.test_rows) == 30
    assert {sites[row] for row in folds.test_rows} == {"rome", "oslo", "lima"}


def test_rows_with_a_role_are_in_no_fold() -> None:
    roles = ["test", "train_only"] + [""] * 10
    manifest = of_sites([None, None, *["rome"] * 6, *["oslo"] * 4], roles=roles)
    folds = make_folds(manifest, FoldSettings(leave_out="site"))
    assert folds.fold.tolist() == [TEST, TRAIN_ONLY, *[1] * 6, *[0] * 4]


def test_a_column_without_valid_sources_is_refused() -> None:
    with pytest.raises(DataError, match=r"row 3 is blank \(2 in all\): .*train_only"):
        make_folds(of_sites(["x", "y", "x", None, " ", "y"]), FoldSettings(leave_out="site", test_share=0))
    with pytest.raises(DataError, match=r"2 to 100 values .*but it has 1:"):
        make_folds(of_sites(["x"] * 6), FoldSettings(leave_out="site", test_share=0))
    with pytest.raises(DataError, match="but it has 102:"):
        make_folds(of_sites([str(row) for row in range(102)]), FoldSettings(leave_out="site", test_share=0))
    with pytest.raises(DataError, match="column 'site' cuts 'g'"):
        make_folds(
            of_sites(["x", "y", "x", "y"], groups=["g", "g", "h", "i"]), FoldSettings(leave_out="site", test_share=0)
        )
    with pytest.raises(ConfigError, match=r"folds.leave_out .*did you mean site"):
        make_folds(of_sites(["x", "y"]), FoldSettings(leave_out="sites"))
