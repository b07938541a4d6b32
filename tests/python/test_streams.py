"""Streams, and requests of many callers at once: what they give, and how they are left."""

from __future__ import annotations

import itertools
import random
import threading
from pathlib import Path
from typing import Any

import lamella
import pytest
from engines import (
    OUTCOMES,
    assert_counted,
    until_idle,
    write_text_model,
)
from lamella import _core


def test_streamed_chunks_joined_are_the_completion(engine: lamella.Engine, seed: int) -> None:
    for i in range(12):
        options: dict[str, Any] = {"max_tokens": 60, "temperature": 1.5, "seed": seed + i}
        completion = engine.generate("café 你好", **options)
        chunks = list(engine.stream("café 你好", **options))
        assert "".join(chunk.text for chunk in chunks) == completion.text
        assert [token for chunk in chunks for token in chunk.token_ids] == completion.token_ids
        assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [completion.finish_reason]


def test_leaving_a_stream_cancels_it_within_a_step_and_frees_its_blocks(busy_spec: _core.ModelSpec) -> None:
    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        for leave in ("break", "close", "throw", "delete"):
            stream = engine.stream([7] * 40, max_tokens=4000)
            next(stream)
            stats = engine.stats()
            assert stats["running"] == 1
            assert 3 <= int(stats["kv_blocks_used"]) < 250, (
                "41 tokens and those it is ahead, not all that it may become"
            )
            if leave == "break":
                for _ in stream:
                    break
            if leave == "throw":
                with pytest.raises(ZeroDivisionError):
                    stream.throw(ZeroDivisionError)  # type: ignore[attr-defined]
            elif leave != "delete":
                stream.close()  # type: ignore[attr-defined]
            del stream
            until_idle(engine, steps=2)  # the one that was being computed, and one that it was about to be in
        assert [engine.stats()[name] for name in OUTCOMES] == [0, 0, 4, 0, 0], OUTCOMES


def test_a_stream_that_nobody_starts_costs_nothing(engine: lamella.Engine) -> None:
    engine.stream([7], max_tokens=5)
    assert engine.stats()["received"] == 0


def test_streams_and_generate_take_turns_in_one_thread(engine: lamella.Engine) -> None:
    prompts = [[7 + i, 8, 9] for i in range(5)]
    expected = [engine.generate(prompt, max_tokens=50).token_ids for prompt in prompts]
    streams = [engine.stream(prompt, max_tokens=50) for prompt in prompts]
    tokens: list[list[int]] = [[] for _ in prompts]
    rng = random.Random(4)
    alive = list(range(5))
    while alive:
        i = rng.choice(alive)
        chunk = next(streams[i], None)
        if chunk is None:
            alive.remove(i)
            continue
        tokens[i] += chunk.token_ids
        if rng.random() < 0.2:
            assert engine.generate(prompts[i], max_tokens=3).token_ids == expected[i][:3]
        assert_counted(engine.stats())
    assert tokens == expected


def test_G_threads_share_one_engine(engine: lamella.Engine, seed: int, full_stage: bool) -> None:
    prompts = [[7 + i] * (1 + 7 * i) for i in range(6)]
    options: dict[str, Any] = {"max_tokens": 25, "temperature": 1.0, "seed": seed}
    expected = [engine.generate(prompt, **options).token_ids for prompt in prompts]
    stop, failures = threading.Event(), []

    def client(number: int) -> None:
        try:
            for round in range(60 if full_stage else 6):
                i = (number + round) % len(prompts)
                if number % 3 == 0:
                    for chunk in engine.stream(prompts[i], **options):
                        assert chunk.token_ids[0] == expected[i][0]
                        break
                elif number % 3 == 1:
                    assert engine.generate(prompts[i], **options).token_ids == expected[i]
                else:
                    assert [done.token_ids for done in engine.generate(prompts, **options)] == expected
        except BaseException as error:
            failures.append(error)

    def watch() -> None:
        while not stop.is_set():
            try:
                assert_counted(engine.stats())
            except BaseException as error:
                failures.append(error)
                return

    watcher = threading.Thread(target=watch)
    clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in [watcher, *clients]:
        thread.start()
    for thread in clients:
        thread.join()
    stop.set()
    watcher.join()
    assert not failures, failures


def test_G_two_engines_live_side_by_side(folder: Path, seed: int, tmp_path: Path) -> None:
    write_text_model(seed + 1, tmp_path)
    with lamella.Engine(folder) as a, lamella.Engine(tmp_path, dtype="bfloat16", threads=1) as b:
        alone = a.generate([7, 8], max_tokens=20).token_ids, b.generate([7, 8], max_tokens=20).token_ids
        assert alone[0] != alone[1]
        streams = a.stream([7, 8], max_tokens=20), b.stream([7, 8], max_tokens=20)
        mixed: tuple[list[int], list[int]] = ([], [])
        for chunks in itertools.zip_longest(*streams):  # in turns; how many tokens a chunk has is a matter of time
            for tokens, chunk in zip(mixed, chunks, strict=True):
                tokens += chunk.token_ids if chunk is not None else []
        assert mixed == alone
        a.close()
        assert b.generate([7, 8], max_tokens=20).token_ids == alone[1]


def test_stats_count_each_outcome_once(busy_spec: _core.ModelSpec) -> None:
    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        engine.generate([[7], [8], [9]], max_tokens=4)
        next(engine.stream([7], max_tokens=4000))  # started, then dropped
        with pytest.raises(lamella.ContextLengthError):
            engine.generate([[7]] * 3, max_tokens=4096)
        until_idle(engine)
        stats = engine.stats()
        assert [stats[name] for name in ("received", *OUTCOMES)] == [7, 0, 3, 1, 3, 0], OUTCOMES
        assert stats["io_backend"] == "pread"
        assert int(stats["kv_blocks_total"]) >= 4096 // 16
        assert all(int(stats[f"bytes_{what}"]) > 0 for what in ("weights", "kv", "activations"))
        assert int(stats["steps"]) >= 4 and 0 < float(stats["executor_s"]) <= float(stats["step_s"])
