"""Random prompts, greedy, end-of-sequence ignored; one repetition that is not counted goes first. Every repetition runs
all prompts at once: the prompt phase gives each its first token, then --new-tokens - 1 decode steps follow.

--json prints, as {"median", "min", "max"} over the repetitions:
  prefill_s             until every prompt has its first token (an encoder: until all are embedded)
  prefill_tokens_per_s  prompt tokens / prefill_s
  decode_step_s         one step of the whole batch: decode time / decode steps
  decode_tokens_per_s   batch size / decode_step_s, all sequences together
  total_s               prompt phase and decode steps
  achieved_GBps         weight_bytes_per_step / decode_step_s
and as plain values:
  weight_bytes_per_step bytes of weights that a decode step reads
  read_GBps             what as many threads read from this machine's memory (1 GiB), measured before and after each
                        repetition; pairs that differ by over 10 % are dropped, null when all are; the median of the
                        others
  bandwidth_fraction    achieved_GBps / read_GBps, each repetition with its own pair; the median
  tflops                TFLOP/s of the prompt phase, by its median
  peak_memory_bytes     the process's largest resident size (VmHWM) before the bandwidth was measured
  load_s                reading the weights, or drawing them for --shape
Decode figures are null for encoders and with --new-tokens 1."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella import _core
from lamella.engine import Engine
from lamella.engine_options import EngineOptions
from lamella.errors import InvalidArgumentError
from lamella.progress import ProgressLine, bytes_text

from .opening import Named, measured_bandwidth, named, open_engine
from .options import add_engine_options, add_model, check_model
from .output import print_json, quantity_text, seconds_text, table
from .parser import Parser, count

Prompts = list[list[int]]
_READ_BYTES = 1 << 30  # below it, a large cache would serve part of the reads
_MOST_MICRO_BATCHES = 16
_MOST_DIFFERENCE = 0.10  # between two readings of the memory bandwidth around a repetition


def add_arguments(parser: Parser) -> None:
    """MODEL or --shape, the workload, engine options."""
    add_model(parser, shape=True)
    for flag, default, what in (
        ("--prompt-tokens", 128, "tokens of each prompt"),
        ("--new-tokens", 8, "tokens to generate for each prompt"),
        ("--batch-size", 1, "prompts at once"),
        ("--repeat", 5, "repetitions"),
    ):
        parser.add_argument(flag, type=count, default=default, metavar="N", help=f"{what}; default: {default}")
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    check_model(args, "lamella bench")
    model = named(args)
    new_tokens = 1 if model.is_encoder else args.new_tokens
    load = Workload(args.batch_size, args.prompt_tokens, new_tokens, args.pipeline_parallel_size or 1)
    context = load.prompt_tokens if model.is_encoder else load.prompt_tokens + load.new_tokens
    if context > model.spec.max_positions:
        raise InvalidArgumentError(
            f"prompts and results of {context} tokens exceed the context of {model.spec.max_positions}"
        )
    step_tokens = args.max_num_batched_tokens or EngineOptions.max_num_batched_tokens
    room = min(model.spec.max_positions, context + load.early_tokens(step_tokens))
    with open_engine(args, model.spec, max_num_seqs=load.batch_size, max_model_len=room) as engine:
        if engine.core.config.max_num_seqs < load.batch_size:
            raise InvalidArgumentError(f"--max-num-seqs is less than --batch-size {load.batch_size}")
        figures = _measure(engine, model, load, args.repeat, args.seed or 0)
    if args.json:
        print_json(figures)
    else:
        print(_as_text(figures, model, load))
    return 0


@dataclass(frozen=True)
class Workload:
    """What a repetition runs."""

    batch_size: int
    prompt_tokens: int
    new_tokens: int
    stages: int = 1

    @property
    def decode_steps(self) -> int:
        """Steps after the one that gives the first token."""
        return self.new_tokens - 1

    def early_tokens(self, step_tokens: int) -> int:
        """Tokens that early prompts may get before the last has its first, where a step does not hold all prompts."""
        tokens = self.batch_size * self.prompt_tokens
        if (
            self.stages > 1
        ):  # pieces of prompts, at most so many, follow each other; each is through all stages after so many
            return _MOST_MICRO_BATCHES + self.stages
        return 0 if tokens <= step_tokens else -(-tokens // max(1, step_tokens - self.batch_size + 1))

    def prompts(self, draw: random.Random, vocab: int) -> Prompts:
        """Random token ids."""
        return [[draw.randrange(vocab) for _ in range(self.prompt_tokens)] for _ in range(self.batch_size)]


@dataclass(frozen=True)
class Repetition:
    """Seconds of one repetition, and the memory bandwidth before and after it, bytes/s."""

    prefill_s: float
    decode_s: float
    read: tuple[float | None, float | None] = (None, None)

    @property
    def steady_read(self) -> float | None:
        """The mean of the two readings, None when they are too far apart to mean one thing."""
        before, after = self.read
        if before is None or after is None or abs(before - after) > _MOST_DIFFERENCE * max(before, after):
            return None
        return (before + after) / 2


def _measure(engine: Engine, model: Named, load: Workload, repeat: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    run_once: Callable[[Engine, Workload, Prompts], Repetition] = _embed if model.is_encoder else generate_once
    with ProgressLine() as line:
        line.show("warming up")
        run_once(engine, load, load.prompts(draw, model.spec.vocab))
        peak = peak_memory_bytes()  # now: the bandwidth measurement takes memory of its own
        repetitions = []
        read = measured_bandwidth(engine.core.threads, _READ_BYTES)
        for i in range(repeat):
            line.show(f"repetition {i + 1} of {repeat}")
            times = run_once(engine, load, load.prompts(draw, model.spec.vocab))
            before, read = read, measured_bandwidth(engine.core.threads, _READ_BYTES)
            repetitions.append(Repetition(times.prefill_s, times.decode_s, (before, read)))
    return _figures(engine, model, load, repetitions, peak)


def generate_once(engine: Engine, load: Workload, prompts: Prompts) -> Repetition:
    """The times of one repetition, greedy, without end of sequence; the bandwidth is the caller's to measure.

    Errors: `InvalidArgumentError` where a prompt fails, or the engine's limits keep the batch from running as one.
    """
    core = engine.core
    most = load.new_tokens + load.early_tokens(core.config.max_num_batched_tokens)
    room = max(load.new_tokens, core.config.max_model_len - load.prompt_tokens)
    sampling = _core.SamplingParams(max_tokens=min(most, room))
    client = core.client()
    times: dict[int, list[float]] = {
        id: [] for id in client.submit([_core.Request(prompt, sampling) for prompt in prompts])
    }
    while client.open and min(map(len, times.values())) <= load.decode_steps:
        for progress in client.wait(1.0):
            if progress.error is not None or (progress.finished and progress.reason != "length"):
                raise InvalidArgumentError(f"a prompt failed: {progress.error or progress.reason}")
            times[progress.id] += progress.times_s
    client.leave()
    last = max(times.values(), key=lambda own: own[0])  # to begin; from then on all run together
    prefilled, ended = last[0], last[load.decode_steps]
    for own in times.values():
        together = sum(prefilled < time_s <= ended for time_s in own)
        # Micro-batches of a pipeline have their turns: each has one in a round, before or after the last one's.
        if abs(together - load.decode_steps) > (load.stages > 1):
            raise InvalidArgumentError(
                f"the batch did not run as one ({together} of {load.decode_steps} decode steps together): "
                "raise --max-num-batched-tokens or --memory-budget"
            )
    return Repetition(prefilled, ended - prefilled)


def _embed(engine: Engine, load: Workload, prompts: Prompts) -> Repetition:
    started = time.perf_counter()
    engine.core.encode(prompts, _core.Pooling.mean)
    return Repetition(time.perf_counter() - started, 0.0)


def _figures(
    engine: Engine, model: Named, load: Workload, repetitions: Sequence[Repetition], peak: int
) -> dict[str, Any]:
    core = engine.core
    steps = [r.decode_s / load.decode_steps for r in repetitions if load.decode_steps]
    prefills = [r.prefill_s for r in repetitions]
    step = _core.StepShape.uniform(load.batch_size, 1, load.prompt_tokens + 1)
    weight_bytes = _core.weight_bytes_per_step(core.spec, core.config.dtype, core.config.weight_formats, step)
    read = [steady for r in repetitions if (steady := r.steady_read) is not None]
    if not read:
        print(
            "the memory bandwidth was not steady around any repetition: something else uses this machine",
            file=sys.stderr,
        )
    fractions = [
        weight_bytes * load.decode_steps / r.decode_s / r.steady_read
        for r in repetitions
        if r.decode_s and r.steady_read
    ]
    return {
        "prefill_s": _spread(prefills),
        "prefill_tokens_per_s": _spread([load.batch_size * load.prompt_tokens / s for s in prefills]),
        "decode_step_s": _spread(steps),
        "decode_tokens_per_s": _spread([load.batch_size / s for s in steps]),
        "total_s": _spread([r.prefill_s + r.decode_s for r in repetitions]),
        "achieved_GBps": _spread([weight_bytes / s / 1e9 for s in steps]),
        "weight_bytes_per_step": weight_bytes,
        "read_GBps": statistics.median(read) / 1e9 if read else None,
        "bandwidth_fraction": statistics.median(fractions) if fractions else None,
        "tflops": _prompt_flops(engine, load) / statistics.median(prefills) / 1e12,
        "peak_memory_bytes": peak,
        "load_s": engine.load_s,
    }


def _prompt_flops(engine: Engine, load: Workload) -> int:
    shape = _core.StepShape.uniform(load.batch_size, load.prompt_tokens, load.prompt_tokens)
    return sum(row.flops for row in priced_rows(engine, shape))


def priced_rows(engine: Engine, shape: _core.StepShape) -> list[_core.ExplainRow]:
    """The ops of a step of the engine's, with what they move and compute, and nothing measured."""
    config = engine.core.config
    return _core.explain_plan(
        engine.core.spec,
        config.dtype,
        config.weight_formats,
        config.deep_fusion,
        shape,
        _core.Roofline(),
        config.kv_cache_dtype,
    )


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def peak_memory_bytes() -> int:
    """The largest resident size that this process has had."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _as_text(figures: dict[str, Any], model: Named, load: Workload) -> str:
    def spread(name: str, show: Callable[[float], str]) -> list[str]:
        return [name, *(show(figures[name][which]) for which in ("median", "min", "max"))]

    shows: dict[str, Callable[[float], str]] = {
        "prefill_s": seconds_text,
        "prefill_tokens_per_s": lambda rate: f"{rate:.1f}",
        "decode_step_s": seconds_text,
        "decode_tokens_per_s": lambda rate: f"{rate:.1f}",
        "total_s": seconds_text,
        "achieved_GBps": lambda rate: f"{rate:.2f}",
    }
    rows = [spread(name, show) for name, show in shows.items() if figures[name] is not None]
    read, fraction = figures["read_GBps"], figures["bandwidth_fraction"]
    plain = [
        f"weights read by a step  {bytes_text(figures['weight_bytes_per_step'])}",
        f"machine reads           {'not steady' if read is None else f'{read:.2f} GB/s'}",
        *([] if fraction is None else [f"share of it in decode   {fraction:.1%}"]),
        f"prompt phase            {quantity_text(figures['tflops'] * 1e12)}FLOP/s",
        f"peak memory             {bytes_text(figures['peak_memory_bytes'])}",
        f"load                    {seconds_text(figures['load_s'])}",
    ]
    head = f"{model.name}: {load.batch_size} x {load.prompt_tokens} prompt tokens, {load.new_tokens} new"
    return "\n".join([head, "", table(("", "median", "min", "max"), rows, left=1), "", *plain])
