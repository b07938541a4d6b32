"""streamer: objects with transformers' `put` and `end`, transformers' own among them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
import transformers
from engines import (
    PATIENCE,
    descriptors,
    native_threads,
    until,
    until_idle,
)
from lamella import _core


class Recorder:
    """Everything that it was shown; raises at a call if told so."""

    def __init__(self, fails_at: int | None = None, fails_at_end: bool = False) -> None:
        self.values: list[np.ndarray] = []
        self.ended, self.fails_at, self.fails_at_end = 0, fails_at, fails_at_end

    def put(self, value: Any) -> None:
        assert not self.ended
        self.values.append(value)
        if len(self.values) == self.fails_at:
            raise ZeroDivisionError

    def end(self) -> None:
        self.ended += 1
        if self.fails_at_end:
            raise ZeroDivisionError


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """The model's tokenizer as transformers has it."""
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def test_a_streamer_is_shown_the_prompt_and_then_every_id(engine: lamella.Engine, seed: int) -> None:
    recorder = Recorder()
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 3.0, "seed": seed}
    done = engine.generate("hello world", streamer=recorder, **options)
    assert done.token_ids == engine.generate("hello world", **options).token_ids
    assert recorder.ended == 1
    assert all(value.dtype == np.int64 for value in recorder.values)
    assert recorder.values[0].tolist() == [engine.encode_prompt("hello world")]
    assert [value.tolist() for value in recorder.values[1:]] == [[token] for token in done.token_ids]


def test_transformers_text_streamer_prints_the_text(
    engine: lamella.Engine, theirs: Any, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "hello world"
    for skip_prompt in (True, False):
        streamer = transformers.TextStreamer(theirs, skip_prompt=skip_prompt)
        done = engine.generate(prompt, streamer=streamer, max_tokens=30, temperature=3.0, seed=seed)
        printed = capsys.readouterr().out
        # It decodes runs of ids, as the library does; what a model's bytes mean is decided when a run is whole.
        expected = theirs.decode(done.token_ids)
        assert printed == ("" if skip_prompt else prompt) + expected + "\n"


def test_transformers_iterator_streamer_hands_the_text_to_another_thread(
    engine: lamella.Engine, theirs: Any, seed: int
) -> None:
    streamer = transformers.TextIteratorStreamer(theirs, skip_prompt=True, timeout=PATIENCE)
    made: list[lamella.Completion] = []
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 3.0, "seed": seed}
    worker = threading.Thread(
        target=lambda: made.append(engine.generate("hello world", streamer=streamer, **options)), daemon=True
    )
    worker.start()
    text = "".join(streamer)
    worker.join(PATIENCE)
    assert text == theirs.decode(made[0].token_ids)


@pytest.mark.parametrize("call", [1, 2, 9])
def test_G_what_a_streamer_raises_comes_out_and_cancels_the_request(busy_spec: _core.ModelSpec, call: int) -> None:
    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        expected = engine.generate([7], max_tokens=5).token_ids
        recorder = Recorder(fails_at=call)
        with pytest.raises(ZeroDivisionError):
            engine.generate([7], streamer=recorder, max_tokens=4000)
        assert len(recorder.values) == call and not recorder.ended
        until_idle(engine, steps=3)
        assert engine.stats()["cancelled"] == 1
        with pytest.raises(ZeroDivisionError):
            engine.generate([7], streamer=Recorder(fails_at_end=True), max_tokens=5)
        until_idle(engine)
        assert engine.generate([7], max_tokens=5).token_ids == expected


def test_G_what_a_progress_function_raises_comes_out_and_nothing_is_left(folder: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise ZeroDivisionError

    lamella.Engine(folder).close()  # what is loaded once and stays is there
    before, threads = descriptors(), native_threads()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            lamella.Engine(folder, progress=fail)
    assert descriptors() == before
    until(lambda: native_threads() <= threads, "the end of all threads")


def test_a_streamer_may_use_the_engine(engine: lamella.Engine) -> None:
    """`put` runs in the caller's thread, between two looks for news, and holds nothing of the engine's."""

    class Asking(Recorder):
        def put(self, value: Any) -> None:
            super().put(value)
            self.values.append(engine.logits([7])[0])
            assert engine.generate([7], max_tokens=2).finish_reason == "length"

    asking = Asking()
    assert len(engine.generate([7], streamer=asking, max_tokens=5).token_ids) == 5
    assert len(asking.values) == 2 * 6


def test_a_streamer_that_closes_the_engine_ends_its_own_request(busy_spec: _core.ModelSpec) -> None:
    engine = lamella.Engine.random(busy_spec, dtype="float32")

    class Closing(Recorder):
        def put(self, value: Any) -> None:
            super().put(value)
            if len(self.values) == 3:
                engine.close()

    closing = Closing()
    done = engine.generate([7], streamer=closing, max_tokens=4000)
    assert done.finish_reason == "cancelled" and closing.ended == 1
    assert [value.tolist() for value in closing.values[1:]] == [[token] for token in done.token_ids]


def test_what_is_no_streamer_or_has_several_choices_is_refused(engine: lamella.Engine) -> None:
    recorder = Recorder()
    for call, message in (
        (lambda: engine.generate([7], streamer=print), "streamer is .*expected an object with put and end"),
        (lambda: engine.generate([7], streamer=recorder, n=2), "streamer goes with n = 1; n is 2"),
        (lambda: engine.generate([[7]], streamer=recorder), "streamer goes with a single prompt"),
    ):
        with pytest.raises(lamella.InvalidArgumentError, match=message):
            call()
    assert engine.stats()["received"] == 0 and not recorder.values
