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
class TokenLogprob:
    """How probable a token was: `logprob` is the natural logarithm, `rank` its place among all tokens, 1 the best.

    `token` is the token's exact text, None without a tokenizer.
    """

    token_id: int
    logprob: float
    rank: int
    token: str | None = None


#: Of one position: the token that stands there, then the best ones in order; it may be among them.
PositionLogprobs = list[TokenLogprob]


@dataclass(frozen=True)
class Choice:
    """One of the continuations that a request asked for. Fields as those of `Completion`."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    logprobs: list[PositionLogprobs] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Completion:
    """What became of one prompt. Where n > 1, the fields that `Choice` has as well are those of `choices[0]`.

    `token_ids` holds the generated ids without the stop token; `text` is their text ("" without a tokenizer), up to the
    stop string where one ended it: `token_ids` then ends with the token that completed it.
    `finish_reason` is "stop" at an end or stop token or a stop string, "length" at max_tokens, "cancelled" where the
    engine was closed meanwhile; "error" carries `error`.
    `logprobs` has an entry for each of `token_ids`, `prompt_logprobs` one for each token of the prompt, empty for the
    first and for those that were not computed before an error or the engine's end; both are None where they were not
    asked for.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    timing: Timing = field(default_factory=Timing)
    error: str | None = None
    logprobs: list[PositionLogprobs] | None = None
    prompt_logprobs: list[PositionLogprobs] | None = None
    choices: list[Choice] = field(default_factory=list)


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed completion: new ids and the text that became certain with them.

    The last chunk of a choice has `finish_reason`; texts of all its chunks together are the completion's text. `index`
    is the choice, 0 where n is 1.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: list[PositionLogprobs] | None = None
