"""OpenVINO: GenAI's continuous batching for decoders in GGUF files, the plain runtime for encoders."""

from __future__ import annotations

import importlib.metadata
import itertools
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai

from .engine import Ids, Job, Timing

VERSION = importlib.metadata.version("openvino-genai")


def _properties(job: Job) -> dict[str, Any]:
    return {"INFERENCE_NUM_THREADS": job.threads, **job.options}


class Engine:
    """A GGUF file of a Llama."""

    def __init__(self, job: Job) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = job.context  # a prompt whole: chunks only cost, one request at a time
        scheduler.max_num_seqs = job.batch
        scheduler.cache_size = 1  # GB
        scheduler.enable_prefix_caching = True  # prompts are fresh but where a cell keeps them
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(job.path, scheduler, "CPU", _properties(job))
        self._ids = itertools.count()

    def generate(self, prompts: Ids, steps: int) -> Timing:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = 1 + steps
        config.do_sample, config.ignore_eos = False, True
        started = time.perf_counter()
        handles = [
            self._pipeline.add_request(next(self._ids), openvino.Tensor(np.array([prompt], np.int64)), config)
            for prompt in prompts
        ]
        counts = [0] * len(handles)
        times: list[float] = []
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for i, handle in enumerate(handles):
                while handle.can_read():
                    counts[i] += sum(len(output.generated_ids) for output in handle.read().values())
            if min(counts) > len(times):
                times.append(time.perf_counter())
        if len(times) != 1 + steps or set(counts) != {1 + steps}:
            raise RuntimeError(
                f"{min(counts)} to {max(counts)} tokens came in {len(times)} steps; expected {1 + steps}"
            )
        return Timing(times[0] - started, times[-1] - times[0])


class Encoder:
    """A converted encoder."""

    def __init__(self, job: Job) -> None:
        self._model = openvino.compile_model(f"{job.path}/model.xml", "CPU", _properties(job))

    def encode(self, inputs: Ids) -> Any:
        return self._model(np.array(inputs, np.int64))[0]
