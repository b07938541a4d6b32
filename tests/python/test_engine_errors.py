"""The rows of the error contract (reliability.md) that an engine's caller meets, one test or more each."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
import torch
import transformers
from lamella import _core
from lamella.engine_options import parse_bytes
from random_models import draw
from tiny_tokenizers import byte_level, sentence_piece

CONTEXT = 128
POISON = 17  # an id whose embedding overflows the first norm's sum
OUTCOMES = ("running", "finished", "cancelled", "rejected", "failed")


@pytest.fixture(scope="module")
def vocab() -> int:
    return byte_level().get_vocab_size()


@pytest.fixture(scope="module")
def folder(seed: int, vocab: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with a tokenizer that adds no BOS, and without special ids."""
    path = tmp_path_factory.mktemp("gpt2")
    draw("gpt2", seed, path, vocab_size=vocab, n_positions=CONTEXT)
    byte_level().save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def engine(folder: Path) -> Iterator[lamella.Engine]:
    """A fresh engine, which must answer as before after whatever the test did to it."""
    with lamella.Engine(folder) as engine:
        expected = engine.generate([5, 6], max_tokens=5).token_ids
        yield engine
        assert engine.generate([5, 6], max_tokens=5).token_ids == expected
        stats = engine.stats()
        assert stats["kv_blocks_used"] == stats["running"] == 0
        assert stats["received"] == sum(int(stats[name]) for name in OUTCOMES)


@pytest.fixture(scope="module")
def encoder_folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    draw("bert", seed, path, max_position_embeddings=64, vocab_size=100)
    return path


def started(engine: lamella.Engine) -> int:
    """Requests that the engine has accepted so far."""
    stats = engine.stats()
    return int(stats["received"]) - int(stats["rejected"])


# ---- F: requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["negative", "the vocabulary's size", "beyond 32 bits", "beyond 64 bits"])
def test_F1_ids_outside_the_vocabulary_are_refused_by_name(engine: lamella.Engine, vocab: int, bad: str) -> None:
    token = {"negative": -1, "the vocabulary's size": vocab, "beyond 32 bits": 2**40, "beyond 64 bits": 10**5000}[bad]
    shown = "beyond 64 bits" if token > 2**64 else str(token)
    before = started(engine)
    calls: list[Callable[[], Any]] = [
        lambda: engine.generate([5, token]),
        lambda: engine.stream([5, token]),  # at the call, not at the first chunk
        lambda: engine.logits([5, token]),
    ]
    for call in calls:
        with pytest.raises(lamella.InvalidArgumentError, match=rf"prompt.*1\]? is {shown}; ") as error:
            call()
        assert error.value.code == "INVALID_ARGUMENT"
    for stop in ([token], [5, token]):
        with pytest.raises(lamella.InvalidArgumentError, match=rf"stop_token_ids.* is {shown}; expected"):
            engine.generate([5], stop_token_ids=stop)
    with pytest.raises(lamella.InvalidArgumentError, match=rf"(request|prompt) 2.* is {shown}; "):
        engine.generate([[5], [6], [7, token], [8]])
    assert started(engine) == before, "a list is checked whole before it starts"


def test_F1_an_encoders_inputs_are_checked_before_any_is_run(encoder_folder: Path) -> None:
    with lamella.Engine(encoder_folder) as engine:
        with pytest.raises(lamella.InvalidArgumentError, match=r"input 1: prompt token 2 is 100; .* 0 to 99"):
            engine.encode([[5], [6, 7, 100]])
        with pytest.raises(lamella.InvalidArgumentError, match=r"prompt token 0 is -1; "):
            engine.encode([-1])
        assert engine.encode([5]).shape[0] == 1


def test_F2_a_prompt_beyond_the_context_is_refused(engine: lamella.Engine) -> None:
    for call in (engine.generate, engine.stream, engine.logits):
        with pytest.raises(lamella.ContextLengthError, match="has 129 tokens and the context holds 128") as error:
            call([5] * (CONTEXT + 1))
        assert error.value.code == "CONTEXT_TOO_LONG"
    before = engine.stats()
    with pytest.raises(lamella.ContextLengthError, match="request 1: "):
        engine.generate([[5], [5] * (CONTEXT + 1)])
    after = engine.stats()
    assert [int(after[name]) - int(before[name]) for name in ("received", "rejected")] == [2, 2]


