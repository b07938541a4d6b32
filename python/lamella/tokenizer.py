"""Text to token ids and back, and text that arrives token by token.

The work is done by the `tokenizers` library; this file decides what is asked of it, and turns ids into text itself
where the decoder is made of bytes, so that a stream shows the same text as decoding everything at the end, cut at UTF-8
borders.
"""

from __future__ import annotations

import codecs
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import tokenizers

from .errors import CheckpointError, InvalidArgumentError

_log = logging.getLogger("lamella")
_Built = TypeVar("_Built")

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A model's tokenizer. Build it with `tokenizer_from_folder` or `tokenizer_from_gguf`."""

    def __init__(self, backend: tokenizers.Tokenizer, source: str) -> None:
        backend.no_truncation()  # limits belong to whoever calls, not to the file
        backend.no_padding()
        self._backend = backend
        self.source = source
        self._vocab: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        self._special = frozenset(id for id, token in backend.get_added_tokens_decoder().items() if token.special)
        self._decoder = _decoder_of(self._backend)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return len(self._vocab)

    def to_json(self) -> str:
        """All of it as the text of a tokenizer.json, from which `tokenizer_from_folder` builds the same."""
        return self._backend.to_str()

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the control tokens, which `decode` leaves out unless told otherwise."""
        return self._special

    def token_to_id(self, token: str) -> int | None:
        """The id of a token by its exact text."""
        return self._vocab.get(token)

    def id_to_token(self, id: int) -> str | None:
        """The exact text of a token, or None for an id without one."""
        return self._backend.id_to_token(id) if id >= 0 else None

    def encode(self, text: str, add_special_tokens: bool = True, max_tokens: int | None = None) -> list[int]:
        """The ids of `text`, cut to `max_tokens` (special tokens counted and kept).

        Control tokens written in the text become their ids.

        Errors: `InvalidArgumentError` for text that is not valid Unicode (lone surrogates).
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"prompt: character {error.start} is a lone surrogate, not valid Unicode"
            ) from None
        return guarded(lambda: self._encode(text, add_special_tokens, max_tokens), self.source)

    def _encode(self, text: str, add_special_tokens: bool, max_tokens: int | None) -> list[int]:
        encoding = self._backend.encode(text, add_special_tokens=False)
        if max_tokens is not None:
            added = self._backend.num_special_tokens_to_add(False) if add_special_tokens else 0
            encoding.truncate(max(max_tokens - added, 0))
        return list(self._backend.post_process(encoding, add_special_tokens=add_special_tokens).ids)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids without a token (padding) nothing."""
        stream = self.stream(skip_special_tokens)
        return "".join(map(stream.push, ids)) + stream.flush()

    def stream(self, skip_special_tokens: bool = True) -> DecodeStream:
        """A decoder of ids that arrive one by one."""
        return DecodeStream(self._decoder(), self.id_to_token, self._special if skip_special_tokens else frozenset())

    def check_fits(self, vocab: int, source: str) -> None:
        """Raises `CheckpointError` when some text can produce an id outside a vocabulary of `vocab` tokens."""
        highest = max(self._vocab.values(), default=-1)
        if highest >= vocab:
            token = next(token for token, id in self._vocab.items() if id == highest)
            raise CheckpointError(
                f"{self.source}: token {token[:64]!r} has id {highest}, but the model of {source} has {vocab} tokens; "
                "the tokenizer belongs to another model"
            )
        if len(set(self._vocab.values())) != len(self._vocab):
            raise CheckpointError(f"{self.source}: two tokens share an id")
        if highest + 1 < vocab:
            _log.debug("%s: %d tokens for a vocabulary padded to %d", self.source, highest + 1, vocab)


class DecodeStream:
    """Ids in, text out, piece by piece. All pieces and the flush together are what `Tokenizer.decode` returns."""

    def __init__(self, decoder: Decoder, token_of: Callable[[int], str | None], skipped: frozenset[int]) -> None:
        self._decoder = decoder
        self._token_of = token_of
        self._skipped = skipped

    def push(self, id: int) -> str:
        """The text that token `id` completes; empty while a character is still missing bytes."""
        token = None if id in self._skipped else self._token_of(id)
        return "" if token is None else self._decoder.push(token)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole."""
        return self._decoder.flush()


class Decoder(Protocol):
    """Turns tokens into text, one at a time."""

    def push(self, token: str) -> str: ...
    def flush(self) -> str: ...


class ByteLevelDecoder:
    """GPT-2's byte-level tokens: each character of a token stands for one byte."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: str) -> str:
        return self._utf8.decode(token_bytes(token))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class SentencePieceDecoder:
    """SentencePiece tokens: U+2581 is a space, `<0xE4>` a byte, and one leading space may be dropped."""

    def __init__(self, strip_leading_space: bool) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip_leading_space

    def push(self, token: str) -> str:
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            text = self._utf8.decode(bytes([int(token[3:5], 16)]))
        else:
            text = self._utf8.decode(b"", final=True) + token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
            self._utf8.reset()
        if self._strip and text:
            self._strip, text = False, text.removeprefix(" ")
        return text

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class WholeDecoder:
    """Any other decoder: decodes all tokens again at each push, and shows what has become certain."""

    def __init__(self, decode: Callable[[list[str]], str]) -> None:
        self._decode = decode
        self._tokens: list[str] = []
        self._shown = ""

    def push(self, token: str) -> str:
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith(REPLACEMENT) or not text.startswith(self._shown):
            return ""
        return self._show(text)

    def flush(self) -> str:
        return self._show(self._decode(self._tokens)) if self._tokens else ""

    def _show(self, text: str) -> str:
        new, self._shown = text[len(self._shown) :], text
        return new


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: itself where Latin-1 prints it, else the next from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_characters()


def token_bytes(token: str) -> bytes:
    """The bytes of a byte-level token; a token with other characters (an added one) is its own UTF-8."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode("utf-8", errors="replace")


def _decoder_of(backend: tokenizers.Tokenizer) -> Callable[[], Decoder]:
    """How to make a decoder of tokens for this tokenizer."""
    if backend.decoder is None:
        return lambda: WholeDecoder(" ".join)
    steps = _steps(json.loads(backend.decoder.__getstate__()))
    kinds = [step.get("type") for step in steps]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return ByteLevelDecoder
    if (
        kinds[:2] == ["Replace", "ByteFallback"]
        and set(kinds[2:]) <= {"Fuse", "Strip"}
        and _strips_one_space(steps[2:])
    ):
        strip = "Strip" in kinds
        return lambda: SentencePieceDecoder(strip)
    decode = backend.decoder.decode
    return lambda: WholeDecoder(decode)


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    return decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]


def _strips_one_space(steps: list[dict[str, Any]]) -> bool:
    return all(s["type"] != "Strip" or (s["content"], s["start"], s["stop"]) == (" ", 1, 0) for s in steps)


def guarded(build: Callable[[], _Built], source: str) -> _Built:
    """Runs `build` on untrusted data; whatever the library raises, Rust panics included, is a `CheckpointError`."""
    try:
        return build()
    except (CheckpointError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise CheckpointError(f"{source}: not a tokenizer that Lamella can read: {str(error)[:200]}") from None
