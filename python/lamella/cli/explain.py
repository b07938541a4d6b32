"""The step has --batch-size sequences that bring --tokens new tokens each and end with --context tokens in the cache.
It is one whose requests take the best token. Bytes are those that must move if every operand is touched once; the
roofline time is the larger of bytes / measured bandwidth and FLOPs / the measured peak of the op's arithmetic (f32,
bf16, int8); the measured time is the op's own in a run of the whole plan. The kernel of a linear is named with the way
it goes at this size: SBI-GeMM (one walk over the weights, for few tokens) or blocked GeMM, what is multiplied, and
outputs x tokens of its register tile. Layers that are alike are shown once, with the median of their measured times. A
--shape that does not fit in memory has no measured times.

--schedule runs a batch through a pipeline and prints the schedule as a grid, a line a stage: P0 is the first
micro-batch of prompts, A1 the second token of generation's first, a point a bubble. Its steps take what they took in
the run, which stands beside it: how long, and what share of the stages' time had nothing to do.

--json prints {"model", "dtype", "batch_size", "tokens", "context", "read_GBps", "peak_GFLOPs": {"f32", "bf16", "int8"},
"rows"}, and with --memory "memory", the buffer table as text. A row: {"op", "layer", "region", "inputs", "outputs",
"shape", "dtype", "kernel", "arithmetic", "bytes_read", "bytes_written", "flops", "roofline_s", "measured_s"}; layer -1
is outside the layers. With --schedule: {"model", "dtype", "batch_size", "tokens", "new_tokens", "stages", "schedule",
"prompt_micro_batches", "generation_micro_batches", "prompt_step_s", "generation_step_s", "fixed_s", "token_s" (what a
step takes, and each token more, as learnt), "formula" and "measured": {"prompt_s", "total_s", "bubble_fraction"},
"runs": [{"stage", "micro_batch", "token", "begin_s", "end_s"}]}."""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lamella import _core
from lamella.engine import Engine
from lamella.errors import InvalidArgumentError, OutOfMemoryError
from lamella.opened_engine import row_as_dict
from lamella.progress import bytes_text

from . import schedule
from .opening import Named, measured_bandwidth, named, open_engine
from .options import add_engine_options, add_model, check_model
from .output import print_json, quantity_text, seconds_text, table
from .parser import Parser, count

Row = dict[str, Any]

_HEADER = ("layer", "region", "op", "kernel", "shape", "dtype", "read", "written", "FLOPs", "roofline", "measured")
_LEFT = _HEADER.index("read")
_ARITHMETIC = ("f32", "bf16", "int8")
_SIGNATURE = ("op", "region", "shape", "dtype", "kernel", "bytes_read", "bytes_written", "flops")


def add_arguments(parser: Parser) -> None:
    """MODEL or --shape, the step, engine options."""
    add_model(parser, shape=True)
    parser.add_argument("--batch-size", type=count, default=1, metavar="N", help="sequences; default: 1")
    parser.add_argument("--tokens", type=count, default=1, metavar="N", help="new tokens of each sequence; default: 1")
    parser.add_argument(
        "--context",
        type=count,
        metavar="N",
        help="tokens of each sequence after the step; default: 128 (an encoder: --tokens)",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="print the buffer table instead: where each buffer lies in the one allocation",
    )
    parser.add_argument("--all-layers", action="store_true", help="every layer, also those that are alike")
    schedule.add_arguments(parser)
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the plan's rows."""
    check_model(args, "lamella explain")
    model = named(args)
    if args.schedule:
        return schedule.run(args, model)
    step = _step(args, model)
    roofs, rows = _explained(args, model, step)
    fused = args.deep_fusion is not False
    memory = _core.memory_table(model.spec, model.dtype, fused, step.shape) if args.memory else None
    if args.json:
        print_json(_json(model, step, roofs, rows, memory))
    elif memory is not None:
        print(memory, end="")
    else:
        print(f"{model.name}, {model.dtype.name}: {step}\n{roofs}\n")
        print(_as_table(rows, fold=not args.all_layers))
    return 0


@dataclass(frozen=True)
class Step:
    """The step that is explained."""

    batch_size: int
    tokens: int
    context: int

    @property
    def shape(self) -> _core.StepShape:
        """The step in the core's terms."""
        return _core.StepShape.uniform(self.batch_size, self.tokens, self.context)

    def __str__(self) -> str:
        return f"{self.batch_size} x {self.tokens} new tokens, context {self.context}"


@dataclass(frozen=True)
class Roofs:
    """What this machine can do at most, as measured: bytes/s (None where that was impossible), and by arithmetic the
    operations/s."""

    bytes_per_s: float | None
    peaks: dict[str, float]

    def __str__(self) -> str:
        memory = "memory not measured" if self.bytes_per_s is None else f"{self.bytes_per_s / 1e9:.1f} GB/s"
        peaks = (f"{quantity_text(peak)}FLOP/s in {arithmetic}" for arithmetic, peak in self.peaks.items())
        return f"roofs of this machine: {', '.join((memory, *peaks))}"


