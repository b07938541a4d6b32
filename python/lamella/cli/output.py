"""How things are shown on standard output: JSON, units, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# Control characters of generated text could steer a terminal; line feeds and tabs may pass.
_CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output, in ASCII, so that any reader can take it."""
    print(json.dumps(value, allow_nan=False))


def print_piece(text: str) -> None:
    """A piece of generated text, shown at once."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def one_line(text: str) -> str:
    """Text out of a file, as one line that steers no terminal."""
    return " ".join(text.translate(_CONTROLS).split())


def seconds_text(seconds: float | None) -> str:
    """0.00123 -> 1.23 ms; a dash for what was not measured."""
    if seconds is None:
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds / scale < 1000 else f"{seconds / scale:.0f} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def quantity_text(number: float) -> str:
    """134515008 -> 135 M."""
    for scale, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:.0f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Columns under `header`, the first `left` of them to the left, the numbers behind them to the right."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    return "\n".join(line(cells) for cells in (header, *rows))
