"""The sampler against transformers' own logits processors, on the same random logits and the same sequences.

What comes before temperature is compared bit by bit, in fp32, in which transformers runs it; what comes after in fp64:
the same tokens possible, and the same probabilities.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
import torch
import transformers
from lamella import _core
from lamella.core_params import core_params
from random_models import draw
from scipy import stats

ROUNDS = 300
LEAST = 1e-295  # the sampler's weights end at e^-708 of the best token's
Parameters = dict[str, Any]


def random_logits(rng: random.Random, vocab: int) -> np.ndarray:
    """Smooth, with many equal ones, with impossible ones, flat, or far apart."""
    logits = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.choice([0.1, 3, 30]), vocab).astype(np.float32)
    kind = rng.randrange(4)
    if kind == 1:
        logits = np.round(logits)
    if kind == 2:
        logits[:: rng.randrange(2, 5)] = -np.inf
    return logits


def random_ids(rng: random.Random, vocab: int, most: int) -> list[int]:
    few = rng.randrange(1, vocab + 1)  # so that ids repeat
    return [rng.randrange(few) for _ in range(rng.randrange(1, most + 1))]


def random_request(rng: random.Random, vocab: int) -> Parameters:
    """Parameters under transformers' names, for what it has before temperature."""
    request: Parameters = {}
    if rng.random() < 0.5:
        request["repetition_penalty"] = rng.uniform(0.3, 3.0)
    if rng.random() < 0.5:
        request["no_repeat_ngram_size"] = rng.randrange(1, 5)
    if rng.random() < 0.5:
        request["bad_words_ids"] = [random_ids(rng, vocab, 3) for _ in range(rng.randrange(1, 6))]
    if rng.random() < 0.5:
        request["min_new_tokens"] = rng.randrange(30)
    if rng.random() < 0.5:
        request["suppress_tokens"] = random_ids(rng, vocab, 5)
    if rng.random() < 0.5:
        ids = rng.sample(range(vocab), rng.randrange(1, 5))
        request["sequence_bias"] = {(id,): rng.choice([float("-inf"), rng.uniform(-9.0, 9.0)]) for id in ids}
    return request


def transformers_logits(
    logits: np.ndarray, request: Parameters, prompt: list[int], generated: list[int], eos: list[int]
) -> np.ndarray:
    """transformers' processors, in the order in which `generate` builds them."""
    processors: list[Any] = []
    if bias := request.get("sequence_bias"):
        processors.append(transformers.SequenceBiasLogitsProcessor(bias))
    if penalty := request.get("repetition_penalty"):
        processors.append(transformers.RepetitionPenaltyLogitsProcessor(penalty))
    if size := request.get("no_repeat_ngram_size"):
        processors.append(transformers.NoRepeatNGramLogitsProcessor(size))
    if words := request.get("bad_words_ids"):
        processors.append(transformers.NoBadWordsLogitsProcessor(words, eos))
    if least := request.get("min_new_tokens"):
        processors.append(transformers.MinNewTokensLengthLogitsProcessor(len(prompt), least, eos))
    if banned := request.get("suppress_tokens"):
        processors.append(transformers.SuppressTokensLogitsProcessor(banned))
    ids, scores = torch.tensor([[*prompt, *generated]]), torch.from_numpy(logits.copy())[None]
    for processor in processors:
        scores = processor(ids, scores)
    return scores[0].numpy()


def transformers_probabilities(logits: np.ndarray, warping: Parameters) -> np.ndarray:
    """transformers' warpers in their order, in fp64, and the softmax."""
    warpers: list[Any] = [transformers.TemperatureLogitsWarper(warping["temperature"])]
    warpers += [transformers.TopKLogitsWarper(warping["top_k"])] if "top_k" in warping else []
    warpers += [transformers.TopPLogitsWarper(warping["top_p"])] if "top_p" in warping else []
    warpers += [transformers.MinPLogitsWarper(warping["min_p"])] if "min_p" in warping else []
    ids, scores = torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(logits.astype(np.float64))[None]
    for warper in warpers:
        scores = warper(ids, scores)
    return torch.softmax(scores[0], -1).numpy()


def sampler(request: Parameters, prompt: list[int], generated: list[int], vocab: int, eos: list[int]) -> _core.Sampler:
    """The core's sampler of a request after `generated`."""
    params = lamella.SamplingParams().override({"max_tokens": 100, **request})
    made = _core.Sampler(core_params(params, room=100, default_max_tokens=1, seed=0, eos=eos), prompt, vocab)
    for token in generated:
        made.accept(token)
    return made


