"""The engine as Python sees it: text in, text out, over the native core."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import os
import time
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, overload

from . import _core
from .answers import Answers, Asked, in_thread
from .checks import check_flag, one_of, token_ids, whole_number
from .completion import Chunk, Completion
from .core_params import core_params
from .engine_options import EngineOptions
from .errors import InvalidArgumentError, RequestCancelledError
from .generation_defaults import fitted_defaults, warn_of_ignored
from .params import SamplingParams
from .progress import Progress, check_progress, told_of_bytes, told_of_requests
from .prompts import Prompt, as_list, check_size, checked_ids, each, is_one_prompt
from .seeds import drawn_seed
from .sentence_transformers import SentenceEmbedding
from .streamers import Streamer, check_streamer, feed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .checkpoint import Checkpoint
    from .tokenizer import Tokenizer

    FloatArray = NDArray[np.float32]


Message = dict[str, Any]
_STATS = (
    *("kv_blocks_total", "kv_blocks_used", "kv_blocks_kept"),
    *("received", "running", "finished", "cancelled", "rejected", "failed"),
    *("steps", "step_s", "executor_s", "preemptions", "reused_tokens"),
    *("bytes_weights", "bytes_kv", "bytes_activations"),
)
DEFAULT_MAX_TOKENS = 256
_POOLINGS: dict[str | None, _core.Pooling] = {
    "mean": _core.Pooling.mean,
    "cls": _core.Pooling.cls,
    "pooler": _core.Pooling.pooler,
    None: _core.Pooling.none,
}


class Engine:
    """One model, loaded and ready. Thread-safe, for asyncio as well; a context manager.

    Args:
        model: a Hugging Face folder, an id in the local Hugging Face cache, a GGUF file, or a packed store: the folder
            that `lamella pack` wrote, or the model.lamella in it.
        device: "auto" or "cpu".
        dtype: "auto", "float32"/"fp32", "float16"/"fp16" or "bfloat16"/"bf16": activations, KV cache and weights that
            are not quantised. A packed store's weights stay as they are; "auto" is what it was packed for.
        quantization: None keeps what the checkpoint stores; "dequantize" expands it to `dtype`; "int8_weight_only" and
            "int4" (groups of 32) quantise the matrices; "int8" and "int4_a8" also round the inputs of linears to int8,
            token by token. A packed store keeps its own: only None.
        smoothing: with "int8", False leaves out the rotation that eases rounding inputs (README, "Weight formats").
        quantize_head: the head, or the token embedding that it is tied to, is quantised as the other matrices are by
            "int8", "int4" and "int4_a8"; otherwise these hold it, as they hold token embeddings, in "int8_weight_only".
        memory_budget: bytes, or "2GiB", for weights, KV cache and activations; None is what the machine has free.
        kv_cache_memory: bytes, or "512MiB", of the KV cache; None is what `max_num_seqs` full contexts need, at most a
            quarter of the memory that weights and activations leave (half under a memory_budget). Memory is touched as
            it is used. Where requests need more than there is, the youngest wait.
        prefix_caching: keep the KV cache of what ran, as long as there is room, for prompts that begin alike.
        max_num_seqs: sequences that run at once.
        max_model_len: context in tokens, prompt and result together; None is the model's own.
        max_num_batched_tokens: tokens of one step; longer prompts are cut into chunks, which changes no bit. Raised to
            `max_num_seqs`, so that every sequence can go on, and for encoders, which see an input whole, to
            `max_model_len`.
        threads: None is every core that affinity and cgroup limits leave.
        seed: where requests without a seed draw theirs from.
        deep_fusion: False runs the plain plan, op by op.
        progress: of loading, where it takes over a second: None shows a line on standard error where that is a terminal
            or a notebook's, True always, False never; a function is called with (bytes read, bytes in all) instead.
        kernels: the CPU kernel set, one of those that `lamella info` lists, for example "reference"; None is
            the one that the environment variable LAMELLA_ISA names, or the best.

    Raises:
        CheckpointError: missing, damaged, contradictory or unsupported model files.
        OutOfMemoryError: weights and KV cache exceed the budget; found before the first weight is read.
        InvalidArgumentError: an option of a wrong type or outside its range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = EngineOptions.device,
        dtype: str = EngineOptions.dtype,
        quantization: str | None = EngineOptions.quantization,
        smoothing: bool = EngineOptions.smoothing,
        quantize_head: bool = EngineOptions.quantize_head,
        memory_budget: int | str | None = EngineOptions.memory_budget,
        kv_cache_memory: int | str | None = EngineOptions.kv_cache_memory,
        prefix_caching: bool = EngineOptions.prefix_caching,
        max_num_seqs: int = EngineOptions.max_num_seqs,
        max_model_len: int | None = EngineOptions.max_model_len,
        max_num_batched_tokens: int = EngineOptions.max_num_batched_tokens,
        threads: int | None = EngineOptions.threads,
        seed: int = EngineOptions.seed,
        deep_fusion: bool = EngineOptions.deep_fusion,
        progress: Progress | bool | None = None,
        kernels: str | None = EngineOptions.kernels,
    ) -> None:
        from .checkpoint import open_model

        options = EngineOptions(
            device=device,
            dtype=dtype,
            quantization=quantization,
            smoothing=smoothing,
            quantize_head=quantize_head,
            memory_budget=memory_budget,
            kv_cache_memory=kv_cache_memory,
            prefix_caching=prefix_caching,
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            max_num_batched_tokens=max_num_batched_tokens,
            threads=threads,
            seed=seed,
            deep_fusion=deep_fusion,
            kernels=kernels,
        )
        check_progress(progress)
        started = time.perf_counter()
        checkpoint = open_model(model)
        checkpoint.tokenizer  # noqa: B018  built now: a tokenizer that does not fit the model is an error of loading
        weights = checkpoint.weights
        resolved = weights.resolved_dtype(options.dtype)
        formats = [choice.format for choice in weights.choose_formats(options.format_options(resolved))]
        config = options.config(resolved, formats)
        with told_of_bytes(progress, "loading") as told:
            core = weights.open_engine(config, options.threads or 0, options.kernels, told)
        self._set_up(core, checkpoint, options.seed, time.perf_counter() - started)

    @classmethod
    def random(cls, spec: _core.ModelSpec, **options: Any) -> Engine:
        """An engine with random weights for a shape without a checkpoint. It works on ids; options as for Engine."""
        resolved = EngineOptions(**options)
        dtype = resolved.resolved_dtype("bfloat16")
        formats = _core.choose_formats_for_shape(spec, resolved.format_options(dtype))
        started = time.perf_counter()
        core = _core.random_engine(
            spec, resolved.seed, resolved.config(dtype, formats), resolved.threads or 0, resolved.kernels
        )
        engine = cls.__new__(cls)
        engine._set_up(core, None, resolved.seed, time.perf_counter() - started)
        return engine

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

    # ---- generation ------------------------------------------------------------------------------------------------

    @overload
    def generate(
        self,
        prompts: str,
        params: SamplingParams | None = None,
        *,
        streamer: Streamer | None = None,
        progress: bool | None = None,
        **overrides: Any,
    ) -> Completion: ...
    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        streamer: Streamer | None = None,
        progress: bool | None = None,
        **overrides: Any,
    ) -> Completion | list[Completion]: ...
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        streamer: Streamer | None = None,
        progress: bool | None = None,
        **overrides: Any,
    ) -> Completion | list[Completion]:
        """Continues one prompt (a text or a list of ids) or a list of prompts.

        All prompts are checked before the first starts. A failure at run time raises for a single prompt; in a list it
        ends that completion alone, with `finish_reason` "error". Fields of `SamplingParams` may be given as keywords.

        `streamer`, for a single prompt with n = 1, is an object with transformers' `put` and `end`: it is given the
        prompt's ids, int64 (1, tokens), then each new id, int64 (1,), as it comes.

        `progress`: what takes over a second has a line on standard error with the requests that have ended and tokens a
        second. None shows it for lists, where standard error is a terminal or a notebook's; True always, False never.
        """
        if is_one_prompt(prompts):
            asked = self._asked(prompts, params, overrides)
            check_streamer(streamer, asked)
            with told_of_requests(progress, "generating", 1) as told, self._submit([asked], told) as answers:
                if streamer is not None:
                    feed(streamer, asked, answers.chunks())
                return answers.run_one()
        if streamer is not None:
            raise InvalidArgumentError("streamer goes with a single prompt, and this is a list")
        listed = self._each_asked(prompts, params, overrides)
        with told_of_requests(progress, "generating", len(listed)) as told, self._submit(listed, told) as answers:
            return answers.run()

    @overload
    async def agenerate(self, prompts: str, params: SamplingParams | None = None, **overrides: Any) -> Completion: ...
    @overload
    async def agenerate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | None = None, **overrides: Any
    ) -> Completion | list[Completion]: ...
    async def agenerate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | None = None, **overrides: Any
    ) -> Completion | list[Completion]:
        """As `generate`, for asyncio: other tasks run meanwhile, texts become ids in another thread.

        Cancelling the task cancels the requests.
        """
        if is_one_prompt(prompts):
            asked = await in_thread(lambda: self._asked(prompts, params, overrides))
            with self._submit([asked]) as answers:
                return await answers.arun_one()
        listed = await in_thread(lambda: self._each_asked(prompts, params, overrides))
        with self._submit(listed) as answers:
            return await answers.arun()

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **overrides: Any) -> Iterator[Chunk]:
        """Yields a `Chunk` whenever new text is certain; leaving the loop, or dropping it, cancels the request.

        The prompt is checked at the call, before the first chunk is asked for.
        """
        asked = self._asked(prompt, params, overrides)
        self.core.validate_requests([asked.request])
        return self._chunks(asked)

    async def astream(
        self, prompt: Prompt, params: SamplingParams | None = None, **overrides: Any
    ) -> AsyncGenerator[Chunk, None]:
        """As `stream`, for asyncio. The prompt is checked when the first chunk is asked for.

        Cancelling the task, or dropping the iterator, cancels the request.
        """
        asked = await in_thread(lambda: self._asked(prompt, params, overrides))
        async with contextlib.aclosing(self._achunks(asked)) as chunks:
            async for chunk in chunks:
                yield chunk

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        **overrides: Any,
    ) -> Completion: ...
    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[True],
        **overrides: Any,
    ) -> Iterator[Chunk]: ...
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: bool = False,
        **overrides: Any,
    ) -> Completion | Iterator[Chunk]:
        """Answers a conversation of {"role": ..., "content": ...} messages, put into the model's own chat template.

        Errors: `ChatTemplateError` where the model has no template or the template refuses the messages.
        """
        ids = self.chat_ids(messages)
        if stream:
            return self.stream(ids, params, **overrides)
        return cast(Completion, self.generate(ids, params, **overrides))

    @overload
    async def achat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        **overrides: Any,
    ) -> Completion: ...
    @overload
    async def achat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[True],
        **overrides: Any,
    ) -> AsyncGenerator[Chunk, None]: ...
    async def achat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: bool = False,
        **overrides: Any,
    ) -> Completion | AsyncGenerator[Chunk, None]:
        """As `chat`, for asyncio: the template is rendered in another thread, as texts become ids.

        With `stream`, awaiting gives the iterator: `async for chunk in await engine.achat(messages, stream=True)`; what
        is wrong with messages or parameters is raised by the await. Cancelling the task, or dropping the iterator,
        cancels the request.
        """
        asked = await in_thread(lambda: self._asked(self.chat_ids(messages), params, overrides))
        if stream:
            self.core.validate_requests([asked.request])
            return self._achunks(asked)
        with self._submit([asked]) as answers:
            return await answers.arun_one()

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of a conversation in the model's chat template, up to where the answer begins."""
        from .chat_template import render_chat

        template = checkpoint.chat_template if (checkpoint := self.checkpoint) else None
        text = render_chat(template, messages, special_tokens=self._special_tokens())
        return self.tokenizer_or_raise().encode(text, add_special_tokens=False)

    def _special_tokens(self) -> dict[str, str]:
        """The names under which chat templates know the special tokens."""
        checkpoint = self.checkpoint
        if checkpoint is None or (tokenizer := checkpoint.tokenizer) is None:
            return {}
        special = checkpoint.special
        ids = {"bos_token": special.bos, "eos_token": special.eos[0] if special.eos else None, "pad_token": special.pad}
        tokens = {name: tokenizer.id_to_token(id) for name, id in ids.items() if id is not None}
        return {name: token for name, token in tokens.items() if token is not None}

    def _chunks(self, asked: Asked) -> Iterator[Chunk]:
        with self._submit([asked]) as answers:
            yield from answers.chunks()

    async def _achunks(self, asked: Asked) -> AsyncGenerator[Chunk, None]:
        with self._submit([asked]) as answers:
            async with contextlib.aclosing(answers.achunks()) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _submit(self, asked: Sequence[Asked], told: Progress | None = None) -> Answers:
        return Answers(self.core, asked, self.tokenizer, told)

    # ---- requests --------------------------------------------------------------------------------------------------

    def _asked(self, prompt: Prompt, params: SamplingParams | None, overrides: dict[str, Any]) -> Asked:
        if params is not None and not isinstance(params, SamplingParams):
            raise InvalidArgumentError(f"params is of type {type(params).__name__}; expected SamplingParams")
        resolved = (params or self._defaults).override(overrides)
        checkpoint = self.checkpoint
        tokenizer = checkpoint.tokenizer if checkpoint is not None else None
        if resolved.stop and tokenizer is None:
            raise InvalidArgumentError("stop is text and the model has no tokenizer files: give stop_token_ids")
        ids = self.encode_prompt(prompt)
        sampling = core_params(
            resolved,
            room=self.core.config.max_model_len - len(ids),
            default_max_tokens=self._default_max_tokens,
            seed=resolved.seed if resolved.seed is not None else drawn_seed(self._seed, next(self._numbers)),
            eos=checkpoint.special.eos if checkpoint is not None else (),
            tokenizer=tokenizer,
        )
        return Asked(_core.Request(ids, sampling), resolved)

    def _each_asked(
        self, prompts: Sequence[Prompt] | Prompt, params: SamplingParams | None, overrides: dict[str, Any]
    ) -> list[Asked]:
        return each(as_list(prompts), lambda prompt: self._asked(prompt, params, overrides))

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

    # ---- whole inputs at once --------------------------------------------------------------------------------------

    def logits(self, inputs: Prompt | Sequence[Prompt]) -> list[FloatArray]:
        """Logits of every position, for checking: one float32 array (tokens, vocabulary) for each input.

        All inputs are checked before the first is run.
        """
        core = self.core
        ids = each(as_list(inputs), lambda prompt: checked_ids(core, self.encode_prompt(prompt)))
        return each(ids, core.logits)

    def score(self, inputs: Prompt | Sequence[Prompt], *, progress: bool | None = None) -> list[FloatArray]:
        """Log-probabilities of the given tokens: for each input a float32 array (tokens - 1,).

        Entry i is that of token i + 1 given those before it; the first token has nothing before it. Their sum is the
        log-likelihood of the rest given the first. Natural logarithms. All inputs are checked before the first is run.
        `progress` as in `generate`.
        """
        import numpy as np

        core = self.core
        sampling = _core.SamplingParams(max_tokens=0, prompt_logprobs=0)
        asked = [
            Asked(_core.Request(ids, sampling), SamplingParams())
            for ids in each(as_list(inputs), lambda prompt: checked_ids(core, self.encode_prompt(prompt)))
        ]
        with told_of_requests(progress, "scoring", len(asked)) as told, self._submit(asked, told) as answers:
            completions = answers.run()
            for i, done in enumerate(completions):
                answers.raise_error_of(i)
                if done.finish_reason == "cancelled":
                    raise RequestCancelledError("the engine was closed while it scored these inputs")
        return [
            np.array([position[0].logprob for position in (done.prompt_logprobs or [])[1:]], np.float32)
            for done in completions
        ]

    def encode(
        self,
        inputs: Prompt | Sequence[Prompt],
        pooling: Literal["auto", "mean", "cls", "pooler"] | None = "auto",
        normalize: bool | None = None,
    ) -> FloatArray | list[FloatArray]:
        """Embeds inputs with an encoder: float32, (inputs, hidden); with pooling None a list of (tokens, hidden).

        `pooling` "auto" is the model's own: what its sentence-transformers files or its GGUF metadata say, and the mean
        where they say nothing. Models that ask for another pooling than mean and cls are refused when they are opened.

        `normalize` divides by the L2 norm; None does what those files say of embeddings, and leaves the rows of single
        tokens (pooling None) as they are, as sentence-transformers does; True divides each token's row by its own norm.

        Texts are cut where the model's sentence-transformers files say so; others must fit.
        """
        import numpy as np

        one_of("pooling", pooling, ("auto", *_POOLINGS))
        if normalize is not None:
            check_flag("normalize", normalize)
        checkpoint = self.checkpoint
        sentence = (checkpoint.sentence if checkpoint else None) or SentenceEmbedding()
        ids = each(as_list(inputs), lambda prompt: self._sentence_ids(prompt, sentence.max_tokens))
        core = self.core
        rows = core.encode(ids, _POOLINGS[sentence.pooling if pooling == "auto" else pooling])
        if pooling is None:
            return [_unit(row) for row in rows] if normalize else rows
        result = np.stack(rows) if rows else np.zeros((0, core.spec.hidden), np.float32)
        return _unit(result) if (sentence.normalize if normalize is None else normalize) else result

    def _sentence_ids(self, prompt: Prompt, limit: int | None) -> list[int]:
        if isinstance(prompt, str) and limit is not None:
            check_size(prompt, self.core.config.max_model_len)
            return self.tokenizer_or_raise().encode(prompt, max_tokens=limit)
        return self.encode_prompt(prompt)

    # ---- about the engine ------------------------------------------------------------------------------------------

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

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


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
        "bytes_read",
        "bytes_written",
        "flops",
    )
    return {name: getattr(row, name) for name in (*fields, "roofline_s", "measured_s")}


def _unit(rows: FloatArray) -> FloatArray:
    """Rows divided by their L2 norm; a row of zeros stays one."""
    import numpy as np

    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: FloatArray = rows / np.maximum(norms, 1e-12).astype(np.float32)
    return unit
