"""agenerate and astream: the same results as without asyncio, many at once, and every way to leave them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lamella
import pytest
from engines import (
    CONTEXT,
    PATIENCE,
    descriptors,
    in_threads,
    native_threads,
    until,
    until_idle,
)
from lamella import _core


def run(main: Awaitable[Any]) -> Any:
    """As asyncio.run, failing instead of hanging."""

    async def bounded() -> Any:
        return await asyncio.wait_for(main, 3 * PATIENCE)

    return asyncio.run(bounded())


async def idle(engine: lamella.Engine) -> None:
    """`until_idle` beside a running event loop."""
    await asyncio.to_thread(until_idle, engine, 3)


def test_async_results_are_those_of_generate(engine: lamella.Engine, seed: int) -> None:
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 3.0, "seed": seed, "logprobs": 1, "n": 2}
    prompts = ["hello world", [7] * 40, "café 你好"]
    one, many = engine.generate(prompts[0], **options), engine.generate(prompts, **options)

    async def main() -> None:
        assert plain(await engine.agenerate(prompts[0], **options)) == plain(one)
        assert [plain(done) for done in await engine.agenerate(prompts, **options)] == [plain(done) for done in many]
        assert await engine.agenerate([]) == []
        params = lamella.SamplingParams(**options)
        assert plain(await engine.agenerate(prompts[0], params)) == plain(one)
        texts, tokens = ["", ""], [[], []]
        async for chunk in engine.astream(prompts[0], **options):
            texts[chunk.index] += chunk.text
            tokens[chunk.index] += chunk.token_ids
        assert texts == [choice.text for choice in one.choices]
        assert tokens == [choice.token_ids for choice in one.choices]

    run(main())


def plain(done: lamella.Completion) -> list[Any]:
    """What a completion says, without how long it took."""
    return [done.text, done.token_ids, done.finish_reason, done.prompt_tokens, done.error, done.logprobs, done.choices]


def test_many_tasks_share_the_engine(engine: lamella.Engine, seed: int) -> None:
    """64 tasks, twice as many as run at once, half of them streams; descriptors go with them."""
    prompts = [[(7 * i + j) % 300 for j in range(1 + i)] for i in range(64)]
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 3.0, "seed": seed}
    expected = [done.token_ids for done in engine.generate(prompts, **options)]

    async def streamed(prompt: list[int]) -> list[int]:
        return [token async for chunk in engine.astream(prompt, **options) for token in chunk.token_ids]

    async def generated(prompt: list[int]) -> list[int]:
        return (await engine.agenerate(prompt, **options)).token_ids

    async def main() -> None:
        works = [(streamed if i % 2 else generated)(prompt) for i, prompt in enumerate(prompts)]
        assert await asyncio.gather(*works) == expected

    before = descriptors()
    run(main())
    assert descriptors() == before
    assert engine.stats()["finished"] == 128


def test_errors_come_out_of_the_await(engine: lamella.Engine) -> None:
    async def main() -> None:
        with pytest.raises(lamella.ContextLengthError):
            await engine.agenerate([7] * (CONTEXT + 1))
        with pytest.raises(lamella.InvalidArgumentError, match="temprature"):
            await engine.agenerate([7], temprature=1)
        with pytest.raises(lamella.InvalidArgumentError, match="lone surrogate"):
            await engine.agenerate("\ud800")
        refused = engine.astream([7] * (CONTEXT + 1))  # checked when the first chunk is asked for
        with pytest.raises(lamella.ContextLengthError):
            await anext(refused)

    run(main())


@pytest.mark.parametrize("how", ["cancel", "timeout", "break", "aclose", "drop", "raise"])
def test_F7_whoever_leaves_ends_the_request_within_a_step(busy_spec: _core.ModelSpec, how: str) -> None:
    async def consume(engine: lamella.Engine, begun: asyncio.Event) -> None:
        async for _ in engine.astream([7], max_tokens=4000):
            begun.set()

    async def main(engine: lamella.Engine) -> None:
        if how == "cancel":  # of a task in astream, of one in agenerate, and of one that waits in the queue
            begun = asyncio.Event()
            tasks = [
                asyncio.create_task(consume(engine, begun)),
                asyncio.create_task(engine.agenerate([8], max_tokens=4000)),
                asyncio.create_task(engine.agenerate([[9 + i] for i in range(5)], max_tokens=4000)),
            ]
            await begun.wait()
            await asyncio.to_thread(until, lambda: engine.stats()["received"] == 7, "all requests")
            for task in tasks:
                task.cancel()
            for task in tasks:
                with pytest.raises(asyncio.CancelledError):
                    await task
        elif how == "timeout":
            for call in (lambda: consume(engine, asyncio.Event()), lambda: engine.agenerate([8], max_tokens=4000)):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await call()
        elif how == "raise":
            with pytest.raises(ZeroDivisionError):
                async with contextlib.aclosing(engine.astream([7], max_tokens=4000)) as chunks:
                    async for _ in chunks:
                        raise ZeroDivisionError
        else:
            stream = engine.astream([7], max_tokens=4000)
            async for _ in stream:
                break
            if how == "aclose":
                await stream.aclose()
            elif how == "drop":
                del stream
            else:  # whoever breaks and keeps the iterator can go on with it
                assert (await anext(stream)).token_ids
                del stream
        await idle(engine)
        assert int(engine.stats()["cancelled"]) == int(engine.stats()["received"]) > 0

    with lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=2) as engine:
        expected = engine.generate([7], max_tokens=9).token_ids
    with lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=2) as engine:
        before = descriptors()
        run(main(engine))
        assert descriptors() == before
        assert engine.generate([7], max_tokens=9).token_ids == expected


def test_a_task_that_is_cancelled_before_its_first_step_asks_for_nothing(engine: lamella.Engine) -> None:
    async def main() -> None:
        task = asyncio.create_task(engine.agenerate([7]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine.astream([7])  # nobody asks for a chunk

    run(main())
    assert engine.stats()["received"] == 0


@pytest.mark.parametrize("turns", range(8))
def test_F7_a_task_that_is_cancelled_while_its_text_arrives_as_ids_is_cancelled(
    slow_folder: Path, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every turn of the loop between the end of the tokenizer's thread and the first token."""
    with lamella.Engine(slow_folder) as engine:
        tokenizer = engine.tokenizer_or_raise()
        encoded, encode = threading.Event(), tokenizer.encode

        def telling(*args: Any, **named: Any) -> list[int]:
            ids = encode(*args, **named)
            encoded.set()
            return ids

        monkeypatch.setattr(tokenizer, "encode", telling)

        async def main() -> None:
            task = asyncio.create_task(engine.agenerate("hello", max_tokens=4000))
            await asyncio.sleep(0)
            assert encoded.wait(PATIENCE)  # holds the loop up, so that it hears of the ids below
            time.sleep(0.02)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())
        until_idle(engine, steps=3)
        assert engine.stats()["finished"] == 0