def test_bias_penalties_and_masks_are_those_of_transformers_bit_by_bit(seed: int) -> None:
    rng = random.Random(seed)
    compared = Counter[str]()
    for _ in range(ROUNDS):
        vocab = rng.choice([5, 40, 64, 1000])
        logits, request = random_logits(rng, vocab), random_request(rng, vocab)
        prompt, generated = random_ids(rng, vocab, 30), random_ids(rng, vocab, 30)[1:]
        eos = rng.sample(range(vocab), rng.randrange(1, 3))
        expected = transformers_logits(logits, request, prompt, generated, eos)
        if np.isneginf(expected).all():
            with pytest.raises(lamella.NumericError, match="no token"):
                sampler(request, prompt, generated, vocab, eos).processed(logits)
            continue
        found = sampler(request, prompt, generated, vocab, eos).processed(logits)
        assert np.array_equal(found, expected), (request, prompt, generated, eos)
        compared.update(list(request))
        greedy = sampler({**request, "temperature": 0.0}, prompt, generated, vocab, eos)
        assert greedy.next(logits).token == int(np.argmax(expected))
    assert len(compared) == 6 and min(compared.values()) > ROUNDS / 10, compared


def on_a_border(logits: np.ndarray, warping: Parameters) -> bool:
    """Whether rounding decides what top_p or min_p keeps, or the order of equal logits, open in transformers."""
    without = {name: value for name, value in warping.items() if name in ("temperature", "top_k")}
    before = transformers_probabilities(logits, without)
    close = False
    if "top_p" in warping:
        order = np.argsort(-before, kind="stable")
        mass = np.cumsum(before[order])
        close |= bool((np.abs(mass - warping["top_p"]) < 1e-9).any())
        last = min(int((mass < warping["top_p"]).sum()), len(mass) - 1)
        close |= int((logits == logits[order[last]]).sum()) > 1
    if "min_p" in warping:
        close |= bool((np.abs(before / before.max() - warping["min_p"]) < 1e-9).any())
    return close


def test_probabilities_are_those_of_transformers(seed: int) -> None:
    rng = random.Random(seed)
    compared = Counter[str]()
    for _ in range(ROUNDS):
        vocab = rng.choice([3, 40, 64, 1000, 5000])
        logits = random_logits(rng, vocab)
        warping: Parameters = {"temperature": float(np.exp(rng.uniform(-1.5, 3)))}
        if rng.random() < 0.5:
            warping["top_k"] = rng.randrange(1, min(vocab, rng.choice([6, 5000])) + 1)
        if rng.random() < 0.5:
            warping["top_p"] = rng.choice([rng.uniform(0.01, 0.999), 0.99])
        if rng.random() < 0.5:
            warping["min_p"] = rng.uniform(0.001, 0.5)
        if on_a_border(logits, warping):
            continue
        expected = transformers_probabilities(logits, warping)
        found = sampler(warping, [0], [], vocab, []).distribution(logits)
        assert np.array_equal(found > LEAST, expected > LEAST), warping
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=LEAST)
        compared.update(list(warping))
    assert len(compared) == 4 and min(compared.values()) > ROUNDS / 10, compared


