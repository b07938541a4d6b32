"""The parameters that are lists or mappings: checked item by item, and stored as tuples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .checks import real_number, shown, token_ids, whole_number
from .errors import InvalidArgumentError

MOST_STOPS, MOST_STOP_BYTES = 16, 256


def _listed(name: str, values: Any, of: str) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{name} is {shown(values)}; expected a list of {of}")
    return list(values)


def allowed_ids(values: Any) -> tuple[int, ...] | None:
    """allowed_token_ids: ids, or None; no ids at all would allow nothing."""
    if values is None:
        return None
    ids = tuple(token_ids("allowed_token_ids", values))
    if not ids:
        raise InvalidArgumentError("allowed_token_ids is empty; expected ids, or None for all")
    return ids


def token_biases(values: Any) -> tuple[tuple[int, float], ...]:
    """logit_bias: a mapping, or pairs, of ids and numbers."""
    pairs = list(values.items()) if isinstance(values, Mapping) else _listed("logit_bias", values, "(id, number) pairs")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidArgumentError(f"logit_bias[{i}] is {shown(pair)}; expected an id and a number")
    return tuple(
        (whole_number("logit_bias id", id, -(2**31), 2**31 - 1), real_number(f"logit_bias[{shown(id)}]", bias))
        for id, bias in pairs
    )


def bias_of_sequences(value: Any) -> tuple[tuple[int, float], ...]:
    """transformers' biases of sequences, in so far as they are of one token each."""
    pairs = (
        list(value.items()) if isinstance(value, Mapping) else _listed("sequence_bias", value, "[ids, number] pairs")
    )
    biases = []
    for i, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidArgumentError(f"sequence_bias[{i}] is {shown(pair)}; expected ids and a number")
        ids = token_ids(f"sequence_bias[{i}]", pair[0])
        if len(ids) != 1:
            raise InvalidArgumentError(
                f"sequence_bias[{i}] is of {len(ids)} tokens; supported are biases of one token: see logit_bias"
            )
        biases.append((ids[0], pair[1]))
    return token_biases(biases)


def bad_words_of(values: Any) -> tuple[str | tuple[int, ...], ...]:
    """bad_words: texts and sequences of ids, none empty."""
    words: list[str | tuple[int, ...]] = []
    for i, word in enumerate(_listed("bad_words", values, "texts or of sequences of ids")):
        words.append(
            _text(f"bad_words[{i}]", word) if isinstance(word, str) else tuple(token_ids(f"bad_words[{i}]", word))
        )
        if not words[-1]:
            raise InvalidArgumentError(f"bad_words[{i}] is empty; expected a text or ids")
    return tuple(words)


def stop_texts(values: Any) -> tuple[str, ...]:
    """stop: one text or several, within the limits."""
    texts = [values] if isinstance(values, str) else _listed("stop", values, "texts")
    if len(texts) > MOST_STOPS:
        raise InvalidArgumentError(f"stop has {len(texts)} texts; expected at most {MOST_STOPS}")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not 1 <= len(_text(f"stop[{i}]", text).encode()) <= MOST_STOP_BYTES:
            raise InvalidArgumentError(f"stop[{i}] is {shown(text)}; expected a text of 1 to {MOST_STOP_BYTES} bytes")
    return tuple(texts)


def _text(name: str, text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{name}: character {error.start} is a lone surrogate, not valid Unicode") from None
    return text
