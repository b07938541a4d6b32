"""Where results go: a JSON file, a page, and a picture in two formats, side by side."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lamella import _core

from .options import public

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_BENCH = Path(__file__).parents[1]


def origin_of(script: str, words: Sequence[str], threads: int) -> dict[str, object]:
    """When, where and by which command: `Results.about`."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=_BENCH, capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "date": str(datetime.date.today()),
        "commit": commit,
        "processor": _core.processor_name(),
        "threads": threads,
        "command": shlex.join(["python", script, *public(words)]),
    }


def write(results: DataclassInstance, page: str, stem: Path) -> None:
    """The JSON and the page of what was found so far."""
    data = json.dumps(dataclasses.asdict(results), indent=1) + "\n"
    stem.with_name(stem.name + ".json").write_text(data, encoding="utf-8")
    stem.with_name(stem.name + ".md").write_text(page, encoding="utf-8")


def draw(python: Path, module: str, stem: Path) -> None:
    """The picture of the JSON as PNG and SVG, by a module that runs where matplotlib is.

    Errors: `subprocess.CalledProcessError`.
    """
    files = [str(stem.with_name(stem.name + ending)) for ending in (".json", ".png", ".svg")]
    environment = {**os.environ, "PYTHONPATH": str(_BENCH)}
    subprocess.run([str(python), "-m", module, *files], check=True, env=environment)
