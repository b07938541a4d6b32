"""What the engine's loop costs beside the model's own ops.

A decode step's time outside the executor is all else that the loop does for it: scheduling, the step's input, choosing
tokens, telling callers. Throughput is that of the whole run, prompts included, from the submission to the last token,
against the same steps run back to back with nothing in between: the executor's share of that time.

    python bench/engine_overhead.py MODEL [--repeat 5]
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from typing import Any

import lamella

PROMPT, NEW = 64, 64
CASES: Sequence[tuple[str, dict[str, Any]]] = (
    ("greedy", {}),
    ("temperature 0.8", {"temperature": 0.8, "top_k": 0, "top_p": 1.0}),
    ("temperature 0.8, top_k 50", {"temperature": 0.8, "top_k": 50, "top_p": 1.0}),
    ("temperature 0.8, top_p 0.95", {"temperature": 0.8, "top_k": 0, "top_p": 0.95}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    print(f"{'sequences':>9}  {'sampling':<28} {'ms a step':>22} {'outside, %':>18} {'outside, us':>11} throughput")
    for batch in (1, 64):
        with lamella.Engine(args.model, max_num_seqs=batch, max_model_len=256) as engine:
            for name, sampling in CASES:
                runs = [run(engine, batch, sampling) for _ in range(args.repeat)]
                step, outside, throughput = zip(*runs, strict=True)
                shares = [100 * own / whole for own, whole in zip(outside, step, strict=True)]
                print(
                    f"{batch:>9}  {name:<28} {spread([1e3 * s for s in step]):>22} {spread(shares):>18} "
                    f"{1e6 * statistics.median(outside):>11.0f} {spread(throughput)}"
                )


def run(engine: lamella.Engine, batch: int, sampling: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds of a decode step of the loop, of that outside the executor, and the executor's share of the whole run."""
    vocab = engine.core.spec.vocab
    prompts = [[random.randrange(vocab) for _ in range(PROMPT)] for _ in range(batch)]
    client = engine.core.client()
    params = lamella._core.SamplingParams(max_tokens=NEW, seed=random.randrange(2**32), **sampling)
    first = engine.core.stats()
    times: dict[int, list[float]] = {
        id: [] for id in client.submit([lamella._core.Request(prompt, params) for prompt in prompts])
    }

    def listen(tokens: int) -> Any:
        while client.open and min(map(len, times.values())) < tokens:
            for progress in client.wait(1.0):
                times[progress.id] += progress.times_s
        return engine.core.stats()

    before, after, last = listen(4), listen(NEW - 4), listen(NEW)  # from the fourth token on, all sequences decode
    steps, step_s = after.steps - before.steps, after.step_s - before.step_s
    outside_s = step_s - (after.executor_s - before.executor_s)
    wall_s = max(own[-1] for own in times.values())
    return step_s / steps, outside_s / steps, (last.executor_s - first.executor_s) / wall_s


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
