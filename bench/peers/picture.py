"""Tokens/s over the batch size, with the roofline drawn in: python -m peers.picture RESULTS.json OUT.png OUT.svg.

Runs in the environment of the peers, which has matplotlib. A row is a model, a column a class of weights.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .cells import BATCHED
from .entries import CLASSES, LAMELLA, MODULES
from .figure import save
from .results import Line, Results

_COLORS = dict(zip(MODULES, ("#c0392b", "#2a6fb0", "#e08e1b", "#3d9a50", "#8456a8", "#666666"), strict=True))


def draw(results: Results, paths: list[Path]) -> None:
    """Writes the figure, in the format of each path's ending."""
    models = results.drawn
    classes = [bits for bits in CLASSES if any(line.bits == bits and line.model in models for line in results.lines)]
    figure, axes = plt.subplots(
        len(models), len(classes), figsize=(4.2 * len(classes), 3.6 * len(models)), squeeze=False, layout="constrained"
    )
    for model, row in zip(models, axes, strict=True):
        for bits, ax in zip(classes, row, strict=True):
            _panel(results, model, bits, ax)
    save(figure, paths)


def _panel(results: Results, model: str, bits: str, ax: Axes) -> None:
    lines = [line for line in results.lines if (line.model, line.bits) == (model, bits)]
    for number, line in enumerate(lines):
        points = [(cell.batch, results.rates(line, cell)) for cell in BATCHED]
        shown = [(batch, statistics.median(rates)) for batch, rates in points if rates]
        if not shown:
            continue
        ours = line.engine == LAMELLA
        style = "-" if sum(other.engine == line.engine for other in lines[:number]) == 0 else "--"
        ax.plot(
            *zip(*shown, strict=True),
            style,
            marker="o" if ours else "s",
            markersize=5 if ours else 4,
            linewidth=2.4 if ours else 1.4,
            color=_COLORS[line.engine],
            label=line.entry,
            zorder=3 if ours else 2,
        )
        if ours:
            _roof(results, line, ax)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks([cell.batch for cell in BATCHED], [str(cell.batch) for cell in BATCHED])
    ax.set_title(f"{model}, {CLASSES[bits]}", fontsize=10)
    ax.set_xlabel("sequences")
    ax.set_ylabel("tokens/s, all sequences")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7)


def _roof(results: Results, ours: Line, ax: Axes) -> None:
    """The most tokens/s that reading Lamella's bytes and computing its operations allow, op by op (`Results.least_s`),
    by the median reading."""
    reads = [s.read_bytes_s for s in results.samples if s.model == ours.model and s.is_steady and s.read_bytes_s]
    measured = [cell for cell in BATCHED if cell.name in ours.work]
    if not reads or not measured:
        return
    read, first = statistics.median(reads), measured[0]
    batches = [2 ** (exponent / 4) for exponent in range(21)]
    least = [results.least_s(ours, first, read, batch / first.batch) for batch in batches]
    if None in least:
        return
    ax.plot(
        batches,
        [batch / least_s for batch, least_s in zip(batches, least, strict=True)],
        ":",
        color="black",
        linewidth=1,
        label=f"roof of {ours.entry}",
        zorder=1,
    )


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    draw(Results.from_json(found), [Path(name) for name in sys.argv[2:]])
