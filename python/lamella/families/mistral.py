"""Mistral: Llama's layers with a sliding window. A GGUF file of one says that it is a Llama."""

from __future__ import annotations

from lamella._core import ModelSpec

from .config import Config
from .family import Family, Weights
from .llama import IGNORED, WEIGHTS, decoder
from .parts import sliding_window


def spec(config: Config, weights: Weights) -> ModelSpec:
    windows = [sliding_window(config)] * config.layers("num_hidden_layers")
    return decoder(config, weights, "mistral", windows=windows, default_kv_heads=8)


FAMILY = Family(
    name="mistral",
    architectures=("MistralForCausalLM",),
    spec=spec,
    prefix="model.",
    weights=WEIGHTS,
    ignored=IGNORED,
)
