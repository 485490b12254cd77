from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.sources.groups import joined_groups

IDS = st.sampled_from(["", "a", "b", "c", "d", "1"])


def connected(rows: list[tuple[str, str]]) -> list[set[int]]:
    """Finds the groups in a plain loop: merges rows until no two groups share a value of one kind."""
    groups = [{row} for row in range(len(rows))]
    merged = True
    while merged:
        merged = False
        for group in groups:
            for other in groups:
                shared = any(
                    rows[a][kind] and rows[a][kind] == rows[b][kind] for a in group for b in other for kind in (0, 1)
                )
                if group is not other and shared:
                    group |= other
                    groups.remove(other)
                    merged = True
                    break
            if merged:
                break
    return groups


@given(st.lists(st.tuples(IDS, IDS), max_size=12))
@settings(max_examples=60, deadline=None)
def test_joined_groups_are_the_connected_components(rows: list[tuple[str, str]]) -> None:
    names = joined_groups({"patient": [row[0] for row in rows], "lesion": [row[1] for row in rows]})
    assert all((name == "") == (row == ("", "")) for name, row in zip(names, rows, strict=True))
    named = [name or str(place) for place, name in enumerate(names)]
    groups = {frozenset(place for place, other in enumerate(named) if other == name) for name in named}
    assert groups == {frozenset(group) for group in connected(rows)}


def test_one_kind_keeps_its_names() -> None:
    assert joined_groups({"lesion": ["a", "", "a"]}) == ["a", "", "a"]


def test_a_group_is_named_after_its_first_patient() -> None:
    groups = joined_groups({"patient": ["p2", "p1", "", ""], "lesion": ["x", "x", "x", "y"]})
    assert groups == ["patient:p1"] * 3 + ["lesion:y"]
