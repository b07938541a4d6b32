"""Ctrl-C inside a native call: the signal's handler runs between two steps of the call, not after it.

Handlers are counted, not seconds: signals that come while nobody looks for them are one call of the handler at the end,
however many came. So a handler that raises at its third call proves that somebody looked three times.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lamella
import pytest
from engines import (
    PATIENCE,
    shape,
    until_idle,
)
from lamella import _core


class Third(KeyboardInterrupt):
    """Raised by the third call of the handler."""


def interrupted(call: Callable[[], Any], pause: float = 0.02) -> None:
    """Makes the call under a timer that fires every `pause` seconds; the third signal's handler must end it."""
    calls = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Third

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, pause, pause)
        with pytest.raises(Third):
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_G_an_interrupt_ends_encode_and_leaves_the_engine_as_it_was() -> None:
    with lamella.Engine.random(shape(causal=False), dtype="float32", max_num_seqs=4, max_model_len=64) as engine:
        expected = engine.encode([5, 6, 7]).tobytes()
        texts = [[7] * 60] * 5_000
        interrupted(lambda: engine.core.encode(texts, _core.Pooling.mean), pause=0.05)  # no time in Python
        assert engine.stats()["kv_blocks_used"] == 0
        assert engine.encode([5, 6, 7]).tobytes() == expected


def test_G_an_interrupt_ends_logits_and_leaves_the_engine_as_it_was(busy_spec: _core.ModelSpec) -> None:
    with lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=1) as engine:
        expected = engine.generate([5, 6, 7], max_tokens=5).token_ids
        interrupted(lambda: engine.logits([7] * 4000), pause=0.06)
        until_idle(engine)
        assert engine.generate([5, 6, 7], max_tokens=5).token_ids == expected


def test_G_an_interrupt_comes_out_of_a_step_that_takes_long() -> None:
    """Whole prompts in one step each: the caller waits for news that do not come, and yet looks.

    It looks every tenth of a second, so three handlers need more than 0.3 s: a step must take far longer on every
    machine, and yet not half a minute with sanitizers. So the model is deep, and the prompts are as long as fits.
    """
    spec = shape()
    spec.layers = list(spec.layers) * 4
    with lamella.Engine.random(spec, dtype="float32", threads=1) as probe:

        def took(token: int) -> float:
            started = time.monotonic()
            probe.generate([token] * 512, max_tokens=1)
            return time.monotonic() - started

        a_token = min(took(token) for token in (7, 8, 9)) / 512  # the first touches new pages
    tokens = max(256, min(4096, int(3.0 / a_token)))
    length = min(4000, tokens)
    with lamella.Engine.random(spec, dtype="float32", max_num_batched_tokens=tokens, threads=1) as engine:
        prompts = [[7 + i] * length for i in range(6)]
        for call in (
            lambda: engine.generate(prompts, max_tokens=1),
            lambda: engine.generate(prompts[0], max_tokens=90),
            lambda: list(engine.stream(prompts[0], max_tokens=90)),
            lambda: engine.score(prompts),
        ):
            cancelled = int(engine.stats()["cancelled"])
            interrupted(call, pause=0.12)
            until_idle(engine, steps=2)
            assert int(engine.stats()["cancelled"]) > cancelled


