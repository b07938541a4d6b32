"""`lamella.pack`: a store is the model that it was packed from, with the files for text beside it, and takes no other
file's place."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import subprocess
import sys
import threading
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
from test_tokenizer import varied_texts

PRESETS = [None, "dequantize", "int8_weight_only", "int8", "int4", "int4_a8"]
WORK_FILES = {"model.lamella.partial", "model.lamella.journal"}


def same_logits(model: Path, store: Path, **options: Any) -> None:
    """An engine of the store gives bit for bit what an engine of the model with those options gives."""
    ids = [5, 80, 7, 33, 2, 71, 64]
    with lamella.Engine(model, **options) as expected, lamella.Engine(store) as found:
        assert found.logits(ids)[0].tobytes() == expected.logits(ids)[0].tobytes()


def sound(store: Path) -> _core.PackedStore:
    """The store, every byte of it checked."""
    opened = _core.open_store(store)
    opened.verify()
    return opened


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A random model with a tokenizer and files of all kinds beside its weights."""
    folder = tmp_path_factory.mktemp("pack") / "llama"
    heads = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    draw("llama", seed, folder, vocab_size=330, rope_parameters=None, **heads)
    tiny_tokenizers.byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages[0].content }}"}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2], "do_sample": true, "top_k": 7}')
    for name in ("README.md", "pytorch_model.bin", "modeling_custom.py", "optimizer.pt"):
        (folder / name).write_bytes(b"not for a store")
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_store_is_the_model_in_every_preset_and_dtype(
    llama: Path, tmp_path: Path, preset: str | None, dtype: str
) -> None:
    packed = lamella.pack(llama, tmp_path / "store", quantization=preset, dtype=dtype, threads=2)
    assert (packed.path, packed.resumed_bytes, packed.dtype.name) == (tmp_path / "store", 0, dtype)
    opened = sound(packed.path)
    assert (opened.digest, opened.file_bytes) == (packed.digest, packed.bytes)
    assert opened.source["quantization"] == (preset or "none")
    assert packed.bytes == (packed.path / "model.lamella").stat().st_size
    assert [str(choice.format) for choice in packed.formats] == [str(choice.format) for choice in opened.formats()]
    same_logits(llama, packed.path, quantization=preset, dtype=dtype)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bert"])
def test_a_store_is_the_model_in_every_family(family: str, tmp_path: Path, seed: int) -> None:
    draw(family, seed, tmp_path / "model")
    packed = lamella.pack(tmp_path / "model", tmp_path / "store", quantization="int8")
    sound(packed.path)
    if family == "bert":
        with (
            lamella.Engine(tmp_path / "model", quantization="int8") as expected,
            lamella.Engine(packed.path) as found,
        ):
            assert found.encode([[5, 6, 7]]).tobytes() == expected.encode([[5, 6, 7]]).tobytes()
    else:
        same_logits(tmp_path / "model", packed.path, quantization="int8")


def test_a_number_of_more_than_64_bits_in_the_config_comes_back(tmp_path: Path, seed: int) -> None:
    theta = {"rope_type": "default", "rope_theta": 1.2345678e20}  # 123456780760921407488, were it written as digits
    draw("llama", seed, tmp_path / "model", rope_parameters=theta)
    packed = lamella.pack(tmp_path / "model", tmp_path / "store")
    sound(packed.path)
    same_logits(tmp_path / "model", packed.path)


