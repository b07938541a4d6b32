"""Family files against transformers: spec and recipe alone, run by a short numpy forward, give the same outputs."""

from __future__ import annotations

import functools
import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import random_models
import torch
from gguf import GGMLQuantizationType as Quant
from lamella import _core
from lamella.checkpoint import Checkpoint, open_model
from lamella.families import Config, parts
from lamella.model_weights import TensorWeights
from spec_forward import forward, load_weights
from transformers import LlamaConfig

SEEDS = [random.Random().randrange(10**6) for _ in range(4)]


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def rms_norm(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)


def reference(model: torch.nn.Module, ids: list[int]) -> np.ndarray:
    """What transformers computes in float64, RMS norms too, which it forms in fp32: where a row has
    six elements that was most of an error of 2.8e-6. Angles and routers' softmax stay fp32, as it forms them."""
    with torch.no_grad():
        base = (model.bert if hasattr(model, "bert") else model).double()
        for module in base.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = functools.partial(rms_norm, module)
        out = base(torch.tensor([ids]))
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state)[0].numpy()


def some_ids(model: torch.nn.Module, count: int, seed: int = 0) -> list[int]:
    return torch.randint(model.config.vocab_size, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", random_models.FAMILIES)
def test_spec_and_recipe_reproduce_transformers(family: str, seed: int, tmp_path: Path) -> None:
    model = random_models.draw(family, seed, tmp_path)
    ids = some_ids(model, 45)
    assert relative_error(forward(open_model(tmp_path), ids), reference(model, ids)) < 2e-6, f"seed {seed}"


@pytest.mark.parametrize("rope_type", random_models.ROPE_TYPES)
def test_every_rope_scaling_within_and_beyond_its_trained_context(rope_type: str, tmp_path: Path) -> None:
    rope = random_models.rope_parameters(rope_type, 16, random.Random(rope_type))
    positions = 24 if rope_type == "dynamic" else 160
    model = random_models.draw(
        "llama", 1, tmp_path, head_dim=16, rope_parameters=rope, max_position_embeddings=positions
    )
    checkpoint = open_model(tmp_path)
    for count in (12, 45):
        ids = some_ids(model, count)
        assert relative_error(forward(checkpoint, ids), reference(model, ids)) < 2e-6


@pytest.mark.parametrize("rope_type", random_models.ROPE_TYPES)
def test_rope_frequencies_are_transformers_to_two_units_in_the_last_place(rope_type: str) -> None:
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rng = random.Random(rope_type)
    for _ in range(20):
        dim, positions = rng.choice([8, 12, 34, 64, 80, 128]), rng.choice([64, 100, 2048])
        rope = random_models.rope_parameters(rope_type, dim, rng)
        config = LlamaConfig(
            hidden_size=2 * dim,
            num_attention_heads=2,
            head_dim=dim,
            max_position_embeddings=positions,
            rope_parameters=rope,
        )
        spec = parts.rope(Config(config.to_dict(), "drawn"), dim, theta=1e4)
        for length in (5, positions, positions + 1, 4 * positions):
            theirs = LlamaRotaryEmbedding(config)
            theirs(torch.zeros(1), torch.arange(length)[None])
            ours, factor = _core.rope_frequencies(spec, length)
            units = np.float32(ours).view(np.int32).astype(np.int64) - theirs.inv_freq.numpy().view(np.int32)
            assert np.abs(units).max() <= 2, (rope, length)
            assert factor == pytest.approx(theirs.attention_scaling, rel=1e-7)


@pytest.mark.parametrize("family", random_models._GGUF_FIELDS)
def test_gguf_has_the_same_weights_as_the_folder(family: str, tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    fixed: dict[str, dict[str, object]] = {
        "gpt2": {
            "activation_function": "gelu_new",
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
        },
        "gpt_neox": {"hidden_act": "gelu"},
        "llama": {"hidden_act": "silu", "rope_parameters": rope | {"original_max_position_embeddings": 20}},
        "qwen2": {"use_sliding_window": False, "layer_types": None},  # GGUF has no word for Qwen2's window
        "bert": {"hidden_act": "gelu"},
    }
    model = random_models.draw(family, 7, tmp_path / "folder", **fixed[family])
    random_models.write_gguf(model, tmp_path / "model.gguf")
    folder, gguf = open_model(tmp_path / "folder"), open_model(tmp_path / "model.gguf")
    expected = load_weights(folder)
    for name, found in load_weights(gguf).items():
        assert np.array_equal(found, expected[name]), name
    ids = some_ids(model, 33)
    assert relative_error(forward(gguf, ids), forward(folder, ids)) < 2e-6


def test_quantised_gguf_names_its_type(tmp_path: Path) -> None:
    model = random_models.draw(
        "llama",
        3,
        tmp_path,
        hidden_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=96,
        hidden_act="silu",
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    names = {Quant.Q8_0: "q8_0", Quant.Q4_1: "q4_1", Quant.MXFP4: "mxfp4", Quant.F16: "float16", Quant.BF16: "bfloat16"}
    for quant, name in names.items():
        random_models.write_gguf(model, tmp_path / f"{name}.gguf", quant)
        weights = open_model(tmp_path / f"{name}.gguf").weights
        assert isinstance(weights, TensorWeights) and weights.stored_dtype == name


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen2"])
def test_parameter_count_is_what_torch_counts(family: str, tmp_path: Path) -> None:
    model = random_models.draw(family, 11, tmp_path)
    assert _core.parameter_count(open_model(tmp_path).spec) == sum(p.numel() for p in model.parameters())


def resaved(folder: Path, change: dict[str, torch.Tensor | None]) -> Checkpoint:
    """The checkpoint in `folder`, gathered into one file, with tensors replaced, added or (None) removed."""
    from safetensors.torch import load_file, save_file

    tensors: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*.safetensors"):
        tensors |= load_file(shard)
        shard.unlink()
    for index in folder.glob("*.index.json"):
        index.unlink()
    kept = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
    save_file(kept, folder / "model.safetensors")
    return open_model(folder)


def test_names_without_the_prefix_are_the_bare_models(tmp_path: Path) -> None:
    model = random_models.draw("gpt2", 2, tmp_path, tie_word_embeddings=True)
    names = [name for name in model.state_dict() if name != "lm_head.weight"]
    bare: dict[str, torch.Tensor | None] = dict.fromkeys(names)
    bare |= {name.removeprefix("transformer."): model.state_dict()[name].clone() for name in names}
    ids = some_ids(model, 9)
    assert relative_error(forward(resaved(tmp_path, bare), ids), reference(model, ids)) < 2e-6


def test_a_head_that_is_stored_beside_a_tied_embedding_is_used(tmp_path: Path) -> None:
    model = random_models.draw("llama", 2, tmp_path, tie_word_embeddings=True)
    assert open_model(tmp_path).spec.head.tied
    other = torch.randn_like(model.lm_head.weight)
    checkpoint = resaved(tmp_path, {"lm_head.weight": other})
    assert not checkpoint.spec.head.tied
    assert np.array_equal(load_weights(checkpoint)["head"], other.double().numpy())


def test_a_tied_weight_stored_under_the_heads_name_only(tmp_path: Path) -> None:
    model = random_models.draw("llama", 2, tmp_path, tie_word_embeddings=True)
    weight = model.lm_head.weight.detach().clone()
    checkpoint = resaved(tmp_path, {"lm_head.weight": weight, "model.embed_tokens.weight": None})
    assert checkpoint.spec.head.tied
    assert np.array_equal(load_weights(checkpoint)["token_embedding"], weight.double().numpy())


def test_old_spellings_of_rope_mean_the_same(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
    random_models.draw("llama", 4, tmp_path, rope_parameters=rope, max_position_embeddings=64)
    new = repr(open_model(tmp_path).spec)
    fields = json.loads((tmp_path / "config.json").read_text())
    del fields["rope_parameters"]
    fields |= {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert repr(open_model(tmp_path).spec) == new


def test_buffers_of_old_checkpoints_are_ignored_and_other_tensors_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random_models.draw("gpt2", 5, tmp_path)
    with caplog.at_level(logging.WARNING, "lamella"):
        resaved(tmp_path, {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)})
        assert not caplog.records
        resaved(tmp_path, {f"adapter.{i:02}": torch.ones(1) for i in range(12)})
    assert len(caplog.records) == 1
    assert "adapter.09" in caplog.text and "adapter.10" not in caplog.text and "12 tensors" in caplog.text


def test_bert_with_gamma_and_beta(tmp_path: Path) -> None:
    model = random_models.draw("bert", 6, tmp_path)
    renamed: dict[str, torch.Tensor | None] = {}
    for name, tensor in model.state_dict().items():
        if ".LayerNorm." in name:
            renamed[name] = None
            renamed[name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = (
                tensor.clone()
            )
    ids = some_ids(model, 9)
    assert relative_error(forward(resaved(tmp_path, renamed), ids), reference(model, ids)) < 2e-6
