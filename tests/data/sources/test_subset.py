"""Subsets of collections: whole groups, every class, and about the requested number of rows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.sources import Collection, DataSettings, load_manifest
from raysk.data.sources.subset import subset
from raysk.errors import ConfigError, DataError


def collection_of(rows: list[tuple[str, str]], roles: list[str] | None = None) -> Collection:
    """Makes a collection of (label, group)."""
    names = [f"{number}.png" for number in range(len(rows))]
    return Collection(
        origin="table.csv",
        root=Path(),
        names=names,
        images=names,
        labels=[label for label, _ in rows],
        groupings={"group": [group for _, group in rows]},
        roles=roles,
        attributes={"number": pa.chunked_array([pa.array(range(len(rows)))])},
    )


@st.composite
def collections(draw: st.DrawFn) -> Collection:
    """Groups of one to four rows, of two to four classes with at least two groups each."""
    num_classes = draw(st.integers(2, 4))
    labels = [f"c{number % num_classes}" for number in range(2 * num_classes)]
    labels += draw(st.lists(st.sampled_from(labels), max_size=40))
    sizes = draw(st.lists(st.integers(1, 4), min_size=len(labels), max_size=len(labels)))
    return collection_of(
        [
            (label, f"g{group}")
            for group, (label, size) in enumerate(zip(labels, sizes, strict=True))
            for _ in range(size)
        ]
    )


@given(whole=collections(), share=st.floats(0.1, 0.9), seed=st.integers(0, 5))
@settings(deadline=None, max_examples=200)
def test_groups_stay_whole_and_no_class_is_lost(whole, share, seed):
    size = max(1, int(share * len(whole.names)))
    part = subset(whole, size, seed)
    groups = Counter(whole.groupings["group"])
    assert all(count == groups[group] for group, count in Counter(part.groupings["group"]).items())
    assert set(part.labels) == set(whole.labels)
    # Each class may be a group short or over, and has one group in any case.
    assert abs(len(part.names) - size) <= 4 * len(set(whole.labels))
    # The rows keep their order and their attributes.
    numbers = part.attributes["number"].to_pylist()
    assert numbers == sorted(numbers)
    assert [whole.names[number] for number in numbers] == list(part.names)
    assert subset(whole, size, seed).names == part.names


def test_classes_and_roles_keep_their_shares():
    rows = [("nv" if number % 10 else "mel", f"g{number // 2}") for number in range(2000)]
    roles = ["test" if number // 2 % 5 == 0 else "" for number in range(2000)]
    whole = collection_of(rows, roles)
    part = subset(whole, 500, 0)
    assert abs(len(part.names) - 500) <= 4
    before, after = (Counter(zip(rows.labels, rows.roles or (), strict=True)) for rows in (whole, part))
    for kind, count in before.items():
        assert after[kind] == pytest.approx(count / 4, abs=2)


def test_another_seed_takes_other_rows():
    whole = collection_of([(f"c{number % 2}", f"g{number}") for number in range(100)])
    taken = [tuple(subset(whole, 20, seed).names) for seed in range(3)]
    assert len(set(taken)) == 3


@pytest.mark.parametrize("size", [6, 7, 1000])
def test_a_size_that_is_not_less_than_all_rows_is_refused(size):
    whole = collection_of([(f"c{number % 2}", f"g{number}") for number in range(6)])
    with pytest.raises(ConfigError, match=f"less than the 6 rows of table.csv, but got {size}: remove it"):
        subset(whole, size, 0)


def test_losing_a_class_is_refused():
    whole = collection_of([("nv", f"g{number}") for number in range(99)] + [("mel", "g99")])
    lost = 0
    for seed in range(5):
        try:
            assert "mel" in subset(whole, 5, seed).labels
        except DataError as error:
            lost += 1
            assert str(error).endswith("with 5 rows of table.csv, 'mel' has none: raise it")
    assert lost > 0


def test_a_subset_of_a_users_table_keeps_groups_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lines = ["image,label,group"]
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(b"an image")
        lines.append(f"{number}.png,{'ab'[number % 3 == 0]},{number // 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    whole = DataSettings(source="csv", path=str(tmp_path / "table.csv"))
    part = load_manifest(DataSettings(source="csv", path=whole.path, size=20), tmp_path)
    assert len(part) in range(18, 23)
    assert part.class_names == ("a", "b")
    assert "took" in caplog.text and "of 60 rows, because data.size is set" in caplog.text
    everything = load_manifest(whole, tmp_path)
    assert set(part.table.column("image").to_pylist()) < set(everything.table.column("image").to_pylist())
    counts = np.bincount(everything.groups)
    assert (np.bincount(part.groups) == 2).all() and (counts == 2).all()
