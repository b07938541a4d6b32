"""transformers' streamers: objects with `put` and `end` that are shown token ids as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from .answers import Asked
from .checks import shown
from .completion import Chunk
from .errors import InvalidArgumentError


class Streamer(Protocol):
    """What transformers' `TextStreamer` and its kin are."""

    def put(self, value: Any) -> None: ...
    def end(self) -> None: ...


def check_streamer(streamer: Any, asked: Asked) -> None:
    """Errors: `InvalidArgumentError` for what is no streamer, and for one that would hear of several choices."""
    if streamer is None:
        return
    if not (callable(getattr(streamer, "put", None)) and callable(getattr(streamer, "end", None))):
        raise InvalidArgumentError(f"streamer is {shown(streamer)}; expected an object with put and end")
    if asked.params.n > 1:
        raise InvalidArgumentError(f"streamer goes with n = 1; n is {asked.params.n}")


def feed(streamer: Streamer, asked: Asked, chunks: Iterable[Chunk]) -> None:
    """Shows the streamer the prompt's ids, then every new one. What it raises comes out."""
    import numpy as np

    streamer.put(np.array([asked.request.prompt], np.int64))
    for chunk in chunks:
        for token in chunk.token_ids:
            streamer.put(np.array([token], np.int64))
    streamer.end()