def test_F2_an_explicit_max_tokens_is_refused_and_a_default_one_clipped(engine: lamella.Engine) -> None:
    prompt = [5] * 100
    for name in ("max_tokens", "max_new_tokens"):
        with pytest.raises(lamella.ContextLengthError, match=r"plus max_tokens 29 exceeds .* ask for at most 28"):
            engine.generate(prompt, **{name: 29})
    with pytest.raises(lamella.ContextLengthError):
        engine.generate(prompt, lamella.SamplingParams(max_tokens=29))
    with pytest.raises(lamella.ContextLengthError):
        engine.generate(prompt, max_tokens=2**62)
    assert len(engine.generate(prompt, max_tokens=28).token_ids) == 28
    assert len(engine.generate(prompt).token_ids) == 28
    with pytest.raises(lamella.ContextLengthError):
        engine.generate([5] * CONTEXT)  # no room for a single token


def test_F2_an_encoders_input_beyond_the_context_is_refused(encoder_folder: Path) -> None:
    with lamella.Engine(encoder_folder) as engine:
        with pytest.raises(lamella.ContextLengthError, match=r"input 1: .* 65 tokens and the context holds 64"):
            engine.encode([[5], [5] * 65])
        assert engine.encode([5] * 64).shape[0] == 1


def test_F3_empty_things(engine: lamella.Engine, seed: int, tmp_path: Path) -> None:
    assert engine.generate([]) == [] and engine.logits([]) == []
    for call in (lambda: engine.generate([[]]), lambda: engine.stream([]), lambda: engine.logits([[]])):
        with pytest.raises(lamella.InvalidArgumentError, match="no tokens"):
            call()
    with pytest.raises(lamella.InvalidArgumentError, match=r"request 1: .*no tokens"):
        engine.generate([[5], []])
    with pytest.raises(lamella.InvalidArgumentError, match="no tokens"):
        engine.generate("")  # this model has no BOS

    byte_level().save(str(tmp_path / "tokenizer.json"))
    draw("gpt2", seed, tmp_path, vocab_size=byte_level().get_vocab_size(), bos_token_id=3)
    with lamella.Engine(tmp_path) as with_bos:
        empty = with_bos.generate("", max_tokens=4)
        assert (empty.prompt_tokens, empty.token_ids) == (1, with_bos.generate([3], max_tokens=4).token_ids)


def test_F3_a_tokenizer_that_adds_bos_makes_an_empty_text_one_token(seed: int, tmp_path: Path) -> None:
    tokenizer = sentence_piece()
    draw(
        "llama",
        seed,
        tmp_path,
        vocab_size=tokenizer.get_vocab_size(),
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with lamella.Engine(tmp_path) as engine:
        assert engine.generate("", max_tokens=2).prompt_tokens == 1


def test_F4_a_lone_surrogate_is_refused(engine: lamella.Engine) -> None:
    for call in (engine.generate, engine.stream, engine.logits):
        with pytest.raises(lamella.InvalidArgumentError, match="character 2 is a lone surrogate"):
            call("ab\ud800")
    with pytest.raises(lamella.InvalidArgumentError, match=r"prompt 1 of 2: .*lone surrogate"):
        engine.generate(["fine", "\udfff"])


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        1.5,
        b"abc",
        [1.5],
        [5, 1.5],
        [None],
        [[1.5]],
        [["a"]],
        [[[5]]],
        {},
        {"text": 1},
        {5, 6},
        iter([5]),
        [5, b"a"],
        [np.float32(1.0)],
        np.array([[1.5]]),
        object(),
    ],
    ids=lambda prompt: type(prompt).__name__ + repr(prompt)[:16],
)
def test_a_prompt_of_a_wrong_type_is_an_argument_error(engine: lamella.Engine, prompt: Any) -> None:
    before = started(engine)
    for call in (engine.generate, engine.logits):
        with pytest.raises(lamella.InvalidArgumentError, match="prompt"):
            call(prompt)
    if not hasattr(prompt, "__next__"):
        with pytest.raises(lamella.InvalidArgumentError, match="prompt"):
            engine.stream(prompt)
    assert started(engine) == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_tokens", "3", "max_tokens is '3'; expected a whole number"),
        ("max_tokens", 2.5, "max_tokens is 2.5"),
        ("max_tokens", 0, "max_tokens is 0; expected at least 1"),
        ("max_tokens", -(2**80), "max_tokens is beyond 64 bits; expected"),
        ("seed", -1, "seed is -1; expected 0 to"),
        ("seed", 2**64, "seed is beyond 64 bits; expected 0 to"),
        ("seed", "7", "seed is '7'"),
        ("top_k", -1, "top_k is -1; expected 0"),
        ("top_k", 2.0, "top_k is 2.0"),
        ("top_k", 2**31, "top_k is 2147483648"),
        ("temperature", "hot", "temperature is 'hot'; expected a number"),
        ("temperature", [1.0], "temperature is"),
        ("top_p", "0.5", "top_p is '0.5'"),
        ("ignore_eos", "no", "ignore_eos is 'no'; expected True or False"),
        ("stop_token_ids", 5, "stop_token_ids is of type int"),
        ("stop_token_ids", "56", "stop_token_ids is of type str"),
        ("stop_token_ids", ["5"], "stop_token_ids"),
        ("stop_token_ids", ["x" * 100_000], "stop_token_ids"),
    ],
)
def test_a_parameter_of_a_wrong_type_or_range_is_an_argument_error(
    engine: lamella.Engine, name: str, value: Any, message: str
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)) as error:
        engine.generate([5], **{name: value})
    assert len(str(error.value)) < 512, "errors do not echo long input (P8)"
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)):
        engine.stream([5], **{name: value})


