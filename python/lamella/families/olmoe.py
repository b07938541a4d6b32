"""OLMoE: Llama's layers with experts, and norms of a token's queries and keys over all heads together."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Family, Weights
from .llama import IGNORED, WEIGHTS, decoder, gated_mlp
from .parts import experts_per_token
from .qwen2_moe import EXPERTS, router
from .qwen3_moe import QK_NORMS


def spec(config: Config, weights: Weights) -> ModelSpec:
    config.ignore("output_router_logits", "router_aux_loss_coef")  # of training
    config.only("clip_qkv")
    layers, count = config.layers("num_hidden_layers"), config.integer("num_experts")
    experts = core.ExpertsSpec(
        count=count,
        top_k=experts_per_token(config, count),
        intermediate=config.integer("intermediate_size"),
        router=router(config),
    )
    bias = config.flag("attention_bias", False)
    return decoder(
        config,
        weights,
        "olmoe",
        mlps=[gated_mlp(config, 0, experts=experts)] * layers,
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        norm_across_heads=True,
    )


FAMILY = Family(
    name="olmoe",
    architectures=("OlmoeForCausalLM",),
    spec=spec,
    prefix="model.",
    weights={**WEIGHTS, **QK_NORMS, **EXPERTS},
    ignored=IGNORED,
)
