"""What an adaptor of an engine offers, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Job:
    """A model's file and how to open it. A config.json alone is a shape, which gets random weights."""

    path: str
    options: Mapping[str, Any]
    threads: int
    batch: int  # sequences at once, at most
    context: int  # tokens of one sequence, at most

    @property
    def is_shape(self) -> bool:
        """Whether there is a config only."""
        return self.path.endswith(".json")


@dataclass(frozen=True)
class Timing:
    """Seconds until every sequence has its first token, and of the decode steps after it."""

    first_s: float
    decode_s: float = 0.0


Ids = Sequence[Sequence[int]]


class Generates(Protocol):
    """A decoder, open. Made from a `Job`."""

    def generate(self, prompts: Ids, steps: int) -> Timing:
        """Runs all prompts at once, greedily, for 1 + `steps` tokens each whatever they are. Equal lengths."""
        ...


class Encodes(Protocol):
    """An encoder, open. Made from a `Job`."""

    def encode(self, inputs: Ids) -> list[list[list[float]]]:
        """The last hidden states, (inputs, tokens, hidden), as nested sequences or an array of them."""
        ...