def test_params_must_be_sampling_params(engine: lamella.Engine) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match="params is of type dict; expected SamplingParams"):
        engine.generate([5], {"max_tokens": 3})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("temprature", "temperature"),
        ("maxtokens", "max_tokens"),
        ("max_new_token", "max_new_tokens"),
        ("topk", "top_k"),
        ("ignore_eos_token", "ignore_eos"),
        ("stop_tokens_ids", "stop_token_ids"),
        ("sample", "do_sample"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(engine: lamella.Engine, name: str, nearest: str) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=f"unknown parameter '{name}'; did you mean {nearest}\\?"):
        engine.generate([5], **{name: 1})


def test_a_parameter_and_its_alias_together_are_refused(engine: lamella.Engine) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match="both given"):
        engine.generate([5], max_tokens=3, max_new_tokens=3)


def test_a_decoder_does_not_encode_and_an_encoder_does_not_generate(
    engine: lamella.Engine, encoder_folder: Path
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match="decoder"):
        engine.encode([5])
    with lamella.Engine(encoder_folder) as encoder:
        for call in (encoder.generate, encoder.stream, encoder.logits):
            with pytest.raises(lamella.InvalidArgumentError, match=r"encoder.*encode\(\)"):
                call([5])
        with pytest.raises(lamella.InvalidArgumentError, match="pooling is 'max'; expected auto, mean, cls"):
            encoder.encode([5], pooling="max")  # type: ignore[arg-type]


# ---- options ---------------------------------------------------------------------------------------------------------


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
        ("max_model_len", CONTEXT + 1, "max_model_len is 129; expected 1 to 128"),
        ("max_num_batched_tokens", 0, "max_num_batched_tokens is 0; expected 1 to"),
        ("threads", 0, "threads is 0; expected at least 1"),
        ("threads", -2, "threads is -2"),
        ("threads", 1.5, "threads is 1.5; expected a whole number"),
        ("seed", -1, "seed is -1"),
        ("deep_fusion", "no", "deep_fusion is 'no'; expected True or False"),
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
    assert parse_bytes(size) == count


# ---- D: memory and numerics ------------------------------------------------------------------------------------------


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
    budget = 4 << 20
    with lamella.Engine(folder, memory_budget=budget, max_num_seqs=4, threads=1) as engine:
        completions = engine.generate([[5 + i] * 40 for i in range(12)], max_tokens=80)
        assert all(completion.finish_reason == "length" for completion in completions)
        stats = engine.stats()
        assert sum(int(stats[f"bytes_{what}"]) for what in ("weights", "kv", "activations")) <= budget


