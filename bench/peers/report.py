"""The page, in Markdown: by model and class every engine's figures, and Lamella's beside the best peer's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .cells import CELLS, Cell
from .entries import ABSENT, CLASSES, LAMELLA
from .models import MODELS
from .results import Line, Results

#: Batches up to this read weights at the memory's speed; beyond it arithmetic bounds, as it does in prompts.
MOST_BATCH_BOUND_BY_READS = 8


def report(results: Results, picture: str | None = None) -> str:
    """The whole page. `picture`: the file name of the PNG to show."""
    return "\n".join([*_head(results), *_body(results), *_foot(results, picture)]) + "\n"


def _head(results: Results) -> Iterator[str]:
    yield "# Lamella and its peers on the CPU\n"
    yield origin(results.about) + "\n"
    yield (
        "Tokens/s (encoders: ms), medians over the rounds in which the machine stayed the same; decoding counts all "
        "sequences of a batch, after prompts of 16 random tokens. The engines of a class ran in turns. A ratio is the "
        "median over the rounds where both saw one state of the machine. The peak of memory is that of loading and of "
        "all cells, with what an engine keeps of earlier prompts. A roof is the least time of a step's ops, one after "
        "the other: the longer of an op's weights and KV cache at the read bandwidth and of its operations at its "
        "arithmetic's peak; beside it how many times the best peer's rate it is."
    )
    yield "\n" + machine(results) + "\n"


def origin(about: Mapping[str, Any]) -> str:
    """When, where and by which command (`output.origin_of`)."""
    return f"{place(about)}. `{about['command']}`"


def place(about: Mapping[str, Any]) -> str:
    """When and where."""
    return f"{about['date']}, commit {about['commit']}, {about['processor']}, {about['threads']} threads"


def machine(results: Results) -> str:
    """What the machine could do meanwhile, and how often it stayed the same."""
    readings = [reading for sample in results.samples for reading in (sample.before, sample.after)]
    reads = [reading.read_bytes_s / 1e9 for reading in readings if reading.read_bytes_s]
    latencies = [reading.latency_s * 1e9 for reading in readings if reading.latency_s]
    parts = []
    if reads:
        parts.append(f"Reads {spread(reads, '.0f')} GB/s")
    if latencies:
        parts.append(f"core to core {spread(latencies, '.0f')} ns")
    names = {"f32": "fp32", "bf16": "bf16", "int8": "int8"}
    parts += [f"{names[kind]} {peak / 1e9:.0f} Gop/s" for kind, peak in results.peaks.items()]
    steady = sum(sample.is_steady for sample in results.samples)
    parts.append(f"{steady} of {len(results.samples)} measurements with a steady machine")
    return ", ".join(parts) + "."


def _body(results: Results) -> Iterator[str]:
    for model in dict.fromkeys(line.model for line in results.lines):
        yield f"## {model}\n"
        for bits, title in CLASSES.items():
            lines = [line for line in results.lines if (line.model, line.bits) == (model, bits)]
            if lines:
                yield from _class_table(results, lines, title)
                yield ""


def _class_table(results: Results, lines: Sequence[Line], title: str) -> Iterator[str]:
    cells = [cell for cell in CELLS.values() if any(results.rates(line, cell) for line in lines)]
    encoder = MODELS[lines[0].model].is_encoder
    heads = [title, *(cell.title for cell in cells), "load, s", "peak, GB", *(["error"] if encoder else [])]
    yield table_row(heads)
    yield table_row(["---"] * len(heads))
    for line in lines:
        name = f"**{line.entry}**" if line.engine == LAMELLA else line.entry
        own = [f"{line.load_s:.1f}", f"{line.peak_bytes / 1e9:.1f}"]
        if encoder:
            own.append("" if line.error is None else f"{line.error:.1e}")
        yield table_row([name, *(_rate(results.rates(line, cell)) for cell in cells), *own])
    for line in lines:
        if line.engine == LAMELLA:
            yield from _comparison(results, line, cells, len(heads))


def _comparison(results: Results, ours: Line, cells: Sequence[Cell], columns: int) -> Iterator[str]:
    def row(name: str, show: Callable[[Cell], str]) -> str:
        found = [show(cell) for cell in cells]
        return table_row([name, *found, *[""] * (columns - 1 - len(found))])

    def ratio(cell: Cell) -> str:
        best = results.best_peer(ours, cell)
        return "" if best is None else f"{best[1]:.2f}x {best[0].engine}"

    def roof(cell: Cell) -> str:
        share, best = results.share_of_roof(ours, cell), results.best_peer(ours, cell)
        beside = None if best is None else results.roof_beside(ours, best[0], cell)
        at = "" if best is None or beside is None else f", at {beside:.2f}x {best[0].engine}"
        return "" if share is None else f"{share:.2f}{at}"

    yield row(f"{ours.entry} / best peer", ratio)
    yield row(f"{ours.entry}, share of reads or peak", lambda cell: _share(results, ours, cell))
    if any(roof(cell) for cell in cells):
        yield row(f"{ours.entry}, share of its roof", roof)


def _share(results: Results, ours: Line, cell: Cell) -> str:
    if cell.kind == "decode" and cell.batch <= MOST_BATCH_BOUND_BY_READS:
        share, of = results.share_of_read(ours, cell), "reads"
    else:
        share, of = results.share_of_peak(ours, cell), "peak"
    return "" if share is None else f"{share:.2f} of {of}"


def _foot(results: Results, picture: str | None) -> Iterator[str]:
    if picture and results.drawn:
        yield f"![Tokens/s over the batch size, with the roofline]({picture})\n"
    versions = dict.fromkeys(f"{line.engine} {line.version}" for line in results.lines)
    yield "Versions: " + ", ".join(versions) + ".\n"
    engines = {line.engine for line in results.lines}
    yield "What is not there:\n"
    yield from (f"- {engine}: {why}." for engine, why in ABSENT.items() if engine in engines)
    yield from (f"- {note}" for note in results.notes)


def _rate(rates: Sequence[float]) -> str:
    if not rates:
        return ""
    digits = ".0f" if statistics.median(rates) >= 100 else ".1f"
    return spread(rates, digits)


def spread(values: Sequence[float], digits: str) -> str:
    """Median (least-most)."""
    return f"{statistics.median(values):{digits}} ({min(values):{digits}}-{max(values):{digits}})"


def table_row(fields: Sequence[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(fields) + " |"
