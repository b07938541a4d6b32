"""CTranslate2. It takes tokens as words, so ids are looked up in the vocabulary that its converter wrote."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from .engine import Ids, Job, Timing

VERSION = ctranslate2.__version__


class Engine:
    """A decoder."""

    def __init__(self, job: Job) -> None:
        self._generator = ctranslate2.Generator(job.path, "cpu", intra_threads=job.threads, **job.options)
        self._words = json.loads(Path(job.path, "vocabulary.json").read_text(encoding="utf-8"))

    def generate(self, prompts: Ids, steps: int) -> Timing:
        times: list[list[float]] = [[] for _ in prompts]

        def on_token(result: ctranslate2.GenerationStepResult) -> bool:
            times[result.batch_id].append(time.perf_counter())
            return False

        words = [[self._words[token] for token in prompt] for prompt in prompts]
        started = time.perf_counter()
        self._generator.generate_batch(
            words,
            max_length=1 + steps,
            min_length=1 + steps,
            end_token=[],
            include_prompt_in_result=False,
            callback=on_token,
        )
        if any(len(own) != 1 + steps for own in times):
            raise RuntimeError(f"sequences got {[len(own) for own in times]} tokens; expected {1 + steps}")
        first = max(own[0] for own in times)
        return Timing(first - started, max(own[-1] for own in times) - first)


class Encoder:
    """A BERT."""

    def __init__(self, job: Job) -> None:
        self._encoder = ctranslate2.Encoder(job.path, "cpu", intra_threads=job.threads, **job.options)

    def encode(self, inputs: Ids) -> Any:
        found = self._encoder.forward_batch([list(ids) for ids in inputs])
        return np.array(found.last_hidden_state)
