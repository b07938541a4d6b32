"""Every family against Hugging Face transformers, on configurations and weights drawn afresh each run."""

from __future__ import annotations

import random
from pathlib import Path

import lamella
import numpy as np
import pytest
import torch
import transformers
from compare import (
    Agreement,
    assert_greedy_equal,
    reference_greedy,
    reference_logits,
    relative_error,
    routing_margin,
)
from random_models import ALL_EXPERTS, FAMILIES, ORDINARY, draw
from rounded_models import bound_of, in_bfloat16, in_float64, in_int8

DECODERS = [family for family in FAMILIES if family != "bert"]
DRAWS = 4
FP32_BOUND, BF16_BOUND = 1e-5, 2e-2
QUANTISED_BOUNDS = {"int8_weight_only": 4e-2, "int8": 6e-2, "int8 without smoothing": 6e-2}
GREEDY_TOKENS = 64
ROUTING_MARGIN = 1e-4  # of scores around 1: a hundred times what they are off in fp32
LONGEST_PROMPT = 32  # with 64 tokens it fills the shortest context that random_models draws


def prompts(rng: random.Random, vocab: int, count: int, longest: int) -> list[list[int]]:
    return [[rng.randrange(vocab) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def sure_prompts(
    model: transformers.PreTrainedModel, rng: random.Random, count: int, longest: int, tokens: int = 0
) -> list[list[int]]:
    """As prompts(), but none of which an error of fp32 would send a token to other experts, nor with so many greedy
    tokens behind it. Dense models have no such prompts, others few.
    """
    batch: list[list[int]] = []
    while len(batch) < count:
        (prompt,) = prompts(rng, model.config.vocab_size, 1, longest)
        margin = routing_margin(model, prompt)
        if tokens > 0 and margin < float("inf"):
            margin = routing_margin(model, prompt + reference_greedy(model, prompt, tokens)[0])
        if margin > ROUTING_MARGIN:
            batch.append(prompt)
    return batch


def reference_rows(model: transformers.PreTrainedModel, batch: list[list[int]]) -> np.ndarray:
    """transformers' logits, an encoder's last hidden states, of all tokens of `batch`: (tokens, width) in fp32."""
    if model.config.model_type != "bert":
        return np.concatenate([reference_logits(model, prompt) for prompt in batch])
    encoder = getattr(model, "bert", model)
    with torch.no_grad():
        return np.concatenate([encoder(torch.tensor([prompt])).last_hidden_state[0].float() for prompt in batch])


def fp32_bound(model: transformers.PreTrainedModel, batch: list[list[int]], error: float) -> float:
    """What an `error` of ours in fp32 may be: FP32_BOUND, more where transformers' own is more."""
    return bound_of(
        FP32_BOUND, error, lambda: reference_rows(in_float64(model), batch), lambda: reference_rows(model, batch)
    )


def bf16_bound(model: transformers.PreTrainedModel, batch: list[list[int]], error: float) -> float:
    """As fp32_bound for an error in bf16 against `model` in fp32."""
    return bound_of(
        BF16_BOUND, error, lambda: reference_rows(model, batch), lambda: reference_rows(in_bfloat16(model), batch)
    )


@pytest.mark.parametrize("number", range(DRAWS))
@pytest.mark.parametrize("family", DECODERS)
def test_logits_and_greedy_tokens_equal_transformers(family: str, number: int, seed: int, tmp_path: Path) -> None:
    model = draw(family, seed + number, tmp_path)
    rng = random.Random(seed + number)
    batch = sure_prompts(model, rng, rng.randint(1, 9), LONGEST_PROMPT, GREEDY_TOKENS)
    print(f"{family} seed {seed + number}: {len(batch)} sequences, {model.config.to_diff_dict()}")
    with lamella.Engine(tmp_path, dtype="float32") as engine:
        logits = engine.logits(batch)
        worst, largest = 0.0, 0.0
        for ours, prompt in zip(logits, batch, strict=True):
            reference = reference_logits(model, prompt)
            error = relative_error(ours, reference)
            assert error <= fp32_bound(model, [prompt], error)
            worst = max(worst, error)
            largest = max(largest, float(np.abs(ours - reference).max()))
        print(f"fp32 relative error {worst:.2e}, largest {largest:.2e}")

        completions = engine.generate(batch, max_tokens=GREEDY_TOKENS, ignore_eos=True)
        agreements: list[Agreement] = []
        for completion, prompt in zip(completions, batch, strict=True):
            assert completion.finish_reason == "length"
            expected, rows = reference_greedy(model, prompt, GREEDY_TOKENS)
            agreements.append(assert_greedy_equal(completion.token_ids, expected, rows, largest))
        ties = [agreement.tie_at for agreement in agreements if agreement.tie_at is not None]
        print(f"{len(batch)} x {GREEDY_TOKENS} greedy tokens equal; ties at {ties or 'no position'}")


@pytest.mark.parametrize("number", range(DRAWS))
@pytest.mark.parametrize("family", DECODERS)
def test_bfloat16_logits_are_near_transformers_in_fp32(family: str, number: int, seed: int, tmp_path: Path) -> None:
    model = draw(family, seed + number, tmp_path, torch.bfloat16, ORDINARY, **ALL_EXPERTS.get(family, {})).float()
    rng = random.Random(seed + number)
    batch = prompts(rng, model.config.vocab_size, rng.randint(1, 9), LONGEST_PROMPT)
    print(f"{family} seed {seed + number}: {model.config.to_diff_dict()}")
    with lamella.Engine(tmp_path) as engine:
        assert engine.core.config.dtype == lamella._core.DataType.bfloat16, "auto keeps what the checkpoint stores"
        reference = reference_rows(model, batch)
        error = relative_error(np.concatenate(engine.logits(batch)), reference)
    print(f"bf16 relative error {error:.2e}")
    assert error <= bf16_bound(model, batch, error)


@pytest.mark.parametrize("number", range(DRAWS))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bert_rows_and_pooler_equal_transformers(dtype: str, number: int, seed: int, tmp_path: Path) -> None:
    if dtype == "float32":
        model = draw("bert", seed + number, tmp_path)
    else:
        model = draw("bert", seed + number, tmp_path, dtype=torch.bfloat16, gain=ORDINARY).float()
    rng = random.Random(seed + number)
    batch = prompts(rng, model.config.vocab_size, rng.randint(1, 9), 40)
    bound = fp32_bound if dtype == "float32" else bf16_bound
    with lamella.Engine(tmp_path, dtype=dtype) as engine:
        rows = engine.encode(batch, pooling=None)
        means, firsts = engine.encode(batch), engine.encode(batch, pooling="cls")
        references, pooled = [], []
        for prompt in batch:
            with torch.no_grad():
                result = getattr(model, "bert", model)(torch.tensor([prompt]))
            references.append(result.last_hidden_state[0].float().numpy())
            if getattr(result, "pooler_output", None) is not None:
                pooled.append(result.pooler_output[0].float().numpy())
        found = [
            (np.concatenate(rows), np.concatenate(references)),
            (means, np.stack([reference.mean(axis=0) for reference in references])),
            (firsts, np.stack([reference[0] for reference in references])),
        ]
        if pooled:
            found.append((engine.encode(batch, pooling="pooler"), np.stack(pooled)))
        else:
            with pytest.raises(lamella.CheckpointError, match="no pooler"):
                engine.encode(batch, pooling="pooler")
    for ours, reference in found:
        error = relative_error(ours, reference)
        assert error <= bound(model, batch, error)


@pytest.mark.parametrize("number", range(DRAWS))
@pytest.mark.parametrize("quantization", QUANTISED_BOUNDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_near_transformers_in_fp32(
    family: str, quantization: str, number: int, seed: int, tmp_path: Path
) -> None:
    model = draw(family, seed + number, tmp_path, gain=ORDINARY, **ALL_EXPERTS.get(family, {}))
    rng = random.Random(seed + number)
    batch = prompts(rng, model.config.vocab_size, rng.randint(1, 9), LONGEST_PROMPT)
    preset, smoothing = quantization.split()[0], "without" not in quantization
    with lamella.Engine(tmp_path, dtype="float32", quantization=preset, smoothing=smoothing) as engine:
        rows = engine.encode(batch, pooling=None) if family == "bert" else engine.logits(batch)
    reference = reference_rows(model, batch)
    error = relative_error(np.concatenate(rows), reference)
    print(f"{family} seed {seed + number}: {quantization} relative error {error:.2e}, {model.config.to_diff_dict()}")
    assert error <= bound_of(
        QUANTISED_BOUNDS[quantization],
        error,
        lambda: reference,
        lambda: reference_rows(in_int8(model, inputs=preset == "int8"), batch),
    )


@pytest.mark.parametrize("quantization", ["int8_weight_only", "int4"])
@pytest.mark.parametrize("family", DECODERS)
def test_weight_only_formats_give_what_the_oracle_gives(
    family: str, quantization: str, seed: int, tmp_path: Path
) -> None:
    # The oracle expands each row of weights to fp32. Int8 inputs are compared op by op (tests/cpp): where two correct
    # sums differ in their last bit, an input may round to the neighbouring code, and a model carries that on.
    model = draw(family, seed, tmp_path, **ALL_EXPERTS.get(family, {}))
    rng = random.Random(seed)
    batch = prompts(rng, model.config.vocab_size, 5, 60)
    results = {}
    for kernels in (None, "reference"):
        with lamella.Engine(tmp_path, dtype="float32", quantization=quantization, kernels=kernels) as engine:
            results[kernels] = np.concatenate(engine.logits(batch))
    error = relative_error(results[None], results["reference"])
    assert error <= fp32_bound(model, batch, error)


@pytest.mark.parametrize("family", DECODERS)
def test_the_fused_plan_gives_what_the_plain_plan_and_the_oracle_give(family: str, seed: int, tmp_path: Path) -> None:
    model = draw(family, seed, tmp_path)
    rng = random.Random(seed)
    batch = sure_prompts(model, rng, 5, 60)
    results = {}
    for name, options in {"fused": {}, "plain": {"deep_fusion": False}, "oracle": {"kernels": "reference"}}.items():
        with lamella.Engine(tmp_path, dtype="float32", **options) as engine:
            results[name] = np.concatenate(engine.logits(batch))
    assert np.array_equal(results["fused"], results["plain"]), "in fp32 fusion changes no bit"
    error = relative_error(results["fused"], results["oracle"])
    assert error <= fp32_bound(model, batch, error)
