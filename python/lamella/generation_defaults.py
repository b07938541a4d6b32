"""What a model's generation_config.json asks of every request, read as transformers reads it."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .checks import shown
from .errors import CheckpointError, InvalidArgumentError
from .param_tables import REFUSED
from .params import SamplingParams

_log = logging.getLogger("lamella")

# What a request may ask for and a file may not: Engine.generate would return something else than its caller expects.
_OF_REQUESTS_ALONE: dict[str, tuple[Any, ...]] = {"num_return_sequences": (None, 1), "sequence_bias": (None,)}

_LISTS = {"bad_words_ids": "bad_words", "suppress_tokens": "suppress_tokens", "stop_strings": "stop"}


def default_params(generation_config: Mapping[str, Any], source: str = "generation_config.json") -> SamplingParams:
    """The model's own defaults: greedy unless `do_sample` is true.

    null is the same as nothing. Where the model does not sample, temperature, top_k, top_p and min_p may hold anything,
    as in transformers. A temperature of 0 is greedy, as in a request; a top_k of 0 is all.

    Errors: `CheckpointError` naming `source` and the field, for a value with which no request could run.
    """

    def read(name: str, default: Any, fits: Callable[[Any], bool], expected: str) -> Any:
        value = generation_config.get(name)
        if value is None:
            return default
        if type(value) not in (int, float, bool) or not fits(value):
            raise CheckpointError(f"{source}: {name} is {shown(value)}; expected {expected}")
        return value

    def number(name: str, default: float, fits: Callable[[float], bool], expected: str) -> float:
        return float(read(name, default, lambda x: type(x) is not bool and fits(x), expected))

    def whole(name: str, default: int | None, least: int) -> Any:
        value = read(name, default, lambda n: type(n) is int and n >= least, f"a whole number from {least} up")
        return value if value is None else min(value, 2**62)  # clipped to the context later; here to 64 bits

    fields: dict[str, Any] = {
        "max_tokens": whole("max_new_tokens", None, 1),
        "min_tokens": whole("min_new_tokens", 0, 0),
        "repetition_penalty": number(
            "repetition_penalty", 1.0, lambda x: 1e-30 <= x <= 1e30, "a number above 0, from 1e-30 to 1e30"
        ),
        "no_repeat_ngram_size": whole("no_repeat_ngram_size", 0, 0),
    }
    if read("do_sample", False, lambda flag: type(flag) is bool, "true or false"):
        # Where the file is silent, transformers' own defaults when sampling.
        fields["temperature"] = number(
            "temperature", 1.0, lambda t: t == 0 or 1e-6 <= t <= sys.float_info.max, "0 or a number from 1e-6 up"
        )
        fields["top_k"] = min(whole("top_k", 50, 0), 2**31 - 1)
        fields["top_p"] = number("top_p", 1.0, lambda p: 0 < p <= 1, "a number above 0 and at most 1")
        fields["min_p"] = number("min_p", 0.0, lambda p: 0 <= p <= 1, "a number from 0 to 1")
    for name, field in _LISTS.items():
        if (value := generation_config.get(name)) is None:
            continue
        try:
            fields[field] = getattr(SamplingParams(**{field: value}), field)
            if name == "bad_words_ids" and any(isinstance(word, str) for word in fields[field]):
                raise InvalidArgumentError("a text among its lists; expected ids")
        except InvalidArgumentError as error:
            raise CheckpointError(f"{source}: {name}: {error}") from None
    return SamplingParams(**fields)


def fitted_defaults(defaults: SamplingParams, vocab: int) -> SamplingParams:
    """The defaults for a vocabulary: what a request asks for is refused where it does not fit; what the model's files
    say is clipped, and ids outside are left out with one warning.
    """

    def inside(id: int) -> bool:
        return 0 <= id < vocab

    fitted = dataclasses.replace(
        defaults,
        top_k=min(defaults.top_k, vocab),
        suppress_tokens=[id for id in defaults.suppress_tokens if inside(id)],
        bad_words=[word for word in defaults.bad_words if not isinstance(word, str) and all(map(inside, word))],
    )
    outside = [name for name in ("suppress_tokens", "bad_words") if getattr(fitted, name) != getattr(defaults, name)]
    if outside:
        _log.warning("generation_config.json: ids outside the vocabulary of %d left out: %s", vocab, ", ".join(outside))
    return fitted


def warn_of_ignored(generation_config: Mapping[str, Any]) -> None:
    """One warning that names what the file asks for and requests cannot ask for."""
    ignored = [
        name for name, row in REFUSED.items() if row.changes_tokens and not row.is_neutral(generation_config.get(name))
    ]
    ignored += [name for name, silent in _OF_REQUESTS_ALONE.items() if generation_config.get(name) not in silent]
    if ignored:
        _log.warning("generation_config.json: not supported and left out: %s", ", ".join(ignored))
