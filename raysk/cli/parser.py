"""A command-line parser whose errors name the nearest known word."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that answers a mistyped command, option or choice with the nearest known one."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the words; the namespace also has the `parser` of the chosen command."""
        self._words = sys.argv[1:] if args is None else list(args)
        known, unknown = super().parse_known_args(args, namespace)
        if not hasattr(known, "parser"):
            known.parser = self
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Prints the usage and the error, and exits with status 2.

        A mistyped option is the error, rather than the required one that is missing for it.
        """
        for name in self.unknown_options():
            options = [option for option in self._option_string_actions if option.startswith("--")]
            message = f"an option must be one that {self.prog} has, but got {name}: {_remedy(name, options)}"
            break
        super().error(message)

    def unknown_options(self) -> list[str]:
        """Returns the typed options that this parser does not have; those of a command are not its own."""
        words = takewhile(lambda word: word != "--", self._words)
        if self._subparsers is not None:
            words = takewhile(lambda word: word.startswith("-"), words)
        # A dash and a letter is a short option, and a dash and a digit a number; `-trials` is meant as `--trials`.
        names = [word.partition("=")[0] for word in words if re.match("--|-[a-z]{2}", word)]
        known = list(self._option_string_actions)
        return [
            name
            for name in names
            if name not in known and not (self.allow_abbrev and any(option.startswith(name) for option in known))
        ]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        noun = "/".join(action.option_strings) or str(action.metavar or action.dest)
        known = [str(choice) for choice in action.choices]
        raise argparse.ArgumentError(
            None, f"{noun} must be one of {', '.join(known)}, but got {value}: {_remedy(str(value), known)}"
        )


def _remedy(word: str, known: Iterable[str]) -> str:
    nearest = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {nearest[0]}?" if nearest else "--help lists them"
