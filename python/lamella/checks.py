"""Values from outside: what they must be, and how an error shows what they are."""

from __future__ import annotations

import numbers
import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from .errors import InvalidArgumentError


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


def real_number(name: str, value: Any) -> float:
    """`value` as a float; what is no real number is an `InvalidArgumentError` that names `name`."""
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