def test_D2_requests_wait_for_blocks_and_none_is_lost(folder: Path) -> None:
    """A cache of one sequence, and many at once: they queue, and each gives what it gives alone."""
    with lamella.Engine(folder, max_num_seqs=1) as tight, lamella.Engine(folder) as roomy:
        prompts = [[5 + i] * (1 + 9 * i) for i in range(10)]
        assert tight.stats()["kv_blocks_total"] == CONTEXT // 16
        ours = tight.generate(prompts, max_tokens=20)
        assert [done.token_ids for done in ours] == [done.token_ids for done in roomy.generate(prompts, max_tokens=20)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 1e-30}, "temperature is 1e-30; expected 0"),
        ({"temperature": float("nan")}, "temperature is -?nan; expected a number"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_p": 0.0}, "top_p is 0; expected"),
        ({"top_p": -0.5}, "top_p is -0.5"),
        ({"top_p": 1.0001}, "top_p is 1.0001"),
        ({"top_p": float("nan")}, "top_p is -?nan"),
        ({"top_k": 10_000}, "top_k is 10000; expected 0"),
    ],
)
def test_D6_sampling_parameters_without_a_meaning_are_refused(
    engine: lamella.Engine, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=message):
        engine.generate([5], **{"temperature": 1.0, **parameters})
    with pytest.raises(lamella.InvalidArgumentError, match="(request|prompt) 0.*" + message):
        engine.generate([[5], [6]], **{"temperature": 1.0, **parameters})


