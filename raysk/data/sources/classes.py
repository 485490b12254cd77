"""Class names: one usual name for each class, whatever its name in a collection."""

from collections import Counter
from collections.abc import Collection as Names
from collections.abc import Sequence
from difflib import get_close_matches

from raysk.data.sources.settings import DataSettings
from raysk.errors import DataError

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
_BY_SYNONYM = {synonym: name for name, synonyms in USUAL_NAMES.items() for synonym in (name, *synonyms)}


def usual_name(label: str) -> str:
    """Returns the usual name of a class; an unknown class keeps its name in lower case."""
    folded = label.casefold().replace("_", " ").replace("-", " ")
    return _BY_SYNONYM.get(folded, label.casefold())


def mapped_labels(labels: Sequence[str], settings: DataSettings, origin: str) -> list[str | None]:
    """Renames the labels as the settings define; None for a row to leave out.

    Raises:
        DataError: The class map names a class that does not occur.
    """
    if settings.classes_map is None:
        return [usual_name(label) for label in labels] if settings.map == "usual" else list(labels)
    pairs = settings.classes_map.to_plain()
    occurring = sorted(set(labels))
    for name in pairs:
        if name not in occurring:
            nearest = get_close_matches(name, occurring, n=len(occurring), cutoff=0.0)
            raise DataError(
                f"data.classes_map must map classes of {origin}, but got {name!r}; classes, nearest first: "
                f"{', '.join(nearest)}"
            )
    if settings.map == "usual":
        return [pairs.get(label) or usual_name(label) for label in labels]
    return [pairs.get(label) for label in labels]


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
