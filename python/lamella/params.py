"""What a request may ask for, under the names that vLLM and OpenAI use, with transformers' spellings as aliases."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import numbers
import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from .errors import CheckpointError, InvalidArgumentError

_log = logging.getLogger("lamella")

_ALIASES = {"max_new_tokens": "max_tokens"}

# Fields of generation_config.json that would change what is generated and that requests cannot express yet. Each maps
# to the values that change nothing.
_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1, 1.0),
    "min_p": (None, 0, 0.0),
    "typical_p": (None, 1, 1.0),
    "num_beams": (None, 1),
    "min_new_tokens": (None, 0),
    "min_length": (None, 0),
    "bad_words_ids": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "no_repeat_ngram_size": (None, 0),
}


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen and when to end.

    Attributes:
        max_tokens: generated tokens at most; None is the model's own default or else 256, clipped to what the context
            leaves. A number that the context cannot hold is refused (`ContextLengthError`).
        temperature: 0 is greedy; otherwise logits are divided by it. A number from 1e-6 up.
        top_k: the k best tokens and those equal to the k-th; 0 is all.
        top_p: the smallest set of best tokens whose probability reaches it, after top_k; above 0 and at most 1.
        seed: randomness is a function of (seed, position) alone; None draws the seed from the engine's.
        ignore_eos: go on past the end-of-sequence tokens.
        stop_token_ids: end at any of these ids as well; the id itself is not part of the result.

    Types are checked here (`InvalidArgumentError`) and stored plain: an int for any kind of integer, a float for any
    real number, a tuple for any ids, an iterator's too. Ranges are checked where the request meets a model.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    stop_token_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {"top_k": whole_number("top_k", self.top_k, -(2**31), 2**31 - 1)}
        if self.max_tokens is not None:
            plain["max_tokens"] = whole_number("max_tokens", self.max_tokens, -(2**63), 2**63 - 1)
        if self.seed is not None:
            plain["seed"] = whole_number("seed", self.seed, 0, 2**64 - 1)
        for name in ("temperature", "top_p"):
            plain[name] = _real_number(name, getattr(self, name))
        check_flag("ignore_eos", self.ignore_eos)
        plain["stop_token_ids"] = tuple(token_ids("stop_token_ids", self.stop_token_ids))
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def override(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """These parameters with `overrides`, whose keys may be transformers' spellings. None leaves a field as it is.

        Errors: `InvalidArgumentError` naming the nearest field for an unknown one.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        changes: dict[str, Any] = {}
        do_sample: bool | None = None
        for name, value in overrides.items():
            field = _ALIASES.get(name, name)
            if value is None:
                continue
            if field == "do_sample":
                do_sample = check_flag("do_sample", value)
            elif field in fields:
                if field in changes:
                    raise InvalidArgumentError(f"{name} and its alias are both given")
                changes[field] = value
            else:
                near = difflib.get_close_matches(name, [*fields, *_ALIASES, "do_sample"], 1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(fields))}"
                raise InvalidArgumentError(f"unknown parameter {name[:64]!r}{hint}")
        if do_sample is False:
            changes["temperature"] = 0.0
        elif do_sample and "temperature" not in changes and self.temperature == 0.0:
            changes["temperature"] = 1.0
        return dataclasses.replace(self, **changes)


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """`value` as an int of [least, most]; anything else is an `InvalidArgumentError` that names `name`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidArgumentError(f"{name} is {shown(value)}; expected a whole number") from None
    if not least <= number <= most:
        found = number if number.bit_length() <= 64 else "beyond 64 bits"  # longer ones may not even be printable
        raise InvalidArgumentError(f"{name} is {found}; expected {least} to {most}")
    return number


def _real_number(name: str, value: Any) -> float:
    if not isinstance(value, numbers.Real):
        raise InvalidArgumentError(f"{name} is {shown(value)}; expected a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidArgumentError(f"{name} is beyond what a float holds; expected a number") from None


def shown(value: Any) -> str:
    """`value` as an error message shows it: short, and whatever it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an int of more digits than Python prints
        return f"of type {type(value).__name__}"


def check_flag(name: str, value: Any) -> bool:
    """`value` where it is a bool; anything else, "false" and 0 among them, is an `InvalidArgumentError`."""
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"{name} is {shown(value)}; expected True or False")
    return value


def one_of(name: str, value: Any, known: Sequence[str | None]) -> None:
    """Refuses what is not one of `known`, whatever its type, with an `InvalidArgumentError` that lists them."""
    if not isinstance(value, str | None) or value not in known:
        listed = ", ".join(map(str, known[:-1])) + f" or {known[-1]}"
        raise InvalidArgumentError(f"{name} is {shown(value)}; expected {listed}")


def token_ids(name: str, values: Iterable[Any]) -> list[int]:
    """`values` as ints of 32 bits; anything else is an `InvalidArgumentError` that names `name` and the index."""
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{name} is of type {type(values).__name__}; expected token ids")
    ids = list(values)
    try:
        ids = [operator.index(id) for id in ids]
        if not ids or (min(ids) >= -(2**31) and max(ids) < 2**31):
            return ids
    except TypeError:
        pass
    return [whole_number(f"{name}[{i}]", id, 0, 2**31 - 1) for i, id in enumerate(ids)]


def default_params(generation_config: Mapping[str, Any], source: str = "generation_config.json") -> SamplingParams:
    """The model's own defaults, read as transformers reads them: greedy unless `do_sample` is true.

    null is the same as nothing. Where the model does not sample, temperature, top_k and top_p may hold anything, as in
    transformers. A temperature of 0 is greedy, as in a request; a top_k of 0 is all.

    Errors: `CheckpointError` naming `source` and the field, for a value with which no request could run.
    """

    def read(name: str, default: Any, fits: Callable[[Any], bool], expected: str) -> Any:
        value = generation_config.get(name)
        if value is None:
            return default
        if type(value) not in (int, float, bool) or not fits(value):
            raise CheckpointError(f"{source}: {name} is {shown(value)}; expected {expected}")
        return value

    most = read("max_new_tokens", None, lambda n: type(n) is int and n >= 1, "a whole number from 1 up")
    most = most if most is None else min(most, 2**62)  # clipped to the context later; here to 64 bits
    if not read("do_sample", False, lambda flag: type(flag) is bool, "true or false"):
        return SamplingParams(most)
    return SamplingParams(  # where the file is silent, transformers' own defaults when sampling
        max_tokens=most,
        temperature=read(
            "temperature", 1.0, lambda t: type(t) is not bool and (t == 0 or t >= 1e-6), "0 or a number from 1e-6 up"
        ),
        top_k=min(read("top_k", 50, lambda k: type(k) is int and k >= 0, "a whole number from 0 up"), 2**31 - 1),
        top_p=read("top_p", 1.0, lambda p: type(p) is not bool and 0 < p <= 1, "a number above 0 and at most 1"),
    )


def warn_of_ignored(generation_config: Mapping[str, Any]) -> None:
    """One warning that names what the file asks for and requests cannot express yet."""
    ignored = [name for name, silent in _NO_EFFECT.items() if generation_config.get(name) not in silent]
    if ignored:
        _log.warning("generation_config.json: not supported and left out: %s", ", ".join(ignored))
