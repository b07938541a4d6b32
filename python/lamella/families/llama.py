"""Llama, and SmolLM2, which is one: RMSNorm, rotary positions, grouped key and value heads, a gated MLP."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Cut, Family, Gguf, Weights
from .gguf_names import FIELDS, TENSORS
from .parts import ACTIVATIONS, context_length, divided, rope, tied_head


def spec(config: Config, weights: Weights) -> ModelSpec:
    heads = config.integer("num_attention_heads")
    head_dim = config.integer("head_dim", divided(config, "hidden_size", "num_attention_heads"))
    positions = rope(config, head_dim, theta=config.number("rope_theta", 10000.0))
    norm = core.NormSpec(kind=core.NormKind.rms_norm, eps=config.number("rms_norm_eps", 1e-6))
    attention_bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    config.only("partial_rotary_factor", 1, 1.0)
    config.only("rope_interleaved", False)
    config.ignore("pretraining_tp", "is_llama_config", "max_sequence_length")
    layer = core.LayerSpec(
        residual=core.Residual.sequential,
        attention_norm=norm,
        attention=core.AttentionSpec(
            heads=heads,
            kv_heads=config.integer("num_key_value_heads", heads),
            head_dim=head_dim,
            scale=head_dim**-0.5,
            qkv_bias=attention_bias,
            output_bias=attention_bias,
            rope=positions,
        ),
        mlp_norm=norm,
        mlp=core.MlpSpec(
            intermediate=config.integer("intermediate_size"),
            activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
            gated=True,
            up_bias=mlp_bias,
            down_bias=mlp_bias,
        ),
    )
    return ModelSpec(
        family="llama",
        vocab=config.integer("vocab_size"),
        hidden=config.integer("hidden_size"),
        max_positions=context_length(config, positions),
        embedding=core.EmbeddingSpec(positions=core.PositionKind.rotary),
        layers=[layer] * config.layers("num_hidden_layers"),
        head=core.HeadSpec(norm=norm, tied=tied_head(config, weights, default=False)),
    )


FAMILY = Family(
    name="llama",
    architectures=("LlamaForCausalLM",),
    spec=spec,
    prefix="model.",
    weights={
        "token_embedding": "model.embed_tokens.weight",
        "attention_norm": "model.layers.{i}.input_layernorm.weight",
        "query": "model.layers.{i}.self_attn.q_proj.weight",
        "key": "model.layers.{i}.self_attn.k_proj.weight",
        "value": "model.layers.{i}.self_attn.v_proj.weight",
        "attention_output": "model.layers.{i}.self_attn.o_proj.weight",
        "mlp_norm": "model.layers.{i}.post_attention_layernorm.weight",
        "mlp_gate": "model.layers.{i}.mlp.gate_proj.weight",
        "mlp_up": "model.layers.{i}.mlp.up_proj.weight",
        "mlp_down": "model.layers.{i}.mlp.down_proj.weight",
        "final_norm": "model.norm.weight",
        "head": "lm_head.weight",
    },
    ignored=r".*rotary_emb\.inv_freq",
    gguf=Gguf(
        architecture="llama",
        fields={
            **FIELDS,
            "num_key_value_heads": "attention.head_count_kv",
            "head_dim": "attention.key_length",
            "rms_norm_eps": "attention.layer_norm_rms_epsilon",
        },
        constants={"hidden_act": "silu", "tie_word_embeddings": True},
        present={"attention_bias": "layers.0.query_bias", "mlp_bias": "layers.0.mlp_up_bias"},
        weights=TENSORS
        | {
            "query": Cut("blk.{i}.attn_q.weight", rotary_pairs=True),
            "key": Cut("blk.{i}.attn_k.weight", rotary_pairs=True),
        },
    ),
)
