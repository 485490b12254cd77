"""Registries: the parts that a recipe can name."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from raysk.errors import ConfigError

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: list[str]) -> ConfigError:
    """Returns the error for an unknown name, with the nearest known names.

    Args:
        kind: What the name denotes, such as "loss".
        name: The unknown name.
        known: The valid names.
    """
    nearest = get_close_matches(name, known, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(sorted(known))}"
    return ConfigError(f"{kind} must be a known name, but got {name!r}; {remedy}")


def import_modules(package: str, folders: Iterable[str]) -> None:
    """Imports every module of a package, so that their parts register; a new file needs no entry elsewhere.

    Args:
        package: The `__name__` of the package.
        folders: The `__path__` of the package.
    """
    for module in pkgutil.iter_modules(folders):
        importlib.import_module(f"{package}.{module.name}")


class Registry(Generic[T]):
    """A family of parts, each under one name.

    Args:
        kind: The noun of the family, for error messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._members: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Returns a decorator that registers an object under `name`."""

        def register_member(member: T) -> T:
            if name in self._members:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._members[name] = member
            return member

        return register_member

    def __getitem__(self, name: str) -> T:
        """Returns the member called `name`.

        Raises:
            ConfigError: No member has that name; the message shows the nearest names.
        """
        if name not in self._members:
            raise unknown_name(self.kind, name, list(self._members))
        return self._members[name]

    def name_of(self, member: T) -> str:
        """Returns the name under which `member` is registered."""
        return next(name for name, registered in self._members.items() if registered is member)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._members))
