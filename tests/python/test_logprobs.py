"""logprobs, prompt_logprobs and score: the log-softmax of the model's own logits, computed here in float64."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
from engines import (
    CONTEXT,
    assert_idle,
    until_idle,
)


def reference(engine: lamella.Engine, ids: Sequence[int]) -> np.ndarray:
    """Log-probabilities of every next token, (tokens, vocabulary)."""
    (logits,) = engine.logits(list(ids))
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    result: np.ndarray = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return result


def check(position: list[lamella.TokenLogprob], expected: np.ndarray, token: int, best: int) -> None:
    """One position: the token that stands there, then the best ones, each with its figure and its place."""
    assert len(position) == 1 + best and position[0].token_id == token
    for entry in position:
        assert entry.logprob == pytest.approx(expected[entry.token_id], abs=1e-4)
        # Its place: as many are better. Those of equal logits may stand in any order.
        assert np.sum(expected > expected[entry.token_id]) < entry.rank <= np.sum(expected >= expected[entry.token_id])
    assert [entry.rank for entry in position[1:]] == list(range(1, best + 1))
    assert len({entry.token_id for entry in position[1:]}) == best
    figures = [entry.logprob for entry in position[1:]]
    assert figures == sorted(figures, reverse=True)


def random_ids(rng: random.Random, vocab: int, length: int) -> list[int]:
    return [rng.randrange(vocab) for _ in range(length)]


@pytest.mark.parametrize("best", [0, 1, 5, 20])
def test_logprobs_of_generated_tokens(engine: lamella.Engine, seed: int, best: int) -> None:
    rng = random.Random(f"{seed}-{best}")
    print(f"seed {seed}")
    tokenizer = engine.tokenizer_or_raise()
    for options in ({}, {"temperature": 2.0, "seed": seed, "top_k": 30}, {"repetition_penalty": 1.7}):
        prompt = random_ids(rng, engine.core.spec.vocab, rng.randint(1, 40))
        done = engine.generate(prompt, max_tokens=25, logprobs=best, **options)
        expected = reference(engine, prompt + done.token_ids)
        assert done.logprobs is not None and len(done.logprobs) == len(done.token_ids) == 25
        for i, position in enumerate(done.logprobs):  # whatever the sampling: the model's own figures
            check(position, expected[len(prompt) - 1 + i], done.token_ids[i], best)
            assert [entry.token for entry in position] == [tokenizer.id_to_token(entry.token_id) for entry in position]
        streamed = [
            one for chunk in engine.stream(prompt, max_tokens=25, logprobs=best, **options) for one in chunk.logprobs
        ]
        assert streamed == done.logprobs
        plain = engine.generate(prompt, max_tokens=25, **options)
        assert (plain.token_ids, plain.logprobs) == (done.token_ids, None), "asking changes nothing"


@pytest.mark.parametrize("chunk", [1, 7, 512])
@pytest.mark.parametrize("prefix_caching", [True, False])
def test_logprobs_of_the_prompt(folder: Path, seed: int, chunk: int, prefix_caching: bool) -> None:
    """Cut into chunks or whole, computed or found in the cache by a second request like the first."""
    rng = random.Random(f"{seed}-{chunk}")
    print(f"seed {seed}")
    options: dict[str, Any] = {"max_num_batched_tokens": chunk, "max_num_seqs": 1 if chunk == 1 else 4}
    with lamella.Engine(folder, prefix_caching=prefix_caching, **options) as engine:
        for length in (1, 2, 16, 17, rng.randint(18, 150)):
            prompt = random_ids(rng, engine.core.spec.vocab, length)
            expected = reference(engine, prompt)
            engine.generate(prompt, max_tokens=2)  # its blocks are kept
            runs = [engine.generate(prompt, max_tokens=4, prompt_logprobs=3, logprobs=2) for _ in range(2)]
            assert runs[0].prompt_logprobs == runs[1].prompt_logprobs and runs[0].logprobs == runs[1].logprobs
            positions = runs[0].prompt_logprobs
            assert positions is not None and len(positions) == length and positions[0] == []
            for i in range(1, length):
                check(positions[i], expected[i - 1], prompt[i], 3)
            assert engine.generate(prompt, max_tokens=4).token_ids == runs[0].token_ids
        assert_idle(engine)


def test_logprobs_of_a_prompt_with_several_choices_come_once(engine: lamella.Engine, seed: int) -> None:
    prompt = random_ids(random.Random(seed), engine.core.spec.vocab, 40)
    done = engine.generate(prompt, n=3, temperature=3.0, seed=seed, max_tokens=6, logprobs=2, prompt_logprobs=2)
    assert done.prompt_logprobs is not None and len(done.prompt_logprobs) == 40
    expected = reference(engine, prompt)
    for i in range(1, 40):
        check(done.prompt_logprobs[i], expected[i - 1], prompt[i], 2)
    for choice in done.choices:
        own = reference(engine, prompt + choice.token_ids)
        for i, position in enumerate(choice.logprobs or []):
            check(position, own[39 + i], choice.token_ids[i], 2)
    assert done.logprobs == done.choices[0].logprobs


def test_logprobs_end_with_the_token_that_completed_a_stop_string(engine: lamella.Engine, seed: int) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 8.0, "seed": seed, "logprobs": 1}
    whole = engine.generate("hello", **options)
    done = engine.generate("hello", stop=whole.text[10:13], **options)
    assert done.finish_reason == "stop" and done.logprobs is not None
    assert done.logprobs == (whole.logprobs or [])[: len(done.token_ids)]
    assert [position[0].token_id for position in done.logprobs] == done.token_ids
    until_idle(engine)


@pytest.mark.parametrize("chunk", [7, 512])
def test_scores_are_the_log_probabilities_of_the_given_tokens(folder: Path, seed: int, chunk: int) -> None:
    rng = random.Random(f"{seed}-{chunk}")
    with lamella.Engine(folder, max_num_batched_tokens=chunk, max_num_seqs=4) as engine:
        inputs = [random_ids(rng, engine.core.spec.vocab, length) for length in (1, 2, 16, 40, 150)]
        scores = engine.score(inputs)
        assert [score.shape for score in scores] == [(len(ids) - 1,) for ids in inputs]
        assert all(score.dtype == np.float32 for score in scores)
        for ids, score in zip(inputs, scores, strict=True):
            expected = reference(engine, ids)[np.arange(len(ids) - 1), ids[1:]]
            np.testing.assert_allclose(score, expected, atol=1e-4)
            assert np.array_equal(engine.score(ids)[0], score), "alone and found in the cache: to the last bit"
        full = random_ids(rng, engine.core.spec.vocab, CONTEXT)
        assert engine.score(full)[0].shape == (CONTEXT - 1,), "a whole context, with no room for another token"
        text = "hello world"
        assert np.array_equal(engine.score(text)[0], engine.score(engine.encode_prompt(text))[0])
        assert engine.score([]) == []
        before = int(engine.stats()["received"])
        with pytest.raises(lamella.ContextLengthError, match="prompt 1 of 2"):
            engine.score([[1], [1] * (CONTEXT + 1)])
        with pytest.raises(lamella.InvalidArgumentError, match="no tokens"):
            engine.score([[]])
        assert engine.stats()["received"] == before, "a list is checked whole before it starts"
        assert_idle(engine)
