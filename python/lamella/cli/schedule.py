"""How a pipeline runs a batch: its schedule as a grid, what its stages really did, and a Chrome trace of that."""

from __future__ import annotations

import argparse
import json
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella import _core
from lamella.engine import Engine
from lamella.engine_options import PIPELINE_SCHEDULES
from lamella.errors import InvalidArgumentError

from .opening import Named, open_engine
from .output import print_json, seconds_text, table
from .parser import Parser, UsageError, count

_COLUMNS = 30  # of the grid: steps


def add_arguments(parser: Parser) -> None:
    """--schedule, and what it needs beside the step's options."""
    parser.add_argument(
        "--schedule",
        action="store_true",
        help="run a batch through a pipeline instead, --batch-size prompts of --tokens tokens, and print its schedule",
    )
    parser.add_argument("--new-tokens", type=count, default=8, metavar="N", help="--schedule: of each; default: 8")
    parser.add_argument("--trace", metavar="FILE", help="--schedule: write what the stages did as a Chrome trace")


@dataclass(frozen=True)
class Measured:
    """What the stages did with a batch, from the first step's begin on."""

    runs: list[_core.StageRun]
    stages: int
    new_tokens: int

    @property
    def begin_s(self) -> float:
        """On the runs' clock."""
        return min(run.begin_s for run in self.runs)

    @property
    def total_s(self) -> float:
        """Until the last stage's last step has ended."""
        return max(run.end_s for run in self.runs) - self.begin_s

    @property
    def bubble_fraction(self) -> float:
        """Of the stages' time until the end: how much they had nothing to do."""
        busy = sum(run.end_s - run.begin_s for run in self.runs)
        return 1 - busy / (self.total_s * self.stages)

    def steps(self, prompts: bool) -> list[_core.StageRun]:
        """The first stage's steps that bring prompts, or those that bring none."""
        return [run for run in self.runs if run.stage == 0 and (run.tokens > run.sequences) == prompts]

    def step_s(self, prompts: bool) -> float:
        """Seconds of such a step in a stage: the mean of the stages' medians."""
        kind = {run.step for run in self.steps(prompts)}
        by_stage: dict[int, list[float]] = {}
        for run in self.runs:
            if run.step in kind:
                by_stage.setdefault(run.stage, []).append(run.end_s - run.begin_s)
        return statistics.mean(statistics.median(times) for times in by_stage.values()) if by_stage else 0.0

    def prompt_s(self) -> float:
        """Until the last step with a piece of a prompt has left the last stage."""
        kind = {run.step for run in self.steps(True)}
        return max((run.end_s for run in self.runs if run.step in kind), default=self.begin_s) - self.begin_s

    def schedule(self, name: str, generation: int) -> _core.BatchSchedule:
        """A batch with as many micro-batches of prompts and so many of generation, whose steps all take as long."""
        prompt_s = self.step_s(True) or self.step_s(False)
        return _core.BatchSchedule(
            stages=self.stages,
            schedule=name,
            prompt_micro_batches=max(1, min(16, len(self.steps(True)))),
            generation_micro_batches=generation,
            new_tokens=self.new_tokens,
            prompt_s=prompt_s,
            generation_s=self.step_s(False) or prompt_s,
        )

    def chrome_trace(self) -> dict[str, Any]:
        """Events for chrome://tracing and Perfetto: a row a stage, microseconds."""
        events = [
            {
                "name": f"step {run.step}",
                "ph": "X",
                "pid": 0,
                "tid": run.stage,
                "ts": (run.begin_s - self.begin_s) * 1e6,
                "dur": (run.end_s - run.begin_s) * 1e6,
                "args": {"sequences": run.sequences, "tokens": run.tokens},
            }
            for run in self.runs
        ]
        names = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": stage, "args": {"name": f"stage {stage}"}}
            for stage in range(self.stages)
        ]
        return {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}


