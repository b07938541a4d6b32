"""Mixtral: Llama's layers, each with experts in place of its MLP; the weights of those chosen are renormalised."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Family, Weights, Where
from .llama import IGNORED, WEIGHTS, decoder, gated_mlp
from .parts import experts_per_token


def spec(config: Config, weights: Weights) -> ModelSpec:
    config.ignore("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")  # of training
    layers = config.layers("num_hidden_layers")
    window = config.integer("sliding_window") if config.has("sliding_window") else 0
    count = config.integer("num_local_experts")
    experts = core.ExpertsSpec(
        count=count,
        top_k=experts_per_token(config, count),
        intermediate=config.integer("intermediate_size"),
        router=core.RouterKind.softmax_top_k_renormalised,
    )
    return decoder(
        config,
        weights,
        "mixtral",
        windows=[window] * layers,
        mlps=[gated_mlp(config, 0, experts=experts)] * layers,
        default_kv_heads=8,
        default_theta=1e6,
    )


_MOE = "model.layers.{i}.block_sparse_moe."
MIXTRAL_WEIGHTS: dict[str, Where] = {
    **WEIGHTS,
    "router": _MOE + "gate.weight",
    "experts.mlp_gate": _MOE + "experts.{e}.w1.weight",
    "experts.mlp_down": _MOE + "experts.{e}.w2.weight",
    "experts.mlp_up": _MOE + "experts.{e}.w3.weight",
}

FAMILY = Family(
    name="mixtral",
    architectures=("MixtralForCausalLM",),
    spec=spec,
    prefix="model.",
    weights=MIXTRAL_WEIGHTS,
    ignored=IGNORED,
)
