"""A KV cache that is too small for everybody: requests wait and give way to one another, and nobody sees it."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamella
import pytest
from engines import (
    assert_idle,
    in_threads,
)
from tiny_tokenizers import byte_level


def block_bytes(folder: Path) -> int:
    """Bytes of one block of 16 tokens."""
    with lamella.Engine(folder, threads=1) as engine:
        stats = engine.stats()
        return int(stats["bytes_kv"]) // int(stats["kv_blocks_total"])


@pytest.mark.parametrize("prefix_caching", [True, False])
@pytest.mark.parametrize("chunk", [16, 512])
def test_D2_requests_that_give_way_get_what_they_get_alone(
    folder: Path, seed: int, prefix_caching: bool, chunk: int
) -> None:
    """Each fits, a few together do not: they are preempted as they grow, in all ways of asking at once."""
    rng = random.Random(f"{seed}-{chunk}")
    print(f"seed {seed}")
    kv, blocks = block_bytes(folder), 14
    vocab = byte_level().get_vocab_size()
    prompts = [[rng.randrange(vocab) for _ in range(rng.randint(1, 90))] for _ in range(24)]
    options: dict[str, Any] = {"max_tokens": 110, "temperature": 3.0, "seed": seed, "logprobs": 1, "prompt_logprobs": 1}
    with lamella.Engine(folder, threads=1) as roomy:
        alone = [roomy.generate(prompt, **options) for prompt in prompts]
        assert roomy.stats()["preemptions"] == 0
    tight = lamella.Engine(
        folder,
        kv_cache_memory=blocks * kv,
        max_num_seqs=8,
        max_num_batched_tokens=chunk,
        prefix_caching=prefix_caching,
        threads=1,
    )
    with tight:
        assert tight.stats()["kv_blocks_total"] == blocks and int(tight.stats()["bytes_kv"]) <= blocks * kv
        together = tight.generate(prompts, **options)
        assert int(tight.stats()["preemptions"]) > 0
        for one, other in zip(together, alone, strict=True):
            assert one.token_ids == other.token_ids and one.finish_reason == "length"
            assert one.logprobs == other.logprobs and one.prompt_logprobs == other.prompt_logprobs
        works: list[Callable[[], Any]] = [
            lambda i=i: [t for chunk in tight.stream(prompts[i], **options) for t in chunk.token_ids]
            for i in range(0, 24, 4)
        ]
        assert in_threads(works) == [alone[i].token_ids for i in range(0, 24, 4)]
        assert_idle(tight)
        stats = tight.stats()
        assert (stats["received"], stats["finished"]) == (30, 30)
        assert int(stats["kv_blocks_kept"]) <= blocks
        if prefix_caching:  # who comes back finds some of its blocks where it left them
            assert int(stats["reused_tokens"]) > 0
        else:
            assert stats["reused_tokens"] == stats["kv_blocks_kept"] == 0


def test_D2_what_can_never_fit_is_refused_with_the_figures_and_counted(folder: Path) -> None:
    kv = block_bytes(folder)
    with lamella.Engine(folder, kv_cache_memory=5 * kv, threads=1) as engine:
        expected = r"a prompt of 40 tokens plus max_tokens 42 needs 6 KV blocks of 16 tokens and the whole cache has 5"
        calls: list[Callable[[], Any]] = [
            lambda: engine.generate([7] * 40, max_tokens=42),
            lambda: engine.stream([7] * 40, max_tokens=42),
            lambda: asyncio.run(engine.agenerate([7] * 40, max_tokens=42)),
        ]
        for i, call in enumerate(calls):
            with pytest.raises(lamella.OutOfMemoryError, match=expected) as error:
                call()
            assert error.value.code == "OUT_OF_MEMORY" and "more kv_cache_memory" in str(error.value)
            stats = engine.stats()
            assert (stats["received"], stats["rejected"]) == (i + 1, i + 1)
        for whole in (engine.logits, engine.score):
            with pytest.raises(lamella.OutOfMemoryError, match="the whole cache has 5"):
                whole([7] * 81)
        # The last token is never computed, so that it needs no room.
        assert len(engine.generate([7] * 40, max_tokens=41).token_ids) == 41
        assert engine.logits([7] * 80)[0].shape[0] == 80
        assert_idle(engine)


def test_D1_a_cache_beyond_the_budget_or_below_one_block_is_refused(folder: Path) -> None:
    with pytest.raises(lamella.OutOfMemoryError, match=r"KV cache .*budget 8.00 MiB"):
        lamella.Engine(folder, memory_budget="8MiB", kv_cache_memory="16MiB")
    expected = r"kv_cache_memory is 1 B; expected at least ([\d.]+ \w+), which a block of 16 tokens takes"
    with pytest.raises(lamella.InvalidArgumentError, match=expected) as error:
        lamella.Engine(folder, kv_cache_memory=1)
    size = re.search(expected, str(error.value))
    assert size is not None
    with lamella.Engine(folder, kv_cache_memory=size[1], threads=1) as engine:
        assert engine.stats()["kv_blocks_total"] == 1
        assert len(engine.generate([5], max_tokens=15).token_ids) == 15


def test_prompts_that_begin_alike_are_computed_once(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    with (
        lamella.Engine(folder, threads=1) as engine,
        lamella.Engine(folder, prefix_caching=False, threads=1) as without,
    ):
        vocab = engine.core.spec.vocab
        beginning = [rng.randrange(vocab) for _ in range(100)]
        prompts = [beginning + [rng.randrange(vocab) for _ in range(10)] for _ in range(6)]
        expected = [without.generate(prompt, max_tokens=20).token_ids for prompt in prompts]
        reused = 0
        for prompt, tokens in zip(prompts, expected, strict=True):
            assert engine.generate(prompt, max_tokens=20).token_ids == tokens
            reused_now = int(engine.stats()["reused_tokens"])
            assert reused_now == reused, "96 tokens are 6 whole blocks; the first prompt has nobody to take them from"
            reused += 96
        assert int(engine.stats()["kv_blocks_kept"]) >= 6
        # The answer is part of what is kept: a conversation goes on where it was.
        engine.generate(prompts[0] + expected[0] + [5], max_tokens=2)
        assert int(engine.stats()["reused_tokens"]) - (reused - 96) == 128
        assert without.stats()["reused_tokens"] == without.stats()["kv_blocks_kept"] == 0
        assert_idle(engine)
