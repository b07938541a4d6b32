"""Lamella, through the client of its core, as `lamella bench` times it."""

from __future__ import annotations

from typing import Any

import lamella
from lamella import _core
from lamella.cli.bench import Workload, generate_once
from lamella.shapes import spec_for_shape

from .engine import Ids, Job, Timing

VERSION = lamella.__version__


class Engine:
    """A decoder or an encoder."""

    def __init__(self, job: Job) -> None:
        limits = {"threads": job.threads, "max_num_seqs": job.batch, "max_model_len": job.context}
        if job.is_shape:
            self._engine = lamella.Engine.random(spec_for_shape(job.path), **limits, **job.options)
        else:
            self._engine = lamella.Engine(job.path, progress=False, **limits, **job.options)

    def generate(self, prompts: Ids, steps: int) -> Timing:
        load = Workload(len(prompts), len(prompts[0]), 1 + steps)
        timed = generate_once(self._engine, load, [list(prompt) for prompt in prompts])
        return Timing(timed.prefill_s, timed.decode_s)

    def encode(self, inputs: Ids) -> Any:
        return self._engine.encode([list(ids) for ids in inputs], pooling=None)

    def work(self, batch: int, new_tokens: int, context: int) -> dict[str, int]:
        """Bytes of weights and KV cache that a step reads, and its FLOPs: `batch` sequences with `new_tokens` each that
        end with `context` tokens in the cache."""
        core = self._engine.core
        shape, first = (_core.StepShape.uniform(batch, new_tokens, total) for total in (context, new_tokens))
        weights = _core.weight_bytes_per_step(core.spec, core.config.dtype, core.config.weight_formats, shape)
        (read, flops), (read_alone, _) = (self._sums(each) for each in (shape, first))
        return {"bytes": weights + read - read_alone, "flops": flops}

    def _sums(self, shape: _core.StepShape) -> tuple[int, int]:
        core = self._engine.core
        rows = _core.explain_plan(
            core.spec, core.config.dtype, core.config.weight_formats, core.config.deep_fusion, shape, _core.Roofline()
        )
        return sum(row.bytes_read for row in rows), sum(row.flops for row in rows)
