"""The page of bench/ablation.py, in Markdown: the time of a generated token by step and batch size, as figure 10(a)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from .ablated import FORMATS
from .cells import Cell, cell_named
from .entries import LAMELLA
from .models import MODELS
from .report import machine, origin, spread, table_row
from .results import Line, Results


def report(results: Results, picture: str | None = None) -> str:
    """The whole page. `picture`: the file name of the PNG to show."""
    return "\n".join([*_head(results), *_body(results), *_foot(results, picture)]) + "\n"


def cells_of(results: Results) -> list[Cell]:
    """What was measured, by batch size."""
    names = dict.fromkeys(sample.cell for sample in results.samples)
    return sorted(map(cell_named, names), key=lambda cell: cell.batch)


def step_times(results: Results, line: Line, cell: Cell) -> list[float]:
    """Milliseconds in which every sequence gets a token, of the steady measurements."""
    return [1e3 * sample.seconds / cell.steps(MODELS[line.model]) for sample in results.of(line, cell)]


def _head(results: Results) -> Iterator[str]:
    yield "# From unfused PyTorch to Deep-Fusion with SBI-GeMM, on the CPU\n"
    yield origin(results.about) + "\n"
    yield (
        "The paper's figure 10(a): milliseconds of a decode step, in which every sequence gets a token, after prompts "
        "of 16 random tokens; median (least-most) over the rounds in which the machine stayed the same. All had turns "
        "in one run, with random weights of one shape. The blocked GeMM is Lamella's own for many tokens, on the same "
        "packed weights, and gives the same bits. SBI-GeMM is for few tokens: where a batch is beyond its register "
        "tile, both rows run the blocked one; `lamella explain` names what runs. A ratio is that of speeds, the median "
        "over the rounds where both saw one state of the machine."
    )
    yield "\n" + machine(results) + "\n"


def _body(results: Results) -> Iterator[str]:
    for model in dict.fromkeys(line.model for line in results.lines):
        for name in FORMATS:
            if lines := [line for line in results.lines if (line.model, line.bits) == (model, name)]:
                yield f"## {model}, {name}\n"
                yield from _table(results, lines)
                yield ""


def _table(results: Results, lines: Sequence[Line]) -> Iterator[str]:
    cells = cells_of(results)
    yield table_row([f"ms a token, {lines[0].bits}", *(cell.title for cell in cells)])
    yield table_row(["---"] * (1 + len(cells)))
    ordered = sorted(lines, key=lambda line: line.engine == LAMELLA)  # torch, then Lamella's steps in their order
    for line in ordered:
        times = [step_times(results, line, cell) for cell in cells]
        yield table_row([short_name(line), *(spread(own, ".1f") if own else "" for own in times)])
    pairs = list(itertools.pairwise(ordered))
    for before, after in pairs:
        yield _ratios(results, before, after, cells)
    if len(pairs) > 1:
        yield _ratios(results, ordered[0], ordered[-1], cells)
    for line in ordered:
        if line.engine == LAMELLA:
            shares = [results.share_of_read(line, cell) for cell in cells]
            shown = ["" if share is None else f"{share:.2f}" for share in shares]
            yield table_row([f"{short_name(line)}: share of the read bandwidth", *shown])


def _ratios(results: Results, before: Line, after: Line, cells: Sequence[Cell]) -> str:
    found = [results.ratio(after, before, cell) for cell in cells]
    shown = ["" if ratio is None else f"{ratio:.2f}x" for ratio in found]
    return table_row([f"{short_name(after)}, against {short_name(before)}", *shown])


def short_name(line: Line) -> str:
    """What the line is, where its format stands above it."""
    text = line.entry.removeprefix(f"{line.engine} ").removeprefix(f"{line.bits}: ")
    return text if line.engine == LAMELLA else f"torch, {text}"


def _foot(results: Results, picture: str | None) -> Iterator[str]:
    if picture:
        yield f"![Time of a token by step and batch size]({picture})\n"
    versions = dict.fromkeys(f"{line.engine} {line.version}" for line in results.lines)
    yield "Versions: " + ", ".join(versions) + ".\n"
    yield from (f"- {note}" for note in results.notes)
