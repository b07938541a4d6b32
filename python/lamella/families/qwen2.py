"""Qwen2 and Qwen2.5: Llama's layers with biases on query, key and value, of which the upper ones may have a window."""

from __future__ import annotations

from lamella._core import ModelSpec

from .config import Config
from .family import Family, Gguf, Weights
from .gguf_names import TENSORS
from .llama import GGUF_FIELDS, IGNORED, WEIGHTS, decoder
from .parts import sliding_window


def spec(config: Config, weights: Weights) -> ModelSpec:
    config.only("use_mrope", False)
    windows = _windows(config, config.layers("num_hidden_layers"))
    return decoder(config, weights, "qwen2", windows=windows, default_kv_heads=32, qkv_bias=True)


def _windows(config: Config, layers: int) -> list[int]:
    window = sliding_window(config)
    if not config.flag("use_sliding_window", False):
        window = 0
    first = config.integer("max_window_layers", 28, low=0)
    kinds = config.names("layer_types", layers, ("full_attention", "sliding_attention"))
    if kinds is None:
        return [window if index >= first else 0 for index in range(layers)]
    if window == 0 and "sliding_attention" in kinds:
        raise config.wrong("layer_types", "full_attention only, because there is no sliding window")
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


FAMILY = Family(
    name="qwen2",
    architectures=("Qwen2ForCausalLM",),
    spec=spec,
    prefix="model.",
    weights=WEIGHTS,
    ignored=IGNORED,
    gguf=Gguf(
        architecture="qwen2",
        fields=GGUF_FIELDS,
        constants={"hidden_act": "silu", "tie_word_embeddings": True},
        weights=TENSORS,
    ),
)
