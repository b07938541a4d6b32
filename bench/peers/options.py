"""The command line of the comparison."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from .cells import CELLS
from .entries import CLASSES, LAMELLA, MODULES
from .models import MODELS

Chosen = TypeVar("Chosen")
_PRIVATE = ("--work", "--guard", "--output")  # of this machine alone: not for a report


def parse(description: str, cores: int, words: list[str] | None = None) -> argparse.Namespace:
    """The options, with objects of `MODELS` and `CELLS` in place of their names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = {engine: engine for engine in MODULES if engine != LAMELLA}
    for flag, known, what in (
        ("--models", MODELS, "models"),
        ("--peers", peers, "peers beside Lamella"),
        ("--classes", {bits: bits for bits in CLASSES}, "classes of weights, in bits"),
        ("--cells", CELLS, "workloads"),
    ):
        names = ",".join(known)
        parser.add_argument(
            flag, type=some_of(known), default=list(known.values()), metavar="A,B", help=f"{what}; default: {names}"
        )
    add_common(parser, cores)
    parser.add_argument("--list", action="store_true", help="what there is to choose, then end")
    return parse_checked(parser, cores, words)


def add_common(parser: argparse.ArgumentParser, cores: int) -> None:
    """Rounds, threads, and where what lies: as every comparison has them."""
    parser.add_argument("--repeat", type=positive, default=5, metavar="N", help="rounds to compare; default: 5")
    parser.add_argument(
        "--threads", type=positive, default=min(2, cores), metavar="N", help="of every engine; default: 2"
    )
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    work = cache / "lamella" / "cpu-peers"
    parser.add_argument("--work", type=Path, default=work, help=f"where peers and models lie; default: {work}")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="STEM",
        help="write STEM.md, STEM.json and pictures, STEM.png and STEM.svg; default: WORK/last",
    )
    parser.add_argument(
        "--guard",
        metavar="COMMAND",
        help="runs while a measurement does: it prints a line when that may begin, and ends when its input does; for "
        "machines that others use, for example: flock /tmp/bench.lock sh -c 'echo go; cat'",
    )


def parse_checked(parser: argparse.ArgumentParser, cores: int, words: list[str] | None) -> argparse.Namespace:
    """The options, of which the threads fit the machine."""
    args = parser.parse_args(words)
    if args.threads > cores:
        parser.error(f"--threads is {args.threads}; this process may use {cores} cores")
    return args


def public(words: Iterable[str]) -> list[str]:
    """The words of a command line without options that tell of this machine alone."""
    shown, skip = [], False
    for word in words:
        private = word.partition("=")[0] in _PRIVATE
        if not skip and not private:
            shown.append(word)
        skip = word in _PRIVATE and not skip
    return shown


def some_of(known: Mapping[str, Chosen]) -> Callable[[str], list[Chosen]]:
    """The type of an option that names some of what there is, in its order."""

    def chosen(text: str) -> list[Chosen]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not among {', '.join(known)}")
        return [known[name] for name in dict.fromkeys(text.split(","))]

    return chosen


def positive(text: str) -> int:
    """The type of an option that counts."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
