"""Lamella runs transformer models from one laptop core up.

import lamella

engine = lamella.Engine("path/to/model")
print(engine.generate("The capital of France is", max_tokens=20).text)
"""

from __future__ import annotations

from ._core import version as __version__
from .completion import Chunk, Completion, Timing
from .engine import Engine
from .errors import (
    ChatTemplateError,
    CheckpointError,
    ContextLengthError,
    Error,
    InternalError,
    InvalidArgumentError,
    NumericError,
    OutOfMemoryError,
    OverloadedError,
    StorageError,
)
from .packing import Packed, pack
from .params import SamplingParams

__all__ = [
    "ChatTemplateError",
    "CheckpointError",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "Engine",
    "Error",
    "InternalError",
    "InvalidArgumentError",
    "NumericError",
    "OutOfMemoryError",
    "OverloadedError",
    "Packed",
    "SamplingParams",
    "StorageError",
    "Timing",
    "__version__",
    "pack",
]
