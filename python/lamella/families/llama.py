"""Llama, and SmolLM2, which is one: RMSNorm, rotary positions, grouped key and value heads, a gated MLP.

Mistral and Qwen2 are the same layers with a window, or biases, and share what is here.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Cut, Family, Gguf, Weights, Where
from .gguf_names import FIELDS, TENSORS
from .parts import ACTIVATIONS, context_length, divided, rope, tied_head


def spec(config: Config, weights: Weights) -> ModelSpec:
    attention_bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    config.only("partial_rotary_factor", 1, 1.0)
    config.only("rope_interleaved", False)
    config.ignore("pretraining_tp", "is_llama_config", "max_sequence_length")
    return decoder(config, weights, "llama", qkv_bias=attention_bias, output_bias=attention_bias, mlp_bias=mlp_bias)


def decoder(
    config: Config,
    weights: Weights,
    family: str,
    *,
    windows: Sequence[int] = (),
    mlps: Sequence[core.MlpSpec] = (),
    default_kv_heads: int | None = None,
    default_theta: float = 10000.0,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    norm_across_heads: bool = False,
) -> ModelSpec:
    """A model of these layers; `windows` has each layer's, 0 for none, and is empty where no layer has one; `mlps` has
    each layer's, and is empty where all are dense.

    `default_kv_heads` is what a config means that has no `num_key_value_heads`; null always means the heads' number.
    """
    heads = config.integer("num_attention_heads")
    kv_heads = heads if default_kv_heads is None or config.mentions("num_key_value_heads") else default_kv_heads
    head_dim = config.integer("head_dim", divided(config, "hidden_size", "num_attention_heads"))
    positions = rope(config, head_dim, theta=config.number("rope_theta", default_theta))
    norm = core.NormSpec(kind=core.NormKind.rms_norm, eps=config.number("rms_norm_eps", 1e-6))
    kv_heads = config.integer("num_key_value_heads", kv_heads)
    layers = config.layers("num_hidden_layers")
    mlps = mlps or [gated_mlp(config, config.integer("intermediate_size"), mlp_bias)] * layers

    def layer(window: int, mlp: core.MlpSpec) -> core.LayerSpec:
        attention = core.AttentionSpec(
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            qkv_bias=qkv_bias,
            output_bias=output_bias,
            rope=positions,
            query_norm=norm if qk_norm else core.NormSpec(),
            key_norm=norm if qk_norm else core.NormSpec(),
            norm_across_heads=norm_across_heads,
            window=window,
        )
        return core.LayerSpec(
            residual=core.Residual.sequential, attention_norm=norm, attention=attention, mlp_norm=norm, mlp=mlp
        )

    return ModelSpec(
        family=family,
        vocab=config.integer("vocab_size"),
        hidden=config.integer("hidden_size"),
        max_positions=context_length(config, positions),
        embedding=core.EmbeddingSpec(positions=core.PositionKind.rotary),
        layers=[layer(window, mlp) for window, mlp in zip(windows or [0] * layers, mlps, strict=True)],
        head=core.HeadSpec(norm=norm, tied=tied_head(config, weights, default=False)),
    )


def gated_mlp(
    config: Config, intermediate: int, bias: bool = False, experts: core.ExpertsSpec | None = None
) -> core.MlpSpec:
    """The MLP of a layer, or of each of its experts, for which `intermediate` is 0."""
    return core.MlpSpec(
        intermediate=intermediate,
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        gated=True,
        up_bias=bias,
        down_bias=bias,
        experts=experts,
    )


WEIGHTS: dict[str, Where] = {
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
}
IGNORED = r".*rotary_emb\.inv_freq"
GGUF_FIELDS = {
    **FIELDS,
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}

FAMILY = Family(
    name="llama",
    architectures=("LlamaForCausalLM",),
    spec=spec,
    prefix="model.",
    weights=WEIGHTS,
    ignored=IGNORED,
    gguf=Gguf(
        architecture="llama",
        fields=GGUF_FIELDS,
        constants={"hidden_act": "silu", "tie_word_embeddings": True},
        present={"attention_bias": "layers.0.query_bias", "mlp_bias": "layers.0.mlp_up_bias"},
        weights=TENSORS
        | {
            "query": Cut("blk.{i}.attn_q.weight", rotary_pairs=True),
            "key": Cut("blk.{i}.attn_k.weight", rotary_pairs=True),
        },
    ),
)
