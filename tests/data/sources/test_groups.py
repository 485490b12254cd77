import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysk.data.sources.groups import joined_groups, kind_of, telling_columns

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


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("lesion", "lesion"), ("lesion_id", "lesion"), ("LesionID", "lesion"), ("LESION-NUMBER", "lesion"),
        ("Patient's no.", "patient"),
        ("Patient Id", "patient"), ("patient_no.", "patient"), ("PATIENTNO", "patient"), ("id_patient", "patient"),
        ("subject-nr", "subject"), ("Case", "case"), ("caseNumber", "case"), ("StudyInstanceUID", "study"),
        ("lesion_type", None), ("patient_age", None), ("num_patients", None), ("showcase", None), ("group", None),
        ("image_id", None), ("", None),
    ],
)  # fmt: skip
def test_a_column_is_known_by_its_name(column: str, kind: str | None) -> None:
    assert kind_of(column) == kind


def test_only_columns_that_tie_rows_are_taken() -> None:
    pairs = [str(row // 2) for row in range(8)]
    unique = [str(row) for row in range(8)]
    assert telling_columns({"lesion_id": unique, "patient_id": pairs}) == (["patient_id"], [])
    assert telling_columns({"lesion": ["x"] * 8, "case": [""] * 8, "study": ["", *unique[1:]]}) == ([], [])
    assert telling_columns({"patient": pairs, "Lesion": pairs}) == (["Lesion", "patient"], [])
    assert telling_columns({"case": ["", "", *pairs[2:]]}) == (["case"], [])
    assert telling_columns({}) == ([], [])


def test_a_column_that_would_join_unrelated_rows_is_left_out() -> None:
    rows = range(400)
    patients = [str(row // 4) for row in rows]
    numbers = [str(row % 4) for row in rows]  # of each lesion within its patient
    assert telling_columns({"patient_id": patients, "lesion_no": numbers}) == (["patient_id"], ["lesion_no"])
    assert telling_columns({"lesion_id": patients, "case": numbers}) == (["lesion_id"], ["case"])
    assert telling_columns({"study": numbers}) == ([], ["study"])
    assert telling_columns({"case": patients, "study": numbers}) == (["case"], ["study"])
    # A patient with few names is still a patient: the folds will complain, and the scores are not wrong.
    assert telling_columns({"patient_id": numbers}) == (["patient_id"], [])
    few, lesions = [str(row // 100) for row in rows], [str(row // 2) for row in rows]
    assert telling_columns({"patient_id": few, "lesion_id": lesions}) == (["lesion_id", "patient_id"], [])