def test_threads_change_no_byte(llama: Path, tmp_path: Path) -> None:
    contents = set()
    for threads in (1, 2, 3, 5):
        lamella.pack(llama, tmp_path / str(threads), quantization="int4", threads=threads)
        contents.add((tmp_path / str(threads) / "model.lamella").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("preset", ["dequantize", "int4"])
def test_safetensors_and_gguf_of_the_same_numbers_have_the_same_digest(tmp_path: Path, seed: int, preset: str) -> None:
    config = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rms_norm_eps": 1e-5}
    config |= {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    model = draw("llama", seed, tmp_path / "folder", **config)
    write_gguf(model, tmp_path / "model.gguf")
    digests = {
        lamella.pack(source, tmp_path / f"out{i}", quantization=preset).digest
        for i, source in enumerate([tmp_path / "folder", tmp_path / "model.gguf"])
    }
    assert len(digests) == 1


def test_smoothing_and_the_head_are_packed_as_asked(llama: Path, tmp_path: Path) -> None:
    for i, options in enumerate([{}, {"smoothing": False}, {"quantize_head": True}]):
        packed = lamella.pack(llama, tmp_path / f"out{i}", quantization="int8", **options)
        same_logits(llama, packed.path, quantization="int8", **options)
        inputs = "int8 inputs" if options.get("smoothing") is False else "rotated int8 inputs"
        formats = {choice.weight: str(choice.format) for choice in packed.formats}
        assert formats["layers.0.query"] == f"int8, {inputs}"
        logits = formats.get("head", formats["token_embedding"])  # a tied embedding is looked up: never rotated
        quantised = f"int8, {inputs}" if "head" in formats else "int8, int8 inputs"
        assert logits == (quantised if options.get("quantize_head") else "int8")


@pytest.mark.parametrize("quant", [gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0])
def test_gguf_codes_are_kept(tmp_path: Path, seed: int, quant: gguf.GGMLQuantizationType) -> None:
    config = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rms_norm_eps": 1e-5}
    config |= {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    model = draw(
        "llama",
        seed,
        tmp_path / "folder",
        hidden_size=96,
        num_attention_heads=6,
        num_key_value_heads=3,
        intermediate_size=64,
        **config,
    )
    write_gguf(model, tmp_path / "model.gguf", quant)
    packed = lamella.pack(tmp_path / "model.gguf", tmp_path / "store")
    assert {choice.conversion for choice in packed.formats if choice.stored == quant.name} == {"kept"}
    assert any(choice.stored == quant.name for choice in packed.formats)
    same_logits(tmp_path / "model.gguf", packed.path)


def test_a_tied_embedding_is_stored_once(tmp_path: Path, seed: int) -> None:
    sizes = {}
    for tied in (False, True):
        draw("llama", seed, tmp_path / f"model{tied}", vocab_size=380, tie_word_embeddings=tied)
        packed = lamella.pack(tmp_path / f"model{tied}", tmp_path / f"store{tied}")
        sizes[tied] = [choice.weight for choice in packed.formats]
    assert sizes[False].count("head") == 1
    assert "head" not in sizes[True] and sizes[True].count("token_embedding") == 1


# ---- the files beside it ---------------------------------------------------------------------------------------------


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


# ---- where it may be written -----------------------------------------------------------------------------------------


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_existing_store_is_replaced_only_when_told_to(llama: Path, tmp_path: Path, seed: int) -> None:
    store = tmp_path / "store"
    first = lamella.pack(llama, store)
    before = (store / "model.lamella").read_bytes()
    with pytest.raises(lamella.StorageError, match=r"holds a packed store already.*--force"):
        lamella.pack(llama, store, quantization="int4")
    assert (store / "model.lamella").read_bytes() == before
    (store / "notes.txt").write_text("mine")
    second = lamella.pack(llama, store, quantization="int4", force=True)
    assert second.digest != first.digest == lamella.pack(llama, store, force=True).digest
    draw("gpt2", seed, tmp_path / "gpt2", vocab_size=90)
    last = lamella.pack(tmp_path / "gpt2", store, force=True)
    assert names_in(store) == {*last.files, "model.lamella", "notes.txt"}  # no tokenizer of the model before
    assert open_model(store).tokenizer is None
    assert (store / "notes.txt").read_text() == "mine"


def test_only_a_folder_for_the_store_is_written_to(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for out, said in (("file", "Not a directory"), ("full", "not empty: it holds thesis.tex"), ("file/x", "Not a")):
        for force in (False, True):
            with pytest.raises(lamella.StorageError, match=said):
                lamella.pack(llama, tmp_path / out, force=force)
    assert names_in(tmp_path) == {"file", "full"}
    assert names_in(tmp_path / "full") == {"thesis.tex"}


def test_a_folder_is_made_or_may_be_empty_or_a_link_to_one(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert lamella.pack(llama, tmp_path / "link").path == tmp_path / "disk"
    lamella.pack(llama, str(tmp_path / "a" / "b" / "c"))
    assert {path.name for path in (tmp_path / "a" / "b" / "c").iterdir()} >= {"model.lamella"}


def test_out_may_not_be_inside_the_models_folder(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(llama)
    before = names_in(llama)
    for out in (llama, llama / "packed", tmp_path / "link" / "packed"):
        with pytest.raises(lamella.InvalidArgumentError, match="inside the model's own folder"):
            lamella.pack(llama, out)
    assert names_in(llama) == before


def test_a_store_is_not_packed_again(llama: Path, tmp_path: Path) -> None:
    lamella.pack(llama, tmp_path / "store")
    with pytest.raises(lamella.InvalidArgumentError, match="is a packed store already"):
        lamella.pack(tmp_path / "store", tmp_path / "again", quantization="int4")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantization": "int3"}, "quantization"),
        ({"dtype": "float8"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"threads": 10**6}, "threads"),
        ({"force": 1}, "force"),
        ({"progress": 7}, "progress"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_made(
    llama: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=said):
        lamella.pack(llama, tmp_path / "a" / "store", **options)
    for out in ("", None, b"x", 3, "a\0b"):
        with pytest.raises(lamella.InvalidArgumentError, match="out"):
            lamella.pack(llama, out)  # type: ignore[arg-type]
    assert names_in(tmp_path) == set()


def test_two_at_once_are_one_too_many(llama: Path, tmp_path: Path) -> None:
    failures: list[str] = []

    def second(done: int, total: int) -> None:
        if not failures:
            command = [sys.executable, "-m", "lamella", "pack", str(llama), str(tmp_path / "store"), "--json"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            failures.append(f"{result.returncode} {json.loads(result.stdout)['error']}")

    packed = lamella.pack(llama, tmp_path / "store", progress=second)
    assert failures[0].startswith("4 ") and "another process" in failures[0]
    sound(packed.path)


def test_many_packings_of_one_process_at_a_time(llama: Path, tmp_path: Path) -> None:
    digests: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: digests.append(lamella.pack(llama, tmp_path / str(i)).digest))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4 and len(set(digests)) == 1


# ---- stopping and going on -------------------------------------------------------------------------------------------


class Stop(KeyboardInterrupt):
    """Raised by a progress function."""


def stopped(model: Path, out: Path, part: float, **options: Any) -> None:
    """Packs until that part of the store is written."""

    def progress(done: int, total: int) -> None:
        if done > part * total:
            raise Stop

    with pytest.raises(Stop):
        lamella.pack(model, out, progress=progress, **options)
    assert names_in(out) == WORK_FILES


def test_stopped_by_the_progress_function_it_goes_on(llama: Path, tmp_path: Path) -> None:
    expected = lamella.pack(llama, tmp_path / "whole")
    kept = []
    for part in (0.0, 0.3, 0.6, 0.95):
        stopped(llama, tmp_path / "store", part)
        with pytest.raises(lamella.CheckpointError, match="cut short"):
            lamella.Engine(tmp_path / "store")
        packed = lamella.pack(llama, tmp_path / "store", force=True, threads=3)
        assert (packed.path / "model.lamella").read_bytes() == (expected.path / "model.lamella").read_bytes()
        assert names_in(packed.path) == names_in(expected.path)
        kept.append(packed.resumed_bytes)
        for file in packed.path.iterdir():
            file.unlink()
    assert kept == sorted(kept) and kept[-1] > expected.bytes / 2


def test_other_options_start_afresh_and_say_so(llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stopped(llama, tmp_path / "store", 0.9)
    packed = lamella.pack(llama, tmp_path / "store", quantization="int8")
    assert packed.resumed_bytes == 0
    assert [record.message for record in caplog.records if "afresh" in record.message]
    same_logits(llama, packed.path, quantization="int8")


def test_another_model_starts_afresh_and_says_so(
    llama: Path, tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(llama, tmp_path / "store", 0.9)
    copy = tmp_path / "llama"
    copy.mkdir()
    for file in llama.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
        os.utime(copy / file.name, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    packed = lamella.pack(copy, tmp_path / "store")
    assert packed.resumed_bytes == 0
    assert any("afresh" in record.message for record in caplog.records)


def test_an_error_leaves_no_folder_that_was_not_there(llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in llama.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    weights = next(model.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-4:] = b"\xff\xff\xff\x7f"  # NaN
    weights.write_bytes(data)
    with pytest.raises(lamella.CheckpointError, match="NaN"):
        lamella.pack(model, tmp_path / "a" / "store")
    assert not (tmp_path / "a").exists()
    with pytest.raises(lamella.CheckpointError):
        lamella.pack(tmp_path / "absent", tmp_path / "b" / "store")
    assert not (tmp_path / "b").exists()
