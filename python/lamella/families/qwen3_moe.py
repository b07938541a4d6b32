"""Qwen3-MoE: Llama's layers with norms of each head's queries and keys, of which some or all have experts."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Family, Weights, Where
from .llama import IGNORED, WEIGHTS, decoder
from .parts import experts_per_token
from .qwen2_moe import EXPERTS, mlps, router


def spec(config: Config, weights: Weights) -> ModelSpec:
    config.ignore("output_router_logits", "router_aux_loss_coef", "max_window_layers")  # of training; of Qwen2's layers
    layers = config.layers("num_hidden_layers")
    named = "num_experts" if config.has("num_experts") else "num_local_experts"  # as transformers 5 writes it
    count = config.integer(named)
    config.expect("num_local_experts", count)
    experts = core.ExpertsSpec(
        count=count,
        top_k=experts_per_token(config, count),
        intermediate=config.integer("moe_intermediate_size"),
        router=router(config),
    )
    windowed = config.flag("use_sliding_window", False)
    if not windowed:
        config.ignore("sliding_window")
    bias = config.flag("attention_bias", False)
    return decoder(
        config,
        weights,
        "qwen3_moe",
        windows=[config.integer("sliding_window", 4096) if windowed else 0] * layers,
        mlps=mlps(config, layers, experts),
        default_kv_heads=4,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
    )


QK_NORMS: dict[str, Where] = {
    "query_norm": "model.layers.{i}.self_attn.q_norm.weight",
    "key_norm": "model.layers.{i}.self_attn.k_norm.weight",
}

FAMILY = Family(
    name="qwen3_moe",
    architectures=("Qwen3MoeForCausalLM",),
    spec=spec,
    prefix="model.",
    weights={**WEIGHTS, **QK_NORMS, **EXPERTS},
    ignored=IGNORED,
)
