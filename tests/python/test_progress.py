"""Progress on standard error: where and when there is a line, what it says, how it ends, and that it breaks nothing."""

from __future__ import annotations

import io
import random
import re
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lamella
import pytest
from engines import shape, until_idle
from lamella import progress
from lamella.progress import ProgressLine, bytes_text


class Terminal(io.StringIO):
    """What a person would see of a terminal's last lines, carriage returns and all."""

    def isatty(self) -> bool:
        return True

    def seen(self) -> list[str]:
        """The lines on the screen, each as the last text that was written over it left it."""
        screen = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            screen.append("".join(cells).rstrip())
        return screen


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    write_to(stream, monkeypatch)
    return stream


def write_to(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `stream` the standard error that lines are written to. pytest sets its own between a fixture and a test."""
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=stream))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines appear without the second's wait and show every state: tiny models are fast."""
    monkeypatch.setattr(progress, "APPEARS_S", 0.0)
    monkeypatch.setattr(progress, "_REWRITE_S", 0.0)
    monkeypatch.setattr(progress, "_NEXT_LINE_S", 0.0)


@pytest.fixture(autouse=True)
def no_line_is_left_over() -> Iterator[None]:
    yield
    assert progress._turn.acquire(blocking=False), "a line was never ended"
    progress._turn.release()


# ---- the line --------------------------------------------------------------------------------------------------------


def test_a_line_appears_after_a_second_and_vanishes(terminal: Terminal, clock: Clock) -> None:
    with ProgressLine(clock=clock) as line:
        report = line.of_bytes("loading")
        report(1 << 20, 4 << 20)
        clock.now = 0.99
        report(2 << 20, 4 << 20)
        assert terminal.getvalue() == ""
        clock.now = 1.0
        report(3 << 20, 4 << 20)
        assert terminal.seen() == ["loading [###############-----] 3.00 MiB of 4.00 MiB"]
        clock.now = 1.05
        report(4 << 20, 4 << 20)
        assert terminal.seen() == ["loading [###############-----] 3.00 MiB of 4.00 MiB"], "ten times a second at most"
        clock.now = 1.1
        report(4 << 20, 4 << 20)
        assert terminal.seen() == ["loading [####################] 4.00 MiB of 4.00 MiB"]
    assert terminal.seen() == [""] and terminal.getvalue().endswith("\r")


def test_work_that_is_over_sooner_shows_nothing(terminal: Terminal, clock: Clock) -> None:
    with ProgressLine(True, clock) as line:
        line.of_bytes("loading")(1, 1)
    with ProgressLine(True, clock) as line:
        line.of_batch("generating", 2, "requests")(2, 10)
    assert terminal.getvalue() == ""


def test_the_last_state_of_a_batch_stays(terminal: Terminal, clock: Clock, seed: int) -> None:
    draw = random.Random(seed)
    total = draw.randrange(2, 1000)
    ended, tokens = draw.randrange(total), draw.randrange(1, 10_000)
    clock.now = draw.uniform(0, 1e6)
    with ProgressLine(clock=clock) as line:
        report = line.of_batch("generating", total, "requests")
        clock.now += 4.0
        report(ended, tokens)
        (shown,) = terminal.seen()
        assert f"] {ended}/{total} requests, {tokens / 4:.1f} tokens/s" in shown
        report(total, tokens)
    assert terminal.seen() == [f"generating [{'#' * 20}] {total}/{total} requests, {tokens / 4:.1f} tokens/s", ""]


def test_a_shorter_text_covers_a_longer_one(terminal: Terminal) -> None:
    with ProgressLine() as line:
        line.show("repetition 10 of 10")
        line.show("short")
        assert terminal.seen() == ["short"]


def test_a_line_fits_its_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_columns", lambda stream: 11)
    with ProgressLine() as line:
        line.show("x" * 50)
        assert terminal.seen() == ["x" * 10]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_work_that_fails_ends_the_line(terminal: Terminal, kind: type[BaseException]) -> None:
    with pytest.raises(kind), ProgressLine() as line:
        line.show("loading")
        raise kind
    assert terminal.seen() == ["loading", ""]


def test_without_a_terminal_nobody_looks(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    stream = io.StringIO()
    write_to(stream, monkeypatch)
    with ProgressLine(clock=clock) as line:
        clock.now = 9.0
        assert not line.is_wanted
        line.of_bytes("loading")(1, 2)
        line.show("loading")
    assert stream.getvalue() == ""


def test_asked_for_in_a_log_file_each_state_is_a_line(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    stream = io.StringIO()
    write_to(stream, monkeypatch)
    with ProgressLine(True, clock) as line:
        report = line.of_batch("generating", 4, "requests")
        for now in range(25):
            clock.now = now
            report(min(3, now // 5), now)
        report(4, 24)
    states = [text.partition("] ")[2] for text in stream.getvalue().split("\n")]
    assert states == [
        "0/4 requests, 1.0 tokens/s",
        "2/4 requests, 1.0 tokens/s",
        "3/4 requests, 1.0 tokens/s",
        "4/4 requests, 1.0 tokens/s",
        "",
    ]
    assert "\r" not in stream.getvalue()


def test_a_notebook_is_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ipykernel's stream is no terminal, has no descriptor, and knows the carriage return."""
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    stream = notebook()
    write_to(stream, monkeypatch)
    with ProgressLine() as line:
        line.show("loading")
        assert stream.getvalue() == "\rloading"
    with ProgressLine(False) as line:
        line.show("packing")
    assert "packing" not in stream.getvalue()


def test_of_two_lines_at_a_time_the_first_is_shown(terminal: Terminal) -> None:
    with ProgressLine() as first, ProgressLine() as second:
        first.show("first")
        second.show("second")
        assert terminal.seen() == ["first"]
    with ProgressLine() as third:
        third.show("third")
        assert terminal.seen()[-1] == "third"


class Broken(Terminal):
    """A standard error that raises, of any kind."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


class Bare:
    """A program's own standard error: nothing but `write`."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text


def closed() -> io.StringIO:
    stream = Terminal()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream",
    [None, closed(), Broken(BrokenPipeError()), Broken(RuntimeError()), Broken(ValueError("closed")), Bare()],
    ids=["none", "closed", "pipe", "odd", "value", "bare"],
)
@pytest.mark.parametrize("wanted", [None, True])
def test_no_standard_error_breaks_the_work(
    engine: lamella.Engine, folder: Path, stream: Any, wanted: bool | None, at_once: None, monkeypatch: Any
) -> None:
    write_to(stream, monkeypatch)
    assert len(engine.generate([[7], [8]], max_tokens=3, progress=wanted)) == 2
    lamella.Engine(folder, progress=wanted).close()
    with ProgressLine(wanted) as line:
        line.show("x")
        line.end("y")


def test_sizes() -> None:
    assert [bytes_text(size) for size in (0, 1023, 1536, 5 << 20, 3 << 30, 7 << 40)] == [
        "0 B",
        "1023 B",
        "1.50 KiB",
        "5.00 MiB",
        "3.00 GiB",
        "7.00 TiB",
    ]


# ---- of an engine ----------------------------------------------------------------------------------------------------


def test_loading_and_packing_have_a_line(folder: Path, tmp_path: Path, terminal: Terminal, at_once: None) -> None:
    lamella.Engine(folder).close()
    assert "loading [#" in terminal.getvalue() and terminal.seen()[-1] == ""
    lamella.pack(folder, tmp_path / "store")
    assert "packing [#" in terminal.getvalue() and terminal.seen()[-1] == ""
    shown = terminal.getvalue()
    lamella.Engine(folder, progress=False).close()
    lamella.pack(folder, tmp_path / "quiet", progress=False)
    heard: list[tuple[int, int]] = []
    lamella.Engine(folder, progress=lambda *news: heard.append(news)).close()
    assert heard and terminal.getvalue() == shown, "a function is told instead"


def test_a_batch_has_a_line_with_true_figures(
    engine: lamella.Engine, terminal: Terminal, at_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """With n = 2 a request has ended when both of its choices have."""
    prompts = [[7 + i] for i in range(9)]
    done = engine.generate(prompts, n=2, max_tokens=6, temperature=2.0, ignore_eos=True)
    assert all(len(choice.token_ids) == 6 for completion in done for choice in completion.choices)
    lines = [text for text in terminal.getvalue().replace("\r", "\n").split("\n") if text]
    ended = [int(text.partition("] ")[2].partition("/9 requests")[0]) for text in lines]
    assert ended == sorted(ended) and ended[-1] == 9
    assert terminal.seen()[-1] == "" and "9/9 requests, " in terminal.seen()[-2]
    assert capsys.readouterr().out == ""


def test_what_is_no_batch_has_none_unless_asked(engine: lamella.Engine, terminal: Terminal, at_once: None) -> None:
    for call in (
        lambda: engine.generate([7], max_tokens=3),
        lambda: engine.generate([[7]], max_tokens=3),
        lambda: engine.generate([], max_tokens=3),
        lambda: engine.generate([[7], [8]], max_tokens=3, progress=False),
        lambda: engine.score([[7, 8]]),
        lambda: list(engine.stream([7], max_tokens=3)),
    ):
        call()
        assert terminal.getvalue() == ""
    engine.generate([7], max_tokens=3, progress=True)
    assert "1/1 requests" in terminal.getvalue()
    engine.score([[7, 8], [9, 10]])
    assert "scoring [" in terminal.getvalue() and "2/2 inputs" in terminal.getvalue()


def test_the_figures_are_the_requests_own(
    engine: lamella.Engine, folder: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the line hears of, against what came out: tokens of all choices, requests that have ended."""
    heard: list[tuple[int, int]] = []
    monkeypatch.setattr(ProgressLine, "of_batch", lambda self, *about: lambda *news: heard.append(news))
    done = engine.generate([[7], [8], [9]], n=3, max_tokens=7, temperature=2.0, progress=True)
    assert heard == sorted(heard)
    assert heard[-1] == (3, sum(len(choice.token_ids) for one in done for choice in one.choices))


def test_embedding_many_inputs_has_a_line(terminal: Terminal, at_once: None, seed: int) -> None:
    """Inputs that are done and their tokens, in steps of four inputs."""
    draw = random.Random(seed)
    inputs = [[draw.randrange(2000) for _ in range(draw.randint(1, 30))] for _ in range(22)]
    with lamella.Engine.random(shape(causal=False), dtype="float32", max_num_seqs=4, max_model_len=64) as engine:
        expected = engine.encode(inputs, progress=False)
        assert terminal.getvalue() == ""
        assert engine.encode(inputs).tobytes() == expected.tobytes()
        counts = [int(count) for count in re.findall(r"\] (\d+)/22 inputs, ", terminal.getvalue())]
        assert counts == [4, 8, 12, 16, 20, 22]
        assert terminal.seen()[-1] == "" and "tokens/s" in terminal.seen()[-2]
        engine.encode([], progress=True)
        engine.encode([[7]])


def test_what_embedding_hears_of(at_once: None, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    heard: list[tuple[int, int]] = []
    monkeypatch.setattr(ProgressLine, "of_batch", lambda self, *about: lambda *news: heard.append(news))
    draw = random.Random(seed)
    inputs = [[7] * draw.randint(1, 30) for _ in range(9)]
    with lamella.Engine.random(shape(causal=False), dtype="float32", max_num_seqs=2, max_model_len=64) as engine:
        engine.encode(inputs, progress=True)
    assert heard == [(done, sum(map(len, inputs[:done]))) for done in (2, 4, 6, 8, 9)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_a_batch_that_is_interrupted_ends_its_line(
    slow_folder: Path, terminal: Terminal, at_once: None, kind: type[BaseException], monkeypatch: Any
) -> None:
    def interrupted(*_: Any) -> str:
        if "generating" in terminal.getvalue():
            raise kind
        return ""

    monkeypatch.setattr("lamella.tokenizer.DecodeStream.push", interrupted)
    with lamella.Engine(slow_folder, progress=False) as engine:
        with pytest.raises(kind):
            engine.generate([[7 + i] for i in range(8)], max_tokens=4000, ignore_eos=True)
        assert terminal.seen()[-1] == "" and "0/8 requests" in terminal.seen()[-2]
        until_idle(engine)


def test_many_threads_share_standard_error(engine: lamella.Engine, terminal: Terminal, at_once: None) -> None:
    """One line at a time: no two texts are ever mixed."""
    calls: list[Callable[[], Any]] = [
        lambda i=i: engine.generate([[7 + i], [8 + i]], max_tokens=30, progress=True)  # type: ignore[misc]
        for i in range(6)
    ]
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for text in terminal.getvalue().replace("\r", "\n").split("\n"):
        assert text.strip() == "" or (text.count("generating") == 1 and text.rstrip().endswith("tokens/s")), text


def test_what_is_no_progress_is_refused(engine: lamella.Engine, folder: Path, tmp_path: Path) -> None:
    for wrong in (3, "yes", [True]):
        with pytest.raises(lamella.InvalidArgumentError, match=r"progress is .*; expected True, False"):
            lamella.Engine(folder, progress=wrong)
        with pytest.raises(lamella.InvalidArgumentError, match=r"progress is .*; expected True, False"):
            lamella.pack(folder, tmp_path / "store", progress=wrong)
        for call in (engine.generate, engine.score):
            with pytest.raises(lamella.InvalidArgumentError, match=r"progress is .*; expected True or False"):
                call([[7, 8]], progress=wrong)
