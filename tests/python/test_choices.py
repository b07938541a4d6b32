"""n: several samples of one prompt, which share its KV cache and are otherwise requests of their own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lamella
import pytest
import torch
from engines import (
    CONTEXT,
    until_idle,
)
from lamella import _core
from random_models import draw


def test_choices_are_the_same_in_every_run_and_the_first_is_that_of_one_sample(
    engine: lamella.Engine, folder: Path, seed: int
) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    for _ in range(4):
        prompt = [rng.randrange(engine.core.spec.vocab) for _ in range(rng.choice([1, 15, 16, 17, 50]))]
        options: dict[str, Any] = {"max_tokens": 20, "temperature": 3.0, "seed": rng.randrange(2**64)}
        n = rng.randint(2, 9)
        done = engine.generate(prompt, n=n, **options)
        assert len(done.choices) == n
        tokens = [choice.token_ids for choice in done.choices]
        assert len({tuple(one) for one in tokens}) > 1, "samples differ"
        assert (done.token_ids, done.text, done.finish_reason) == (tokens[0], done.choices[0].text, "length")
        assert engine.generate(prompt, **options).token_ids == tokens[0]
        assert [choice.token_ids for choice in engine.generate(prompt, n=n + 2, **options).choices][:n] == tokens
        with lamella.Engine(folder, max_num_seqs=2, max_num_batched_tokens=7, prefix_caching=False, threads=1) as other:
            assert [choice.token_ids for choice in other.generate(prompt, n=n, **options).choices] == tokens


def test_n_goes_with_lists_and_each_request_counts_once(engine: lamella.Engine) -> None:
    done = engine.generate([[5], [6, 7]], n=3, max_tokens=5, temperature=2.0, seed=1)
    assert [len(one.choices) for one in done] == [3, 3]
    assert [[c.token_ids for c in one.choices] for one in done] == [
        [c.token_ids for c in engine.generate(prompt, n=3, max_tokens=5, temperature=2.0, seed=1).choices]
        for prompt in ([5], [6, 7])
    ]
    stats = engine.stats()
    assert (stats["received"], stats["finished"]) == (4, 4)


def test_greedy_choices_are_all_alike(engine: lamella.Engine) -> None:
    done = engine.generate([5, 6], n=4, max_tokens=12)
    assert all(choice == done.choices[0] for choice in done.choices)


def test_choices_share_the_prompts_blocks(engine: lamella.Engine, folder: Path) -> None:
    prompt = [(3 * i) % 100 for i in range(100)]  # 6 full blocks, and 4 tokens over
    engine.generate(prompt, n=4, max_tokens=3, temperature=1.0, seed=1)
    assert engine.stats()["reused_tokens"] == 3 * 96, "all but the first take them from it"
    engine.generate(prompt, max_tokens=3)
    assert engine.stats()["reused_tokens"] == 4 * 96
    with lamella.Engine(folder, prefix_caching=False) as without:
        without.generate(prompt, n=4, max_tokens=3, temperature=1.0, seed=1)
        without.generate(prompt, max_tokens=3)
        assert without.stats()["reused_tokens"] == 0


def test_streamed_choices_carry_their_index(engine: lamella.Engine, seed: int) -> None:
    options: dict[str, Any] = {"n": 5, "max_tokens": 30, "temperature": 3.0, "seed": seed, "logprobs": 1}
    done = engine.generate("hello world", **options)
    stop = done.choices[3].token_ids[7]  # one ends early, others perhaps
    done = engine.generate("hello world", stop_token_ids=[stop], **options)
    texts, tokens, ends = [""] * 5, [[] for _ in range(5)], [[] for _ in range(5)]
    for chunk in engine.stream("hello world", stop_token_ids=[stop], **options):
        assert not ends[chunk.index], "nothing comes after a choice's end"
        texts[chunk.index] += chunk.text
        tokens[chunk.index] += chunk.token_ids
        assert chunk.logprobs is not None and [entry[0].token_id for entry in chunk.logprobs] == chunk.token_ids
        if chunk.finish_reason:
            ends[chunk.index].append(chunk.finish_reason)
    assert texts == [choice.text for choice in done.choices]
    assert tokens == [choice.token_ids for choice in done.choices]
    assert ends == [[choice.finish_reason] for choice in done.choices]


def test_leaving_a_stream_of_several_choices_ends_them_all(busy_spec: _core.ModelSpec) -> None:
    with lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=3) as engine:
        for chunk in engine.stream([7], n=6, max_tokens=4000, temperature=1.0):
            assert 0 <= chunk.index < 6
            break
        until_idle(engine, steps=2)
        assert engine.stats()["cancelled"] == 1


def test_one_choice_that_fails_makes_the_request_a_failed_one(seed: int, tmp_path: Path) -> None:
    """A token whose embedding overflows: sampling at a high temperature finds it in some choices, not in all."""
    model = draw("gpt2", seed, tmp_path / "sound", vocab_size=120, n_positions=CONTEXT, tie_word_embeddings=False)
    with torch.no_grad():
        model.transformer.wte.weight[17] = 3e38
    model.save_pretrained(tmp_path / "poisoned")
    with lamella.Engine(tmp_path / "poisoned") as engine:
        for i in range(100):
            (done,) = engine.generate([[5]], n=8, max_tokens=20, temperature=50.0, seed=seed + i)
            reasons = {choice.finish_reason for choice in done.choices}
            if reasons == {"length", "error"}:
                break
        assert reasons == {"length", "error"}
        for choice in done.choices:
            assert (choice.error is not None) == (choice.finish_reason == "error")
            assert len(choice.token_ids) == 20 or choice.token_ids[-1] == 17
        assert int(engine.stats()["failed"]) >= 1
        with pytest.raises(lamella.NumericError):
            engine.generate([5], n=8, max_tokens=20, temperature=50.0, seed=seed + i)
        until_idle(engine)
