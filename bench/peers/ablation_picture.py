"""The bars of figure 10(a), by step and batch size: python -m peers.ablation_picture RESULTS.json OUT.png OUT.svg.

Runs where matplotlib is. A panel is a model in one format; whiskers reach from the least to the most of the rounds, and
a line says how long reading the weights alone takes at the bandwidth that was measured beside.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .ablation_report import cells_of, short_name, step_times
from .entries import LAMELLA
from .figure import save
from .results import Line, Results

_TORCH_COLOR = "#8a8a8a"
_COLORS = ("#e08e1b", "#2a6fb0", "#c0392b")  # of Lamella's steps
_WIDTH = 0.8  # of a batch size's bars together


def draw(results: Results, paths: list[Path]) -> None:
    """Writes the figure, in the format of each path's ending."""
    panels: dict[tuple[str, str], list[Line]] = {}
    for line in results.lines:
        panels.setdefault((line.model, line.bits), []).append(line)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1.2 + 4.6 * len(panels), 3.8), squeeze=False, layout="constrained"
    )
    for ((model, name), lines), ax in zip(panels.items(), axes[0], strict=True):
        ax.set_title(f"{model}, {name}", fontsize=10)
        _panel(results, sorted(lines, key=lambda line: line.engine == LAMELLA), ax)
    save(figure, paths)


def _panel(results: Results, lines: Sequence[Line], ax: Axes) -> None:
    cells = cells_of(results)
    each, steps = _WIDTH / len(lines), 0
    for number, line in enumerate(lines):
        color = _TORCH_COLOR
        if line.engine == LAMELLA:
            color = _COLORS[steps % len(_COLORS)]
            steps += 1
        found = [(place, times) for place, cell in enumerate(cells) if (times := step_times(results, line, cell))]
        middles = [statistics.median(times) for _, times in found]
        ax.bar(
            [place + (number + 0.5) * each - _WIDTH / 2 for place, _ in found],
            middles,
            each,
            color=color,
            label=short_name(line),
            yerr=[
                [middle - min(times) for middle, (_, times) in zip(middles, found, strict=True)],
                [max(times) - middle for middle, (_, times) in zip(middles, found, strict=True)],
            ],
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
        )
    _floor(results, lines[-1], ax)
    ax.set_xticks(range(len(cells)), [str(cell.batch) for cell in cells])
    ax.set_xlabel("sequences")
    ax.set_ylabel("ms a token")
    ax.grid(axis="y", alpha=0.25)
    ax.set_axisbelow(True)
    ax.set_ylim(top=1.35 * ax.get_ylim()[1])  # room for the legend
    ax.legend(fontsize=7, loc="upper left", ncols=2)


def _floor(results: Results, line: Line, ax: Axes) -> None:
    """The least time of a step that reads the weights."""
    reads = [s.read_bytes_s for s in results.samples if s.model == line.model and s.is_steady and s.read_bytes_s]
    if reads and line.work:
        least_s = min(work["bytes"] for work in line.work.values()) / statistics.median(reads)
        ax.axhline(1e3 * least_s, color="black", linestyle=":", linewidth=1, label="reading the weights")


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    draw(Results.from_json(found), [Path(name) for name in sys.argv[2:]])