def test_other_tasks_run_while_texts_become_ids_and_tokens_come(slow_folder: Path, monkeypatch: Any) -> None:
    """The event loop turns while a tokenizer blocks its thread, and while the engine works."""
    with lamella.Engine(slow_folder) as engine:
        tokenizer = engine.tokenizer_or_raise()
        let_go, encode = threading.Event(), tokenizer.encode

        def slow_encode(*args: Any, **named: Any) -> list[int]:
            assert let_go.wait(PATIENCE)
            return encode(*args, **named)

        monkeypatch.setattr(tokenizer, "encode", slow_encode)

        async def main() -> None:
            task = asyncio.create_task(engine.agenerate("hello", max_tokens=50))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert engine.stats()["received"] == 0
            let_go.set()
            turns = 0
            while not task.done():
                await asyncio.sleep(0)
                turns += 1
            assert len((await task).token_ids) == 50
            assert turns > 50, "more than one a token"

        run(main())


def test_two_event_loops_and_plain_threads_share_one_engine(engine: lamella.Engine, seed: int) -> None:
    prompts = [[(5 * i + j) % 300 for j in range(1 + 3 * i)] for i in range(16)]
    options: dict[str, Any] = {"max_tokens": 25, "temperature": 3.0, "seed": seed}
    expected = [done.token_ids for done in engine.generate(prompts, **options)]

    async def tasks(order: list[int]) -> None:
        async def one(i: int) -> None:
            assert (await engine.agenerate(prompts[i], **options)).token_ids == expected[i]
            async for chunk in engine.astream(prompts[i], **options):
                assert chunk.token_ids[0] == expected[i][0]
                break

        await asyncio.gather(*map(one, order))

    def plain_calls() -> None:
        for i, prompt in enumerate(prompts):
            assert engine.generate(prompt, **options).token_ids == expected[i]
            assert engine.logits(prompt)[0].shape[0] == len(prompt)

    before = descriptors()
    loops: list[Callable[[], Any]] = [lambda: run(tasks(list(range(16)))), lambda: run(tasks(list(range(15, -1, -1))))]
    in_threads([*loops, plain_calls, plain_calls])
    until_idle(engine)
    assert descriptors() == before


def test_closing_the_engine_ends_what_tasks_wait_for(busy_spec: _core.ModelSpec) -> None:
    async def main() -> None:
        engine = lamella.Engine.random(busy_spec, dtype="float32")
        stream = engine.astream([7], max_tokens=4000)
        task = asyncio.create_task(engine.agenerate([[7], [8]], max_tokens=4000))
        first = await anext(stream)
        await asyncio.to_thread(until, lambda: engine.stats()["received"] == 3, "all requests")
        await asyncio.to_thread(engine.close)
        assert [done.finish_reason for done in await task] == ["cancelled"] * 2
        chunks = [first, *[chunk async for chunk in stream]]
        assert chunks[-1].finish_reason == "cancelled"

    threads = native_threads()
    run(main())
    until(lambda: native_threads() <= threads, "the end of all threads")


def test_G_generate_works_inside_a_running_event_loop(engine: lamella.Engine) -> None:
    """As in a notebook's cell, whose code runs in a task: calls without await hold the loop up and work."""
    expected = engine.generate("hello", max_tokens=9)

    async def cell() -> None:
        assert engine.generate("hello", max_tokens=9).token_ids == expected.token_ids
        assert "".join(chunk.text for chunk in engine.stream("hello", max_tokens=9)) == expected.text
        assert engine.score([7, 8])[0].size and engine.logits([7])[0].size
        assert (await engine.agenerate("hello", max_tokens=9)).token_ids == expected.token_ids

    run(cell())
