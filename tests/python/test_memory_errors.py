"""The rows of the error contract (reliability.md) that are about options and memory."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import lamella
import pytest
import torch
import transformers
from engines import (
    CONTEXT,
)
from lamella.engine_options import parse_bytes
from random_models import draw


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("dtype", "int8", "dtype is 'int8'; expected auto, float32"),
        ("dtype", None, "dtype is None"),
        ("dtype", ["float32"], "dtype is"),
        ("device", "tpu", "device is 'tpu'; expected auto"),
        ("quantization", "int3", "quantization is 'int3'; expected None"),
        ("smoothing", "no", "smoothing is 'no'"),
        ("smoothing", False, "smoothing=False goes with quantization 'int8'; quantization is None"),
        ("quantize_head", 2, "quantize_head is 2"),
        ("quantize_head", True, "quantize_head goes with quantization int8, int4, int4_a8; quantization is None"),
        ("memory_budget", "much", "memory_budget is 'much'; expected bytes or a size"),
        ("memory_budget", "3 GiBs", "memory_budget is"),
        ("memory_budget", 0, "memory_budget is 0"),
        ("memory_budget", -5, "memory_budget is -5"),
        ("memory_budget", 2**70, "memory_budget is"),
        ("memory_budget", "", "memory_budget is ''"),
        ("max_num_seqs", 0, "max_num_seqs is 0; expected 1 to"),
        ("max_num_seqs", "4", "max_num_seqs is '4'; expected a whole number"),
        ("max_num_seqs", 2**70, "max_num_seqs is"),
        ("max_model_len", 0, "max_model_len is 0; expected at least 1"),
        ("max_model_len", CONTEXT + 1, f"max_model_len is {CONTEXT + 1}; expected 1 to {CONTEXT}"),
        ("max_num_batched_tokens", 0, "max_num_batched_tokens is 0; expected 1 to"),
        ("threads", 0, "threads is 0; expected at least 1"),
        ("threads", -2, "threads is -2"),
        ("threads", 1.5, "threads is 1.5; expected a whole number"),
        ("seed", -1, "seed is -1"),
        ("deep_fusion", "no", "deep_fusion is 'no'; expected True or False"),
        ("sbi_gemm", 1, "sbi_gemm is 1; expected True or False"),
        ("kernels", "avx9", "this machine runs"),
        ("kernels", 9, "kernels is 9"),
    ],
)
def test_an_option_of_a_wrong_type_or_range_is_an_argument_error(
    folder: Path, option: str, value: Any, message: str
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)):
        lamella.Engine(folder, **{option: value})


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (10**9, 10**9),
        ("1000000000", 10**9),
        ("2GiB", 2**31),
        ("1.5 gb", 1_500_000_000),
        (" 512 MiB ", 2**29),
        ("7B", 7),
    ],
)
def test_sizes_of_memory_are_read_as_people_write_them(size: int | str, count: int) -> None:
    assert parse_bytes(size, "memory_budget") == count


def test_D1_a_budget_that_is_too_small_is_refused_before_a_weight_is_read(seed: int, tmp_path: Path) -> None:
    """The weights here are all NaN, so that reading a single one of them is a CheckpointError."""
    model = draw("gpt2", seed, tmp_path / "sound", n_positions=CONTEXT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    model.save_pretrained(tmp_path / "unreadable")
    with pytest.raises(lamella.CheckpointError, match="NaN"):
        lamella.Engine(tmp_path / "unreadable")
    asked: list[tuple[int, int]] = []
    with pytest.raises(lamella.OutOfMemoryError) as error:
        lamella.Engine(tmp_path / "unreadable", memory_budget="10 KiB", progress=lambda *done: asked.append(done))
    assert error.value.code == "OUT_OF_MEMORY" and isinstance(error.value, MemoryError)
    assert not asked
    for part in ("weights ", "KV cache ", "activations ", "together ", "budget 10.00 KiB"):
        assert part in str(error.value)


def test_D1_a_model_beyond_this_machine_is_refused_at_once(tmp_path: Path) -> None:
    """A terabyte of weights: a file of that size, with a sound header and nothing else in it."""
    config = transformers.LlamaConfig(
        hidden_size=16384, intermediate_size=65536, num_hidden_layers=76, num_attention_heads=128, vocab_size=1000
    )
    with torch.device("meta"):
        tensors = transformers.LlamaForCausalLM(config).state_dict()
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    try:
        with file.open("r+b") as opened:
            opened.truncate(8 + len(text) + end)
    except OSError as error:
        pytest.skip(f"this file system has no sparse files of a terabyte: {error}")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    began = time.perf_counter()
    with pytest.raises(lamella.OutOfMemoryError, match=r"does not fit: weights .* TiB.* budget .* free on this"):
        lamella.Engine(tmp_path, dtype="float32", max_model_len=128)
    assert time.perf_counter() - began < 5.0


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_D1_what_the_refusal_advises_fits(family: str, seed: int, tmp_path: Path) -> None:
    """For budgets from far too small upwards, each option that the message gives is taken at its word."""
    draw(family, seed, tmp_path)
    options = {"max_num_seqs": 2, "max_num_batched_tokens": 32, "threads": 1}
    with lamella.Engine(tmp_path, **options) as engine:
        stats = engine.stats()
        context = engine.core.config.max_model_len
    step = max(1, (int(stats["bytes_weights"]) + int(stats["bytes_kv"])) // 40)
    advised = {"max_model_len": 0, "memory_budget": 0}
    budget = step
    while True:
        try:
            lamella.Engine(tmp_path, memory_budget=budget, **options).close()
            break
        except lamella.OutOfMemoryError as error:
            message = str(error)
        size = re.search(r"memory_budget .*?([\d.]+ (?:B|[KMGT]iB))", message)
        assert size, message
        lamella.Engine(tmp_path, memory_budget=size[1], **options).close()
        advised["memory_budget"] += 1
        if length := re.search(r"max_model_len=(\d+)", message):
            assert 0 < int(length[1]) < context, message
            with lamella.Engine(tmp_path, memory_budget=budget, max_model_len=int(length[1]), **options) as engine:
                assert int(engine.stats()["bytes_weights"]) + int(engine.stats()["bytes_kv"]) <= budget
            advised["max_model_len"] += 1
        budget += step
    print(f"{family} seed {seed}: advice followed {advised}")
    assert advised["memory_budget"] > 0


def test_D1_an_engine_keeps_to_its_budget(folder: Path) -> None:
    """Half of the KV cache that the same engine takes where nothing limits it; the model's size depends on the seed."""
    held = ("bytes_weights", "bytes_kv", "bytes_activations")
    with lamella.Engine(folder, max_num_seqs=4, threads=1) as roomy:
        whole = {what: int(roomy.stats()[what]) for what in held}
    budget = sum(whole.values()) - whole["bytes_kv"] // 2
    with lamella.Engine(folder, memory_budget=budget, max_num_seqs=4, threads=1) as engine:
        completions = engine.generate([[5 + i] * 40 for i in range(12)], max_tokens=80)
        assert all(completion.finish_reason == "length" for completion in completions)
        assert sum(int(engine.stats()[what]) for what in held) <= budget


def test_D2_requests_wait_for_blocks_and_none_is_lost(folder: Path) -> None:
    """A cache of one sequence, and many at once: they queue, and each gives what it gives alone."""
    with lamella.Engine(folder, max_num_seqs=1) as tight, lamella.Engine(folder) as roomy:
        prompts = [[5 + i] * (1 + 9 * i) for i in range(10)]
        assert tight.stats()["kv_blocks_total"] == -(-CONTEXT // 16)
        ours = tight.generate(prompts, max_tokens=20)
        assert [done.token_ids for done in ours] == [done.token_ids for done in roomy.generate(prompts, max_tokens=20)]
