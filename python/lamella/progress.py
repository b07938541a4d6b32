"""How far work is that takes its time: one line on standard error, where somebody looks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from .checks import check_flag, shown
from .errors import InvalidArgumentError

#: Told of bytes done and bytes in all.
Progress = Callable[[int, int], None]

#: Seconds after which work has a line; what is over sooner needs none.
APPEARS_S = 1.0
#: Seconds between two states of a line that is rewritten, and where it cannot be, between two lines.
_REWRITE_S, _NEXT_LINE_S = 0.1, 10.0
_BAR = 20

# Whose line it is: two that rewrite the same line would garble it, so that only the first is shown.
_turn = threading.Lock()


class ProgressLine:
    """One line on standard error about work that takes its time. A context manager around that work.

    `wanted` None shows it where standard error is a terminal or a notebook's, True everywhere, False nowhere. Where a
    line cannot be rewritten, in a log file, each state is a line of its own, at most one every ten seconds. Of several
    at a time in one process only the first is shown. Work that fails leaves the line as it was last, with a line feed;
    of other work nothing stays, unless it says so with `end`.

    Nothing is ever raised for standard error: it may be closed, broken or None, and the line then goes silent.
    """

    def __init__(self, wanted: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        terminal = _can_rewrite(sys.stderr)
        self._stream: Any = sys.stderr if (terminal if wanted is None else wanted) else None
        self._rewrites = terminal
        self._clock = clock
        self._next = clock() + APPEARS_S
        self._length = 0  # of what the line says now
        self._ours = False  # whether this line has been shown

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._length > 0:
            self._write("\n")
            self._length = 0
        self.end()

    @property
    def is_wanted(self) -> bool:
        """Whether there is anybody to show anything."""
        return self._stream is not None

    def due(self) -> bool:
        """Whether it is time to `show` something: soon after the last time, and in the first second, it is not."""
        return self._stream is not None and self._clock() >= self._next

    def show(self, text: str) -> None:
        """Shows one line of text, at once, in place of the one before."""
        if self._stream is None or not self._take_turn():
            return
        self._next = self._clock() + (_REWRITE_S if self._rewrites else _NEXT_LINE_S)
        if self._rewrites:
            text = text[: _columns(self._stream) - 1]  # a longer one would wrap, and only its last part be rewritten
            self._write(f"\r{text.ljust(self._length)}")
            self._length = len(text)
        else:
            self._write(f"{text}\n")

    def end(self, text: str = "") -> None:
        """Ends the line. `text` is what stays where the work took long enough for a line; without one nothing does."""
        if text and (self._ours or self.due()):
            self.show(text)
        if not self._ours:
            return
        if self._rewrites and self._length > 0:
            self._write("\n" if text else f"\r{' ' * self._length}\r")
        self._stream, self._ours, self._length = None, False, 0
        _turn.release()

    def of_bytes(self, doing: str) -> Progress:
        """A function that shows bytes done and in all, behind a word such as "loading"."""

        def report(done: int, total: int) -> None:
            if self.due():
                self.show(f"{doing} {_bar(done, total)} {bytes_text(done)} of {bytes_text(total)}")

        return report

    def of_batch(self, doing: str, total: int, units: str) -> Progress:
        """A function that shows how many of a batch are done, and tokens a second; the last state stays."""
        started = self._clock()

        def report(done: int, tokens: int) -> None:
            over = done == total
            if over or self.due():
                text = f"{doing} {_bar(done, total)} {done}/{total} {units}"
                if tokens:
                    text += f", {tokens / max(self._clock() - started, 1e-9):.1f} tokens/s"
                (self.end if over else self.show)(text)

        return report

    def _take_turn(self) -> bool:
        self._ours = self._ours or _turn.acquire(blocking=False)
        return self._ours

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except Exception:  # whatever a closed, broken or replaced standard error raises: the work is worth more
            self._stream = None
            self._rewrites = False


def check_progress(progress: object) -> None:
    """Errors: `InvalidArgumentError` for what is neither None, a bool, nor a function."""
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InvalidArgumentError(
            f"progress is {shown(progress)}; expected True, False, None, or a function of two numbers"
        )


@contextlib.contextmanager
def told_of_bytes(progress: Progress | bool | None, doing: str) -> Iterator[Progress | None]:
    """What work of many bytes tells: the caller's function, or one that shows a line while the work is under way."""
    if progress is not None and not isinstance(progress, bool):
        yield progress
        return
    with ProgressLine(progress) as line:
        yield line.of_bytes(doing) if line.is_wanted else None


@contextlib.contextmanager
def told_of_batch(progress: bool | None, doing: str, total: int, units: str) -> Iterator[Progress | None]:
    """The same for requests, or inputs, and tokens so far. With None a single one is no batch and has no line."""
    if progress is not None:
        check_flag("progress", progress)
    with ProgressLine(False if progress is None and total < 2 else progress) as line:
        yield line.of_batch(doing, total, units) if line.is_wanted else None


def bytes_text(size: float) -> str:
    """1536 -> 1.50 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


def _bar(done: int, total: int) -> str:
    filled = _BAR * min(done, total) // max(total, 1)
    return f"[{'#' * filled}{'-' * (_BAR - filled)}]"


def _can_rewrite(stream: Any) -> bool:
    """Whether a carriage return goes back to the line's beginning: on terminals, and in notebooks, which are none."""
    if type(stream).__module__.partition(".")[0] == "ipykernel":
        return True
    try:
        return bool(stream.isatty())
    except Exception:  # None, closed, or an object of the program's own without isatty
        return False


def _columns(stream: Any) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80  # 0: a terminal that was never given a size
    except Exception:  # a notebook's has no descriptor
        return 80
