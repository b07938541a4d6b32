"""GPT-Neo: GPT-2's topology with unscaled attention, in every other layer over a window. GGUF has no name for it."""

from __future__ import annotations

from collections.abc import Sequence

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Family, Weights
from .parts import ACTIVATIONS, divided, tied_head


def spec(config: Config, weights: Weights) -> ModelSpec:
    hidden, heads = config.integer("hidden_size"), config.integer("num_heads")
    positions = config.integer("max_position_embeddings")
    head_dim = divided(config, "hidden_size", "num_heads")
    norm = core.NormSpec(kind=core.NormKind.layer_norm, eps=config.number("layer_norm_epsilon", 1e-5), bias=True)
    mlp = core.MlpSpec(
        intermediate=config.integer("intermediate_size", 4 * hidden),
        activation=config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        up_bias=True,
        down_bias=True,
    )
    config.ignore("embed_dropout", "resid_dropout")

    def layer(window: int) -> core.LayerSpec:
        attention = core.AttentionSpec(
            heads=heads, kv_heads=heads, head_dim=head_dim, scale=1.0, output_bias=True, window=window
        )
        return core.LayerSpec(
            residual=core.Residual.sequential, attention_norm=norm, attention=attention, mlp_norm=norm, mlp=mlp
        )

    return ModelSpec(
        family="gpt_neo",
        vocab=config.integer("vocab_size"),
        hidden=hidden,
        max_positions=positions,
        embedding=core.EmbeddingSpec(positions=core.PositionKind.learned, position_rows=positions),
        layers=[layer(window) for window in _windows(config, config.layers("num_layers"))],
        head=core.HeadSpec(norm=norm, tied=tied_head(config, weights, default=True)),
    )


def _windows(config: Config, layers: int) -> list[int]:
    """`attention_types` is a list of [kinds, repetitions], which together name a kind for each layer.

    `attention_layers`, where a config has it, names the kinds one by one, and is what transformers goes by.
    """
    windows = {"global": 0, "local": config.integer("window_size", 256)}
    if (named := config.names("attention_layers", layers, windows)) is not None:
        config.ignore("attention_types")
        return [windows[kind] for kind in named]
    groups = config.take("attention_types")
    kinds: list[str] = []
    for group in [[["global", "local"], 12]] if groups is None else groups if isinstance(groups, list) else [None]:
        match group:
            case [Sequence() as names, int(count)] if (
                all(isinstance(name, str) and name in windows for name in names)
                and 0 <= count <= layers
                and len(names) * count <= layers
            ):
                kinds += list(names) * count
            case _:
                raise config.wrong("attention_types", "a list of [names, repetitions], the names global or local")
        if len(kinds) > layers:
            break
    if len(kinds) != layers:
        raise config.wrong("attention_types", f"as many kinds as num_layers, which is {layers}")
    return [windows[kind] for kind in kinds]


FAMILY = Family(
    name="gpt_neo",
    architectures=("GPTNeoForCausalLM",),
    spec=spec,
    prefix="transformer.",
    weights={
        "token_embedding": "transformer.wte.weight",
        "position_embedding": "transformer.wpe.weight",
        "attention_norm": "transformer.h.{i}.ln_1.weight",
        "query": "transformer.h.{i}.attn.attention.q_proj.weight",
        "key": "transformer.h.{i}.attn.attention.k_proj.weight",
        "value": "transformer.h.{i}.attn.attention.v_proj.weight",
        "attention_output": "transformer.h.{i}.attn.attention.out_proj.weight",
        "mlp_norm": "transformer.h.{i}.ln_2.weight",
        "mlp_up": "transformer.h.{i}.mlp.c_fc.weight",
        "mlp_down": "transformer.h.{i}.mlp.c_proj.weight",
        "final_norm": "transformer.ln_f.weight",
        "head": "lm_head.weight",
    },
    ignored=r".*\.attn\.attention\.(bias|masked_bias)",
)
