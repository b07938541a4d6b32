"""A tokenizer from the files of a Hugging Face folder: tokenizer.json, or what came before it."""

from __future__ import annotations

from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from .errors import CheckpointError
from .model_folder import ModelFolder
from .tokenizer import Tokenizer, guarded

MAX_BYTES = 256 << 20
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def tokenizer_from_folder(folder: ModelFolder) -> Tokenizer | None:
    """tokenizer.json; else GPT-2's vocab.json and merges.txt; else BERT's vocab.txt; else None.

    Errors: `CheckpointError` for files that are damaged or larger than 256 MiB.
    """
    if folder.has("tokenizer.json"):
        source = str(folder.path / "tokenizer.json")
        text = folder.text("tokenizer.json", MAX_BYTES)
        return guarded(lambda: Tokenizer(tokenizers.Tokenizer.from_str(text), source), source)
    if folder.has("vocab.json") and folder.has("merges.txt"):
        source = str(folder.path / "vocab.json")
        return guarded(lambda: Tokenizer(_gpt2(folder), source), source)
    if folder.has("vocab.txt"):
        source = str(folder.path / "vocab.txt")
        return guarded(lambda: Tokenizer(_bert(folder), source), source)
    return None


def _gpt2(folder: ModelFolder) -> tokenizers.Tokenizer:
    vocab = folder.json("vocab.json")
    if any(type(id) is not int or id < 0 for id in vocab.values()):
        raise CheckpointError(f"{folder.path / 'vocab.json'}: expected an id of 0 or more for each token")
    lines = folder.text("merges.txt").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line.strip() and not line.startswith("#version")]
    settings = _settings(folder)
    backend = byte_level_bpe(vocab, merges, settings.get("add_prefix_space") is True)
    specials = [settings.get(role) for role in _ROLES if settings.get(role) in vocab] or ["<|endoftext|>"]
    backend.add_special_tokens([token for token in dict.fromkeys(specials) if token in vocab])
    return backend


def byte_level_bpe(
    vocab: dict[str, int], merges: list[Any], add_prefix_space: bool = False, ignore_merges: bool = False
) -> tokenizers.Tokenizer:
    """GPT-2's tokenizer around a vocabulary: words by its regular expression, then merges of bytes."""
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def _bert(folder: ModelFolder) -> tokenizers.Tokenizer:
    vocab = {token: id for id, token in enumerate(folder.text("vocab.txt").split("\n")) if token}
    settings = _settings(folder)
    accents = settings.get("strip_accents")
    return word_piece(
        {token.rstrip("\r"): id for token, id in vocab.items()},
        lowercase=settings.get("do_lower_case") is not False,
        strip_accents=accents if isinstance(accents, bool) else None,
        chinese=settings.get("tokenize_chinese_chars") is not False,
    )


def word_piece(
    vocab: dict[str, int], lowercase: bool, strip_accents: bool | None = None, chinese: bool = True
) -> tokenizers.Tokenizer:
    """BERT's tokenizer around a vocabulary: `[CLS] words [SEP]`, words cut greedily into the longest known pieces."""
    specials = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in vocab]
    if missing := {"[UNK]", "[CLS]", "[SEP]"} - set(specials):
        raise CheckpointError(f"WordPiece vocabulary without {', '.join(sorted(missing))}")
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip_accents, lowercase=lowercase
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return backend


def _settings(folder: ModelFolder) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json, token objects replaced by their text."""
    merged = folder.json("special_tokens_map.json") | folder.json("tokenizer_config.json")
    return {
        key: value.get("content") if isinstance(value, dict) and key in _ROLES else value
        for key, value in merged.items()
    }
