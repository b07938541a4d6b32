"""Figures as files: PNG to look at, SVG, which is text, to keep beside the results."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def save(figure: Figure, paths: list[Path]) -> None:
    """Writes the figure in the format of each path's ending; the same figure gives the same SVG."""
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lamella"}):
        for path in paths:
            figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
