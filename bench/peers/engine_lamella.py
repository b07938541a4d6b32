"""Lamella, through the client of its core, as `lamella bench` times it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import lamella
from lamella import _core
from lamella.cli.bench import Workload, generate_once, priced_rows
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

    def work(self, batch: int, new_tokens: int, context: int) -> dict[str, Any]:
        """Bytes of weights and KV cache that a step reads, its FLOPs, and both by the ops that have the same of each:
        `batch` sequences with `new_tokens` each that end with `context` tokens in the cache."""
        rows = priced_rows(self._engine, _core.StepShape.uniform(batch, new_tokens, context))
        alike = Counter((row.bytes_streamed, row.flops, row.arithmetic) for row in rows)
        return {
            "bytes": sum(row.bytes_streamed for row in rows),
            "flops": sum(row.flops for row in rows),
            "ops": [
                {"bytes": count * streamed, "flops": count * flops, "arithmetic": arithmetic}
                for (streamed, flops, arithmetic), count in alike.items()
            ],
        }
