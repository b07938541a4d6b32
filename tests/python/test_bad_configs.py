"""Rows B1 to B5 of the reliability contract: configs and tokenizers that lie (B6 is in test_chat_template).

Each case starts from a sound random model, changes one thing, and expects an exact class, an exact code and the
field's name.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import random_models
import tiny_tokenizers
import torch
import transformers
from lamella import hub_cache
from lamella._core import open_checkpoint
from lamella.checkpoint import open_model
from lamella.config_json import MAX_BYTES, parse_object
from lamella.errors import CheckpointError, Error
from lamella.families import Weights, family_of_gguf
from lamella.families.config import Config
from lamella.gguf_metadata import GgufMetadata
from lamella.gguf_metadata import config_of as gguf_config
from lamella.shapes import spec_for_shape
from lamella.tokenizer_gguf import tokenizer_from_gguf
from safetensors.torch import save_file

LLAMA = {
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "num_hidden_layers": 2,
    "vocab_size": 330,
}
FIXED: dict[str, dict[str, Any]] = {
    "llama": {**LLAMA, "intermediate_size": 40, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "gpt2": {"n_embd": 24, "n_head": 4, "n_layer": 2, "vocab_size": 330},
    "gpt_neox": {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    },
    "mistral": {**LLAMA, "intermediate_size": 40, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "qwen2": {**LLAMA, "layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": True},
    "mixtral": {
        **LLAMA,
        "intermediate_size": 40,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "qwen2_moe": {
        **LLAMA,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 40,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "layer_types": ["full_attention", "full_attention"],
        "use_sliding_window": False,
    },
    "qwen3_moe": {
        **LLAMA,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 40,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    },
    "olmoe": {
        **{name: value for name, value in LLAMA.items() if name != "head_dim"},
        "intermediate_size": 40,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gpt_neo": {"hidden_size": 24, "num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "bert": {"hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 330},
}


_, GGUF_LLAMA = family_of_gguf("llama", "")


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """model(family, **changes): a folder whose config.json has these fields beside the true weights."""

    def make(family: str, **changes: Any) -> Path:
        folder = tmp_path / family
        if not folder.exists():
            random_models.draw(family, 1, folder, **FIXED[family])
        fields = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(
            json.dumps({key: value for key, value in fields.items() if value != "REMOVED"})
        )
        return folder

    return make


def refused(folder: Path | str, code: str, *words: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        open_model(folder)
    assert raised.value.code == code, raised.value
    for word in words:
        assert word in str(raised.value), raised.value


# "experts/top-k mismatch" of row B1, beside the sizes of experts.
MIXTURE_LIES: list[tuple[str, dict[str, Any], str]] = [
    ("mixtral", {"num_experts_per_tok": 5}, "num_experts_per_tok is 5, expected at most the number of experts, 4"),
    ("mixtral", {"num_experts_per_tok": 0}, "num_experts_per_tok"),
    ("mixtral", {"num_local_experts": 0}, "num_local_experts"),
    ("mixtral", {"num_local_experts": 10**9}, "experts.count"),
    ("mixtral", {"num_local_experts": 5}, "block_sparse_moe.experts.4.w1.weight: missing"),
    ("mixtral", {"num_local_experts": 3}, "block_sparse_moe.gate.weight: expected shape [3, 24], found [4, 24]"),
    ("mixtral", {"num_local_experts": "REMOVED"}, "num_local_experts is missing"),
    ("mixtral", {"intermediate_size": 41}, "experts.0.w1.weight: expected shape [41, 24], found [40, 24]"),
    ("qwen2_moe", {"num_experts_per_tok": 5}, "num_experts_per_tok is 5, expected at most the number of experts, 4"),
    ("qwen2_moe", {"moe_intermediate_size": 39}, "experts.0.gate_proj.weight: expected shape [39, 24], found [40, 24]"),
    ("qwen2_moe", {"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size"),
    ("qwen2_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
    ("qwen2_moe", {"decoder_sparse_step": 2}, "layers.0.mlp.gate_proj.weight: missing"),
    ("qwen2_moe", {"mlp_only_layers": [2]}, "mlp_only_layers"),
    ("qwen2_moe", {"mlp_only_layers": [0, 0]}, "mlp_only_layers"),
    ("qwen2_moe", {"mlp_only_layers": [True]}, "mlp_only_layers"),
    ("qwen2_moe", {"norm_topk_prob": 1}, "norm_topk_prob"),
    ("qwen3_moe", {"num_experts": 3}, "num_local_experts is 4, expected 3"),
    ("qwen3_moe", {"num_experts_per_tok": 5}, "num_experts_per_tok is 5, expected at most the number of experts, 4"),
    ("qwen3_moe", {"head_dim": 8}, "self_attn.q_proj.weight: expected shape [32, 24], found [24, 24]"),
    ("olmoe", {"num_key_value_heads": 4}, "self_attn.k_norm.weight: expected shape [24], found [12]"),
]


@pytest.mark.parametrize(("family", "changes", "said"), MIXTURE_LIES)
def test_b1_experts_that_contradict_the_checkpoint_are_refused(
    model: Callable[..., Path], family: str, changes: dict[str, Any], said: str
) -> None:
    refused(model(family, **changes), "INVALID_CHECKPOINT", said)


def test_b2_olmoe_with_clipped_queries_is_refused(model: Callable[..., Path]) -> None:
    refused(model("olmoe", clip_qkv=8.0), "UNSUPPORTED_MODEL", "clip_qkv is 8.0")


BY_TYPES = {"attention_layers": "REMOVED"}  # which transformers writes too, and goes by
LIES: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"num_hidden_layers": 0}, "num_hidden_layers"),
    ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ("llama", {"num_hidden_layers": 2.0}, "num_hidden_layers"),
    ("llama", {"num_hidden_layers": True}, "num_hidden_layers"),
    ("llama", {"num_hidden_layers": 3}, "model.layers.2.self_attn.q_proj.weight: missing"),
    ("llama", {"hidden_size": -24}, "hidden_size"),
    ("llama", {"hidden_size": 2**62}, "hidden_size"),
    ("llama", {"hidden_size": "24"}, "hidden_size"),
    ("llama", {"hidden_size": "REMOVED"}, "hidden_size is missing"),
    ("llama", {"hidden_size": 25, "head_dim": None}, "not a multiple"),
    ("llama", {"num_attention_heads": 0}, "num_attention_heads"),
    ("llama", {"num_key_value_heads": 8}, "kv_heads"),
    ("llama", {"num_key_value_heads": 3}, "kv_heads"),
    ("llama", {"num_key_value_heads": 4}, "expected shape [24, 24], found [12, 24]"),
    ("llama", {"head_dim": 7}, "rotary_dim"),
    ("llama", {"vocab_size": 331}, "expected shape [331, 24], found [330, 24]"),
    ("llama", {"vocab_size": 2**40}, "vocab_size"),
    ("llama", {"intermediate_size": 41}, "mlp.gate_proj.weight: expected shape [41, 24]"),
    ("llama", {"max_position_embeddings": 0}, "max_position_embeddings"),
    ("llama", {"rms_norm_eps": -1.0}, "eps"),
    ("llama", {"rms_norm_eps": "tiny"}, "rms_norm_eps"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ("llama", {"attention_bias": 3}, "attention_bias"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 0}}, "theta"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": -1e4}}, "theta"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e300}}, "theta"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, "rope_parameters.factor is missing"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 0.5}}, "factor"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1}},
        "high_freq",
    ),
    (
        "llama",
        {"rope_parameters": {"rope_type": "longrope", "factor": 8, "short_factor": [1.0], "long_factor": [1.0]}},
        "short_factor",
    ),
    (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 0}},
        "original_max",
    ),
    ("llama", {"rope_parameters": []}, "rope_parameters"),
    ("gpt2", {"n_embd": 25}, "not a multiple"),
    ("gpt2", {"n_positions": 10**6}, "wpe.weight: expected shape [1000000, 24]"),
    ("gpt2", {"n_inner": 0}, "n_inner"),
    ("gpt_neox", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.0}}, "partial_rotary_factor"),
    ("gpt_neox", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.5}}, "partial_rotary_factor"),
    ("gpt_neox", {"intermediate_size": None}, "intermediate_size"),
    ("mistral", {"sliding_window": 0}, "sliding_window"),
    ("mistral", {"sliding_window": "wide"}, "sliding_window"),
    ("mistral", {"num_key_value_heads": "REMOVED"}, "kv_heads is 8"),
    ("qwen2", {"layer_types": ["full_attention"]}, "layer_types"),
    ("qwen2", {"use_sliding_window": False}, "layer_types"),
    ("qwen2", {"max_window_layers": -1}, "max_window_layers"),
    ("gpt_neo", {**BY_TYPES, "attention_types": [[["global", "local"], 2]]}, "attention_types"),
    ("gpt_neo", {**BY_TYPES, "attention_types": [[["global", "local"], 10**9]]}, "attention_types"),
    ("gpt_neo", {**BY_TYPES, "attention_types": [["local", 2]]}, "attention_types"),
    ("gpt_neo", {**BY_TYPES, "attention_types": [[["sparse"], 2]]}, "attention_types"),
    ("gpt_neo", {**BY_TYPES, "attention_types": "local"}, "attention_types"),
    ("gpt_neo", {**BY_TYPES, "attention_types": [[["local"], True]]}, "attention_types"),
    ("gpt_neo", {"attention_layers": ["global"]}, "attention_layers"),
    ("gpt_neo", {"window_size": 0}, "window_size"),
    ("bert", {"type_vocab_size": 9}, "token_type_embeddings.weight: expected shape [9, 24]"),
    ("bert", {"layer_norm_eps": 2.0}, "eps"),
]


@pytest.mark.parametrize(("family", "changes", "named"), LIES, ids=lambda value: json.dumps(value)[:60])
def test_b1_config_that_lies_is_refused(
    model: Callable[..., Path], family: str, changes: dict[str, Any], named: str
) -> None:
    refused(model(family, **changes), "INVALID_CHECKPOINT", named)


UNKNOWN: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"architectures": ["MambaForCausalLM"]}, "architectures"),
    ("llama", {"architectures": ["LlamaForCausalLM", "MambaForCausalLM"]}, "architectures"),
    ("llama", {"architectures": ["GPT2LMHeadModel"]}, "architectures"),
    ("llama", {"architectures": None, "model_type": "mamba"}, "model_type"),
    ("llama", {"architectures": None, "model_type": None}, "architectures"),
    ("llama", {"model_type": "mistral"}, "model_type"),
    ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
    ("llama", {"hidden_act": "mish"}, "hidden_act"),
    ("llama", {"sliding_window": 4096}, "sliding_window"),
    ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("qwen2", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
    ("qwen2", {"use_mrope": True}, "use_mrope"),
    ("gpt_neo", {"attention_layers": ["global", "sparse"]}, "attention_layers"),
    ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_interleaved": True}, "rope_interleaved"),
    ("llama", {"some_new_switch": False}, "some_new_switch"),
    ("llama", {"is_encoder_decoder": True}, "is_encoder_decoder"),
    ("llama", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ("llama", {"rope_parameters": {"rope_type": "su", "factor": 2.0}}, "rope_parameters.rope_type"),
    ("llama", {"rope_scaling": {"type": "mrope"}}, "rope_scaling.type"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "alpha": 3.0}}, "rope_parameters.alpha"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "rope_parameters.partial_rotary_factor",
    ),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt2", {"activation_function": "sinus"}, "activation_function"),
    ("gpt_neox", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.4}}, "partial_rotary_factor"),
    ("gpt_neox", {"rope_theta": 500000.0}, "rope_theta"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ("bert", {"is_decoder": True}, "is_decoder"),
    ("bert", {"architectures": ["BertForSequenceClassification"]}, "architectures"),
]


@pytest.mark.parametrize(("family", "changes", "named"), UNKNOWN, ids=lambda value: json.dumps(value)[:60])
def test_b2_unknown_is_unsupported_and_named(
    model: Callable[..., Path], family: str, changes: dict[str, Any], named: str
) -> None:
    refused(model(family, **changes), "UNSUPPORTED_MODEL", named)


def test_b2_fields_that_are_null_or_bookkeeping_do_not_matter(model: Callable[..., Path]) -> None:
    folder = model(
        "llama", sliding_window=None, layer_types=None, quantization_config=None, id2label={"0": "a"}, temperature=0.7
    )
    assert open_model(folder).spec.family == "llama"


def test_configs_of_real_checkpoints_are_read_as_transformers_does(model: Callable[..., Path]) -> None:
    # Fields that Qwen2.5's own files carry, and a GPT-Neo whose two ways of naming its layers differ.
    folder = model("qwen2", use_mrope=False, use_sliding_window=False, layer_types="REMOVED", sliding_window=131072)
    assert [layer.attention.window for layer in open_model(folder).spec.layers] == [0, 0]
    folder = model("gpt_neo", attention_layers=["local", "global"], window_size=9)
    assert [layer.attention.window for layer in open_model(folder).spec.layers] == [9, 0]
    expected = transformers.AutoConfig.from_pretrained(folder).attention_layers
    assert expected == ["local", "global"]


def test_b3_auto_map_is_ignored_with_one_notice(model: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = model("llama", auto_map={"AutoModelForCausalLM": "evil.Model"}, _attn_implementation_internal="sdpa")
    (folder / "evil.py").write_text("raise SystemExit('code of the model folder ran')")
    with caplog.at_level(logging.INFO, "lamella"):
        open_model(folder)
    assert [record for record in caplog.messages if "auto_map" in record] == caplog.messages[:1]


def test_b4_tokenizer_that_can_exceed_the_vocabulary_is_refused(model: Callable[..., Path]) -> None:
    folder = model("llama")
    larger = tiny_tokenizers.byte_level()
    larger.add_tokens([f"extra{i}" for i in range(100)])
    larger.save(str(folder / "tokenizer.json"))
    opened = open_model(folder)
    with pytest.raises(CheckpointError, match="330 tokens") as raised:
        opened.tokenizer  # noqa: B018
    assert raised.value.code == "INVALID_CHECKPOINT"


def test_b4_padded_vocabulary_is_fine(model: Callable[..., Path]) -> None:
    folder = model("llama")
    tiny_tokenizers.byte_level(300).save(str(folder / "tokenizer.json"))
    tokenizer = open_model(folder).tokenizer
    assert tokenizer is not None and tokenizer.vocab_size < 330


def test_b4_missing_tokenizer_leaves_an_engine_on_ids(model: Callable[..., Path]) -> None:
    assert open_model(model("llama")).tokenizer is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": "1.0"}', '{"model": {"type": "Quantum"}}', "[" * 10**5, "\udcff"]
)
def test_b4_corrupt_tokenizer_is_refused(model: Callable[..., Path], text: str) -> None:
    folder = model("llama")
    (folder / "tokenizer.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        open_model(folder).tokenizer  # noqa: B018


def test_b4_two_tokens_with_one_id_are_refused(model: Callable[..., Path]) -> None:
    folder = model("llama")
    state = tiny_tokenizers.tokenizers_state(tiny_tokenizers.byte_level())
    vocab = state["model"]["vocab"]  # type: ignore[index]
    vocab["he"] = vocab["!"]
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"share an id|tokenizer"):
        open_model(folder).tokenizer  # noqa: B018


def test_b4_special_ids_outside_the_vocabulary_are_dropped_with_one_warning(
    model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = model("llama", bos_token_id=50256, eos_token_id=[2, 50256], pad_token_id=-1)
    (folder / "generation_config.json").unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING, "lamella"):
        special = open_model(folder).special
    assert (special.bos, special.eos, special.pad) == (None, (2,), None)
    assert len(caplog.records) == 1 and "50256" in caplog.text


def test_b4_the_warning_names_the_file_of_each_dropped_id(
    model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = model("llama", bos_token_id=50256, eos_token_id=50257)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 50258], "bos_token_id": null}')
    with caplog.at_level(logging.WARNING, "lamella"):
        special = open_model(folder).special
    assert (special.bos, special.eos) == (None, (2,))
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"eos_token_id 50258 of {folder / 'generation_config.json'}" in message
    assert f"bos_token_id 50256 of {folder / 'config.json'}" in message and "50257" not in message


def test_generation_config_says_where_to_stop(model: Callable[..., Path]) -> None:
    folder = model("llama", eos_token_id=2)
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 7], "temperature": 0.5}')
    opened = open_model(folder)
    assert opened.special.eos == (5, 7) and opened.generation_config["temperature"] == 0.5


BAD_JSON: list[tuple[str, bytes, str]] = [
    ("duplicate keys", b'{"a": 1, "b": 2, "a": 3}', "byte 17: duplicate key 'a'"),
    ("duplicate keys by escape", b'{"a": 1, "\\u0061": 3}', "byte 9: duplicate key 'a'"),
    ("duplicate keys deep down", b'{"x": [{"a": 1, "a": 1}]}', "byte 16"),
    ("NaN", b'{"a": NaN}', "byte 6"),
    ("Infinity", b'{"a": [1, -Infinity]}', "byte 10"),
    ("overflow", b'{"a": 1e999}', "byte 6"),
    ("invalid UTF-8", b'{"a": "\xff"}', "byte 7: invalid UTF-8"),
    ("depth", b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "byte 69: nested deeper than 64"),
    ("depth of a million", b"[" * 10**6, "byte 64: nested deeper"),
    ("cut short", b'{"a": 1', "byte 7"),
    ("a string without end", b'{"a": "' + b'\\"' * 10**6, "byte 6"),
    ("trailing text", b'{"a": 1} x', "byte 9"),
    ("an array", b"[1, 2]", "expected a JSON object"),
    ("empty", b"", "byte 0"),
    ("junk", b"\x00\x01\x02", "byte 0"),
    ("a number of many digits", b'{"a": ' + b"9" * 10**5 + b"}", "byte 6"),
    ("a git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "byte 0"),
]


@pytest.mark.parametrize(("text", "said"), [row[1:] for row in BAD_JSON], ids=[row[0] for row in BAD_JSON])
def test_b5_bad_json_is_refused_with_its_byte_offset(model: Callable[..., Path], text: bytes, said: str) -> None:
    folder = model("llama")
    (folder / "config.json").write_bytes(text)
    refused(folder, "INVALID_CHECKPOINT", "config.json", said)


def test_b5_config_larger_than_16_mib_is_refused_unread(model: Callable[..., Path]) -> None:
    folder = model("llama")
    with (folder / "config.json").open("wb") as stream:
        stream.truncate(1 << 30)
    refused(folder, "INVALID_CHECKPOINT", "larger than 16777216 bytes")


def test_b5_many_values_are_bounded() -> None:
    with pytest.raises(CheckpointError, match="values"):
        parse_object(b'{"a": [' + b"0," * (MAX_BYTES // 2 - 8) + b"0]}", "x")


def test_b5_same_key_in_different_objects_is_fine() -> None:
    assert parse_object(b'{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}], "c": "a", "d": ["a", "a"]}', "x")["c"] == "a"


def test_a8_missing_and_misshapen_tensors_are_listed_ten_at_a_time(model: Callable[..., Path]) -> None:
    folder = model("gpt2", n_layer=4)
    refused(folder, "INVALID_CHECKPOINT", "transformer.h.2.ln_1.weight: missing", "more")


def test_a10_config_link_out_of_the_folder_is_refused(model: Callable[..., Path], tmp_path: Path) -> None:
    folder = model("llama")
    outside = tmp_path / "outside.json"
    (folder / "config.json").rename(outside)
    (folder / "config.json").symlink_to(outside)
    refused(folder, "INVALID_CHECKPOINT", "outside the model folder")


def test_a13_config_that_is_a_pipe_is_refused(model: Callable[..., Path]) -> None:
    folder = model("llama")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    refused(folder, "INVALID_CHECKPOINT", "not a regular file")


def test_a14_pickled_weights_are_refused(model: Callable[..., Path]) -> None:
    folder = model("llama")
    for weights in folder.glob("*.safetensors*"):
        weights.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused(folder, "UNSUPPORTED_MODEL", "pytorch_model.bin")


def test_ids_are_found_in_the_local_cache_only(
    model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    revision = "0123456789" * 4
    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model("llama").iterdir())):
        file.rename(repository / "blobs" / f"{number:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064x}")
    assert open_model("org/tiny").spec.family == "llama"
    refused("org/other", "INVALID_CHECKPOINT", "org/other", "does not download")
    refused("../../etc", "INVALID_CHECKPOINT")
    assert hub_cache.find("../models--org--tiny") is None
    (repository / "refs" / "main").write_text("../../../etc")
    refused("org/tiny", "INVALID_CHECKPOINT", "revision")


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    refused(tmp_path, "INVALID_CHECKPOINT", "config.json")


WRONG_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    3,
    2**31,
    2**64,
    10**400,
    1.5,
    1e300,
    "",
    "yarn",
    [],
    [1],
    {},
    {"type": []},
]


@pytest.mark.parametrize("family", FIXED)
def test_b1_no_value_of_any_field_leaks_another_exception(model: Callable[..., Path], family: str) -> None:
    folder = model(family)
    sound = json.loads((folder / "config.json").read_text())
    inner = [(field, key) for field, value in sound.items() if isinstance(value, dict) for key in value]
    for path in [(field,) for field in sound] + inner:
        for wrong in WRONG_VALUES:
            changed = json.loads(json.dumps(sound))
            place = changed if len(path) == 1 else changed[path[0]]
            place[path[-1]] = wrong
            (folder / "config.json").write_text(json.dumps(changed))
            with contextlib.suppress(Error):
                open_model(folder)


def test_b1_no_value_of_any_gguf_key_leaks_another_exception(tmp_path: Path) -> None:
    fixed = FIXED["llama"] | {"hidden_act": "silu"}
    random_models.write_gguf(random_models.draw("llama", 1, tmp_path, **fixed), tmp_path / "model.gguf")
    tensors = open_checkpoint(tmp_path / "model.gguf")
    for key in tensors.metadata:
        for wrong in WRONG_VALUES[1:]:
            metadata = GgufMetadata({**tensors.metadata, key: wrong}, "model.gguf")
            with contextlib.suppress(Error):
                gguf_config(metadata, GGUF_LLAMA, Weights(GGUF_LLAMA.weights, (), "", {}), tensors)
                tokenizer_from_gguf(metadata)


def test_nearest_shape_is_named() -> None:
    with pytest.raises(Error, match="did you mean 'gpt2-xl'") as raised:
        spec_for_shape("gpt2xl")
    assert raised.value.code == "INVALID_ARGUMENT"


def test_every_field_that_is_read_rejects_every_wrong_type() -> None:
    wrong = [[], {}, "x", True, -1, 0, 1.5, 10**30, -0.0]
    for name, getter in [("integer", Config.integer), ("flag", Config.flag)]:
        for value in wrong:
            if name == "flag" and value is True:
                continue
            with pytest.raises(CheckpointError, match="field"):
                getter(Config({"field": value}, "x"), "field")
