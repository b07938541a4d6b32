"""llama.cpp through its own interface: a batch of several sequences is more than the high-level class offers."""

from __future__ import annotations

import ctypes
import time

import llama_cpp
import numpy as np

from .engine import Ids, Job, Timing

VERSION = llama_cpp.__version__
_CHUNK = 2048  # tokens of one call, llama.cpp's default


class Engine:
    """A GGUF file. A context is made for the sizes of a workload, as its own batched bench does."""

    def __init__(self, job: Job) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(job.path.encode(), llama_cpp.llama_model_default_params())
        if not model:
            raise ValueError(f"llama.cpp does not read {job.path}")
        self._model, self._threads = model, job.threads
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._context: llama_cpp.llama_context_p | None = None
        self._sizes = (0, 0)
        self._resident: Ids = []

    def generate(self, prompts: Ids, steps: int) -> Timing:
        length = len(prompts[0])
        self._open(len(prompts), length + 1 + steps)
        memory = llama_cpp.llama_get_memory(self._context)
        begin = length - 1 if prompts == self._resident else 0  # a prompt that is still there: only its last token
        for i in range(len(prompts)):
            llama_cpp.llama_memory_seq_rm(memory, i, begin, -1)
        started = time.perf_counter()
        tokens = self._decode([prompt[begin:] for prompt in prompts], begin)
        first = time.perf_counter()
        for position in range(length, length + steps):
            tokens = self._decode([[token] for token in tokens], position)
        ended = time.perf_counter()
        self._resident = prompts
        return Timing(first - started, ended - first)

    def _open(self, batch: int, tokens: int) -> None:
        if self._sizes == (batch, tokens):
            return
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        params = llama_cpp.llama_context_default_params()
        padded = -(-tokens // 256) * 256  # llama.cpp rounds the cache of a sequence to as much
        params.n_ctx, params.n_seq_max = batch * padded, batch
        params.n_batch, params.n_threads, params.n_threads_batch = _CHUNK, self._threads, self._threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise MemoryError(f"llama.cpp has no context of {batch} x {padded} tokens")
        self._sizes, self._resident = (batch, tokens), []

    def _decode(self, pieces: Ids, begin: int) -> list[int]:
        """Runs every sequence's next tokens, from position `begin` on; the most likely token after each."""
        entries = [
            (token, begin + j, i, j == len(piece) - 1)
            for i, piece in enumerate(pieces)
            for j, token in enumerate(piece)
        ]
        best = [0] * len(pieces)
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            batch = llama_cpp.llama_batch_init(len(chunk), 0, 1)
            batch.n_tokens = len(chunk)
            for k, (token, position, sequence, last) in enumerate(chunk):
                batch.token[k], batch.pos[k], batch.n_seq_id[k] = token, position, 1
                batch.seq_id[k][0], batch.logits[k] = sequence, last
            status = llama_cpp.llama_decode(self._context, batch)
            llama_cpp.llama_batch_free(batch)
            if status != 0:
                raise RuntimeError(f"llama_decode returned {status}")
            for k, (_, _, sequence, last) in enumerate(chunk):
                if last:
                    best[sequence] = self._best(k)
        return best

    def _best(self, k: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, k)
        address = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._vocab))
        return int(np.ctypeslib.as_array(address.contents).argmax())
