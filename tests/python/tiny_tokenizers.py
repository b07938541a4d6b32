"""Tiny tokenizers for tests, trained on a few sentences, and the GGUF metadata that llama.cpp's converter makes."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "hello world, hello there",
    "1234 567 for i in range(10):",
    "café été naïve 你好",
] * 3
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(vocab: int = 320, digits: bool = False) -> Tokenizer:
    """A GPT-2 style tokenizer; with `digits`, SmolLM2's."""
    made = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words]) if digits else words
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def sentence_piece() -> Tokenizer:
    """A Llama 2 style tokenizer: spaces as U+2581, byte fallback, <s> in front."""
    letters = sorted({c for text in TEXT[:3] for c in text if c != " "})
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = [
        "th",
        "the",
        "he",
        "ll",
        "llo",
        "hello",
        "▁hello",
        "▁t",
        "▁the",
        "or",
        "orl",
        "world",
        "▁w",
        "wo",
        "▁wor",
        "▁world",
    ]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, "▁", *letters, *words]
    vocab = {token: id for id, token in enumerate(tokens)}
    merges = [(w[:cut], w[cut:]) for w in words for cut in range(1, len(w)) if w[:cut] in vocab and w[cut:] in vocab]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", 1)]
    )
    return made


def qwen2() -> Tokenizer:
    """The words of a Qwen2 tokenizer, as transformers cuts and normalises them, around a small vocabulary."""
    made, words = byte_level(), transformers.Qwen2Tokenizer().backend_tokenizer
    made.pre_tokenizer, made.normalizer = words.pre_tokenizer, words.normalizer
    return made


def word_piece() -> Tokenizer:
    """A BERT style tokenizer."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix="##")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    )
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def write_metadata(made: Tokenizer, path: Path, model: str, pre: str | None = None, **flags: bool) -> None:
    """A GGUF file of one tensor whose tokenizer metadata says what `made` is."""
    vocab = made.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=lambda token: vocab[token])
    added = {token.content for token in made.get_added_tokens_decoder().values()}
    control = gguf.TokenType.CONTROL
    types = [int(control if token in added else gguf.TokenType.NORMAL) for token in tokens]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    if model == "llama":
        types = [
            int(gguf.TokenType.BYTE) if token.startswith("<0x") else kind
            for token, kind in zip(tokens, types, strict=True)
        ]
        types[0] = int(gguf.TokenType.UNKNOWN)
        writer.add_token_scores([-float(id) for id in range(len(tokens))])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    if model == "gpt2":
        merges = tokenizers_state(made)["model"]["merges"]
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    if model == "bert":
        tokens = [t if t in added else t[2:] if t.startswith("##") else "▁" + t for t in tokens]
    for name, value in flags.items():
        writer.add_bool(f"tokenizer.ggml.{name}", value)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tokenizers_state(made: tokenizers.Tokenizer) -> dict[str, object]:
    """The tokenizer.json of `made`, parsed."""
    import json

    return json.loads(made.to_str())