def test_what_transformers_does_not_have_follows_vllms_definitions(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(ROUNDS):
        vocab = rng.choice([5, 64, 500])
        logits = random_logits(rng, vocab)
        prompt, generated = random_ids(rng, vocab, 20), random_ids(rng, vocab, 30)
        presence, frequency = rng.uniform(-2, 2), rng.uniform(-2, 2)
        bias = {id: rng.uniform(-5, 5) for id in rng.sample(range(vocab), 3)}
        allowed = rng.choice([None, sorted(rng.sample(range(vocab), 4))])
        request = {"presence_penalty": presence, "frequency_penalty": frequency, "logit_bias": bias}
        expected = logits.copy()
        for id, value in bias.items():
            expected[id] += np.float32(value)
        for id, count in Counter(generated).items():  # of generated tokens alone
            expected[id] -= np.float32(frequency) * np.float32(count)
            expected[id] -= np.float32(presence)
        if allowed is not None:
            expected[np.setdiff1d(np.arange(vocab), allowed)] = -np.inf
        if np.isneginf(expected).all():
            continue
        made = sampler({**request, "allowed_token_ids": allowed}, prompt, generated, vocab, [])
        assert np.array_equal(made.processed(logits), expected)


def test_draws_after_a_history_follow_the_distribution(seed: int) -> None:
    rng = random.Random(seed)
    vocab, count = 30, 20_000
    logits = np.random.default_rng(seed).normal(0, 1.5, vocab).astype(np.float32)
    prompt, generated, eos = random_ids(rng, vocab, 10), random_ids(rng, vocab, 10), [3]
    request: Parameters = {
        "temperature": 0.9,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.2,
        "logit_bias": {5: 1.0},
        "bad_words": [[generated[-1], 4], [6]],
        "min_tokens": 50,
    }
    params = lamella.SamplingParams().override({"max_tokens": 100, **request})
    core = core_params(params, room=100, default_max_tokens=1, seed=seed, eos=eos)
    tokens = []
    for sample in range(count):
        made = _core.Sampler(core, prompt, vocab, sample)
        for token in generated:
            made.accept(token)
        tokens.append(made.next(logits).token)
    probabilities = sampler(request, prompt, generated, vocab, eos).distribution(logits)
    observed, expected = np.bincount(tokens, minlength=vocab), probabilities * count
    assert not observed[expected == 0].any()
    common = expected >= 20
    p = float(
        stats.chisquare(observed[common], expected[common] * observed[common].sum() / expected[common].sum()).pvalue
    )
    print(f"seed {seed}: p = {p:.3g}")
    assert p >= 1e-6


def test_logprobs_are_those_of_the_models_own_logits(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        vocab = rng.choice([3, 64, 700])
        logits = random_logits(rng, vocab)
        request = {"temperature": 2.0, "repetition_penalty": 5.0, "top_k": 3, "logprobs": 5}
        sampled = sampler(request, [0], [], vocab, []).next(logits)
        expected = torch.log_softmax(torch.from_numpy(logits.astype(np.float64)), -1).numpy()
        order = np.argsort(-logits, kind="stable").tolist()
        assert [one.token for one in sampled.logprobs] == [sampled.token, *order[:5]]
        for one in sampled.logprobs:
            assert one.logprob == pytest.approx(expected[one.token], rel=1e-6, abs=1e-6)
            assert order[one.rank - 1] == one.token


def test_a_sampler_refuses_what_does_not_fit() -> None:
    params = _core.SamplingParams()
    with pytest.raises(lamella.InvalidArgumentError, match="token 9; the vocabulary has ids 0 to 8"):
        _core.Sampler(params, [1, 9], 9)
    with pytest.raises(lamella.InvalidArgumentError, match="top_k is 10; expected 0"):
        _core.Sampler(_core.SamplingParams(top_k=10), [1], 9)
    with pytest.raises(lamella.InvalidArgumentError, match="vocabulary is -1; expected at least 1"):
        _core.Sampler(_core.SamplingParams(presence_penalty=1.0), [], -1)
    made = _core.Sampler(params, [1], 9)
    with pytest.raises(lamella.InvalidArgumentError, match="token -1; the vocabulary has ids 0 to 8"):
        made.accept(-1)
    with pytest.raises(lamella.InvalidArgumentError, match="8 logits; expected one for each of 9 tokens"):
        made.next(np.zeros(8, np.float32))


# ---- through an engine -----------------------------------------------------------------------------------------------


def test_an_engine_takes_the_tokens_that_transformers_processors_leave(tmp_path: Path, seed: int) -> None:
    """Greedy, token by token from the engine's own logits: prompt and result reach every processor as they should."""
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    draw("llama", seed, tmp_path, vocab_size=60, max_position_embeddings=160, rope_parameters=plain)
    rng = random.Random(seed)
    with lamella.Engine(tmp_path, dtype="float32") as engine:
        assert engine.checkpoint is not None
        eos = list(engine.checkpoint.special.eos)
        for request in (
            {"repetition_penalty": 1.8},
            {"no_repeat_ngram_size": 2},
            {"bad_words_ids": [[id] for id in range(0, 50, 2)] + [[a, 7] for a in range(60)]},
            {"suppress_tokens": list(range(1, 50, 2)), "repetition_penalty": 0.7},
            {"sequence_bias": {(id,): 3.0 for id in (9, 11)}, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
        ):
            prompt = [rng.randrange(60) for _ in range(8)]
            tokens = engine.generate(prompt, max_new_tokens=40, min_new_tokens=40, **request).token_ids
            assert len(tokens) == 40
            rows = engine.logits([*prompt, *tokens])[0]
            for i, token in enumerate(tokens):
                expected = transformers_logits(
                    rows[len(prompt) - 1 + i], {**request, "min_new_tokens": 40}, prompt, tokens[:i], eos or [10**6]
                )
                assert token == int(np.argmax(expected)), (request, i)
