"""What an engine returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Timing:
    """Seconds. `first_token_s` counts from the submission to the first token, `total_s` to the last."""

    first_token_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True)
class Completion:
    """One generated continuation.

    `token_ids` holds the generated ids without the stop token; `text` is their text ("" without a tokenizer).
    `finish_reason` is "stop" at an end or stop token, "length" at max_tokens; "error" carries `error`.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    timing: Timing = field(default_factory=Timing)
    error: str | None = None


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed completion: new ids and the text that became certain with them.

    The last chunk of a stream has `finish_reason`; texts of all chunks together are the completion's text.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