def run(args: argparse.Namespace, model: Named) -> int:
    """Runs the batch and prints its schedule."""
    stages = args.pipeline_parallel_size or 1
    if stages == 1:
        raise UsageError("--schedule shows a pipeline: give --pipeline-parallel-size of 2 or more", "lamella explain")
    if model.is_encoder:
        raise InvalidArgumentError("--schedule shows how tokens are generated; encoders generate none")
    if (tokens := args.tokens + args.new_tokens) > model.spec.max_positions:
        raise InvalidArgumentError(f"{tokens} tokens exceed the context of {model.spec.max_positions}")
    limits = {
        "max_num_seqs": args.batch_size,
        "max_model_len": tokens,
        "max_num_batched_tokens": max(args.batch_size * args.tokens, args.batch_size),
        "prefix_caching": False,
    }
    with open_engine(args, model.spec, **limits) as engine:
        for _ in range(2):  # which teaches the engine how long its steps take
            _run_batch(engine, model, args, stages)
        measured = _run_batch(engine, model, args, stages)
        times = engine.core.step_times()
        _, generation = engine.core.micro_batches(0, args.batch_size)
    name = args.pipeline_schedule or PIPELINE_SCHEDULES[0]
    schedule = measured.schedule(name, generation)
    if args.trace:
        Path(args.trace).write_text(json.dumps(measured.chrome_trace()), "utf-8")
    if args.json:
        print_json(_json(model, args, measured, schedule, name, times))
    else:
        print(_as_text(model, args, measured, schedule, name))
    return 0


def _run_batch(engine: Engine, model: Named, args: argparse.Namespace, stages: int) -> Measured:
    draw = random.Random(args.seed or 0)
    prompts = [[draw.randrange(model.spec.vocab) for _ in range(args.tokens)] for _ in range(args.batch_size)]
    engine.core.record_stage_runs(True)
    engine.generate(prompts, max_tokens=args.new_tokens, temperature=0, ignore_eos=True)
    runs = engine.core.stage_runs()
    engine.core.record_stage_runs(False)
    return Measured(runs, stages, args.new_tokens)


def _figures(figures: _core.ScheduleFigures) -> dict[str, float]:
    return {
        "prompt_s": figures.prompt_s,
        "total_s": figures.total_s,
        "bubble_fraction": figures.bubble_fraction,
    }


def _json(
    model: Named,
    args: argparse.Namespace,
    measured: Measured,
    schedule: _core.BatchSchedule,
    name: str,
    times: tuple[float, float],
) -> dict[str, Any]:
    return {
        "model": model.name,
        "dtype": model.dtype.name,
        "batch_size": args.batch_size,
        "tokens": args.tokens,
        "new_tokens": args.new_tokens,
        "stages": measured.stages,
        "schedule": name,
        "prompt_micro_batches": schedule.prompt_micro_batches,
        "generation_micro_batches": schedule.generation_micro_batches,
        "prompt_step_s": schedule.prompt_s,
        "generation_step_s": schedule.generation_s,
        "fixed_s": times[0],
        "token_s": times[1],
        "formula": {**_figures(schedule.figures()), "closed_form_s": schedule.formula_s()},
        "measured": {
            "prompt_s": measured.prompt_s(),
            "total_s": measured.total_s,
            "bubble_fraction": measured.bubble_fraction,
        },
        "runs": [
            {
                "stage": run.stage,
                "micro_batch": run.micro_batch,
                "token": run.token,
                "begin_s": run.begin_s,
                "end_s": run.end_s,
            }
            for run in schedule.runs()
        ],
    }


def _as_text(
    model: Named, args: argparse.Namespace, measured: Measured, schedule: _core.BatchSchedule, name: str
) -> str:
    counts = f"{schedule.prompt_micro_batches} micro-batches of prompts"
    if name == PIPELINE_SCHEDULES[0]:
        counts += f", {schedule.generation_micro_batches} of generation"
    found = _figures(schedule.figures())
    lines = {
        "measured": (measured.prompt_s(), measured.total_s, measured.bubble_fraction),
        f"{name}, these steps": (found["prompt_s"], found["total_s"], found["bubble_fraction"]),
    }
    rows = [
        [what, seconds_text(first), seconds_text(total), f"{bubble:.1%}"]
        for what, (first, total, bubble) in lines.items()
    ]
    return "\n".join(
        [
            f"{model.name}, {model.dtype.name}: {args.batch_size} prompts of {args.tokens} tokens, {args.new_tokens} "
            f"new tokens each, {measured.stages} stages, {name}: {counts}",
            f"a step in a stage takes {seconds_text(schedule.prompt_s)} of prompts, "
            f"{seconds_text(schedule.generation_s)} of generation",
            "",
            schedule.grid(_COLUMNS),
            table(("", "prompts done", "all done", "bubbles"), rows, 1),
        ]
    )
