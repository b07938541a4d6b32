"""From what a request asks for to what the core is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from . import _core
from .errors import InvalidArgumentError
from .params import SamplingParams

if TYPE_CHECKING:
    from .tokenizer import Tokenizer


def core_params(
    params: SamplingParams,
    *,
    room: int,
    default_max_tokens: int,
    seed: int,
    eos: Sequence[int] = (),
    tokenizer: Tokenizer | None = None,
) -> _core.SamplingParams:
    """The core's parameters for one request.

    Args:
        room: tokens that the context leaves to the result.
        default_max_tokens: what stands for max_tokens None.
        seed: what stands for seed None.
        eos: the model's end-of-sequence tokens.
        tokenizer: what turns bad_words of text into ids. Errors: `InvalidArgumentError` where they need it.
    """
    max_tokens, min_tokens = params.max_tokens, params.min_tokens
    if max_tokens is None:
        max_tokens = max(1, min(max(default_max_tokens, min_tokens), room))  # without room the core refuses the prompt
        min_tokens = min(min_tokens, max_tokens)  # the same: no stop token is drawn before the context ends
    ends = () if params.ignore_eos else tuple(eos)
    lone_ends = {(end,) for end in ends}
    words = [[token] for token in params.suppress_tokens]
    for word in params.bad_words:
        if isinstance(word, str):
            words += _word_ids(word, tokenizer)
        elif tuple(word) not in lone_ends:
            words.append(list(word))
    biases = list(params.logit_bias.items() if isinstance(params.logit_bias, Mapping) else params.logit_bias)
    return _core.SamplingParams(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        repetition_penalty=params.repetition_penalty,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        no_repeat_ngram_size=params.no_repeat_ngram_size,
        logit_bias=biases,
        allowed_token_ids=params.allowed_token_ids or [],
        bad_words=words,
        seed=params.seed if params.seed is not None else seed,
        n=params.n,
        logprobs=params.logprobs,
        prompt_logprobs=params.prompt_logprobs,
        stop_token_ids=[*params.stop_token_ids, *ends],
    )


def _word_ids(word: str, tokenizer: Tokenizer | None) -> list[list[int]]:
    """The ids of a text that begins a text and, where that is one token for another, of one that follows a space.

    Errors: `InvalidArgumentError` where there is no tokenizer, or nothing is left of the text.
    """
    if tokenizer is None:
        raise InvalidArgumentError("bad_words holds a text and the model has no tokenizer files: give lists of ids")
    text = word.lstrip()
    plain = tokenizer.encode(text, add_special_tokens=False)
    if not plain:
        raise InvalidArgumentError(f"bad_words: {word[:64]!r} has no tokens")
    spaced = tokenizer.encode(" " + text, add_special_tokens=False)
    differs = len(spaced) == len(plain) and spaced[0] != plain[0]
    return [plain, spaced] if differs else [plain]