def _step(args: argparse.Namespace, model: Named) -> Step:
    most = args.max_model_len or model.spec.max_positions
    context = args.context or (args.tokens if model.is_encoder else max(args.tokens, min(128, most)))
    if context < args.tokens:
        raise InvalidArgumentError(f"--context {context} is less than --tokens {args.tokens}, which are part of it")
    if context > most:
        raise InvalidArgumentError(f"a context of {context} tokens exceeds the model's {most}")
    return Step(args.batch_size, args.tokens, context)


def _explained(args: argparse.Namespace, model: Named, step: Step) -> tuple[Roofs, list[Row]]:
    limits = {
        "max_num_seqs": step.batch_size,
        "max_model_len": step.context,
        "max_num_batched_tokens": step.batch_size * step.tokens,
    }
    try:
        with open_engine(args, model.spec, **limits) as engine:
            return _measured(engine, step)
    except OutOfMemoryError as error:
        if args.shape is None:
            raise
        print(f"costs only, nothing measured: {error}", file=sys.stderr)
    return _costs_only(args, model, step)


def _measured(engine: Engine, step: Step) -> tuple[Roofs, list[Row]]:
    config = engine.core.config
    if step.batch_size > config.max_num_seqs or step.batch_size * step.tokens > config.max_num_batched_tokens:
        raise InvalidArgumentError(f"a step of {step} exceeds --max-num-seqs or --max-num-batched-tokens")
    rows = engine.plan(step.batch_size, step.tokens, step.context)
    roofline = engine.core.roofline()
    peaks = (roofline.f32_flops_per_s, roofline.bf16_flops_per_s, roofline.int8_ops_per_s)
    return Roofs(roofline.bytes_per_s or None, dict(zip(_ARITHMETIC, peaks, strict=True))), rows


def _costs_only(args: argparse.Namespace, model: Named, step: Step) -> tuple[Roofs, list[Row]]:
    threads = args.threads or _core.usable_cores()
    roofs = Roofs(measured_bandwidth(threads), {each: _core.measure_peak(each, threads) for each in _ARITHMETIC})
    roofline = _core.Roofline(roofs.bytes_per_s or 0.0, *roofs.peaks.values())
    fused = args.deep_fusion is not False
    rows = _core.explain_plan(model.spec, model.dtype, model.formats, fused, step.shape, roofline, model.kv_cache_dtype)
    return roofs, [row_as_dict(row) for row in rows]


def _json(model: Named, step: Step, roofs: Roofs, rows: list[Row], memory: str | None) -> dict[str, Any]:
    return {
        "model": model.name,
        "dtype": model.dtype.name,
        "batch_size": step.batch_size,
        "tokens": step.tokens,
        "context": step.context,
        "read_GBps": None if roofs.bytes_per_s is None else roofs.bytes_per_s / 1e9,
        "peak_GFLOPs": {arithmetic: peak / 1e9 for arithmetic, peak in roofs.peaks.items()},
        "rows": rows,
        **({} if memory is None else {"memory": memory}),
    }


def _as_table(rows: list[Row], fold: bool) -> str:
    lines = [cells for layers in _folded(rows, fold) for cells in _layer_cells(layers)]
    total = ["total", *[""] * (_LEFT - 1)]
    total += [bytes_text(sum(row[name] for row in rows)) for name in ("bytes_read", "bytes_written")]
    total.append(quantity_text(sum(row["flops"] for row in rows)))
    for name in ("roofline_s", "measured_s"):
        times = [row[name] for row in rows if row[name] is not None]
        total.append(seconds_text(sum(times) if times else None))
    return table(_HEADER, [*lines, total], _LEFT)


def _folded(rows: list[Row], fold: bool) -> list[list[list[Row]]]:
    """Runs of layers that are alike, each a list of layers, each a list of rows."""
    layers = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["layer"])]
    if not fold:
        return [[layer] for layer in layers]
    runs = itertools.groupby(layers, key=lambda layer: [[row[name] for name in _SIGNATURE] for row in layer])
    return [list(run) for _, run in runs]


def _layer_cells(layers: Sequence[list[Row]]) -> list[list[str]]:
    first, last = layers[0][0]["layer"], layers[-1][0]["layer"]
    label = "-" if first < 0 else str(first) if first == last else f"layers {first}-{last} x{len(layers)}"
    return [_cells(label if i == 0 else "", alike) for i, alike in enumerate(zip(*layers, strict=True))]


def _cells(label: str, alike: Sequence[Row]) -> list[str]:
    row = alike[0]
    times = [other["measured_s"] for other in alike if other["measured_s"] is not None]
    return [
        label,
        *(str(row[name]) for name in ("region", "op", "kernel", "shape", "dtype")),
        bytes_text(row["bytes_read"]),
        bytes_text(row["bytes_written"]),
        quantity_text(row["flops"]),
        seconds_text(row["roofline_s"]),
        seconds_text(statistics.median(times) if times else None),
    ]
