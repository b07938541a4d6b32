"""What a token costs where the machine gives less than it seems to have, against the fair share of what it gives.

    python bench/fair_share.py MODEL|SHAPE [--threads 2] [--repeat 5] [engine options] > bench/results/NAME.md

Conditions, in turn, in one run: undisturbed with a thread a core; twice the threads; a CPU quota of half a core; a busy
neighbour on each of the cores. The fair share of time is what the undisturbed time would become if the cores' time were
all that counted: with half of one of two cores four times as much. The goal is at most twice the fair share. Beside it:
the time of a barrier of all threads (goal: under 2 us), and the CPU time that an idle engine uses (goal: none).
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import lamella
from lamella import _core
from lamella.cli.bench import Workload, generate_once
from lamella.shapes import SHAPES, spec_for_shape
from machine_limits import NotAllowedError, busy_neighbour, cpu_quota

GOAL = 2.0  # times the fair share
SECONDS = 0.8  # of decoding at a time: eight periods of a quota, many slices of a scheduler


@dataclass(frozen=True)
class Condition:
    """`share` is the fair share of time, as a multiple of the undisturbed time."""

    name: str
    threads: int
    share: float
    disturb: Callable[[], AbstractContextManager[None]] = nullcontext


def conditions(threads: int, cores: Sequence[int]) -> Iterator[Condition]:
    """What is measured; the first is undisturbed."""
    own = len(cores)
    yield Condition("undisturbed", threads, 1.0)
    yield Condition("twice the threads", 2 * threads, 1.0)
    yield Condition("half a core", threads, threads / 0.5, lambda: cpu_quota(0.5))
    for core in cores:
        yield Condition(
            f"a neighbour on core {core}",
            threads,
            threads / min(threads, own - 0.5),
            lambda core=core: busy_neighbour(core),  # type: ignore[misc]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model, or one of the shapes: " + ", ".join(SHAPES))
    parser.add_argument("--threads", type=int, default=_core.usable_cores())
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", default=None)
    args = parser.parse_args()

    cases = list(conditions(args.threads, sorted(os.sched_getaffinity(0))))
    left_out: dict[str, str] = {}
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    with ExitStack() as stack:
        engines = {
            threads: stack.enter_context(_open(args.model, threads, args.dtype, args.quantization))
            for threads in sorted({case.threads for case in cases})
        }
        step_s = {threads: _step_seconds(engine, 12) for threads, engine in engines.items()}  # touches every page
        idle = [_idle_cpu(1.0) for _ in range(2)]
        for _ in range(args.repeat):
            for case in cases:
                if case.name in left_out:
                    continue
                try:
                    with case.disturb():
                        steps = int(SECONDS / step_s[args.threads] / case.share)
                        times[case.name].append(_step_seconds(engines[case.threads], max(8, min(steps, 400))))
                except NotAllowedError as reason:
                    left_out[case.name] = str(reason)
    _report(args, cases, times, left_out, max(idle))


def _open(model: str, threads: int, dtype: str, quantization: str | None) -> lamella.Engine:
    options = {
        "threads": threads,
        "dtype": dtype,
        "quantization": quantization,
        "max_num_seqs": 1,
        "max_model_len": 512,
        "progress": False,
    }
    if model in SHAPES:
        return lamella.Engine.random(spec_for_shape(model), **{**options, "dtype": dtype.replace("auto", "bfloat16")})
    return lamella.Engine(model, **options)


def _step_seconds(engine: lamella.Engine, steps: int) -> float:
    """Seconds of a decode step at batch 1, the mean of `steps`."""
    load = Workload(batch_size=1, prompt_tokens=8, new_tokens=1 + steps)
    return generate_once(engine, load, load.prompts(random.Random(steps), engine.core.spec.vocab)).decode_s / steps


def _idle_cpu(seconds: float) -> float:
    """CPU seconds a second that this process uses while its engines have nothing to do."""
    used, start = time.process_time(), time.monotonic()
    time.sleep(seconds)
    return (time.process_time() - used) / (time.monotonic() - start)


def _report(
    args: argparse.Namespace,
    cases: Sequence[Condition],
    times: dict[str, list[float]],
    left_out: dict[str, str],
    idle: float,
) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    barriers = [1e6 * _core.measure_barrier(args.threads) for _ in range(args.repeat)]
    latency = _core.measure_core_latency()
    print(f"# Fair shares: {Path(args.model).name}\n")
    apart = f"{1e9 * latency:.0f} ns apart" if latency else "one alone"
    print(
        f"{datetime.date.today()}, commit {commit.strip()}, {_core.processor_name()}, {_core.usable_cores()} cores "
        f"({apart}), engines of {args.dtype} and {args.quantization or 'the weights as they are stored'}."
    )
    print(
        f"`python bench/fair_share.py {Path(args.model).name} --threads {args.threads} --repeat {args.repeat} "
        f"--dtype {args.dtype} --quantization {args.quantization}`; median (min-max).\n"
    )
    print("| condition | threads | ms a token | times undisturbed | fair | of the fair share |")
    print("|---|---|---|---|---|---|")
    quiet = times[cases[0].name]
    for case in cases:
        if case.name in left_out:
            print(f"| {case.name} | {case.threads} | left out: {left_out[case.name]} | | {case.share:.2f} | |")
            continue
        own = times[case.name]
        ratios = [mine / other for mine, other in zip(own, quiet, strict=True)]  # of one round
        shares = [ratio / case.share for ratio in ratios]
        fits = "" if statistics.median(shares) <= GOAL else f": above {GOAL:.0f}"
        print(
            f"| {case.name} | {case.threads} | {_spread([1e3 * s for s in own])} | {_spread(ratios)} "
            f"| {case.share:.2f} | {_spread(shares)}{fits} |"
        )
    print(
        f"\nA barrier of {args.threads} threads: {_spread(barriers)} us. Idle engines use {100 * idle:.2f} % of a core."
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
