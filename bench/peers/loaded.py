"""What bench/loading.py found, and its page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .report import origin, spread, table_row

#: What a process may hold beside weights and KV cache: the interpreter, its libraries, activations.
ALLOWED_BYTES = 200_000_000
#: The least part of the plain loop's speed.
LEAST_SHARE = 0.8


@dataclass(frozen=True)
class Round:
    """One turn of everything, seconds: the plain loop by its threads, and the engine with what it then held, bytes."""

    plain_s: Mapping[int, float]
    load_s: float
    peak_bytes: int
    before_bytes: int  # with the libraries, before the model is opened


@dataclass(frozen=True)
class Loading:
    """A model's files in one state of the page cache. `weight_bytes`: in memory, as they are stored there."""

    name: str
    cache: str
    file_bytes: int
    weight_bytes: int
    kv_bytes: int  # that the prompt and the results filled
    rounds: Sequence[Round]

    def share(self, threads: int) -> float:
        """The engine's speed over the plain loop's, the median of the rounds."""
        return statistics.median(each.plain_s[threads] / each.load_s for each in self.rounds)

    @property
    def excess_bytes(self) -> int:
        """What the peak holds beside weights and KV cache; the most of the rounds."""
        return max(each.peak_bytes for each in self.rounds) - self.weight_bytes - self.kv_bytes


@dataclass(frozen=True)
class Loadings:
    """All of a run."""

    about: Mapping[str, Any]
    context: int
    loadings: Sequence[Loading]


def report(found: Loadings) -> str:
    """The page, in Markdown."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Loadings) -> Iterator[str]:
    yield "# What loading costs: time and memory\n"
    yield origin(found.about) + "\n"
    yield (
        "Every loading is a process of its own, in turns with a plain loop that preads the same files, 4 MiB at a "
        "time, into as many new pages (huge ones, as the engine's). Warm: the files are in the page cache. Cold: they "
        "were dropped from it; what lies below this system may still keep them. As many pages were touched and given "
        "back just before each, so that none has to come from the host. Seconds, median (least-most). The "
        f"share is the engine's speed over the loop's, the median of the rounds; the goal is {LEAST_SHARE} of a loop "
        "on one thread.\n"
    )
    loops = sorted({threads for each in found.loadings for one in each.rounds for threads in one.plain_s})
    heads = ["", "files, GB", "cache", "engine, s"]
    for threads in loops:
        heads += [f"loop, {_threads(threads)}, s", "share"]
    yield table_row(heads)
    yield table_row(["---"] * len(heads))
    for each in found.loadings:
        row = [
            each.name,
            f"{each.file_bytes / 1e9:.2f}",
            each.cache,
            spread([one.load_s for one in each.rounds], ".2f"),
        ]
        for threads in loops:
            row += [spread([one.plain_s[threads] for one in each.rounds], ".2f"), f"{each.share(threads):.2f}"]
        yield table_row(row)
    yield (
        "\nMB: the largest resident size (VmHWM) once a prompt and its results have filled a context of "
        f"{found.context} tokens, the most of the rounds; the goal is at most {ALLOWED_BYTES / 1e6:.0f} beside weights "
        "and KV cache.\n"
    )
    yield table_row(["", "cache", "peak", "weights", "KV cache", "beside them", "of that before the model"])
    yield table_row(["---"] * 7)
    for each in found.loadings:
        peak, before = (
            max(values) for values in zip(*((one.peak_bytes, one.before_bytes) for one in each.rounds), strict=True)
        )
        sizes = (peak, each.weight_bytes, each.kv_bytes, each.excess_bytes, before)
        yield table_row([each.name, each.cache, *(f"{size / 1e6:.0f}" for size in sizes)])


def _threads(count: int) -> str:
    return f"{count} thread" + "s" * (count > 1)
