"""The paper's GPT with experts in every other layer: a shape without checkpoints, whose rest is GPT-2's."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from . import gpt2
from .config import Config
from .family import Family, Weights


def spec(config: Config, weights: Weights) -> ModelSpec:
    """GPT-2 with `num_experts` experts, each as wide as its MLP, in layers 1, 3, ...; one of them takes a token."""
    model = gpt2.spec(config, weights)
    model.family = "gpt_moe"
    count = config.integer("num_experts")
    layers = model.layers
    for layer in layers[1::2]:
        layer.mlp.experts = core.ExpertsSpec(
            count=count, top_k=1, intermediate=layer.mlp.intermediate, router=core.RouterKind.top_1
        )
        layer.mlp.intermediate = 0
    model.layers = layers
    return model


FAMILY = Family(name="gpt_moe", architectures=(), spec=spec, weights={})
