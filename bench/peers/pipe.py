"""A process that is asked one thing at a time over a pipe, in lines of JSON, and sleeps between."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


class PeerError(Exception):
    """A worker could not do what it was asked, or ended; the message says why."""


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers line by line until the input ends. What anything prints to standard output goes to standard error.

    An exception in `answer` becomes {"error": ...}. The process dies with its parent, which may have stopped it.
    """
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # whatever a peer raises is an answer, not the end
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


class Child:
    """A process that runs `serve`. Between questions it is stopped, so that idle threads take no time from others."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        self._log = log

    def ask(self, question: Mapping[str, Any], timeout_s: float = 600) -> dict[str, Any]:
        """The answer. Errors: `PeerError` where it is an error, does not come in time, or the process ended."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.send_signal(signal.SIGCONT)
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = self._line(timeout_s)
        except BrokenPipeError:
            line = b""
        if not line:
            raise PeerError(f"it ended with status {process.wait()}; its last words are in {self._log}")
        process.send_signal(signal.SIGSTOP)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply

    def close(self) -> None:
        """Ends the process. May be called again."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _line(self, timeout_s: float) -> bytes:
        """The next whole line, empty at the end of the output."""
        output = self._process.stdout
        assert output is not None
        line, deadline = b"", time.monotonic() + timeout_s
        with selectors.DefaultSelector() as ready:
            ready.register(output, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not ready.select(deadline - time.monotonic()):
                    self._process.kill()
                    raise PeerError(f"no answer within {timeout_s:.0f} s; it was ended")
                piece = os.read(output.fileno(), 1 << 20)
                if not piece:
                    return b""
                line += piece
        return line
