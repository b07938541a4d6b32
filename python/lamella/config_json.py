"""Strict, bounded reading of the JSON files of a model folder.

A model folder is untrusted, so what JSON parsers usually let through is refused here, with its byte offset: duplicate
keys, NaN and Infinity, numbers that overflow to infinity, bytes that are not UTF-8, nesting without end
(reliability.md, P3 and B5).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .errors import CheckpointError

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_VALUES = 1_000_000

# A string (even one that never ends), one structural character, or a run of anything else: a number, a word, junk.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}:,]|[^\s\[\]{}:,"]++', re.DOTALL)
_KEY_END = re.compile(rb"\s*:")


def parse_object(data: bytes, source: str) -> dict[str, Any]:
    """The JSON object in `data`. Errors: as `parse`, and `CheckpointError` for another kind of value."""
    value = parse(data, source)
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: expected a JSON object, found {type(value).__name__}")
    return value


def parse(data: bytes, source: str) -> Any:
    """The JSON value in `data` (at most 16 MiB). `source` names the file in errors, all `CheckpointError`."""
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{source}: {len(data)} bytes; a config has at most {MAX_BYTES}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad(source, error.start, "invalid UTF-8") from None
    _check_tokens(data, source)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _bad(source, len(text[: error.pos].encode()), error.msg) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: not valid JSON: {error}") from None


def _check_tokens(data: bytes, source: str) -> None:
    """Refuses what `json.loads` would accept: depth, duplicate keys, non-finite numbers, too many values."""
    keys: list[set[bytes] | None] = []  # one entry an open bracket; the keys seen so far, None in an array
    for count, match in enumerate(_TOKEN.finditer(data)):
        token, offset = match.group(), match.start()
        if count > 4 * MAX_VALUES:
            raise _bad(source, offset, f"more than {MAX_VALUES} values")
        if token in (b"{", b"["):
            keys.append(set() if token == b"{" else None)
            if len(keys) > MAX_DEPTH:
                raise _bad(source, offset, f"nested deeper than {MAX_DEPTH}")
        elif token in (b"}", b"]"):
            if keys:
                keys.pop()
        elif token[:1] == b'"':
            if keys and (seen := keys[-1]) is not None and _KEY_END.match(data, match.end()):
                key = _plain(token)
                if key in seen:
                    raise _bad(source, offset, f"duplicate key {key[:64].decode(errors='replace')!r}")
                seen.add(key)
        elif token not in (b":", b","):
            _check_literal(token, source, offset)


def _check_literal(token: bytes, source: str, offset: int) -> None:
    if token in (b"true", b"false", b"null"):
        return
    try:
        finite = math.isfinite(float(token))
    except ValueError:
        raise _bad(source, offset, f"unexpected {token[:32].decode(errors='replace')!r}") from None
    if not finite:
        raise _bad(source, offset, f"{token[:32].decode()} is not a finite number")


def _plain(token: bytes) -> bytes:
    """A string token's text: `"a"` and `"\\u0061"` are the same key."""
    if b"\\" not in token:
        return token[1:-1]
    try:
        return str(json.loads(token)).encode(errors="surrogatepass")
    except ValueError:
        return token


def _bad(source: str, offset: int, what: str) -> CheckpointError:
    return CheckpointError(f"{source}: byte {offset}: {what}")
