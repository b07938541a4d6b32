"""argparse with errors as exceptions, no abbreviations, and the nearest option for one that does not exist."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import NoReturn

from lamella.errors import InvalidArgumentError


class UsageError(InvalidArgumentError):
    """A command line that cannot be understood. `command` is what `--help` may be asked of."""

    def __init__(self, message: str, command: str) -> None:
        super().__init__(message)
        self.command = command


class Parser(argparse.ArgumentParser):
    """The arguments of one command."""

    def __init__(self, prog: str, summary: str, details: str) -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} [MODEL] [options]",
            description=f"{summary}\n\n{details}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments. Errors: `UsageError`, which names the nearest option for an unknown one."""
        args, extra = self.parse_known_args(arguments)
        for word in extra:
            if word.startswith("-"):
                name = word.partition("=")[0]
                hint = nearest(name, self._option_string_actions)
                self.error(f"unknown option {name[:64]}{f'; {hint}' if hint else ''}")
        if extra:
            self.error(f"unexpected argument {extra[0][:64]!r}")
        return args

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.prog)


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean ...?' for a name that is close to a known one, else ''."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    return _whole(text, 1, 2**31 - 1)


def natural(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    return _whole(text, 0, 2**63 - 1)


def _whole(text: str, least: int, most: int) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text[:64]!r}")
    return number


def token_ids(text: str) -> list[int]:
    """Token ids written as 5,6,7, for argparse. Empty text is no ids."""
    try:
        return [int(word) for word in text.split(",")] if text.strip() else []
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected token ids such as 5,6,7, got {text[:64]!r}") from None


def token_numbers(text: str) -> list[tuple[int, float]]:
    """Token ids and numbers written as 5:1.5,6:-inf, for argparse. Empty text is none."""
    try:
        pairs = [word.split(":") for word in text.split(",")] if text.strip() else []
        return [(int(id), float(number)) for id, number in pairs]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected ids and numbers such as 5:1.5,6:-2, got {text[:64]!r}") from None
