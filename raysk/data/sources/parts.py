"""The role of a part of a dataset, from the name of its folder or file."""

import re
from collections.abc import Sequence

from raysk.errors import DataError

# raysk divides a validation part into its own folds; only a test part stays locked.
PART_ROLES = {
    "train": "train", "training": "train", "validation": "train", "valid": "train", "val": "train", "dev": "train",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def are_parts(names: Sequence[str]) -> bool:
    """Returns whether folders with these names are the parts of a dataset rather than its classes."""
    whole = [name for name in names if name.casefold() in PART_ROLES]
    return bool(whole) or (bool(names) and all(role_of(name) for name in names))


def role_of(name: str) -> str | None:
    """Returns the role in a name such as "ham-train" or "my_test"; None if it has none.

    Raises:
        DataError: The name has two roles.
    """
    words = [word.casefold() for word in _WORD.findall(name)]
    roles = {PART_ROLES[word] for word in words if word in PART_ROLES}
    if len(roles) > 1:
        raise DataError(f"a part's name must say train or test, but {name!r} says both: rename it")
    return next(iter(roles), None)
