"""`lamella.pack`: a store is the model that it was packed from."""

from __future__ import annotations

from pathlib import Path

import gguf
import lamella
import pytest
from random_models import draw, write_gguf
from stores import same_logits, sound

PRESETS = [None, "dequantize", "int8_weight_only", "int8", "int4", "int4_a8"]


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
