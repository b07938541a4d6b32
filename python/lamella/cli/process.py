"""What makes a call a process: exit codes, one clear message for any failure, signals, and warnings."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from lamella.errors import (
    CheckpointError,
    ContextLengthError,
    DeadlineError,
    Error,
    InvalidArgumentError,
    OutOfMemoryError,
    RankFailedError,
    StorageError,
)

from .output import print_json
from .parser import UsageError

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM arrived. Like `KeyboardInterrupt`, it passes through handlers of ordinary errors."""


def guarded(run: Callable[[], int], as_json: bool) -> int:
    """The exit code of `run`, whatever happens in it. Messages go to standard error, with `as_json` also to output."""
    with _sigterm_raises(), _warnings_shown():
        try:
            _tolerate_any_text()
            code = run()
            sys.stdout.flush()
            return code
        except SystemExit as request:  # argparse after --help
            return request.code if isinstance(request.code, int) else 0
        except BaseException as error:
            return _report(error, as_json)


def show_error(error: BaseException) -> None:
    """The one message about `error` on standard error."""
    if os.environ.get("LAMELLA_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    print(f"lamella: error: {_message(error)}", file=sys.stderr)
    if isinstance(error, UsageError):
        print(f"`{error.command} --help` lists what there is.", file=sys.stderr)


def exit_code(error: BaseException) -> int:
    """The exit code that stands for `error`."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Terminated):
        return TERMINATED
    if isinstance(error, InvalidArgumentError | ContextLengthError):
        return 2
    if isinstance(error, CheckpointError):
        return 3
    if isinstance(error, RankFailedError) and error.code == "RANK_FAILED":
        return 5
    if isinstance(error, BrokenPipeError):  # whoever read our output has had enough
        return 1
    if isinstance(error, DeadlineError):  # a TimeoutError, which Python counts among the OSErrors
        return 1
    return 4 if isinstance(error, OutOfMemoryError | StorageError | MemoryError | OSError) else 1


def _report(error: BaseException, as_json: bool) -> int:
    if isinstance(error, BrokenPipeError):
        _abandon_output()
        return exit_code(error)
    with contextlib.suppress(OSError):
        if isinstance(error, KeyboardInterrupt | Terminated):
            print("\nlamella: interrupted", file=sys.stderr)
        else:
            show_error(error)
    try:
        if as_json:
            print_json({"error": {"code": _code(error), "message": _message(error)}})
        sys.stdout.flush()
    except OSError:
        _abandon_output()
    return exit_code(error)


def _code(error: BaseException) -> str:
    if isinstance(error, Error):
        return error.code
    if isinstance(error, KeyboardInterrupt | Terminated):
        return "CANCELLED"
    if isinstance(error, MemoryError):
        return OutOfMemoryError.code
    return StorageError.code if isinstance(error, OSError) else Error.code


def _message(error: BaseException) -> str:
    if isinstance(error, Error):
        return str(error)
    if isinstance(error, KeyboardInterrupt | Terminated):
        return "interrupted"
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError):
        return str(error)
    return f"internal error: {type(error).__name__}: {error} (LAMELLA_DEBUG=1 shows where)"


def _abandon_output() -> None:
    """Sends what is still buffered nowhere, so that the interpreter does not fail on it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _tolerate_any_text() -> None:
    """A terminal that cannot show a character gets an escape instead of an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """The package logs nothing but what deserves a warning."""
    log, handler = logging.getLogger("lamella"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("lamella: warning: %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
