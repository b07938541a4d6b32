"""One engine in a process of its own: python -m peers.worker MODULE THREADS. It answers over `pipe`:

{"open": JOB, "encoder": bool}       opens the model          -> load_s, version
{"cell": CELL, "vocab": n, "seed": s}  runs a cell            -> first_s, decode_s (an encoder: first_s)
{"hidden": tokens, "vocab": n}       encodes one fixed input  -> hidden, (tokens, hidden)
{"work": CELL}                       of Lamella               -> work: of a step that the cell times (`results.Line`)
{"peak": true}                       the largest resident size until now -> peak_bytes
"""

from __future__ import annotations

import importlib
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from .engine import Job
from .pipe import serve

_LEAST_S = 0.3


class Worker:
    """The engine of one module, and what it is asked."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._engine: Any = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """See the module."""
        if "open" in question:
            reply = self._open(Job(**question["open"]), question["encoder"])
        elif "cell" in question:
            reply = self._run(question["cell"], question["vocab"], question["seed"])
        elif "hidden" in question:
            found = self._engine.encode(_ids(1, question["hidden"], question["vocab"], seed="hidden"))
            reply = {"hidden": [[float(value) for value in row] for row in found[0]]}
        elif "peak" in question:
            reply = {"peak_bytes": peak_bytes()}
        else:
            cell = question["work"]
            steps, tokens = cell["steps"], cell["prompt_tokens"]
            # The middle step of the decode phase stands for all: the KV cache grows by a token a step.
            new, context = (1, tokens + (1 + steps) // 2) if steps else (tokens, tokens)
            reply = {"work": self._engine.work(cell["batch"], new, context)}
        return reply

    def _open(self, job: Job, encoder: bool) -> dict[str, Any]:
        module = importlib.import_module(f"{__package__}.{self._module}")
        kind = module.Encoder if encoder and hasattr(module, "Encoder") else module.Engine
        started = time.perf_counter()
        self._engine = kind(job)
        return {"load_s": time.perf_counter() - started, "version": module.VERSION}

    def _run(self, cell: dict[str, Any], vocab: int, seed: str) -> dict[str, Any]:
        """One run of a decode cell; of the others, which may take milliseconds, the median of what fills _LEAST_S."""
        times: list[tuple[float, float]] = []
        started = time.perf_counter()
        while not times or (cell["kind"] != "decode" and time.perf_counter() - started < _LEAST_S):
            prompts = _ids(cell["batch"], cell["prompt_tokens"], vocab, f"{seed} {len(times)}")
            times.append(self._time(prompts, cell["kind"], cell["steps"]))
        first_s, decode_s = (statistics.median(part) for part in zip(*times, strict=True))
        return {"first_s": first_s, "decode_s": decode_s}

    def _time(self, prompts: list[list[int]], kind: str, steps: int) -> tuple[float, float]:
        if kind != "encode":
            timing = self._engine.generate(prompts, steps)
            return timing.first_s, timing.decode_s
        started = time.perf_counter()
        self._engine.encode(prompts)
        return time.perf_counter() - started, 0.0


def _ids(batch: int, tokens: int, vocab: int, seed: str) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(vocab) for _ in range(tokens)] for _ in range(batch)]


def peak_bytes() -> int:
    """The largest resident size that this process has had."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _keep_to_cores(threads: int) -> None:
    """The same cores for every engine: the first `threads` of those that this process may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _be_killed_first() -> None:
    """Where memory runs out, before anything else on this machine."""
    Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    _be_killed_first()
    _keep_to_cores(int(sys.argv[2]))
    serve(Worker(sys.argv[1]).answer)
