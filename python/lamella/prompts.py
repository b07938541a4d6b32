"""What callers give as prompts: one or several, texts or ids, and errors that say which of them was wrong."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, cast

from . import _core
from .errors import ContextLengthError, Error, InvalidArgumentError

_LEAST_TEXT_BYTES, _MOST_BYTES_PER_TOKEN = 4 * 2**20, 64
Prompt = str | Sequence[int]
P = TypeVar("P")
T = TypeVar("T")


def is_one_prompt(prompts: Prompt | Sequence[Prompt]) -> TypeGuard[Prompt]:
    """A text, or a list of ids that is not empty."""
    if isinstance(prompts, str):
        return True
    if isinstance(prompts, bytes | Mapping) or not (hasattr(prompts, "__len__") and hasattr(prompts, "__getitem__")):
        raise InvalidArgumentError(
            f"the prompt is of type {type(prompts).__name__}; expected text, ids or a list of them"
        )
    return len(prompts) > 0 and all(_is_id(item) for item in prompts)


def _is_id(item: Any) -> bool:
    try:
        operator.index(item)
    except TypeError:
        return False
    return True


def as_list(inputs: Prompt | Sequence[Prompt]) -> list[Prompt]:
    return [inputs] if is_one_prompt(inputs) else list(cast(Sequence[Prompt], inputs))


def each(prompts: Sequence[P], make: Callable[[P], T]) -> list[T]:
    """What `make` returns for every prompt; where there are several, its errors name the prompt's index."""
    made: list[T] = []
    for i, prompt in enumerate(prompts):
        try:
            made.append(make(prompt))
        except Error as error:
            if len(prompts) == 1:
                raise
            raise type(error)(f"prompt {i} of {len(prompts)}: {error}", error.code) from None
    return made


def check_size(text: str, context: int) -> None:
    """Refuses a text that no context of `context` tokens holds, before a tokenizer spends seconds and memory on it.

    Texts have about 4 bytes a token. What is below 4 MiB is quickly tokenized, whatever the context: a text that is too
    long is then refused by its tokens. Errors: `ContextLengthError`.
    """
    most = max(_LEAST_TEXT_BYTES, _MOST_BYTES_PER_TOKEN * context)
    if 4 * len(text) <= most:  # no character has more bytes
        return
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > most:
        raise ContextLengthError(
            f"the prompt has {size} bytes; a text for the context of {context} tokens may have {most}: shorten it or "
            "raise max_model_len"
        )


def checked_ids(core: _core.Engine, ids: list[int]) -> list[int]:
    """`ids`, after the checks that the core makes when it runs them: a list of inputs is checked whole before that."""
    vocab, context = core.spec.vocab, core.config.max_model_len
    if not ids:
        raise InvalidArgumentError("the prompt has no tokens")
    if min(ids) < 0 or max(ids) >= vocab:
        i, token = next((i, token) for i, token in enumerate(ids) if not 0 <= token < vocab)
        raise InvalidArgumentError(f"prompt token {i} is {token}; the vocabulary has ids 0 to {vocab - 1}")
    if len(ids) > context:
        raise ContextLengthError(
            f"the prompt has {len(ids)} tokens and the context holds {context}; shorten it or raise max_model_len"
        )
    return ids
