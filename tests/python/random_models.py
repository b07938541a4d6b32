"""Small random Hugging Face models of every family, for comparing Lamella with transformers.

`draw` makes one from a seed: sizes off any tile grid, every switch of its family thrown at random, all parameters
(norms and biases too) random at scales that keep the logits lively. `write_gguf` writes a model as llama.cpp's
converter would.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Quant

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()

# Deviation of a matrix's outputs for inputs of deviation one. At 1.5 attention is so sharp that an error of fp32's size
# shows; it is also so sharp that rounding the weights alone to bf16 moves transformers' own fp32 logits by up to 3e-2.
LIVELY, ORDINARY = 1.5, 1.0
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
NO_SPECIAL_IDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def draw(
    family: str, seed: int, folder: Path, dtype: torch.dtype = torch.float32, gain: float = LIVELY, **fixed: Any
) -> transformers.PreTrainedModel:
    """A random model of `family` (FAMILIES), saved to `folder` as one file or in shards, in eval mode.

    `fixed` overrides fields of the drawn config. The same arguments give the same model.
    """
    rng = random.Random(f"{family}-{seed}")
    config, kind = FAMILIES[family](rng, fixed)
    model = kind(config).to(dtype)
    model.set_experts_implementation("eager")  # the only one that computes in float64
    randomise(model, seed, gain)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=rng.choice(["1GB", "40KB"]))
    return model.eval()


def randomise(model: transformers.PreTrainedModel, seed: int, gain: float) -> None:
    """Fills every parameter: matrices at gain / sqrt(inputs), embeddings at 0.4, norms around 1, biases at 0.3."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 3:  # [experts, outputs, inputs]
                noise *= gain / parameter.shape[2] ** 0.5
            elif parameter.ndim == 2:
                embedding = any(word in name for word in ("embed", "wte", "wpe")) and "embed_out" not in name
                stored_by_inputs = model.config.model_type == "gpt2" and ".c_" in name
                inputs = parameter.shape[0] if stored_by_inputs else parameter.shape[1]
                noise *= 0.4 if embedding else gain / inputs**0.5
                if model.config.model_type == "gpt_neo" and "q_proj" in name:  # whose scores have no scale of their own
                    noise /= (model.config.hidden_size // model.config.num_heads) ** 0.5
            elif name.endswith("weight"):
                noise = 1.0 + 0.3 * noise
            else:
                noise *= 0.3
            parameter.copy_(noise)


def _gpt2(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    heads = rng.choice([1, 3, 5])
    fields: dict[str, Any] = {
        "vocab_size": rng.randrange(90, 400),
        "n_positions": rng.choice([128, 150, 201]),
        "n_embd": heads * rng.choice([7, 12, 16, 21]),
        "n_head": heads,
        "n_layer": rng.randint(1, 5),
        "n_inner": rng.choice([None, 53, 97, 130]),
        "activation_function": rng.choice(["gelu_new", "gelu", "relu", "gelu_pytorch_tanh"]),
        "scale_attn_weights": rng.random() < 0.8,
        "scale_attn_by_inverse_layer_idx": rng.random() < 0.3,
        "reorder_and_upcast_attn": rng.random() < 0.3,
        "tie_word_embeddings": rng.random() < 0.6,
        "layer_norm_epsilon": rng.choice([1e-5, 1e-3]),
    }
    return transformers.GPT2Config(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.GPT2LMHeadModel


def _gpt_neox(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    heads, head_dim = rng.choice([1, 3, 5]), rng.choice([8, 10, 16, 22])
    rotary = 2 * rng.randint(2, head_dim // 2)
    positions = rng.choice([128, 150, 201])
    fields: dict[str, Any] = {
        "vocab_size": rng.randrange(90, 400),
        "hidden_size": heads * head_dim,
        "num_attention_heads": heads,
        "num_hidden_layers": rng.randint(1, 5),
        "intermediate_size": rng.choice([61, 97, 128]),
        "hidden_act": rng.choice(["gelu", "gelu_fast", "relu"]),
        "max_position_embeddings": positions,
        "use_parallel_residual": rng.random() < 0.6,
        "attention_bias": rng.random() < 0.7,
        "tie_word_embeddings": rng.random() < 0.3,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": rng.choice([10000.0, 500.0]),
            "partial_rotary_factor": (rotary + 0.01) / head_dim if rotary < head_dim else 1.0,
        },
    }
    return transformers.GPTNeoXConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.GPTNeoXForCausalLM


def _llama(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    kv_heads, group = rng.choice([1, 2, 3]), rng.choice([1, 2, 3])
    heads, head_dim = kv_heads * group, rng.choice([6, 8, 10, 16, 22])
    width = head_dim if rng.random() < 0.5 else rng.choice([7, 9, 12])
    rope_type = rng.choice(ROPE_TYPES)
    fields: dict[str, Any] = {
        "vocab_size": rng.randrange(90, 400),
        "hidden_size": heads * width,
        "head_dim": head_dim,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": rng.randint(1, 5),
        "intermediate_size": rng.choice([61, 97, 128]),
        "hidden_act": rng.choice(["silu", "silu", "gelu", "gelu_pytorch_tanh"]),
        "attention_bias": rng.random() < 0.4,
        "mlp_bias": rng.random() < 0.4,
        "tie_word_embeddings": rng.random() < 0.5,
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]),
        "max_position_embeddings": 48 if rope_type == "dynamic" else 160,
        "rope_parameters": rope_parameters(rope_type, head_dim, rng),
    }
    return transformers.LlamaConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.LlamaForCausalLM


# Windows around the blocks of the KV cache, some of which no prompt outgrows. Not 1: with it transformers' own cache
# keeps everything (its slice of the last window - 1 tokens is then that of all).
WINDOWS = (2, 5, 15, 16, 17, 40, 300)


def _mistral(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    llama, _ = _llama(rng, {})
    fields = llama.to_dict()
    for name in ("attention_bias", "mlp_bias", "model_type", "pretraining_tp"):
        fields.pop(name, None)
    fields["sliding_window"] = rng.choice([None, *WINDOWS])
    return transformers.MistralConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.MistralForCausalLM


def _qwen2(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    kv_heads, group, head_dim = rng.choice([1, 2, 3]), rng.choice([1, 2, 3]), rng.choice([6, 8, 10, 16, 22])
    layers = rng.randint(1, 6)
    kinds = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]
    fields: dict[str, Any] = {
        "vocab_size": rng.randrange(90, 400),
        "hidden_size": kv_heads * group * head_dim,
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
        "intermediate_size": rng.choice([61, 97, 128]),
        "tie_word_embeddings": rng.random() < 0.5,
        "rms_norm_eps": rng.choice([1e-6, 1e-5]),
        "max_position_embeddings": 160,
        "rope_parameters": {"rope_type": "default", "rope_theta": rng.choice([10000.0, 1000000.0])},
        "use_sliding_window": rng.random() < 0.8,
        "sliding_window": rng.choice(WINDOWS),
        "max_window_layers": rng.randint(0, layers),
    }
    if fields["use_sliding_window"] and rng.random() < 0.5:
        fields["layer_types"] = kinds
    return transformers.Qwen2Config(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.Qwen2ForCausalLM


def _experts(rng: random.Random) -> tuple[int, int]:
    """Experts, and how many of them take a token."""
    count = rng.randint(2, 6)
    return count, rng.randint(1, count)


def _mixtral(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    mistral, _ = _mistral(rng, {})
    fields = mistral.to_dict()
    fields.pop("model_type", None)
    fields["num_hidden_layers"] = rng.randint(1, 3)
    fields["num_local_experts"], fields["num_experts_per_tok"] = _experts(rng)
    return transformers.MixtralConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.MixtralForCausalLM


def _qwen2_moe(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    qwen2, _ = _qwen2(rng, {})
    fields = qwen2.to_dict()
    layers = rng.randint(1, 4)
    for name in ("model_type", "layer_types"):
        fields.pop(name, None)
    fields["num_experts"], fields["num_experts_per_tok"] = _experts(rng)
    fields |= {
        "num_hidden_layers": layers,
        "max_window_layers": rng.randint(0, layers),
        "moe_intermediate_size": rng.choice([33, 64, 70]),
        "shared_expert_intermediate_size": rng.choice([40, 64, 97]),
        "decoder_sparse_step": rng.choice([1, 1, 2]),
        "mlp_only_layers": rng.sample(range(layers), rng.randint(0, layers - 1)),
        "norm_topk_prob": rng.random() < 0.5,
        "qkv_bias": rng.random() < 0.7,
    }
    if fields["use_sliding_window"] and rng.random() < 0.5:
        fields["layer_types"] = [rng.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]
    return transformers.Qwen2MoeConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.Qwen2MoeForCausalLM


def _qwen3_moe(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    moe, _ = _qwen2_moe(rng, {})
    fields = moe.to_dict()
    for name in ("model_type", "layer_types", "shared_expert_intermediate_size", "qkv_bias", "max_window_layers"):
        fields.pop(name, None)
    heads = fields["num_attention_heads"]
    fields |= {
        "attention_bias": rng.random() < 0.4,
        "head_dim": rng.choice([6, 10, 16, fields["hidden_size"] // heads]),
        "use_sliding_window": rng.random() < 0.3,
        "sliding_window": rng.choice(WINDOWS),
    }
    return transformers.Qwen3MoeConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.Qwen3MoeForCausalLM


def _olmoe(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    kv_heads, group, head_dim = rng.choice([1, 2, 3]), rng.choice([1, 2, 3]), rng.choice([6, 8, 10, 16, 22])
    count, top_k = _experts(rng)
    fields: dict[str, Any] = {
        "vocab_size": rng.randrange(90, 400),
        "hidden_size": kv_heads * group * head_dim,
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": rng.randint(1, 3),
        "intermediate_size": rng.choice([33, 61, 70]),
        "attention_bias": rng.random() < 0.4,
        "tie_word_embeddings": rng.random() < 0.5,
        "rms_norm_eps": rng.choice([1e-6, 1e-5]),
        "max_position_embeddings": 160,
        "rope_parameters": {"rope_type": "default", "rope_theta": rng.choice([10000.0, 500000.0])},
        "num_experts": count,
        "num_experts_per_tok": top_k,
        "norm_topk_prob": rng.random() < 0.5,
    }
    return transformers.OlmoeConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.OlmoeForCausalLM


def _gpt_neo(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    heads = rng.choice([1, 3, 5])
    types = rng.choice(
        [[[["global", "local"], 2]], [[["local"], 3]], [[["global"], 1], [["local", "local", "global"], 2]]]
    )
    fields: dict[str, Any] = {
        "vocab_size": rng.randrange(90, 400),
        "max_position_embeddings": rng.choice([128, 150, 201]),
        "hidden_size": heads * rng.choice([7, 12, 16, 21]),
        "num_heads": heads,
        "attention_types": types,
        "num_layers": sum(len(names) * count for names, count in types),
        "window_size": rng.choice(WINDOWS),
        "intermediate_size": rng.choice([None, 53, 97, 130]),
        "activation_function": rng.choice(["gelu_new", "gelu", "relu"]),
        "layer_norm_epsilon": rng.choice([1e-5, 1e-3]),
    }
    return transformers.GPTNeoConfig(**{**fields, **NO_SPECIAL_IDS, **fixed}), transformers.GPTNeoForCausalLM


def rope_parameters(rope_type: str, rotary_dim: int, rng: random.Random) -> dict[str, Any]:
    """Random parameters of a rope type, with the trained context so short that 64 tokens cross it."""
    parameters: dict[str, Any] = {"rope_type": rope_type, "rope_theta": rng.choice([10000.0, 500000.0, 300.0])}
    if rope_type != "default":
        parameters["factor"] = rng.choice([2.0, 3.5, 8.0])
    if rope_type in ("yarn", "longrope", "llama3"):
        parameters["original_max_position_embeddings"] = rng.choice([20, 33, 40])
    if rope_type == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": rng.choice([2.0, 4.0])}
    if rope_type == "yarn" and rng.random() < 0.5:
        parameters |= {
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "truncate": rng.random() < 0.5,
            "mscale": 0.8,
            "mscale_all_dim": 1.1,
        }
    if rope_type == "longrope":
        parameters["short_factor"] = [rng.uniform(1.0, 1.5) for _ in range(rotary_dim // 2)]
        parameters["long_factor"] = [rng.uniform(1.0, 9.0) for _ in range(rotary_dim // 2)]
    return parameters


def _bert(rng: random.Random, fixed: dict[str, Any]) -> tuple[transformers.PretrainedConfig, Callable[..., Any]]:
    heads = rng.choice([1, 3, 5])
    fields: dict[str, Any] = {
        "vocab_size": rng.randrange(90, 400),
        "hidden_size": heads * rng.choice([7, 12, 16, 21]),
        "num_attention_heads": heads,
        "num_hidden_layers": rng.randint(1, 5),
        "intermediate_size": rng.choice([61, 97, 128]),
        "hidden_act": rng.choice(["gelu", "gelu_new", "relu"]),
        "max_position_embeddings": rng.choice([128, 150, 201]),
        "type_vocab_size": rng.choice([1, 2, 3]),
        "layer_norm_eps": rng.choice([1e-12, 1e-5]),
    }
    config = transformers.BertConfig(**{**fields, **fixed, "pad_token_id": None})
    if rng.random() < 0.3:
        return config, transformers.BertForMaskedLM
    pooler = rng.random() < 0.7
    return config, lambda made: transformers.BertModel(made, add_pooling_layer=pooler)


FAMILIES: dict[str, Callable[[random.Random, dict[str, Any]], tuple[Any, Callable[..., Any]]]] = {
    "gpt2": _gpt2,
    "gpt_neo": _gpt_neo,
    "gpt_neox": _gpt_neox,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
    "bert": _bert,
}

# Where a comparison is with rounded numbers, every expert takes every token: which of two experts of nearly equal
# scores is chosen would decide about errors of any size.
ALL_EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 4},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 4},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 4},
    "qwen3_moe": {"num_local_experts": 4, "num_experts_per_tok": 4},
}

_GGUF_NAMES = {
    "gpt2": {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.h.": "blk.",
        ".ln_1": ".attn_norm",
        ".attn.c_attn": ".attn_qkv",
        ".attn.c_proj": ".attn_output",
        ".ln_2": ".ffn_norm",
        ".mlp.c_fc": ".ffn_up",
        ".mlp.c_proj": ".ffn_down",
        "transformer.ln_f": "output_norm",
        "lm_head": "output",
    },
    "gpt_neox": {
        "gpt_neox.embed_in": "token_embd",
        "gpt_neox.layers.": "blk.",
        ".input_layernorm": ".attn_norm",
        ".attention.query_key_value": ".attn_qkv",
        ".attention.dense": ".attn_output",
        ".post_attention_layernorm": ".ffn_norm",
        ".mlp.dense_h_to_4h": ".ffn_up",
        ".mlp.dense_4h_to_h": ".ffn_down",
        "gpt_neox.final_layer_norm": "output_norm",
        "lm_head": "output",
        "embed_out": "output",
    },
    "llama": {
        "model.embed_tokens": "token_embd",
        "model.layers.": "blk.",
        ".input_layernorm": ".attn_norm",
        ".self_attn.q_proj": ".attn_q",
        ".self_attn.k_proj": ".attn_k",
        ".self_attn.v_proj": ".attn_v",
        ".self_attn.o_proj": ".attn_output",
        ".post_attention_layernorm": ".ffn_norm",
        ".mlp.gate_proj": ".ffn_gate",
        ".mlp.up_proj": ".ffn_up",
        ".mlp.down_proj": ".ffn_down",
        "model.norm": "output_norm",
        "lm_head": "output",
    },
    "bert": {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
        "encoder.layer.": "blk.",
        ".attention.self.query": ".attn_q",
        ".attention.self.key": ".attn_k",
        ".attention.self.value": ".attn_v",
        ".attention.output.dense": ".attn_output",
        ".attention.output.LayerNorm": ".attn_output_norm",
        ".intermediate.dense": ".ffn_up",
        ".output.dense": ".ffn_down",
        ".output.LayerNorm": ".layer_output_norm",
    },
}


_GGUF_NAMES["qwen2"] = _GGUF_NAMES["llama"]


def write_gguf(model: transformers.PreTrainedModel, path: Path, quant: Quant = Quant.F32) -> None:
    """Writes `model` as a GGUF file without a tokenizer, in llama.cpp's names and layouts.

    Matrices get type `quant` where their rows are whole blocks of it, vectors stay F32. What the format cannot say
    (GPT-2's unscaled attention, an activation) must have its usual value.
    """
    config, family = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, {"gpt_neox": "gptneox"}.get(family, family))
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_tokenizer_model("no_vocab")
    _GGUF_FIELDS[family](writer, config)
    tied = config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if (tied and name.startswith(("lm_head", "embed_out"))) or "pooler" in name or name.startswith("cls."):
            continue
        stored = _gguf_layout(family, name, tensor.to(torch.float32).numpy(), config)
        whole = stored.ndim == 2 and stored.shape[1] % gguf.GGML_QUANT_SIZES[quant][0] == 0
        kind = quant if whole else Quant.F32
        writer.add_tensor(_gguf_name(family, name), gguf.quants.quantize(stored, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(family: str, name: str) -> str:
    name = name.removeprefix("bert.")
    for theirs, ours in _GGUF_NAMES[family].items():
        name = name.replace(theirs, ours)
    return name


def _gguf_layout(family: str, name: str, data: np.ndarray, config: Any) -> np.ndarray:
    if family == "gpt2" and data.ndim == 2 and ".c_" in name:
        data = data.T
    if family == "gpt_neox" and "query_key_value" in name:
        heads = config.num_attention_heads
        data = data.reshape(heads, 3, -1, *data.shape[1:]).swapaxes(0, 1).reshape(data.shape)
    if family == "llama" and (".q_proj" in name or ".k_proj" in name):
        heads = config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads
        data = data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
    return np.ascontiguousarray(data)


def _gguf_gpt2(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _gguf_gpt_neox(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_parallel_residual(config.use_parallel_residual)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(
        int(config.hidden_size // config.num_attention_heads * rope["partial_rotary_factor"])
    )


def _gguf_llama(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    writer.add_vocab_size(config.vocab_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_divisors(rope, config.head_dim))
    elif rope["rope_type"] != "default":
        raise ValueError(f"GGUF has no rope type {rope['rope_type']}")


def _gguf_qwen2(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _llama3_divisors(rope: dict[str, Any], head_dim: int) -> np.ndarray:
    wavelengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    low, high, context = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    smooth = np.clip((context / wavelengths - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _gguf_bert(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_token_type_count(config.type_vocab_size)


_GGUF_FIELDS: dict[str, Callable[[gguf.GGUFWriter, Any], None]] = {
    "gpt2": _gguf_gpt2,
    "gpt_neox": _gguf_gpt_neox,
    "llama": _gguf_llama,
    "qwen2": _gguf_qwen2,
    "bert": _gguf_bert,
}
