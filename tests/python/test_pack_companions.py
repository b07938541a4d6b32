"""The files beside a packed store: those for text come along, written so that none is ever half there."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import lamella
import numpy as np
import pytest
import tiny_tokenizers
from lamella import _core
from lamella.checkpoint import open_model
from lamella.companions import place_companions
from random_models import draw, write_gguf
from stores import names_in, sound
from test_tokenizer import varied_texts


def test_the_files_for_text_are_copied_and_no_others(llama: Path, tmp_path: Path) -> None:
    packed = lamella.pack(llama, tmp_path / "store")
    names = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert set(packed.files) == names
    assert {path.name for path in packed.path.iterdir()} == {*names, "model.lamella"}
    for name in names:
        assert (packed.path / name).read_bytes() == (llama / name).read_bytes()
    ours, theirs = open_model(packed.path), open_model(llama)
    assert (ours.special, ours.chat_template, ours.defaults) == (theirs.special, theirs.chat_template, theirs.defaults)


def test_an_encoders_pooling_comes_along(minilm_path: Path, tmp_path: Path) -> None:
    packed = lamella.pack(minilm_path, tmp_path / "store", quantization="int8_weight_only")
    assert {"1_Pooling/config.json", "modules.json", "sentence_bert_config.json"} <= set(packed.files)
    assert open_model(packed.path).sentence == open_model(minilm_path).sentence
    texts = varied_texts(20, 1)
    with (
        lamella.Engine(minilm_path, quantization="int8_weight_only") as expected,
        lamella.Engine(packed.path) as found,
    ):
        assert np.array_equal(expected.encode(texts), found.encode(texts))


def test_a_link_that_leads_out_of_the_folder_is_not_followed(llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in llama.iterdir():
        if file.name != "generation_config.json":
            (model / file.name).write_bytes(file.read_bytes())
    (tmp_path / "secret").write_text("{}")
    (model / "special_tokens_map.json").symlink_to(tmp_path / "secret")
    with pytest.raises(lamella.CheckpointError, match="leads outside the model folder"):
        lamella.pack(model, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("broken", ["folder", "link", "full drive"])
def test_an_old_store_stays_until_the_new_files_are_on_the_drive(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"config.json": b"old", "merges.txt": b"stale", "model.lamella": b"a store"}
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    beyond = tmp_path / "vocab.txt.partial"
    calls = itertools.count()

    def full(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and next(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if broken == "folder":
        beyond.mkdir()
    elif broken == "link":
        beyond.symlink_to(tmp_path / "config.json")
    else:
        monkeypatch.setattr(os, "fsync", full)
    new = {"config.json": b"new", "vocab.txt": b"new"}
    with pytest.raises(lamella.StorageError, match=r"vocab\.txt: cannot write"):
        place_companions(new, tmp_path, tmp_path / "model.lamella")
    for name, data in old.items():
        assert (tmp_path / name).read_bytes() == data
    assert names_in(tmp_path) == {*old, *([] if broken == "full drive" else [beyond.name])}
    monkeypatch.undo()
    if beyond.is_symlink():
        beyond.unlink()
    elif beyond.exists():
        beyond.rmdir()
    place_companions(new, tmp_path, tmp_path / "model.lamella")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == new


def test_a_folder_that_cannot_be_written_to_the_drive_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = errno.EIO

    def broken(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(lamella.StorageError, match="errno 5"):
        place_companions({"config.json": b"{}"}, tmp_path, tmp_path / "model.lamella")
    code = errno.EINVAL  # a file system that knows no such thing
    place_companions({"config.json": b"{ }"}, tmp_path, tmp_path / "model.lamella")
    assert (tmp_path / "config.json").read_bytes() == b"{ }"


def test_a_link_to_the_same_content_gives_way_to_a_file(llama: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    lamella.pack(llama, store)
    (store / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    (store / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    (store / "vocab.txt").symlink_to(tmp_path / "absent")
    lamella.pack(llama, store, force=True)
    assert not any(path.is_symlink() for path in store.iterdir())
    assert open_model(store).tokenizer is not None


def test_a_model_of_the_hub_cache_says_its_id_and_no_path(llama: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for i, file in enumerate(llama.iterdir()):
        (repository / "blobs" / str(i)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(repository / "blobs" / str(i))
    packed = lamella.pack(snapshot, tmp_path / "store")
    source = sound(packed.path).source
    assert source["model"] == "org/tiny"
    assert str(tmp_path) not in "".join(source.values())
    assert not any(path.is_symlink() for path in packed.path.iterdir())


GGUF_KINDS: dict[str, tuple[Callable[[], Any], str, str | None, dict[str, bool]]] = {
    "gpt-2": (tiny_tokenizers.byte_level, "gpt2", "gpt-2", {}),
    "smollm": (lambda: tiny_tokenizers.byte_level(digits=True), "gpt2", "smollm", {}),
    "llama-bpe": (tiny_tokenizers.byte_level, "gpt2", "llama-bpe", {}),
    "default": (tiny_tokenizers.byte_level, "gpt2", "default", {}),
    "sentencepiece": (tiny_tokenizers.sentence_piece, "llama", None, {}),
    "no prefix, eos": (
        tiny_tokenizers.sentence_piece,
        "llama",
        None,
        {"add_bos_token": False, "add_eos_token": True, "add_space_prefix": False},
    ),
    "wordpiece": (tiny_tokenizers.word_piece, "bert", None, {}),
}


@pytest.mark.parametrize("kind", GGUF_KINDS)
def test_a_gguf_files_tokenizer_is_the_same_as_a_folders_tokenizer(kind: str, tmp_path: Path, seed: int) -> None:
    from lamella.gguf_metadata import GgufMetadata
    from lamella.model_folder import ModelFolder
    from lamella.tokenizer_files import tokenizer_from_folder
    from lamella.tokenizer_gguf import tokenizer_from_gguf

    make, model, pre, flags = GGUF_KINDS[kind]
    tiny_tokenizers.write_metadata(make(), tmp_path / "t.gguf", model, pre, **flags)
    expected = tokenizer_from_gguf(GgufMetadata(_core.open_checkpoint(tmp_path / "t.gguf").metadata, "t.gguf"))
    assert expected is not None
    (tmp_path / "tokenizer.json").write_bytes(expected.to_json().encode())
    assert_same_tokenizers(expected, tokenizer_from_folder(ModelFolder(tmp_path)), seed)


def assert_same_tokenizers(expected: Any, found: Any, seed: int) -> None:
    assert found is not None
    assert (found.vocab_size, found.special_ids) == (expected.vocab_size, expected.special_ids)
    for text in varied_texts(600, seed):
        for special in (False, True):
            ids = expected.encode(text, add_special_tokens=special)
            assert found.encode(text, add_special_tokens=special) == ids, text
        assert found.encode(text, max_tokens=4) == expected.encode(text, max_tokens=4)
        for skip in (False, True):
            assert found.decode(ids, skip_special_tokens=skip) == expected.decode(ids, skip_special_tokens=skip), text


def test_smollm2_from_its_store_is_smollm2(smollm2_path: Path, tmp_path: Path, seed: int) -> None:
    packed = lamella.pack(smollm2_path, tmp_path / "store")
    ours, theirs = open_model(packed.path), open_model(smollm2_path)
    assert (ours.special, ours.chat_template, ours.defaults, ours.sentence) == (
        theirs.special,
        theirs.chat_template,
        theirs.defaults,
        theirs.sentence,
    )
    assert_same_tokenizers(theirs.tokenizer, ours.tokenizer, seed)
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    with lamella.Engine(packed.path) as found, lamella.Engine(smollm2_path) as expected:
        assert found.chat_ids(messages) == expected.chat_ids(messages)
        ours_text, theirs_text = found.chat(messages, max_tokens=8), expected.chat(messages, max_tokens=8)
        assert (ours_text.text, ours_text.token_ids) == (theirs_text.text, theirs_text.token_ids)


@pytest.mark.parametrize("pooling", [None, 1, 2])
def test_a_gguf_encoders_pooling_becomes_a_file(tmp_path: Path, seed: int, pooling: int | None) -> None:
    model = draw("bert", seed, tmp_path / "folder", hidden_act="gelu", layer_norm_eps=1e-12)
    write_gguf(model, tmp_path / "model.gguf")
    if pooling is not None:
        reader_copy(tmp_path / "model.gguf", tmp_path / "pooled.gguf", pooling)
        (tmp_path / "pooled.gguf").replace(tmp_path / "model.gguf")
    packed = lamella.pack(tmp_path / "model.gguf", tmp_path / "store")
    assert open_model(packed.path).sentence == open_model(tmp_path / "model.gguf").sentence
    assert ("modules.json" in packed.files) == (pooling is not None)


def reader_copy(path: Path, to: Path, pooling: int) -> None:
    """The same GGUF file with a pooling type."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(to, "bert")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        writer.add_key_value(field.name, field.contents(), field.types[0])
    writer.add_pooling_type(gguf.PoolingType(pooling))
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
