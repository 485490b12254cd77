"""Class names: one usual name for each class, whatever its name in a collection."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from raysk.data.sources.settings import DataSettings
from raysk.errors import ConfigError, DataError
from raysk.overrides import parse_override

# AK (ISIC 2019) and ACK (PAD-UFES-20) are actinic keratoses; HAM10000's akiec also includes Bowen's disease.
USUAL_NAMES = {
    "akiec": ("ak", "ack", "actinic keratosis"),
    "bcc": ("basal cell carcinoma",),
    "bkl": ("benign keratosis",),
    "df": ("dermatofibroma",),
    "mel": ("melanoma",),
    "nv": ("nev", "nevus", "naevus"),
    "scc": ("squamous cell carcinoma",),
    "sek": ("sk", "seborrheic keratosis"),
    "vasc": ("vascular lesion",),
}
# What Hydra's grammar reads as more than a character of a name.
_SPECIAL = re.compile(r"[\\()\[\]{}:=, \t]")
_BY_SYNONYM = {synonym: name for name, synonyms in USUAL_NAMES.items() for synonym in (name, *synonyms)}


def usual_name(label: str) -> str:
    """Returns the usual name of a class; an unknown class keeps its name in lower case."""
    folded = " ".join(re.split(r"[\s_-]+", label.casefold().strip()))
    return _BY_SYNONYM.get(folded, label.casefold())


def mapped_labels(labels: Sequence[str], settings: DataSettings, origin: str) -> list[str | None]:
    """Renames the labels as the settings define; None for a row to leave out, whose class has an empty new name.

    A blank label, of an unlabelled row, stays blank.

    Raises:
        DataError: The class map names a class that does not occur.
    """
    if settings.classes_map is None:
        return [usual_name(label) for label in labels] if settings.map == "usual" else list(labels)
    pairs = settings.classes_map.to_plain()
    occurring = sorted(set(labels) - {""})
    if not occurring:
        raise DataError(
            f"data.classes_map must not be set for {origin}, whose rows are all unlabelled, but got {len(pairs)} "
            f"class{'es' * (len(pairs) != 1)}: remove it"
        )
    for name in pairs:
        if name not in occurring:
            nearest = get_close_matches(name, occurring, n=len(occurring), cutoff=0.0)
            raise DataError(
                f"data.classes_map must map classes of {origin}, but got {name!r}; classes, nearest first: "
                f"{', '.join(nearest)}"
            )
    if settings.map == "usual":
        pairs = {label: usual_name(label) for label in occurring} | pairs
    return [(pairs.get(label) or None) if label else "" for label in labels]


def check_spellings(
    published: Sequence[str], labels: Sequence[str | None], settings: DataSettings, origin: str
) -> None:
    """Refuses classes whose names differ only in case, spaces, hyphens or underscores.

    Classes that data.classes lists are all meant as they are.

    Args:
        published: The class of each row in the collection.
        labels: Its new class, None for a row to leave out.
        settings: The classes.
        origin: The table or folder, for the error.

    Raises:
        DataError: There are such classes; the message has the override that joins them.
    """
    counts = Counter(label for label in labels if label)
    spellings = defaultdict(list)
    for label in counts:
        spellings[_without_spelling(label)].append(label)
    listed = set(settings.classes or ())
    clashes = [names for names in spellings.values() if len(names) > 1 and not listed.issuperset(names)]
    if not clashes:
        return
    chosen = {label: label for label in counts}
    for names in clashes:
        best = min(names, key=lambda name: (name not in listed, -counts[name], name.swapcase()))
        chosen |= dict.fromkeys(names, best)
    # With data.map=usual, only an empty new name leaves a class out.
    pairs = {old: chosen[new] if new else "" for old, new in zip(published, labels, strict=True)}
    override = class_map_override({old: new for old, new in sorted(pairs.items()) if new or settings.map == "usual"})
    clash = ", ".join(f"{name!r} ({counts[name]})" for names in clashes for name in sorted(names))
    remedy = "correct the labels" if override is None else f"join them with {override}"
    raise DataError(
        f"classes of {origin} must differ in more than case, spaces, hyphens and underscores, but got {clash}: "
        f"{remedy}, or list all classes in data.classes to keep them apart"
    )


def _without_spelling(label: str) -> str:
    """Returns a label in lower case without separators; the sign of a number and a final hyphen, as in ER-, stay."""
    trimmed = re.sub(r"^[\s_]+|[\s_]+$", "", label.casefold())
    signed = re.sub(r"(?<!\S)-(?=[\d.])", "\0", trimmed)
    folded = re.sub(r"[\s_-]+(?=[^\s_-])", "_", signed)
    return re.sub(r"(?<!\d)_|_(?!\d)", "", folded)


def class_map_override(pairs: Mapping[str, str], key: str = "data.classes_map") -> str | None:
    """Returns data.classes_map={...} as a shell reads it; None if Hydra's grammar cannot write one of the names."""
    entries = ", ".join(f"{_key(old)}: {_value(new)}" for old, new in pairs.items())
    override = f"{key}={{{entries}}}"
    try:
        value: Any = parse_override(override).value()
    except ConfigError:
        return None
    # A key such as 1.50 or true is no text in Hydra's grammar, and ${ begins an interpolation.
    same = "${" not in override and {str(old): new for old, new in value.items()} == dict(pairs)
    return shlex.quote(override) if same else None


def _key(name: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", name)


def _value(name: str) -> str:
    if re.fullmatch(r"(?!(?i:null|true|false|nan|inf)$)[a-z_][a-z0-9_]*", name, re.IGNORECASE | re.ASCII):
        return name
    escaped = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), name)
    return f'"{escaped}"'


def check_labels(labels: Sequence[str], allowed: Names[str], rule: str, wheres: Sequence[str]) -> None:
    """Refuses a label that is not allowed; blank labels pass.

    Args:
        labels: The label of each row.
        allowed: The classes.
        rule: The name of the allowed classes for the error, such as "data.classes".
        wheres: The description of each row for the error.

    Raises:
        DataError: A label is not allowed; the message names row, value and nearest class.
    """
    for row in (row for row, label in enumerate(labels) if label and label not in allowed):
        nearest = get_close_matches(labels[row], list(allowed), n=1, cutoff=0.0)[0]
        raise DataError(
            f"a label must be one of {rule}, but got {labels[row]!r} in {wheres[row]}; "
            f"the nearest class is {nearest!r}: correct the label or {rule}"
        )


def counted(labels: Sequence[str]) -> str:
    """Returns the count of each label as text, such as "mel 2, nv 5"."""
    return ", ".join(f"{label} {count}" for label, count in sorted(Counter(labels).items()))
