"""The life of an engine: closed, forgotten, copied, forked, and two of them in one process."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamella
import pytest
from engines import (
    PATIENCE,
    descriptors,
    in_threads,
    native_threads,
    until,
    until_idle,
    until_running,
)
from lamella import _core
from lamella.model_weights import TensorWeights


def test_G_a_closed_engine_refuses_everything_but_close(slow_folder: Path) -> None:
    with lamella.Engine(slow_folder) as engine:
        never_started, started = engine.stream([7], max_tokens=9), engine.stream([7], max_tokens=4000)
        chunks = [next(started)]
    for call in (
        lambda: engine.generate([7]),
        lambda: engine.generate([]),
        lambda: engine.stream([7]),
        lambda: engine.logits([7]),
        lambda: engine.score([7]),
        lambda: asyncio.run(engine.agenerate([7])),
        lambda: asyncio.run(anext(engine.astream([7]))),  # type: ignore[arg-type]
        lambda: engine.encode([7]),
        lambda: engine.plan(),
        lambda: engine.stats(),
        lambda: engine.generate("hello"),
        lambda: engine.encode_prompt(""),
        lambda: engine.chat([]),
        lambda: engine.tokenizer,
        lambda: engine.checkpoint,
        lambda: next(never_started),
    ):
        with pytest.raises(lamella.InvalidArgumentError, match="the engine is closed"):
            call()
    chunks += started
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["cancelled"]
    tokens = [token for chunk in chunks for token in chunk.token_ids]
    with lamella.Engine(slow_folder) as again:
        whole = again.generate([7], max_tokens=len(tokens))
    assert tokens == whole.token_ids, "what it had said stays valid"
    assert "".join(chunk.text for chunk in chunks) == whole.text, "and its text comes to the end"
    engine.close()


def test_G_closing_ends_what_runs_in_other_threads(busy_spec: _core.ModelSpec) -> None:
    """In the middle of generate, of a list that waits in the queue, of streams, and of logits, all at once."""
    engine = lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=2)
    alone = engine.generate([7], max_tokens=50).token_ids

    def logits() -> str:
        try:
            for _ in range(100_000):
                engine.logits([7] * 500)
        except lamella.RequestCancelledError as error:
            return str(error)
        except lamella.InvalidArgumentError as error:  # between two of them
            return str(error)
        return "never ended"

    def close() -> None:
        until_running(engine)
        time.sleep(0.05)
        engine.close()

    one, many, stream, message, _ = in_threads(
        [
            lambda: engine.generate([7], max_tokens=4000),
            lambda: engine.generate([[7 + i] for i in range(9)], max_tokens=4000),
            lambda: list(engine.stream([7], max_tokens=4000)),
            logits,
            close,
        ]
    )
    for completion in (one, *many):
        assert completion.finish_reason == "cancelled" and completion.error is None
        assert len(completion.token_ids) < 4000
    assert one.token_ids[:50] == alone[: len(one.token_ids)]
    assert stream[-1].finish_reason == "cancelled"
    assert "closed" in message


def test_G_a_stream_keeps_an_engine_that_nobody_else_holds(busy_spec: _core.ModelSpec) -> None:
    threads = native_threads()
    engine = lamella.Engine.random(busy_spec, dtype="float32")
    expected = engine.generate([7], max_tokens=60).token_ids
    stream, reference = engine.stream([7], max_tokens=60), weakref.ref(engine)
    tokens = list(next(stream).token_ids)
    del engine
    tokens += [token for chunk in stream for token in chunk.token_ids]
    assert tokens == expected
    del stream
    assert reference() is None
    until(lambda: native_threads() <= threads, "the end of its threads")
    engine = lamella.Engine.random(busy_spec, dtype="float32")
    client = engine.core.client()
    client.submit([_core.Request([7], _core.SamplingParams(max_tokens=4000))])
    del engine  # a client of the core's holds nothing, and sees the end
    until(lambda: native_threads() <= threads, "the end of its threads")
    reasons: list[str] = []
    while client.open:
        reasons += [news.reason for news in client.wait(PATIENCE)]
    assert reasons[-1] == "cancelled"


def test_a_closed_engine_leaves_no_file_open_and_no_thread(slow_folder: Path) -> None:
    before, threads = descriptors(), native_threads()
    engine = lamella.Engine(slow_folder)
    stream = engine.stream([7], max_tokens=4000)
    next(stream)
    assert native_threads() > threads
    engine.close()
    assert native_threads() <= threads, "close() returns when its threads have ended"
    assert descriptors() == before, "a stream that was ended needs no file"
    assert list(stream)[-1].finish_reason == "cancelled"
    with lamella.Engine(slow_folder) as engine:
        kept = engine.checkpoint
    assert kept is not None and isinstance(kept.weights, TensorWeights)
    tensors = kept.weights.tensors
    assert tensors.read_f32(tensors.names()[0]).size, "a caller's checkpoint stays open"
    del kept, tensors
    assert descriptors() == before


def test_closing_in_another_thread_is_seen_at_once_or_not_at_all(folder: Path) -> None:
    class Closing(lamella.Engine):
        """Every look at the native engine is the last one before another thread closes it."""

        @property
        def _core(self) -> _core.Engine | None:  # type: ignore[override]
            core, self._kept = self._kept, None
            return core

        @_core.setter
        def _core(self, core: _core.Engine | None) -> None:
            self._kept = core

    engine = Closing(folder)
    assert isinstance(engine.core, _core.Engine)
    with pytest.raises(lamella.InvalidArgumentError, match="the engine is closed"):
        engine.core  # noqa: B018


def test_an_engine_frees_its_memory_when_closed_or_forgotten(busy_spec: _core.ModelSpec) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    vocab = busy_spec.vocab
    busy_spec.vocab = 100_000  # 100 MB of embedding in float32
    try:
        before = resident()
        for forget in (True, False):
            engine = lamella.Engine.random(busy_spec, dtype="float32")
            assert int(engine.stats()["bytes_weights"]) > 100_000_000
            engine.generate([7], max_tokens=3)
            assert resident() > before + 90_000_000
            reference = weakref.ref(engine)
            if forget:
                del engine  # no cycle: freed at once, without the collector
                assert reference() is None
            else:
                engine.close()
            assert resident() < before + 30_000_000
    finally:
        busy_spec.vocab = vocab


def test_G_an_engine_cannot_be_pickled_or_copied(engine: lamella.Engine) -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(lamella.InvalidArgumentError, match="cannot be pickled or copied: open the model again"):
            attempt(engine)
    assert engine.generate([7], max_tokens=2).finish_reason == "length"


def in_a_fork(act: Callable[[], Any]) -> None:
    """Runs `act` in a forked process, raises here what Lamella raises there, and fails when it hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            code = 0
        except lamella.InvalidArgumentError as error:
            os.write(writing, str(error).encode())
            code = 2
        except BaseException:
            code = 3
        os._exit(code)
    os.close(writing)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    with os.fdopen(reading, "rb") as pipe:
        message = pipe.read().decode()
    code = os.waitstatus_to_exitcode(ended[1])
    if code == 2:
        raise lamella.InvalidArgumentError(message)
    assert code == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_G_a_forked_process_gets_an_error_and_no_hang(engine: lamella.Engine) -> None:
    expected = engine.generate([7], max_tokens=5).token_ids
    for call in (
        lambda: engine.generate([7], max_tokens=5),
        lambda: engine.logits([7]),
        lambda: engine.stats(),
        lambda: asyncio.run(engine.agenerate([7])),
    ):
        with pytest.raises(lamella.InvalidArgumentError, match="forked"):
            in_a_fork(call)
    in_a_fork(engine.close)
    assert engine.generate([7], max_tokens=5).token_ids == expected


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_G_a_forked_process_can_leave_a_stream_but_not_go_on_with_it(busy_spec: _core.ModelSpec) -> None:
    """While a thread of the parent is inside a step, whose locks the child inherits and nobody there gives back."""
    streams: list[Any] = []

    def forget() -> None:
        streams.clear()
        gc.collect()

    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        expected = [token for chunk in engine.stream([7], max_tokens=30) for token in chunk.token_ids]
        streams.append(engine.stream([7], max_tokens=30))
        tokens = list(next(streams[0]).token_ids)
        stop = threading.Event()

        def step() -> None:
            while not stop.is_set():
                for _ in engine.stream([8], max_tokens=1000):
                    if stop.is_set():
                        break

        stepper = threading.Thread(target=step)
        stepper.start()
        try:
            for _ in range(3):
                time.sleep(0.05)
                with pytest.raises(lamella.InvalidArgumentError, match="forked"):
                    in_a_fork(lambda: next(streams[0]))
                in_a_fork(streams[0].close)
                in_a_fork(forget)
        finally:
            stop.set()
            stepper.join()
        tokens += [token for chunk in streams[0] for token in chunk.token_ids]
        assert tokens == expected, "the parent's stream goes on"
        until_idle(engine)
