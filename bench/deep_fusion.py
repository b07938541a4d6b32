"""What Deep-Fusion is worth on this machine: one workload with the fused and with the plain plan, in turn, in one run.

    python bench/deep_fusion.py MODEL [--repeat 7] [--threads 2] > bench/results/NAME.md

The paper's workload (VII-A): a prompt of 128 tokens, then 8 new ones, at batch 1 and 8. Medians with minimum and
maximum, the ratio of medians, and the share of the read bandwidth that was measured before each pair.
"""

from __future__ import annotations

import argparse
import datetime
import random
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import lamella
from lamella import _core

PROMPT, NEW = 128, 8


def run(engine: lamella.Engine, batch: int) -> tuple[float, float]:
    """Seconds of the prompts, and of one decode step of the whole batch."""
    core = engine.core
    sampling = _core.SamplingParams(max_tokens=NEW)
    prompts = [[random.randrange(core.spec.vocab) for _ in range(PROMPT)] for _ in range(batch)]
    client = core.client()
    times: dict[int, list[float]] = {
        id: [] for id in client.submit([_core.Request(prompt, sampling) for prompt in prompts])
    }
    while client.open:
        for progress in client.wait(1.0):
            times[progress.id] += progress.times_s
    first, last = max(own[0] for own in times.values()), min(own[-1] for own in times.values())
    steps = min(sum(first < time_s <= last for time_s in own) for own in times.values())
    return first, (last - first) / steps


def spread(values: Sequence[float], scale: float = 1e3) -> str:
    return f"{statistics.median(values) * scale:.2f} ({min(values) * scale:.2f}-{max(values) * scale:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    print(f"# Deep-Fusion against the plain plan: {Path(args.model).name}\n")
    print(f"{datetime.date.today()}, commit {commit.strip()}, {_core.processor_name()}, {_core.usable_cores()} cores.")
    print(f"`python bench/deep_fusion.py {Path(args.model).name} --repeat {args.repeat}`; ms, median (min-max).\n")
    print("| dtype | batch | | fused | plain | plain / fused | fused: share of read bandwidth |")
    print("|---|---|---|---|---|---|---|")
    for dtype in ("bfloat16", "float32"):
        options = {"dtype": dtype, "threads": args.threads, "max_num_seqs": 8, "max_model_len": 256}
        with (
            lamella.Engine(args.model, **options) as fused,
            lamella.Engine(args.model, deep_fusion=False, **options) as plain,
        ):
            step = _core.StepShape.uniform(1, 1, PROMPT)
            step_bytes = _core.weight_bytes_per_step(
                fused.core.spec, fused.core.config.dtype, fused.core.config.weight_formats, step
            )
            for batch in (1, 8):
                times: dict[str, list[tuple[float, float]]] = {"fused": [], "plain": []}
                read: list[float] = []
                for engine in (fused, plain):
                    run(engine, batch)  # touches every page once
                for _ in range(args.repeat):
                    read.append(_core.measure_read_bandwidth(fused.core.threads))
                    times["fused"].append(run(fused, batch))
                    times["plain"].append(run(plain, batch))
                for i, phase in enumerate(("prompt", "decode step")):
                    ours, theirs = [t[i] for t in times["fused"]], [t[i] for t in times["plain"]]
                    ratio = statistics.median(theirs) / statistics.median(ours)
                    share = step_bytes / statistics.median(ours) / statistics.median(read)
                    shown = f"{share:.2f} of {statistics.median(read) / 1e9:.1f} GB/s" if i else ""
                    print(
                        f"| {dtype} | {batch} | {phase} | {spread(ours)} | {spread(theirs)} | {ratio:.2f} | {shown} |"
                    )


if __name__ == "__main__":
    main()
