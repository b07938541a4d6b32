"""Lamella runs transformer models from one laptop core up.

import lamella

engine = lamella.Engine("path/to/model")
print(engine.generate("The capital of France is", max_tokens=20).text)
"""

from __future__ import annotations

from ._core import version as __version__
from .completion import Choice, Chunk, Completion, Timing, TokenLogprob
from .engine import Engine
from .errors import (
    ChatTemplateError,
    CheckpointError,
    ContextLengthError,
    DeadlineError,
    Error,
    InternalError,
    InvalidArgumentError,
    NumericError,
    OutOfMemoryError,
    OverloadedError,
    RankFailedError,
    RequestCancelledError,
    StorageError,
)
from .packing import Packed, pack
from .params import SamplingParams

__all__ = [
    "ChatTemplateError",
    "CheckpointError",
    "Choice",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "DeadlineError",
    "Engine",
    "Error",
    "InternalError",
    "InvalidArgumentError",
    "NumericError",
    "OutOfMemoryError",
    "OverloadedError",
    "Packed",
    "RankFailedError",
    "RequestCancelledError",
    "SamplingParams",
    "StorageError",
    "Timing",
    "TokenLogprob",
    "__version__",
    "pack",
]
