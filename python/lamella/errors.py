"""What Lamella raises: `Error` and its children, one for each way a caller would react.

Every error carries `code`, the stable upper-case name of what went wrong. The compiled core raises through
`class_for_code`, so a code means the same class wherever the error was found.
"""

from __future__ import annotations


class Error(Exception):
    """Base of everything that Lamella raises on purpose. `code` names the cause, for example "INVALID_CHECKPOINT".

    The message is text that can be printed and sent: bytes of a path that are not UTF-8 are shown as \\xff.
    """

    code = "INTERNAL"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(_printable(message))
        if code is not None:
            self.code = code


def _printable(message: str) -> str:
    try:
        return message.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return message.encode("utf-8", "backslashreplace").decode("utf-8")


class InternalError(Error):
    """A broken invariant of Lamella itself: a bug, never the caller's fault."""


class CheckpointError(Error):
    """Model files that are damaged, contradict themselves, changed while read, or need what Lamella does not have."""

    code = "INVALID_CHECKPOINT"


class InvalidArgumentError(Error, ValueError):
    """An option or a request field outside its range."""

    code = "INVALID_ARGUMENT"


class ContextLengthError(Error, ValueError):
    """A prompt, or a prompt and its `max_tokens`, beyond the model's context."""

    code = "CONTEXT_TOO_LONG"


class OutOfMemoryError(Error, MemoryError):
    """The budget or the machine cannot hold what was asked; the message has asked, free and budget in bytes."""

    code = "OUT_OF_MEMORY"


class StorageError(Error, OSError):
    """The operating system refused a read or a write; the message has the file, the offset and the reason."""

    code = "IO_ERROR"


class OverloadedError(Error):
    """The queue is full; the request may be sent again."""

    code = "OVERLOADED"


class RequestCancelledError(Error):
    """The request was cancelled before it finished."""

    code = "CANCELLED"


class DeadlineError(Error, TimeoutError):
    """The request did not finish before its deadline."""

    code = "DEADLINE"


class NumericError(Error):
    """NaN or infinity where the computation needs a number."""

    code = "NUMERIC"


class RankFailedError(Error):
    """A part of the engine is gone: a rank, or the engine's own loop (code ENGINE_DEAD). Open the model again.

    The message of a rank's failure names the rank and its cause.
    """

    code = "RANK_FAILED"


class ChatTemplateError(Error):
    """The model's chat template is missing, wrong or does not end; only this request fails."""

    code = "CHAT_TEMPLATE"


_CLASSES: dict[str, type[Error]] = {
    "INTERNAL": InternalError,
    "INVALID_CHECKPOINT": CheckpointError,
    "UNSUPPORTED_MODEL": CheckpointError,
    "CHECKPOINT_CHANGED": CheckpointError,
    "INVALID_ARGUMENT": InvalidArgumentError,
    "CONTEXT_TOO_LONG": ContextLengthError,
    "OUT_OF_MEMORY": OutOfMemoryError,
    "IO_ERROR": StorageError,
    "OVERLOADED": OverloadedError,
    "CANCELLED": RequestCancelledError,
    "DEADLINE": DeadlineError,
    "NUMERIC": NumericError,
    "ENGINE_DEAD": RankFailedError,
    "CHAT_TEMPLATE": ChatTemplateError,
    "RANK_FAILED": RankFailedError,
}


def class_for_code(code: str) -> type[Error]:
    """The class that carries `code`; `InternalError` for a code that this table does not know."""
    return _CLASSES.get(code, InternalError)


def unsupported(message: str) -> CheckpointError:
    """A `CheckpointError` about sound files that ask for something Lamella does not have (code UNSUPPORTED_MODEL)."""
    return CheckpointError(message, "UNSUPPORTED_MODEL")
