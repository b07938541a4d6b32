"""The engine as Python sees it: text in, text out, over the native core."""

from __future__ import annotations

import dataclasses
import itertools
import operator
import os
import reprlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeGuard, TypeVar, cast, overload

from . import _core
from .completion import Chunk, Completion, FinishReason, Timing
from .engine_options import EngineOptions
from .errors import InvalidArgumentError, class_for_code
from .params import SamplingParams, check_flag, one_of, token_ids, warn_of_ignored, whole_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .checkpoint import Checkpoint
    from .tokenizer import Tokenizer

    FloatArray = NDArray[np.float32]


Prompt = str | Sequence[int]
Message = dict[str, Any]
Progress = Callable[[int, int], None]
_T = TypeVar("_T")

DEFAULT_MAX_TOKENS = 256


class Engine:
    """One model, loaded and ready. Thread-safe; a context manager.

    Args:
        model: a Hugging Face folder, an id in the local Hugging Face cache, or a GGUF file.
        device: "auto" or "cpu".
        dtype: "auto", "float32"/"fp32" or "bfloat16"/"bf16": activations, KV cache and weights.
        quantization: None or "dequantize": quantised tensors of a checkpoint are expanded to `dtype`.
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
        kernels: the CPU kernel set, one of those that `lamella info` lists, for example "reference"; None is the best.

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
            raise InvalidArgumentError(f"progress is {reprlib.repr(progress)}; expected a function of two numbers")
        started = time.perf_counter()
        checkpoint = open_model(model)
        checkpoint.tokenizer  # noqa: B018  built now: a tokenizer that does not fit the model is an error of loading
        core = _core.open_engine(
            checkpoint.spec,
            checkpoint.recipe,
            checkpoint.tensors,
            options.config(checkpoint.stored_dtype),
            options.threads or 0,
            options.kernels,
            progress,
        )
        self._set_up(core, checkpoint, options.seed, time.perf_counter() - started)

    @classmethod
    def random(cls, spec: _core.ModelSpec, **options: Any) -> Engine:
        """An engine with random weights for a shape without a checkpoint. It works on ids; options as for Engine."""
        resolved = EngineOptions(**options)
        started = time.perf_counter()
        core = _core.random_engine(
            spec, resolved.seed, resolved.config("bfloat16"), resolved.threads or 0, resolved.kernels
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
        # What a request asks for is refused where it does not fit; what the model's files say is clipped.
        self._default_max_tokens = defaults.max_tokens if defaults.max_tokens is not None else DEFAULT_MAX_TOKENS
        self._defaults = dataclasses.replace(defaults, max_tokens=None, top_k=min(defaults.top_k, core.spec.vocab))
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
        if _is_one_prompt(prompts):
            request = self._request(prompts, params, overrides)
            self.core.validate_requests([request])
            completion, code = self._run([request])[0]
            if completion.error is not None:
                raise class_for_code(code)(completion.error, code)
            return completion
        requests = _each(_as_list(prompts), lambda prompt: self._request(prompt, params, overrides))
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

        template = self._checkpoint.chat_template if self._checkpoint else None
        text = render_chat(template, messages, special_tokens=self._special_tokens())
        return self.tokenizer_or_raise().encode(text, add_special_tokens=False)

    def _special_tokens(self) -> dict[str, str]:
        """The names under which chat templates know the special tokens."""
        if self._checkpoint is None or self.tokenizer is None:
            return {}
        special = self._checkpoint.special
        ids = {"bos_token": special.bos, "eos_token": special.eos[0] if special.eos else None, "pad_token": special.pad}
        tokens = {name: self.tokenizer.id_to_token(id) for name, id in ids.items() if id is not None}
        return {name: token for name, token in tokens.items() if token is not None}

    def _chunks(self, request: _core.Request) -> Iterator[Chunk]:
        core, tokenizer = self.core, self.tokenizer
        decoder = tokenizer.stream() if tokenizer else None
        finished = False
        request_id = core.submit(request)
        try:
            while not finished:
                core.step()
                progress = core.poll(request_id)
                finished = progress.finished
                if progress.error is not None and progress.error_code is not None:
                    raise class_for_code(progress.error_code)(progress.error, progress.error_code)
                text = "".join(decoder.push(token) for token in progress.new_tokens) if decoder else ""
                if finished and decoder:
                    text += decoder.flush()
                if progress.new_tokens or finished:
                    yield Chunk(text, progress.new_tokens, _reason(progress.reason) if finished else None)
        finally:
            if not finished:
                _drop(core, request_id)

    def _run(self, requests: Sequence[_core.Request]) -> list[tuple[Completion, str]]:
        core = self.core
        started = time.perf_counter()
        ids: list[int] = []
        tokens: list[list[int]] = [[] for _ in requests]
        results: list[tuple[Completion, str] | None] = [None] * len(requests)
        try:
            for request in requests:
                ids.append(core.submit(request))
            while any(result is None for result in results):
                core.step()
                for i, request_id in enumerate(ids):
                    if results[i] is not None:
                        continue
                    progress = core.poll(request_id)
                    tokens[i] += progress.new_tokens
                    if progress.finished:
                        timing = Timing(progress.first_token_s, time.perf_counter() - started)
                        completion = Completion(
                            text=self.tokenizer.decode(tokens[i]) if self.tokenizer else "",
                            token_ids=tokens[i],
                            finish_reason=_reason(progress.reason),
                            prompt_tokens=len(requests[i].prompt),
                            timing=timing,
                            error=progress.error,
                        )
                        results[i] = (completion, progress.error_code or "")
        finally:
            for request_id, result in zip(
                ids, results, strict=False
            ):  # an interrupt may leave the last ones unsubmitted
                if result is None:
                    _drop(core, request_id)
        return [result for result in results if result is not None]

    # ---- requests --------------------------------------------------------------------------------------------------

    def _request(self, prompt: Prompt, params: SamplingParams | None, overrides: dict[str, Any]) -> _core.Request:
        if params is not None and not isinstance(params, SamplingParams):
            raise InvalidArgumentError(f"params is of type {type(params).__name__}; expected SamplingParams")
        resolved = (params or self._defaults).override(overrides)
        ids = self.encode_prompt(prompt)
        room = self.core.config.max_model_len - len(ids)
        max_tokens = resolved.max_tokens
        if max_tokens is None:
            max_tokens = max(1, min(self._default_max_tokens, room))  # without room the core refuses the prompt itself
        stop = list(resolved.stop_token_ids)
        if self._checkpoint is not None and not resolved.ignore_eos:
            stop += self._checkpoint.special.eos
        seed = resolved.seed
        if seed is None:
            seed = ((self._seed << 32) + next(self._numbers)) % 2**64
        sampling = _core.SamplingParams(
            max_tokens=max_tokens,
            temperature=resolved.temperature,
            top_k=resolved.top_k,
            top_p=resolved.top_p,
            seed=seed,
            stop_token_ids=stop,
        )
        return _core.Request(ids, sampling)

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt: ids as they are, text through the tokenizer. Empty text is BOS where there is one."""
        if not isinstance(prompt, str):
            return token_ids("prompt", prompt)
        ids = self.tokenizer_or_raise().encode(prompt)
        if not ids and self._checkpoint is not None and self._checkpoint.special.bos is not None:
            return [self._checkpoint.special.bos]
        return ids

    # ---- whole inputs at once --------------------------------------------------------------------------------------

    def logits(self, inputs: Prompt | Sequence[Prompt]) -> list[FloatArray]:
        """Logits of every position, for checking: one float32 array (tokens, vocabulary) for each input."""
        ids = _each(_as_list(inputs), self.encode_prompt)
        return [self.core.logits(one) for one in ids]

    def encode(
        self,
        inputs: Prompt | Sequence[Prompt],
        pooling: Literal["mean", "cls", "pooler"] | None = "mean",
        normalize: bool | None = None,
    ) -> FloatArray | list[FloatArray]:
        """Embeds inputs with an encoder: float32, (inputs, hidden); with pooling None a list of (tokens, hidden).

        Texts are cut where the model's sentence-transformers files say so; others must fit. `normalize` divides by
        the L2 norm; None does what those files say.
        """
        import numpy as np

        poolings = {
            None: _core.Pooling.none,
            "mean": _core.Pooling.mean,
            "cls": _core.Pooling.cls,
            "pooler": _core.Pooling.pooler,
        }
        if pooling not in poolings:
            raise InvalidArgumentError(f"pooling is {pooling!r}; expected mean, cls, pooler or None")
        sentence = self._checkpoint.sentence if self._checkpoint else None
        limit = sentence.max_tokens if sentence else None
        ids = _each(_as_list(inputs), lambda prompt: self._sentence_ids(prompt, limit))
        rows = self.core.encode(ids, poolings[pooling])
        if pooling is None:
            return rows
        result = np.stack(rows) if rows else np.zeros((0, self.core.spec.hidden), np.float32)
        if normalize if normalize is not None else bool(sentence and sentence.normalize):
            result /= np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
        return result

    def _sentence_ids(self, prompt: Prompt, limit: int | None) -> list[int]:
        if isinstance(prompt, str) and limit is not None:
            return self.tokenizer_or_raise().encode(prompt, max_tokens=limit)
        return self.encode_prompt(prompt)

    # ---- about the engine ------------------------------------------------------------------------------------------

    @property
    def core(self) -> _core.Engine:
        """The native engine. Errors: `InvalidArgumentError` after `close`, and in a forked process."""
        if self._core is None:
            raise InvalidArgumentError("the engine is closed")
        if os.getpid() != self._process:
            raise InvalidArgumentError(
                "the engine's threads stayed in the process that forked: open the model in this one"
            )
        return self._core

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, or None: such an engine works on ids."""
        return self._checkpoint.tokenizer if self._checkpoint else None

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What was opened; None for random weights."""
        return self._checkpoint

    def tokenizer_or_raise(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InvalidArgumentError("the model has no tokenizer files: give token ids instead of text")
        return self.tokenizer

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
        """Frees the weights and the KV cache. Everything but `close` raises afterwards."""
        self._core = None

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


def _is_one_prompt(prompts: Prompt | Sequence[Prompt]) -> TypeGuard[Prompt]:
    """A text, or a list of ids that is not empty."""
    if isinstance(prompts, str):
        return True
    if isinstance(prompts, bytes | Mapping) or not (hasattr(prompts, "__len__") and hasattr(prompts, "__getitem__")):
        raise InvalidArgumentError(
            f"the prompt is of type {type(prompts).__name__}; expected text, ids or a list of them"
        )
    return len(prompts) > 0 and all(_is_id(item) for item in prompts)


def _is_id(item: Any) -> bool:
    try:
        operator.index(item)
    except TypeError:
        return False
    return True


def _as_list(inputs: Prompt | Sequence[Prompt]) -> list[Prompt]:
    return [inputs] if _is_one_prompt(inputs) else list(cast(Sequence[Prompt], inputs))


def _each(prompts: Sequence[Prompt], make: Callable[[Prompt], _T]) -> list[_T]:
    """What `make` returns for every prompt; where there are several, its argument errors name the prompt's index."""
    made: list[_T] = []
    for i, prompt in enumerate(prompts):
        try:
            made.append(make(prompt))
        except InvalidArgumentError as error:
            if len(prompts) == 1:
                raise
            raise type(error)(f"prompt {i} of {len(prompts)}: {error}", error.code) from None
    return made


def _reason(reason: str) -> FinishReason:
    return cast(FinishReason, reason)  # the core's names are these


def _drop(core: _core.Engine, request_id: int) -> None:
    """Cancels a request and takes its last Progress, so that the core forgets it."""
    core.cancel(request_id)
    while not core.poll(request_id).finished:
        core.step()
