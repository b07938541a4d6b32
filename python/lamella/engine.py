"""The engine as Python sees it: text in, text out, over the native core."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, overload

from . import _core
from .checks import check_flag, one_of, shown, token_ids, whole_number
from .completion import Chunk, Completion, FinishReason, Timing
from .core_params import core_params
from .engine_options import EngineOptions
from .errors import Error, InvalidArgumentError, class_for_code
from .generation_defaults import fitted_defaults, warn_of_ignored
from .model_weights import Progress
from .params import SamplingParams
from .prompts import Prompt, as_list, checked_ids, each, is_one_prompt
from .seeds import drawn_seed
from .sentence_transformers import SentenceEmbedding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .checkpoint import Checkpoint
    from .tokenizer import Tokenizer

    FloatArray = NDArray[np.float32]


Message = dict[str, Any]
DEFAULT_MAX_TOKENS = 256
_POOLINGS: dict[str | None, _core.Pooling] = {
    "mean": _core.Pooling.mean,
    "cls": _core.Pooling.cls,
    "pooler": _core.Pooling.pooler,
    None: _core.Pooling.none,
}


class Engine:
    """One model, loaded and ready. Thread-safe; a context manager.

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
        max_num_seqs: sequences that run at once.
        max_model_len: context in tokens, prompt and result together; None is the model's own.
        max_num_batched_tokens: tokens of one step; longer prompts are cut into chunks, which changes no bit. Raised to
            `max_num_seqs`, so that every sequence can go on, and for encoders, which see an input whole, to
            `max_model_len`.
        threads: None is every core that affinity and cgroup limits leave.
        seed: where requests without a seed draw theirs from.
        deep_fusion: False runs the plain plan, op by op.
        progress: called with (bytes read, bytes in all) while weights load.
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
        max_num_seqs: int = EngineOptions.max_num_seqs,
        max_model_len: int | None = EngineOptions.max_model_len,
        max_num_batched_tokens: int = EngineOptions.max_num_batched_tokens,
        threads: int | None = EngineOptions.threads,
        seed: int = EngineOptions.seed,
        deep_fusion: bool = EngineOptions.deep_fusion,
        progress: Progress | None = None,
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
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            max_num_batched_tokens=max_num_batched_tokens,
            threads=threads,
            seed=seed,
            deep_fusion=deep_fusion,
            kernels=kernels,
        )
        if progress is not None and not callable(progress):
            raise InvalidArgumentError(f"progress is {shown(progress)}; expected a function of two numbers")
        started = time.perf_counter()
        checkpoint = open_model(model)
        checkpoint.tokenizer  # noqa: B018  built now: a tokenizer that does not fit the model is an error of loading
        weights = checkpoint.weights
        resolved = weights.resolved_dtype(options.dtype)
        formats = [choice.format for choice in weights.choose_formats(options.format_options(resolved))]
        core = weights.open_engine(options.config(resolved, formats), options.threads or 0, options.kernels, progress)
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
    def generate(self, prompts: str, params: SamplingParams | None = None, **overrides: Any) -> Completion: ...
    @overload
    def generate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | None = None, **overrides: Any
    ) -> Completion | list[Completion]: ...
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        **overrides: Any,
    ) -> Completion | list[Completion]:
        """Continues one prompt (a text or a list of ids) or a list of prompts.

        All prompts are checked before the first starts. A failure at run time raises for a single prompt; in a list it
        ends that completion alone, with `finish_reason` "error". Fields of `SamplingParams` may be given as keywords.
        """
        if is_one_prompt(prompts):
            request = self._request(prompts, params, overrides)
            self.core.validate_requests([request])
            completion, code = self._run([request])[0]
            if completion.error is not None:
                raise class_for_code(code)(completion.error, code)
            return completion
        requests = each(as_list(prompts), lambda prompt: self._request(prompt, params, overrides))
        self.core.validate_requests(requests)
        return [completion for completion, _ in self._run(requests)]

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **overrides: Any) -> Iterator[Chunk]:
        """Yields a `Chunk` whenever new text is certain; leaving the loop cancels the request.

        The prompt is checked at the call, before the first chunk is asked for.
        """
        request = self._request(prompt, params, overrides)
        self.core.validate_requests([request])
        return self._chunks(request)

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

    def _chunks(self, request: _core.Request) -> Iterator[Chunk]:
        core, tokenizer = self.core, self.tokenizer
        decoder = tokenizer.stream() if tokenizer else None
        open_ids: dict[int, int] = {}
        try:
            _submit(core, [request], open_ids)
            (request_id,) = open_ids
            while open_ids:
                self._refuse_fork()  # a stream outlives close(), so that the property `core` does not look for it
                core.step()
                progress = core.poll(request_id)
                if progress.finished:
                    open_ids.clear()
                text = "".join(decoder.push(token) for token in progress.new_tokens) if decoder else ""
                if decoder and progress.finished:
                    text += decoder.flush()
                done = progress.finished and progress.error is None
                if progress.new_tokens or text or done:  # tokens before a failure stay valid: they come first
                    yield Chunk(text, progress.new_tokens, _reason(progress.reason) if done else None)
                if progress.error is not None:
                    raise _error(progress)
        finally:
            self._drop(core, open_ids)

    def _run(self, requests: Sequence[_core.Request]) -> list[tuple[Completion, str]]:
        core, tokenizer = self.core, self.tokenizer
        started = time.perf_counter()
        at_once = core.config.max_num_seqs
        open_ids: dict[int, int] = {}  # of each request that has not ended, its place in the list; oldest first
        tokens: list[list[int]] = [[] for _ in requests]
        results: dict[int, tuple[Completion, str]] = {}
        try:
            _submit(core, requests, open_ids)
            while open_ids:
                core.step()
                # The core starts requests in order, so that no younger one can have news.
                for request_id, i in list(itertools.islice(open_ids.items(), at_once)):
                    progress = core.poll(request_id)
                    if progress.finished:  # noted first: whatever fails below, the core does not know the id any more
                        del open_ids[request_id]
                    tokens[i] += progress.new_tokens
                    if progress.finished:
                        timing = Timing(progress.first_token_s, time.perf_counter() - started)
                        completion = Completion(
                            text=tokenizer.decode(tokens[i]) if tokenizer else "",
                            token_ids=tokens[i],
                            finish_reason=_reason(progress.reason),
                            prompt_tokens=len(requests[i].prompt),
                            timing=timing,
                            error=progress.error,
                        )
                        results[i] = (completion, progress.error_code or "")
        finally:
            self._drop(core, open_ids)
        return [results[i] for i in range(len(requests))]

    def _drop(self, core: _core.Engine, ids: Collection[int]) -> None:
        """Cancels requests and takes their last Progress, so that the core forgets them.

        It raises no error of its own: what made the caller leave is what the user must see. In a forked process it does
        nothing: the requests are the parent's, and a lock that one of its threads held stays locked for ever.
        """
        if os.getpid() != self._process:
            return
        cancelled = []
        for request_id in ids:  # all of them before the first step, which would take the others a token further
            with contextlib.suppress(Exception):
                core.cancel(request_id)
                cancelled.append(request_id)
        for request_id in cancelled:
            with contextlib.suppress(Exception):  # of an id whose end was taken just before an interrupt, for one
                while not core.poll(request_id).finished:
                    core.step()

    # ---- requests --------------------------------------------------------------------------------------------------

    def _request(self, prompt: Prompt, params: SamplingParams | None, overrides: dict[str, Any]) -> _core.Request:
        if params is not None and not isinstance(params, SamplingParams):
            raise InvalidArgumentError(f"params is of type {type(params).__name__}; expected SamplingParams")
        resolved = (params or self._defaults).override(overrides)
        checkpoint = self.checkpoint
        ids = self.encode_prompt(prompt)
        # NOT RUN YET: to be deleted with the loop that runs them.
        if resolved.n > 1 or resolved.stop or resolved.logprobs is not None or resolved.prompt_logprobs is not None:
            raise InvalidArgumentError("n, stop, logprobs and prompt_logprobs are not run yet")
        # end of NOT RUN YET
        seed = resolved.seed if resolved.seed is not None else drawn_seed(self._seed, next(self._numbers))
        sampling = core_params(
            resolved,
            room=self.core.config.max_model_len - len(ids),
            default_max_tokens=self._default_max_tokens,
            seed=seed,
            eos=checkpoint.special.eos if checkpoint is not None else (),
            tokenizer=checkpoint.tokenizer if checkpoint is not None else None,
        )
        return _core.Request(ids, sampling)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt: ids as they are, text through the tokenizer. Empty text is BOS where there is one."""
        if not isinstance(prompt, str):
            return token_ids("prompt", prompt)
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

    def stats(self) -> dict[str, int | str]:
        """Counters: KV blocks, bytes, requests: received = running + finished + cancelled + rejected + failed."""
        stats = self.core.stats()
        names = (
            *(
                "kv_blocks_total",
                "kv_blocks_used",
                "received",
                "running",
                "finished",
                "cancelled",
                "rejected",
                "failed",
            ),
            *("bytes_weights", "bytes_kv", "bytes_activations"),
        )
        return {**{name: getattr(stats, name) for name in names}, "bytes_staging": 0, "io_backend": "pread"}

    def close(self) -> None:
        """Ends the engine: everything but `close` raises afterwards.

        Weights and KV cache are freed at once, or when the last call or stream that runs in them has ended: those go on
        as if nothing had happened. The files of the checkpoint are closed too, unless the caller holds `checkpoint`.
        """
        self._core = None
        self._checkpoint = None

    def __reduce__(self) -> NoReturn:
        raise InvalidArgumentError("an Engine cannot be pickled or copied: open the model again where it is needed")

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def _reason(reason: str) -> FinishReason:
    return cast(FinishReason, reason)  # the core's names are these


def _error(progress: _core.Progress) -> Error:
    code = progress.error_code or Error.code
    return class_for_code(code)(progress.error or "", code)


def _submit(core: _core.Engine, requests: Sequence[_core.Request], open_ids: dict[int, int]) -> None:
    """Submits all requests and notes of each id its place among them.

    In one call, without bytecode of our own in between: an interrupt that arrived after a submission and before its
    note would leave a request running that nobody knows.
    """
    open_ids.update(zip(map(core.submit, requests), itertools.count(), strict=False))


def _unit(rows: FloatArray) -> FloatArray:
    """Rows divided by their L2 norm; a row of zeros stays one."""
    import numpy as np

    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: FloatArray = rows / np.maximum(norms, 1e-12).astype(np.float32)
    return unit
