"""The rows of the error contract (reliability.md) that are about what is not a number: D6, A7 and P9."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
import torch
from engines import (
    CONTEXT,
    until,
    until_idle,
)
from lamella import _core
from random_models import draw

POISON = 17  # an id whose embedding overflows the first norm's sum


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


def test_D6_sampling_parameters_at_their_borders_are_taken(engine: lamella.Engine) -> None:
    vocab = engine.core.spec.vocab
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


def test_D6_masks_that_leave_no_token_fail_that_request_alone(engine: lamella.Engine) -> None:
    for temperature in (0.0, 1.0):
        nothing = {"allowed_token_ids": [5, 6], "suppress_tokens": [5], "logit_bias": {6: float("-inf")}}
        with pytest.raises(lamella.NumericError) as error:
            engine.generate([7], temperature=temperature, **nothing)
        assert error.value.code == "NUMERIC"
    assert engine.generate([7], allowed_token_ids=[5, 6], suppress_tokens=[5], max_tokens=3).token_ids == [6] * 3
    stats = engine.stats()
    assert (stats["failed"], stats["finished"]) == (2, 1)


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
        with pytest.raises(lamella.NumericError):
            for chunk in stream:  # none where a slow machine let the first one bring all tokens
                assert chunk.finish_reason is None
                streamed += chunk.token_ids
        assert streamed == completion.token_ids
        assert next(stream, None) is None


@pytest.mark.parametrize("how", ["failed", "cancelled", "logits"])
def test_P9_blocks_that_held_nan_do_no_harm(poisoned: Path, how: str) -> None:
    """A cache of one sequence, so that the next request gets exactly the blocks that hold NaN."""
    with lamella.Engine(poisoned, max_num_seqs=1, max_num_batched_tokens=1) as engine:
        expected = engine.generate([5, 6, 7], max_tokens=280).token_ids
        bad = [POISON] * 280
        if how == "failed":
            with pytest.raises(lamella.NumericError):
                engine.generate(bad)
        elif how == "cancelled":  # in the middle of its prompt, before any logits were looked at
            client = engine.core.client()
            for attempt in range(100):  # until it is not too late: after 280 steps it has failed
                client.submit([_core.Request(bad, _core.SamplingParams(max_tokens=1))])
                until(
                    lambda attempt=attempt: engine.stats()["kv_blocks_used"] > 0 or engine.stats()["failed"] > attempt,
                    "a request that runs or has failed",
                )
                client.leave()
                until_idle(engine)
                if engine.stats()["cancelled"]:
                    break
            assert engine.stats()["cancelled"] == 1
        else:
            assert np.isnan(engine.logits(bad)[0]).all(), "logits() reports what the model computes"
        until_idle(engine)
        assert engine.generate([5, 6, 7], max_tokens=280).token_ids == expected
        assert np.isfinite(engine.logits([5, 6, 7])[0]).all()
