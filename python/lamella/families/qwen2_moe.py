"""Qwen1.5-MoE and Qwen2-MoE: Qwen2's layers, of which some or all have experts and one that is shared and gated."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Family, Weights, Where
from .llama import IGNORED, WEIGHTS, decoder, gated_mlp
from .parts import experts_per_token


def spec(config: Config, weights: Weights) -> ModelSpec:
    config.ignore("output_router_logits", "router_aux_loss_coef")  # of training
    layers = config.layers("num_hidden_layers")
    shared = config.integer("shared_expert_intermediate_size")
    experts = core.ExpertsSpec(
        count=config.integer("num_experts"),
        top_k=experts_per_token(config, config.integer("num_experts")),
        intermediate=config.integer("moe_intermediate_size"),
        router=router(config),
        shared_intermediate=shared,
        shared_gate=True,
    )
    return decoder(
        config,
        weights,
        "qwen2_moe",
        windows=_windows(config, layers),
        mlps=mlps(config, layers, experts),
        default_kv_heads=16,
        qkv_bias=config.flag("qkv_bias", True),
    )


def router(config: Config) -> core.RouterKind:
    """Softmax over all experts, divided by the sum of the chosen ones where the config says so."""
    kinds = core.RouterKind
    return kinds.softmax_top_k_renormalised if config.flag("norm_topk_prob", False) else kinds.softmax_top_k


def mlps(config: Config, layers: int, experts: core.ExpertsSpec) -> list[core.MlpSpec]:
    """Experts in every `decoder_sparse_step`-th layer that `mlp_only_layers` does not name; dense ones elsewhere."""
    step, dense = config.integer("decoder_sparse_step", 1), config.indices("mlp_only_layers", layers)
    width = config.integer("intermediate_size")

    def mlp(index: int) -> core.MlpSpec:
        sparse = (index + 1) % step == 0 and index not in dense
        return gated_mlp(config, 0, experts=experts) if sparse else gated_mlp(config, width)

    return [mlp(index) for index in range(layers)]


def _windows(config: Config, layers: int) -> list[int]:
    """Where `layer_types` does not say which, every other layer below `max_window_layers` has a window."""
    used = config.flag("use_sliding_window", False)
    if not used:
        config.ignore("sliding_window")
    window = config.integer("sliding_window", 4096) if used else 0
    first_full = config.integer("max_window_layers", 28, low=0)
    kinds = config.names("layer_types", layers, ("full_attention", "sliding_attention"))
    if kinds is None:
        return [window if index % 2 == 0 and index < first_full else 0 for index in range(layers)]
    if window == 0 and "sliding_attention" in kinds:
        raise config.wrong("layer_types", "full_attention only, because there is no sliding window")
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


_MOE = "model.layers.{i}.mlp."
EXPERTS: dict[str, Where] = {
    "router": _MOE + "gate.weight",
    "experts.mlp_gate": _MOE + "experts.{e}.gate_proj.weight",
    "experts.mlp_up": _MOE + "experts.{e}.up_proj.weight",
    "experts.mlp_down": _MOE + "experts.{e}.down_proj.weight",
}
_SHARED: dict[str, Where] = {
    "shared_router": _MOE + "shared_expert_gate.weight",
    "shared_gate": _MOE + "shared_expert.gate_proj.weight",
    "shared_up": _MOE + "shared_expert.up_proj.weight",
    "shared_down": _MOE + "shared_expert.down_proj.weight",
}

FAMILY = Family(
    name="qwen2_moe",
    architectures=("Qwen2MoeForCausalLM",),
    spec=spec,
    prefix="model.",
    weights={**WEIGHTS, **EXPERTS, **_SHARED},
    ignored=IGNORED,
)
