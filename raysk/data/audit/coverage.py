"""What an audit checked, and what it could not check, in words."""

from collections import Counter
from collections.abc import Sequence

from raysk.data.audit.splits import Entries
from raysk.data.sources.base import number_of, sources
from raysk.data.sources.groups import GROUP, SURE_KINDS, kind_of, known_tie, ties_rows
from raysk.data.sources.settings import DataSettings

_PLURALS = {"study": "studies", None: "groups"}
_OF_PATIENTS = frozenset({"patient", "subject", "case", "study", None})


def coverage(entries: Entries, num_compared: int, settings: DataSettings | None = None) -> tuple[list[str], list[str]]:
    """Describes what an audit of rows checked, and what it could not check.

    Args:
        entries: The rows.
        num_compared: Number of rows whose pictures were compared with all others.
        settings: The settings that the rows were read with; None for the lists of a split.
    """
    checked, unchecked = _groups(entries, settings) if entries.folded else _ties(entries)
    num_rows = len(entries)
    if num_compared:
        checked.append(f"bytes and near-duplicate pixels of {_share(num_compared, num_rows)} images")
    if not num_compared:
        unchecked.append("bytes and pixels (no image file was found)")
    elif num_compared < num_rows:
        unchecked.append(
            f"bytes and pixels of {number_of(num_rows - num_compared, 'image')} without a readable picture"
        )
    return checked, unchecked


def _groups(entries: Entries, settings: DataSettings | None) -> tuple[list[str], list[str]]:
    """Describes the groups of rows that will be divided into folds."""
    checked: list[str] = []
    unchecked: list[str] = []
    groups = entries.ties[GROUP]
    num_known = sum(group != image for group, image in zip(groups, entries.images, strict=True))
    several = len(entries.grouped_by) > 1
    tied = len(set(groups)) < len(groups)
    unchecked += _spellings("groups", groups)
    for origin, columns in entries.grouped_by.items():
        words = f" of {origin}" * several
        if columns and not tied:
            unchecked.append(f"{' + '.join(columns)}{words} (no two rows share a value)")
        elif columns:
            share = "" if several or num_known == len(entries) else f" ({_share(num_known, len(entries))} rows)"
            checked.append(f"{_plurals(columns)} by {' + '.join(columns)}{words}{share}")
        # Collections may give different lesions the same name.
        others = {} if several else _num_cut(entries, columns)
        cut = {name: number for name, number in others.items() if number}
        unchecked += [f"{name} (folds would cut {number_of(number, 'value')} of it)" for name, number in cut.items()]
        single = [] if several else _of_single_rows(entries, columns)
        unchecked += [f"{name} (no two rows share a value)" for name in single]
        kinds = {kind_of(column) for column in (*columns, *single)}
        kinds |= {kind for name in others if (kind := kind_of(name)) in SURE_KINDS or name not in cut}
        if not kinds:
            setting = None if settings is None else group_setting(settings, origin)
            remedy = f"; {setting} names one" * (setting is not None)
            unchecked.append(f"lesions and patients{words} (no column is known to name them{remedy})")
        elif not kinds & _OF_PATIENTS:
            unchecked.append(f"patients{words} (no column)")
    return checked, unchecked


def group_setting(settings: DataSettings, origin: str) -> str | None:
    """Returns the setting that names the groups of a table, None if its source does not read one."""
    name = origin.partition("/")[0]
    members = {member.name or member.source: member for member in settings.collections}
    source = sources[members[name].source if name in members else settings.source]
    if "group" not in source.reads:
        return None
    return f"data.{name}.group" if name in members else "data.group"


def _num_cut(entries: Entries, columns: Sequence[str]) -> dict[str, int]:
    """Counts the values in two groups, which folds may separate, of each other column of lesions or patients."""
    num_cut = {}
    for name, texts in _named_as_ties(entries, columns).items():
        # A column of diagnoses, such as "lesion", is the label in other words.
        is_label = len(set(zip(texts, entries.labels, strict=True))) == len(set(texts)) == len(set(entries.labels))
        if ties_rows(texts) and not is_label:
            pairs = {(text, group) for text, group in zip(texts, entries.ties[GROUP], strict=True) if text}
            num_cut[name] = sum(number > 1 for number in Counter(text for text, _ in pairs).values())
    return num_cut


def _of_single_rows(entries: Entries, columns: Sequence[str]) -> list[str]:
    """Returns the other columns of lesions or patients in which all rows have a value and no two rows the same."""
    named = _named_as_ties(entries, columns)
    return [name for name, texts in named.items() if kind_of(name) in SURE_KINDS and len({*texts} - {""}) == len(texts)]


def _named_as_ties(entries: Entries, columns: Sequence[str]) -> dict[str, list[str]]:
    """Returns the other columns that name lesions or patients, blank where unknown."""
    return {
        name: [known_tie("" if value is None else str(value)) for value in values]
        for name, values in entries.attributes.items()
        if kind_of(name) and name not in columns
    }


def _spellings(name: str, values: Sequence[str]) -> list[str]:
    """Describes the values that differ only in case and spaces, which count as different."""
    folded = Counter("".join(value.casefold().split()) for value in set(values))
    num = sum(count for count in folded.values() if count > 1)
    return [f"{name} whose names differ only in case or spaces ({num} count as different)"] if num else []


def _ties(entries: Entries) -> tuple[list[str], list[str]]:
    """Describes the columns of a split's lists."""
    checked, unchecked = ["image names"], []
    kinds: set[str | None] = set()
    for name, values in entries.ties.items():
        num_known = sum(bool(value) for value in values)
        kinds.add(kind_of(name))
        unchecked += _spellings(f"values of {name}", values)
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
