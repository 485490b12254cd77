"""Which role a part of a dataset has, as the name of its folder or file tells."""

import re
from collections.abc import Sequence

from raysk.errors import DataError

# A validation part is for raysk's own folds to divide; only a test part stays locked away.
PART_ROLES = {
    "train": "train", "training": "train", "validation": "train", "valid": "train", "val": "train", "dev": "train",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def are_parts(names: Sequence[str]) -> bool:
    """Whether folders of these names are the parts of a dataset, and not its classes."""
    whole = [name for name in names if name.casefold() in PART_ROLES]
    return bool(whole) or (bool(names) and all(role_of(name) for name in names))


def role_of(name: str) -> str | None:
    """Returns the role that a word of the name tells, as in "ham-train" and "my_test"; None where none does.

    Raises:
        DataError: The name tells two.
    """
    words = [word.casefold() for word in _WORD.findall(name)]
    roles = {PART_ROLES[word] for word in words if word in PART_ROLES}
    if len(roles) > 1:
        raise DataError(f"a part's name must say train or test, but {name!r} says both: rename it")
    return next(iter(roles), None)
