"""The engine as Python sees it: text in, text out, over the native core."""

from __future__ import annotations

import os
import time
from typing import Any

from . import _core
from .chatting import Chatting
from .engine_options import EngineOptions
from .progress import Progress, check_progress, told_of_bytes
from .whole_inputs import WholeInputs


class Engine(Chatting, WholeInputs):
    """One model, loaded and ready. Thread-safe, for asyncio as well; a context manager.

    Args:
        model: a Hugging Face folder, an id in the local Hugging Face cache, a GGUF file, or a packed store: the folder
            that `lamella pack` wrote, or the model.lamella in it.
        device: "auto" or "cpu".
        dtype: "auto", "float32"/"fp32", "float16"/"fp16" or "bfloat16"/"bf16": activations, KV cache and weights that
            are not quantised. A packed store's weights stay as they are; "auto" is what it was packed for.
        kv_cache_dtype: in which the KV cache holds K and V: "auto" is the dtype; "float32"/"fp32", "float16"/"fp16",
            "bfloat16"/"bf16", or "int8", which has a scale for every token and head and halves a bfloat16 cache.
        quantization: None keeps what the checkpoint stores; "dequantize" expands it to `dtype`; "int8_weight_only" and
            "int4" (groups of 32) quantise the matrices; "int8" and "int4_a8" also round the inputs of linears to int8,
            token by token. A packed store keeps its own: only None.
        smoothing: with "int8", False leaves out the rotation that eases rounding inputs (docs/weight-formats.md).
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
        threads: None is every core that affinity and cgroup limits leave. Ranks share them, one each at least.
        tensor_parallel_size: ranks that share every layer: each holds a part of its heads and of its MLP, and they add
            up what they found. Ranks are threads of this process with weights and KV cache of their own.
        pipeline_parallel_size: stages that share the layers; each may have several tensor ranks. Results are those of
            one stage, bit for bit.
        pipeline_schedule: how the stages are fed: "hybrid" sends a generated token's micro-batch back at once, and has
            one count of micro-batches for prompts and one for generation; "single" has one for both; "training" also
            waits for the last of a round before the next token. The latter two are there to compare with.
        prompt_micro_batches: that count for prompts, 1 to 16; None chooses it from their lengths and from what steps
            have taken so far. Schedules with one count take this one.
        generation_micro_batches: the count for generation, likewise.
        seed: where requests without a seed draw theirs from.
        deep_fusion: False runs the plain plan, op by op.
        sbi_gemm: False multiplies few tokens as many are, in cache-sized blocks of weights; changes no bit, and is
            there to show what SBI-GeMM is worth.
        progress: of loading, where it takes over a second: None shows a line on standard error where that is a terminal
            or a notebook's, True always, False never; a function is called with (bytes read, bytes in all) instead.
        kernels: the CPU kernel set, one of those that `lamella info` lists, for example "reference"; None is
            the one that the environment variable LAMELLA_ISA names, or the best.

    Raises:
        CheckpointError: missing, damaged, contradictory or unsupported model files.
        OutOfMemoryError: weights and KV cache exceed the budget; found before the first weight is read.
        InvalidArgumentError: an option of a wrong type or outside its range, and more ranks than the model can be
            shared by: found before the first weight is read.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = EngineOptions.device,
        dtype: str = EngineOptions.dtype,
        kv_cache_dtype: str = EngineOptions.kv_cache_dtype,
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
        tensor_parallel_size: int = EngineOptions.tensor_parallel_size,
        pipeline_parallel_size: int = EngineOptions.pipeline_parallel_size,
        pipeline_schedule: str = EngineOptions.pipeline_schedule,
        prompt_micro_batches: int | None = EngineOptions.prompt_micro_batches,
        generation_micro_batches: int | None = EngineOptions.generation_micro_batches,
        seed: int = EngineOptions.seed,
        deep_fusion: bool = EngineOptions.deep_fusion,
        sbi_gemm: bool = EngineOptions.sbi_gemm,
        progress: Progress | bool | None = None,
        kernels: str | None = EngineOptions.kernels,
    ) -> None:
        from .checkpoint import open_model

        options = EngineOptions(
            device=device,
            dtype=dtype,
            kv_cache_dtype=kv_cache_dtype,
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
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            pipeline_schedule=pipeline_schedule,
            prompt_micro_batches=prompt_micro_batches,
            generation_micro_batches=generation_micro_batches,
            seed=seed,
            deep_fusion=deep_fusion,
            sbi_gemm=sbi_gemm,
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