def test_D6_sampling_parameters_at_their_borders_are_taken(engine: lamella.Engine, vocab: int) -> None:
    greedy = engine.generate([5], max_tokens=8, temperature=0).token_ids
    for parameters in ({"temperature": 1e-6}, {"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 1e-12}):
        assert engine.generate([5], max_tokens=8, **parameters).token_ids == greedy
    free = engine.generate([5], max_tokens=8, temperature=1.0, seed=3).token_ids
    assert engine.generate([5], max_tokens=8, temperature=1.0, seed=3, top_k=vocab, top_p=1.0).token_ids == free


@pytest.mark.parametrize("bad", ["all masked", "NaN", "infinity"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_D6_logits_without_a_choice_are_a_numeric_error(bad: str, temperature: float) -> None:
    logits = np.zeros(50, np.float32)
    if bad == "all masked":
        logits[:] = -np.inf
    else:
        logits[33] = np.nan if bad == "NaN" else np.inf
    with pytest.raises(lamella.NumericError) as error:
        _core.sample(logits, _core.SamplingParams(temperature=temperature), 0, 0)
    assert error.value.code == "NUMERIC"


# ---- A7, P9: what is not a number ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_A7_weights_that_are_no_numbers_are_refused_by_the_tensors_name(
    value: float, dtype: str, seed: int, tmp_path: Path
) -> None:
    model = draw("gpt2", seed, tmp_path / "sound", n_layer=2)
    names = ["transformer.h.1.mlp.c_fc.weight", "transformer.wte.weight", "transformer.h.0.ln_2.bias"]
    for i, name in enumerate(names):
        parameter = dict(model.named_parameters())[name].data.view(-1)
        at = (seed + 7 * i) % len(parameter)
        kept = float(parameter[at])
        parameter[at] = value
        model.save_pretrained(tmp_path / str(i))
        parameter[at] = kept
        with pytest.raises(lamella.CheckpointError, match=re.escape(name.removeprefix("transformer."))) as error:
            lamella.Engine(tmp_path / str(i), dtype=dtype)
        assert error.value.code == "INVALID_CHECKPOINT" and "NaN or infinity" in str(error.value)


@pytest.fixture(scope="module")
def poisoned(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of finite weights in which one token's embedding is so large that the first norm's sum overflows."""
    path = tmp_path_factory.mktemp("poisoned")
    model = draw("gpt2", seed, path / "sound", vocab_size=120, n_positions=CONTEXT, tie_word_embeddings=False)
    with torch.no_grad():
        model.transformer.wte.weight[POISON] = 3e38
        model.lm_head.weight[POISON] = 0.0  # never the best token, whose logit is well above 0
    model.save_pretrained(path / "poisoned")
    return path / "poisoned"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("deep_fusion", [True, False])
def test_A7_overflow_fails_that_request_alone(poisoned: Path, dtype: str, deep_fusion: bool) -> None:
    sound = [[5, 6, 7], [8] * 40, [9, 10], [11] * 17]
    with lamella.Engine(poisoned, dtype=dtype, deep_fusion=deep_fusion) as engine:
        expected = engine.generate(sound, max_tokens=20)
        assert all(POISON not in completion.token_ids for completion in expected)
        prompts = [sound[0], [5, POISON], sound[1], [POISON] * 50, sound[2], sound[3]]
        completions = engine.generate(prompts, max_tokens=20)
        assert [done.finish_reason for done in completions] == [
            "length",
            "error",
            "length",
            "error",
            "length",
            "length",
        ]
        assert [completions[i].token_ids for i in (0, 2, 4, 5)] == [done.token_ids for done in expected]
        for i in (1, 3):
            assert completions[i].token_ids == [] and "NaN or infinity" in str(completions[i].error)
        assert all(completions[i].error is None for i in (0, 2, 4, 5))

        for call in (lambda: engine.generate([5, POISON]), lambda: list(engine.stream([5, POISON]))):
            with pytest.raises(lamella.NumericError, match="NaN or infinity") as error:
                call()
            assert error.value.code == "NUMERIC"
        stats = engine.stats()
        assert (stats["received"], stats["finished"], stats["failed"]) == (12, 8, 4)
        assert stats["kv_blocks_used"] == 0


def test_A7_overflow_while_generating_keeps_the_tokens_before_it(poisoned: Path, seed: int) -> None:
    """The poison is generated, not given: sampling at a high temperature finds it sooner or later."""
    with lamella.Engine(poisoned) as engine:
        for i in range(200):
            options: dict[str, Any] = {"max_tokens": 60, "temperature": 50.0, "seed": seed + i}
            completion = engine.generate([[5]], **options)[0]
            if completion.finish_reason == "error":
                break
        assert completion.finish_reason == "error"
        assert completion.token_ids[-1] == POISON and completion.token_ids.count(POISON) == 1
        streamed: list[int] = []
        with pytest.raises(lamella.NumericError):
            for chunk in engine.stream([5], **options):
                streamed += chunk.token_ids
        assert streamed == completion.token_ids


def test_A7_tokens_that_arrive_together_with_the_error_are_given_first(poisoned: Path, seed: int) -> None:
    """Another call takes the stream's request all the way to its failure, so that the stream finds both at once."""
    with lamella.Engine(poisoned) as engine:
        for i in range(200):
            options: dict[str, Any] = {"max_tokens": 60, "temperature": 50.0, "seed": seed + i}
            completion = engine.generate([[5]], **options)[0]
            if completion.finish_reason == "error" and len(completion.token_ids) > 2:
                break
        assert completion.finish_reason == "error"
        stream = engine.stream([5], **options)
        streamed = next(stream).token_ids
        engine.generate([6], max_tokens=len(completion.token_ids) + 3)
        chunk = next(stream)
        assert streamed + chunk.token_ids == completion.token_ids and chunk.finish_reason is None
        with pytest.raises(lamella.NumericError):
            next(stream)
        assert next(stream, None) is None


@pytest.mark.parametrize("how", ["failed", "cancelled", "logits"])
def test_P9_blocks_that_held_nan_do_no_harm(poisoned: Path, how: str) -> None:
    """A cache of one sequence, so that the next request gets exactly the blocks that hold NaN."""
    with lamella.Engine(poisoned, max_num_seqs=1, max_num_batched_tokens=8) as engine:
        expected = engine.generate([5, 6, 7], max_tokens=90).token_ids
        bad = [POISON] * 120
        if how == "failed":
            with pytest.raises(lamella.NumericError):
                engine.generate(bad)
        elif how == "cancelled":  # in the middle of its prompt, before any logits were looked at
            request = engine.core.submit(_core.Request(bad, _core.SamplingParams(max_tokens=1)))
            for _ in range(10):
                engine.core.step()
            engine.core.cancel(request)
            assert engine.core.poll(request).reason == "cancelled"
        else:
            assert np.isnan(engine.logits(bad)[0]).all(), "logits() reports what the model computes"
        assert engine.stats()["kv_blocks_used"] == 0
        assert engine.generate([5, 6, 7], max_tokens=90).token_ids == expected
        assert np.isfinite(engine.logits([5, 6, 7])[0]).all()
