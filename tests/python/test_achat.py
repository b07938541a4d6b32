"""achat: the same answers as chat, whole and streamed, other tasks run meanwhile, and every way to leave it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import lamella
import pytest
from engines import PATIENCE, assert_idle, descriptors, until, write_text_model
from test_asyncio import idle, plain, run

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ raise_exception('no') if bad }}"
MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello wörld"}]


@pytest.fixture(scope="module")
def chat_folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template whose step takes about a millisecond."""
    path = tmp_path_factory.mktemp("chat")
    write_text_model(seed, path, 4096, n_embd=256, n_head=8, n_layer=6, n_inner=1024)
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return path


@pytest.fixture
def chatty(chat_folder: Path) -> Any:
    with lamella.Engine(chat_folder, max_num_seqs=2) as engine:
        yield engine
        assert_idle(engine)


def test_async_chats_are_those_of_chat(chatty: lamella.Engine, seed: int) -> None:
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 3.0, "seed": seed, "logprobs": 1}
    expected = chatty.chat(MESSAGES, **options)
    chunks = list(chatty.chat(MESSAGES, stream=True, **options))

    async def main() -> None:
        assert plain(await chatty.achat(MESSAGES, **options)) == plain(expected)
        params = lamella.SamplingParams(**options)
        assert plain(await chatty.achat(MESSAGES, params)) == plain(expected)
        streamed = [chunk async for chunk in await chatty.achat(MESSAGES, stream=True, **options)]
        assert "".join(chunk.text for chunk in streamed) == "".join(chunk.text for chunk in chunks) == expected.text
        assert [id for chunk in streamed for id in chunk.token_ids] == expected.token_ids
        assert streamed[-1].finish_reason == expected.finish_reason
        answers = await asyncio.gather(*(chatty.achat(MESSAGES, **options) for _ in range(8)))
        assert [answer.token_ids for answer in answers] == [expected.token_ids] * 8

    run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_errors_come_out_of_the_await(chatty: lamella.Engine, engine: lamella.Engine, stream: bool) -> None:
    """Those of a stream too, before its first chunk is asked for."""

    async def main() -> None:
        with pytest.raises(lamella.ChatTemplateError, match="no chat template"):
            await engine.achat(MESSAGES, stream=stream)
        with pytest.raises(lamella.ChatTemplateError, match="plain JSON"):
            await chatty.achat([{"role": "user", "content": object()}], stream=stream)
        with pytest.raises(lamella.InvalidArgumentError, match="temprature"):
            await chatty.achat(MESSAGES, stream=stream, temprature=1)
        with pytest.raises(lamella.InvalidArgumentError, match="top_p"):
            await chatty.achat(MESSAGES, stream=stream, top_p=7.0)
        with pytest.raises(lamella.ContextLengthError):
            await chatty.achat([{"role": "user", "content": "x" * 5000}], stream=stream)
        with pytest.raises(lamella.ContextLengthError):
            await chatty.achat(MESSAGES, stream=stream, max_tokens=5000)

    run(main())
    assert chatty.stats()["finished"] == chatty.stats()["running"] == 0


@pytest.mark.parametrize("how", ["cancel", "timeout", "break", "aclose", "drop"])
def test_F7_whoever_leaves_a_chat_ends_its_request_within_a_step(chatty: lamella.Engine, how: str) -> None:
    options: dict[str, Any] = {"max_tokens": 3000, "ignore_eos": True}

    async def consume(begun: asyncio.Event) -> None:
        async for _ in await chatty.achat(MESSAGES, stream=True, **options):
            begun.set()

    async def main() -> None:
        if how == "cancel":  # one that streams, one that waits for the whole, and one in the queue behind them
            begun = asyncio.Event()
            tasks = [asyncio.create_task(consume(begun))]
            tasks += [asyncio.create_task(chatty.achat(MESSAGES, **options)) for _ in range(2)]  # type: ignore[misc]
            await begun.wait()
            await asyncio.to_thread(until, lambda: chatty.stats()["received"] == 3, "all requests")
            for task in tasks:
                task.cancel()
            for task in tasks:
                with pytest.raises(asyncio.CancelledError):
                    await task
        elif how == "timeout":
            calls: list[Callable[[], Any]] = [
                lambda: consume(asyncio.Event()),
                lambda: chatty.achat(MESSAGES, **options),
            ]
            for call in calls:
                begins = int(chatty.stats()["received"])
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(None) as limit:
                        task = asyncio.ensure_future(call())
                        await asyncio.to_thread(until, lambda n=begins: chatty.stats()["received"] > n, "the request")
                        limit.reschedule(asyncio.get_running_loop().time())
                        await task
        else:
            stream = await chatty.achat(MESSAGES, stream=True, **options)
            async for _ in stream:
                break
            if how == "aclose":
                await stream.aclose()
            elif how == "break":
                assert (await anext(stream)).token_ids
            del stream
        await idle(chatty)
        assert int(chatty.stats()["cancelled"]) == int(chatty.stats()["received"]) > 0

    expected = chatty.chat_ids(MESSAGES)
    before = descriptors()
    run(main())
    assert descriptors() == before
    assert chatty.chat_ids(MESSAGES) == expected
    assert chatty.chat(MESSAGES, max_tokens=3, ignore_eos=True).finish_reason == "length"


def test_a_chat_that_nobody_reads_asks_for_nothing(chatty: lamella.Engine) -> None:
    async def main() -> None:
        stream: AsyncGenerator[lamella.Chunk, None] = await chatty.achat(MESSAGES, stream=True)
        del stream
        task = asyncio.create_task(chatty.achat(MESSAGES))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert chatty.stats()["received"] == 0


def test_other_tasks_run_while_a_template_is_rendered(chatty: lamella.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, render = threading.Event(), chatty.chat_ids

    def slow(messages: Any) -> list[int]:
        assert let_go.wait(PATIENCE)
        return render(messages)

    monkeypatch.setattr(chatty, "chat_ids", slow)

    async def main() -> None:
        tasks = [asyncio.create_task(chatty.achat(MESSAGES, max_tokens=5)) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert chatty.stats()["received"] == 0
        tasks[0].cancel()  # the thread goes on for a while; its request is never made
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        let_go.set()
        assert (await tasks[1]).prompt_tokens == len(render(MESSAGES))

    run(main())
    assert chatty.stats()["received"] == 1