def test_G_an_interrupt_ends_generate_and_leaves_the_engine_as_it_was(busy_spec: _core.ModelSpec) -> None:
    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        expected = engine.generate([[7], [8, 9]], max_tokens=10)
        for call in (
            lambda: engine.generate([7] * 300, max_tokens=3000),
            lambda: engine.generate([[7 + i] * 100 for i in range(9)], max_tokens=3000),
            lambda: list(engine.stream([7], max_tokens=3000)),
        ):
            interrupted(call, pause=0.05)
            until_idle(engine, steps=2)
        assert engine.stats()["cancelled"] == 11
        again = engine.generate([[7], [8, 9]], max_tokens=10)
        assert [done.token_ids for done in again] == [done.token_ids for done in expected]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_G_what_is_raised_while_decoding_comes_out_and_no_request_is_left(
    slow_folder: Path, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> str:
        raise kind

    with lamella.Engine(slow_folder, max_num_seqs=3) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("lamella.tokenizer.DecodeStream.push", interrupted)
            for call in (
                lambda: engine.generate([[7 + i] for i in range(8)], max_tokens=4000),  # three run, five wait
                lambda: engine.generate([7], max_tokens=4000),
                lambda: list(engine.stream([7], max_tokens=4000)),
            ):
                with pytest.raises(kind):
                    call()
                until_idle(engine, steps=2)
        stats = engine.stats()
        assert (stats["received"], stats["finished"], stats["cancelled"]) == (10, 0, 10)
        with monkeypatch.context() as patch:
            patch.setattr("lamella.tokenizer.DecodeStream.flush", interrupted)
            with pytest.raises(kind):  # at the end of the first of them
                engine.generate([[7], [8]], max_tokens=5)
            until_idle(engine)
        assert engine.generate([7], max_tokens=5).finish_reason == "length"


def test_G_a_failure_while_it_waits_cancels_all_that_generate_asked_for(busy_spec: _core.ModelSpec) -> None:
    class Failing:
        """A client whose seventh wait fails, as it does where there is no memory for the news."""

        def __init__(self, client: _core.Client) -> None:
            self.client, self.waits = client, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.client, name)

        def wait(self, timeout_s: float, for_ends: bool) -> Any:  # for everything: seven times soon
            self.waits += 1
            if self.waits == 7:
                raise MemoryError
            return self.client.wait(timeout_s)

    class Core:
        def __init__(self, core: _core.Engine) -> None:
            self.core = core

        def __getattr__(self, name: str) -> Any:
            return getattr(self.core, name)

        def client(self) -> Failing:
            return Failing(self.core.client())

    with lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=2) as engine:
        native, engine._core = engine.core, Core(engine.core)  # type: ignore[assignment]
        with pytest.raises(MemoryError):
            engine.generate([[7 + i] for i in range(5)], max_tokens=2000)
        engine._core = native
        until_idle(engine, steps=2)
        assert engine.stats()["cancelled"] == 5


def test_G_interrupts_at_any_moment_leave_no_request(folder: Path, seed: int, full_stage: bool) -> None:
    """The alarm comes while requests are checked, submitted, run, heard of, decoded or already ended."""
    armed: list[bool] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    rng, interrupted = random.Random(seed), 0
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with lamella.Engine(folder, max_num_seqs=4, threads=1) as engine:
            prompts = [[7 + i] * (1 + i) for i in range(12)]
            started = time.perf_counter()
            engine.generate(prompts, max_tokens=6)
            longest = time.perf_counter() - started
            for i in range(1000 if full_stage else 150):
                try:
                    armed.append(True)
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, longest))
                    engine.generate(prompts, max_tokens=6) if i % 2 else list(engine.stream([7], max_tokens=40))
                    armed.clear()
                except KeyboardInterrupt:
                    interrupted += 1
                until_idle(engine)
            stats = engine.stats()
            print(f"{interrupted} interrupted; {stats['finished']} finished, {stats['cancelled']} cancelled")
            assert interrupted > 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_cancelling_a_request_that_waits_ends_it_within_a_step_of_anothers(busy_spec: _core.ModelSpec) -> None:
    with lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=1) as engine:
        client = engine.core.client()
        request = _core.Request([7], _core.SamplingParams(max_tokens=4000))
        (running,) = client.submit([request])
        taken: list[int] = []
        for _ in range(20):  # at any moment of the step
            (waiting,) = client.submit([request])
            time.sleep(0.003)
            client.cancel(waiting)
            before = engine.stats()["steps"]
            ends: list[str] = []
            deadline = time.monotonic() + PATIENCE
            while not ends and time.monotonic() < deadline:
                ends = [news.reason for news in client.wait(PATIENCE) if news.id == waiting]
            assert ends == ["cancelled"]
            taken.append(int(engine.stats()["steps"]) - int(before))
        # One in flight, and one that began meanwhile; more pass while this thread waits for a core to look at it.
        assert min(taken) <= 3, taken
        assert client.open == 1 and engine.stats()["running"] == 1
        client.cancel(running)
        until_idle(engine, steps=2)


@pytest.mark.parametrize("progress", [None, lambda done, total: None], ids=["silent", "with_progress"])
def test_G_an_interrupt_ends_loading(smollm2_path: Path, progress: Callable[[int, int], None] | None) -> None:
    from lamella.checkpoint import open_model
    from lamella.engine_options import EngineOptions

    weights = open_model(smollm2_path).weights
    options = EngineOptions(dtype="float32", quantization="int4")  # the search for clips takes seconds
    dtype = weights.resolved_dtype(options.dtype)
    config = options.config(dtype, [choice.format for choice in weights.choose_formats(options.format_options(dtype))])
    interrupted(lambda: weights.open_engine(config, 2, None, progress), pause=0.011)
    weights.open_engine(config, 2, None, progress)
