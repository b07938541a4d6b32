"""Hugging Face transformers on torch, eagerly: the model's forward pass with a KV cache, one call a step."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers

from .engine import Ids, Job, Timing

VERSION = f"{transformers.__version__} with torch {torch.__version__}"


def _open(kind: Any, job: Job) -> Any:
    torch.set_num_threads(job.threads)
    transformers.utils.logging.disable_progress_bar()
    dtype = getattr(torch, job.options["dtype"])
    if job.is_shape:
        return kind.from_config(transformers.AutoConfig.from_pretrained(job.path), dtype=dtype).eval()
    return kind.from_pretrained(job.path, dtype=dtype).eval()


class Engine:
    """A decoder."""

    def __init__(self, job: Job) -> None:
        self._model = _open(transformers.AutoModelForCausalLM, job)
        self._resident: Ids = []
        self._cache = transformers.DynamicCache()

    @torch.inference_mode()
    def generate(self, prompts: Ids, steps: int) -> Timing:
        length = len(prompts[0])
        started = time.perf_counter()
        if prompts == self._resident:  # still in the cache: only its last token
            self._cache.crop(length - 1 - self._cache.get_seq_length())  # negative: so many from the end
            tokens = self._step(torch.tensor(prompts)[:, -1:])
        else:
            self._cache = transformers.DynamicCache()
            tokens = self._step(torch.tensor(prompts))
        first = time.perf_counter()
        for _ in range(steps):
            tokens = self._step(tokens)
        ended = time.perf_counter()
        self._resident = prompts
        return Timing(first - started, ended - first)

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        found = self._model(tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        best: torch.Tensor = found.logits[:, -1].argmax(-1, keepdim=True)
        return best


class Encoder:
    """A BERT."""

    def __init__(self, job: Job) -> None:
        self._model = _open(transformers.AutoModel, job)

    @torch.inference_mode()
    def encode(self, inputs: Ids) -> Any:
        return self._model(torch.tensor(inputs)).last_hidden_state.float().numpy()
