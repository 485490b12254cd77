"""What an audit checked, and what it could not check, in words."""

from collections import Counter
from collections.abc import Sequence

from raysk.data.audit.splits import Entries
from raysk.data.sources.base import number_of
from raysk.data.sources.groups import GROUP, SURE_KINDS, kind_of, known_tie, ties_rows

_PLURALS = {"study": "studies", None: "groups"}
_OF_PATIENTS = frozenset({"patient", "subject", "case", "study", None})


def coverage(entries: Entries, num_compared: int) -> tuple[list[str], list[str]]:
    """Describes what an audit of rows checked, and what it could not check.

    Args:
        entries: The rows.
        num_compared: Number of rows whose pictures were compared with all others.
    """
    checked, unchecked = _groups(entries) if entries.folded else _ties(entries)
    num_rows = len(entries)
    if num_compared:
        checked.append(f"bytes and near-duplicate pixels of {_share(num_compared, num_rows)} images")
    if not num_compared:
        unchecked.append("bytes and pixels (no image file was found)")
    elif num_compared < num_rows:
        unchecked.append(f"bytes and pixels of {num_rows - num_compared} images without a readable picture")
    return checked, unchecked


def _groups(entries: Entries) -> tuple[list[str], list[str]]:
    """Describes the groups of rows that will be divided into folds."""
    checked: list[str] = []
    unchecked: list[str] = []
    groups = entries.ties[GROUP]
    num_known = sum(group != image for group, image in zip(groups, entries.images, strict=True))
    several = len(entries.grouped_by) > 1
    for origin, columns in entries.grouped_by.items():
        words = f" of {origin}" * several
        if columns:
            share = "" if several or num_known == len(entries) else f" ({_share(num_known, len(entries))} rows)"
            checked.append(f"{_plurals(columns)} by {' + '.join(columns)}{words}{share}")
        # Collections may give different lesions the same name.
        others = {} if several else _num_cut(entries, columns)
        cut = {name: number for name, number in others.items() if number}
        unchecked += [f"{name} (folds would cut {number_of(number, 'value')} of it)" for name, number in cut.items()]
        kinds = {kind_of(column) for column in columns}
        kinds |= {kind for name in others if (kind := kind_of(name)) in SURE_KINDS or name not in cut}
        if not kinds:
            unchecked.append(f"lesions and patients{words} (no column ties rows; data.group names one)")
        elif not kinds & _OF_PATIENTS:
            unchecked.append(f"patients{words} (no column)")
    return checked, unchecked


def _num_cut(entries: Entries, columns: Sequence[str]) -> dict[str, int]:
    """Counts the values in two groups, which folds may separate, of each other column of lesions or patients."""
    num_cut = {}
    for name, values in entries.attributes.items():
        texts = [known_tie("" if value is None else str(value)) for value in values] if kind_of(name) else []
        if name not in columns and ties_rows(texts):
            pairs = {(text, group) for text, group in zip(texts, entries.ties[GROUP], strict=True) if text}
            num_cut[name] = sum(number > 1 for number in Counter(text for text, _ in pairs).values())
    return num_cut


def _ties(entries: Entries) -> tuple[list[str], list[str]]:
    """Describes the columns of a split's lists."""
    checked, unchecked = ["image names"], []
    kinds: set[str | None] = set()
    for name, values in entries.ties.items():
        num_known = sum(bool(value) for value in values)
        kinds.add(kind_of(name))
        parts = {part for part, value in zip(entries.parts, values, strict=True) if value}
        if len(parts) < 2:
            unchecked.append(f"{name} ({f'only {parts.pop()} has values' if parts else 'no value is known'})")
        elif len(set(values) - {""}) == num_known:
            unchecked.append(f"{name} (no two rows share a value)")
        else:
            share = "" if num_known == len(entries) else f" ({_share(num_known, len(entries))} rows)"
            checked.append(f"{_plurals([name])} by {name}{share}")
    if not kinds:
        unchecked.append("lesions and patients (no column; --metadata FILE gives them)")
    elif not kinds & _OF_PATIENTS:
        unchecked.append("patients (no column)")
    return checked, unchecked


def _plurals(columns: Sequence[str]) -> str:
    kinds = dict.fromkeys(kind_of(column) for column in columns)
    return " and ".join(_PLURALS.get(kind, f"{kind}s") for kind in kinds)


def _share(count: int, total: int) -> str:
    return f"all {total}" if count == total else f"{count} of {total}"
