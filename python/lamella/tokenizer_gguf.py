"""A tokenizer from a GGUF file's metadata: byte-level BPE, SentencePiece-style BPE or WordPiece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from .errors import CheckpointError, unsupported
from .gguf_metadata import GgufMetadata
from .tokenizer import Tokenizer, guarded
from .tokenizer_files import byte_level_bpe, word_piece

_KEY = "tokenizer.ggml."
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # tokenizer.ggml.token_type


@dataclass(frozen=True)
class _Words:
    """How a byte-level tokenizer cuts text into words (`tokenizer.ggml.pre`), and what else goes with it."""

    pre_tokenizer: Callable[[], PreTokenizer]
    normalizer: Callable[[], Normalizer] | None = None
    ignore_merges: bool = False
    add_bos: bool = False


def _byte_level() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _single_digits() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level()])


def _split(*patterns: str) -> PreTokenizer:
    splits: list[PreTokenizer] = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _words_and_digits(digits: str) -> PreTokenizer:
    return _split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def _llama3() -> PreTokenizer:
    return _words_and_digits(r"\p{N}{1,3}")


def _qwen2() -> PreTokenizer:
    return _words_and_digits(r"\p{N}")


def _llama_cpp_default() -> PreTokenizer:
    """What llama.cpp falls back to for files that do not name their words."""
    return _split(
        r"[\p{P}\$\+<=>\^~\|]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        r"\p{N}+",
        r"[0-9][0-9][0-9]",
    )


_GPT2, _DIGITS, _LLAMA3 = _Words(_byte_level), _Words(_single_digits), _Words(_llama3, ignore_merges=True, add_bos=True)
_QWEN2 = _Words(_qwen2, normalizers.NFC)
_WORDS = {
    "default": _Words(_llama_cpp_default),
    "gpt-2": _GPT2,
    "olmo": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "codeshell": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
}


def tokenizer_from_gguf(metadata: GgufMetadata) -> Tokenizer | None:
    """The file's tokenizer, or None when it has none.

    Errors: `CheckpointError`; UNSUPPORTED_MODEL names a `tokenizer.ggml.model` or `.pre` that Lamella does not have.
    """
    model = metadata.text(_KEY + "model")
    if model is None or model == "no_vocab":
        return None
    tokens = metadata.texts(_KEY + "tokens")
    if not tokens or len(set(tokens)) != len(tokens):
        raise CheckpointError(f"{metadata.source}: {_KEY}tokens is missing, empty or names a token twice")
    types = metadata.integers(_KEY + "token_type") or [_NORMAL] * len(tokens)
    if len(types) != len(tokens):
        raise CheckpointError(f"{metadata.source}: {_KEY}token_type has {len(types)} entries for {len(tokens)} tokens")
    builders = {"gpt2": _byte_level_bpe, "llama": _sentence_piece, "bert": _word_piece}
    if model not in builders:
        raise unsupported(f"{metadata.source}: {_KEY}model is {model[:64]!r}; Lamella has {', '.join(builders)}")
    return guarded(lambda: Tokenizer(builders[model](metadata, tokens, types), metadata.source), metadata.source)


def _byte_level_bpe(metadata: GgufMetadata, tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    name = metadata.text(_KEY + "pre") or "default"
    if name not in _WORDS:
        raise unsupported(f"{metadata.source}: {_KEY}pre is {name[:64]!r}; Lamella has {', '.join(_WORDS)}")
    words = _WORDS[name]
    merges = [tuple(merge.split(" ")) for merge in metadata.texts(_KEY + "merges") or []]
    if any(len(merge) != 2 for merge in merges):
        raise CheckpointError(f"{metadata.source}: {_KEY}merges: expected two tokens in each")
    backend = byte_level_bpe(_vocabulary(tokens), merges, ignore_merges=words.ignore_merges)
    backend.pre_tokenizer = words.pre_tokenizer()
    if words.normalizer is not None:
        backend.normalizer = words.normalizer()
    _add_added(backend, tokens, types)
    _add_template(backend, metadata, tokens, bos=words.add_bos)
    return backend


def _sentence_piece(metadata: GgufMetadata, tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    """SentencePiece merges the neighbours whose union scores best: BPE with merges in the order of those scores."""
    scores = metadata.floats(_KEY + "scores")
    if scores is None or len(scores) != len(tokens):
        raise CheckpointError(f"{metadata.source}: {_KEY}scores: expected one for each of {len(tokens)} tokens")
    vocab = _vocabulary(tokens)
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges_by_score(vocab, types, scores),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", _SPACE)
    prefixed = metadata.flag(_KEY + "add_space_prefix") is not False
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefixed else spaces
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    _add_added(backend, tokens, types)
    _add_template(backend, metadata, tokens, bos=True)
    return backend


def _merges_by_score(vocab: dict[str, int], types: list[int], scores: list[float]) -> list[tuple[str, str]]:
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, id in vocab.items():
        if types[id] != _NORMAL:
            continue
        for cut in range(1, len(token)):
            left, right = vocab.get(token[:cut]), vocab.get(token[cut:])
            if left is not None and right is not None:
                ranked.append((-scores[id], left, right, token[:cut], token[cut:]))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _word_piece(metadata: GgufMetadata, tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    """The file marks the pieces that start a word with U+2581; BERT marks those that do not, with ##."""

    def original(token: str, kind: int) -> str:
        if token.startswith(_SPACE):
            return token.removeprefix(_SPACE)
        return token if kind == _CONTROL or (token.startswith("[") and token.endswith("]")) else "##" + token

    vocab = _vocabulary([original(token, kind) for token, kind in zip(tokens, types, strict=True)])
    lowercase = all(
        token == token.lower() for token in vocab if not token.startswith("[")
    )  # a cased model has cased words
    return word_piece(vocab, lowercase=lowercase)


def _vocabulary(tokens: list[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


def _add_added(backend: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Control and user-defined tokens are found in text before it is cut into words; control tokens are not shown."""
    kinds = list(zip(tokens, types, strict=True))
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in kinds
        if kind in (_CONTROL, _USER_DEFINED) and token
    ]
    backend.add_tokens(added)


def _add_template(backend: tokenizers.Tokenizer, metadata: GgufMetadata, tokens: list[str], bos: bool) -> None:
    """Puts begin and end of text around a prompt where the file asks for it; `bos` is what silence about it means."""
    flags = {"bos": metadata.flag(_KEY + "add_bos_token"), "eos": metadata.flag(_KEY + "add_eos_token")}
    wanted = {"bos": bos if flags["bos"] is None else flags["bos"], "eos": bool(flags["eos"])}
    ids = {role: metadata.integer(f"{_KEY}{role}_token_id") for role, used in wanted.items() if used}
    names = {role: tokens[id] for role, id in ids.items() if id is not None and 0 <= id < len(tokens)}
    if not names:
        return
    pieces = [names["bos"]] if "bos" in names else []
    template = [*pieces, "$A", *([names["eos"]] if "eos" in names else [])]
    around = processors.TemplateProcessing(
        single=template,
        pair=[*template, "$B:1"],
        special_tokens=[(name, _vocabulary(tokens)[name]) for name in set(names.values())],
    )
    backend.post_processor = around
