"""What a README shows of comparisons: a table a model, Lamella's figures and how they stand beside the best peer's."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cells import CELLS, Cell
from .entries import CLASSES, LAMELLA
from .models import MODELS
from .report import machine, place, table_row
from .results import Line, Results

_BLOCK = re.compile(r"(?P<begin><!-- peers: (?P<files>[^\n]*) -->\n).*?(?P<end><!-- end of peers -->)", re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One comparison. `page` is how a README links what it says in full."""

    page: str
    results: Results


def renewed(text: str, folder: Path) -> str:
    """A README's text with the tables of the files that it names, relative to `folder`, where it lies.

    It names them in `<!-- peers: A.json B.json -->`; the tables go from there to `<!-- end of peers -->`. A figure that
    several files have is the first's. Errors: `ValueError` where there is no such place; `OSError`.
    """
    place = _BLOCK.search(text)
    if place is None:
        raise ValueError("no place for tables: <!-- peers: FILES --> and <!-- end of peers -->")
    runs = []
    for name in place["files"].split():
        found = Results.from_json(json.loads((folder / name).read_text(encoding="utf-8")))
        runs.append(Run(str(Path(name).with_suffix(".md")), found))
    return text[: place.end("begin")] + tables(runs) + text[place.start("end") :]


def tables(runs: Sequence[Run]) -> str:
    """The tables of all models in the runs, and where they come from."""
    return "\n".join(line for part in (_tables(runs), _sources(runs)) for line in part) + "\n"


def _tables(runs: Sequence[Run]) -> Iterator[str]:
    for model in MODELS.values():
        figures = _figures(runs, model.name)
        cells = [cell for cell in CELLS.values() if any(cell.name in row for row in figures.values())]
        if not cells:
            continue
        unit = "" if model.is_encoder else ", tokens/s"
        yield table_row([model.name + unit, *(cell.title for cell in cells)])
        yield table_row(["---"] * (1 + len(cells)))
        for entry, row in figures.items():
            yield table_row([entry.removeprefix(f"{LAMELLA} "), *(row.get(cell.name, "") for cell in cells)])
        yield ""


def _figures(runs: Sequence[Run], model: str) -> dict[str, dict[str, str]]:
    """By Lamella's entry, class after class, and cell."""
    found: dict[str, dict[str, str]] = {}
    ours = [
        (run.results, line)
        for run in runs
        for line in run.results.lines
        if line.model == model and line.engine == LAMELLA
    ]
    for results, line in sorted(ours, key=lambda each: list(CLASSES).index(each[1].bits)):
        row = found.setdefault(line.entry, {})
        for cell in CELLS.values():
            rates = results.rates(line, cell)
            if rates and cell.name not in row:
                row[cell.name] = _figure(statistics.median(rates)) + _beside(results, line, cell)
    return {entry: row for entry, row in found.items() if row}


def _figure(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def _beside(results: Results, ours: Line, cell: Cell) -> str:
    best = results.best_peer(ours, cell)
    return "" if best is None else f" ({best[1]:.2f}x {best[0].engine})"


def _sources(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        models = ", ".join(dict.fromkeys(line.model for line in run.results.lines))
        bits = ", ".join(dict.fromkeys(line.bits for line in run.results.lines))
        yield f"- [{models}, {bits} bits]({run.page}): {place(run.results.about)}. {machine(run.results)}"
