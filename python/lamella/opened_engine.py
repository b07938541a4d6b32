"""An engine that is open: what it holds, what it tells about itself, and how it ends."""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import os
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from . import _core
from .checks import token_ids, whole_number
from .errors import InvalidArgumentError
from .generation_defaults import fitted_defaults, warn_of_ignored
from .params import SamplingParams
from .prompts import Prompt, check_size

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 256
_STATS = (
    *("kv_blocks_total", "kv_blocks_used", "kv_blocks_kept"),
    *("received", "running", "finished", "cancelled", "rejected", "failed"),
    *("steps", "step_s", "executor_s", "preemptions", "reused_tokens"),
    *("bytes_weights", "bytes_kv", "bytes_activations"),
)


class OpenedEngine:
    """The native engine and the model's files: the part of `Engine` that every other part stands on."""

    def _set_up(self, core: _core.Engine, checkpoint: Checkpoint | None, seed: int, load_s: float) -> None:
        self._core: _core.Engine | None = core
        _open_engines.add(self)
        self._checkpoint = checkpoint
        self._process = os.getpid()
        self._seed = seed
        self._numbers = itertools.count()  # of requests without a seed; next() is one step for all threads
        if checkpoint is not None:
            warn_of_ignored(checkpoint.generation_config)
        defaults = checkpoint.defaults if checkpoint is not None else SamplingParams()
        self._default_max_tokens = defaults.max_tokens if defaults.max_tokens is not None else DEFAULT_MAX_TOKENS
        self._defaults = fitted_defaults(dataclasses.replace(defaults, max_tokens=None), core.spec.vocab)
        self.load_s = load_s

    @property
    def core(self) -> _core.Engine:
        """The native engine. Errors: `InvalidArgumentError` after `close`, and in a forked process."""
        core = self._core  # once: another thread may close the engine at any moment
        if core is None:
            raise InvalidArgumentError("the engine is closed")
        self._refuse_fork()
        return core

    def _refuse_fork(self) -> None:
        if os.getpid() != self._process:
            raise InvalidArgumentError(
                "the engine's threads stayed in the process that forked: open the model in this one"
            )

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, or None: such an engine works on ids. Errors: as `checkpoint`."""
        checkpoint = self.checkpoint
        return checkpoint.tokenizer if checkpoint else None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What was opened; None for random weights. Errors: `InvalidArgumentError` after `close`."""
        checkpoint = self._checkpoint
        if self._core is None:  # looked at second: `close` clears it first
            raise InvalidArgumentError("the engine is closed")
        return checkpoint

    def tokenizer_or_raise(self) -> Tokenizer:
        """The model's tokenizer. Errors: `InvalidArgumentError` where it has none, and as `checkpoint`."""
        if (tokenizer := self.tokenizer) is None:
            raise InvalidArgumentError("the model has no tokenizer files: give token ids instead of text")
        return tokenizer

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt: ids as they are, text through the tokenizer. Empty text is BOS where there is one.

        Errors: `ContextLengthError` for a text so large that turning it into ids would only cost time.
        """
        if not isinstance(prompt, str):
            return token_ids("prompt", prompt)
        check_size(prompt, self.core.config.max_model_len)
        ids = self.tokenizer_or_raise().encode(prompt)
        if not ids and (checkpoint := self.checkpoint) is not None and checkpoint.special.bos is not None:
            return [checkpoint.special.bos]
        return ids

    def plan(self, batch_size: int = 1, tokens: int = 1, context: int | None = None) -> list[dict[str, Any]]:
        """Every op of a step with `batch_size` sequences of `tokens` new tokens: rows as in `lamella explain --json`.

        `context` counts the tokens in the cache after the step; None is 128, or all of an encoder's tokens.
        """
        most = 2**31 - 1
        batch_size, tokens = whole_number("batch_size", batch_size, 1, most), whole_number("tokens", tokens, 1, most)
        if context is None:
            encoder = self.core.spec.head.kind == _core.HeadKind.hidden
            context = tokens if encoder else max(tokens, min(128, self.core.config.max_model_len))
        if whole_number("context", context, 1, most) < tokens:
            raise InvalidArgumentError(f"context is {context}; expected at least the {tokens} new tokens")
        return [row_as_dict(row) for row in self.core.explain(_core.StepShape.uniform(batch_size, tokens, context))]

    def stats(self) -> dict[str, int | float | str]:
        """Counters: KV blocks, bytes, requests: received = running + finished + cancelled + rejected + failed.

        `kv_blocks_kept` hold beginnings that later requests may share; `reused_tokens` counts tokens that were not
        computed for that reason, `preemptions` how often a request had to give its blocks to an older one. `step_s` are
        the seconds of all `steps` of generation, `executor_s` what of them the model's ops took.
        """
        stats = self.core.stats()
        return {**{name: getattr(stats, name) for name in _STATS}, "bytes_staging": 0, "io_backend": "pread"}

    def close(self) -> None:
        """Ends the engine: everything but `close` raises afterwards.

        Requests that run, of whatever thread or task, end within a step with `finish_reason` "cancelled". Weights and
        KV cache are freed at once, or when the last call that runs in them has returned; the files of the checkpoint
        are closed too, unless the caller holds `checkpoint`.
        """
        core, self._core = self._core, None
        self._checkpoint = None
        if core is not None and os.getpid() == self._process:
            core.close()

    def __reduce__(self) -> NoReturn:
        raise InvalidArgumentError("an Engine cannot be pickled or copied: open the model again where it is needed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_open_engines: weakref.WeakSet[OpenedEngine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Ends what daemon threads wait for before the interpreter does: a thread that comes back from a native call after
    that is killed by Python in the middle of C++ frames, which aborts the process."""
    for engine in list(_open_engines):
        engine.close()


def row_as_dict(row: _core.ExplainRow) -> dict[str, Any]:
    """A row of `Engine.plan` and of `lamella explain --json`."""
    fields = (
        "op",
        "layer",
        "region",
        "inputs",
        "outputs",
        "shape",
        "dtype",
        "kernel",
        "arithmetic",
        "bytes_read",
        "bytes_written",
        "flops",
    )
    return {name: getattr(row, name) for name in (*fields, "roofline_s", "measured_s")}
