"""GPT-NeoX and Pythia: rotary positions on part of each head, attention and MLP side by side, fused query-key-value."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Cut, Family, Gguf, Weights
from .gguf_names import FIELDS, FUSED_QKV, TENSORS
from .parts import ACTIVATIONS, context_length, divided, rope, tied_head


def spec(config: Config, weights: Weights) -> ModelSpec:
    heads = config.integer("num_attention_heads")
    head_dim = divided(config, "hidden_size", "num_attention_heads")
    norm = core.NormSpec(kind=core.NormKind.layer_norm, eps=config.number("layer_norm_eps", 1e-5), bias=True)
    bias = config.flag("attention_bias", True)
    theta, fraction = config.number("rotary_emb_base", 10000.0), config.number("rotary_pct", 0.25)
    positions = rope(config, head_dim, theta, fraction)
    config.only("rope_theta", theta)  # transformers' second spellings; it goes by the first
    config.only("partial_rotary_factor", fraction)
    config.ignore("is_decoder")
    layer = core.LayerSpec(
        residual=core.Residual.parallel if config.flag("use_parallel_residual", True) else core.Residual.sequential,
        attention_norm=norm,
        attention=core.AttentionSpec(
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            qkv_bias=bias,
            output_bias=bias,
            rope=positions,
        ),
        mlp_norm=norm,
        mlp=core.MlpSpec(
            intermediate=config.integer("intermediate_size"),
            activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
            up_bias=True,
            down_bias=True,
        ),
    )
    return ModelSpec(
        family="gpt_neox",
        vocab=config.integer("vocab_size"),
        hidden=config.integer("hidden_size"),
        max_positions=context_length(config, positions),
        embedding=core.EmbeddingSpec(positions=core.PositionKind.rotary),
        layers=[layer] * config.layers("num_hidden_layers"),
        head=core.HeadSpec(norm=norm, tied=tied_head(config, weights, default=False)),
    )


FAMILY = Family(
    name="gpt_neox",
    architectures=("GPTNeoXForCausalLM",),
    spec=spec,
    prefix="gpt_neox.",
    weights={
        "token_embedding": "gpt_neox.embed_in.weight",
        "attention_norm": "gpt_neox.layers.{i}.input_layernorm.weight",
        "query": Cut("gpt_neox.layers.{i}.attention.query_key_value.weight", part=0, parts=3, per_head=True),
        "key": Cut("gpt_neox.layers.{i}.attention.query_key_value.weight", part=1, parts=3, per_head=True),
        "value": Cut("gpt_neox.layers.{i}.attention.query_key_value.weight", part=2, parts=3, per_head=True),
        "attention_output": "gpt_neox.layers.{i}.attention.dense.weight",
        "mlp_norm": "gpt_neox.layers.{i}.post_attention_layernorm.weight",
        "mlp_up": "gpt_neox.layers.{i}.mlp.dense_h_to_4h.weight",
        "mlp_down": "gpt_neox.layers.{i}.mlp.dense_4h_to_h.weight",
        "final_norm": "gpt_neox.final_layer_norm.weight",
        "head": "embed_out.weight",
    },
    ignored=r".*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
    renamed={"embed_out.weight": "lm_head.weight"},
    gguf=Gguf(
        architecture="gptneox",
        fields={
            **FIELDS,
            "layer_norm_eps": "attention.layer_norm_epsilon",
            "use_parallel_residual": "use_parallel_residual",
        },
        constants={"hidden_act": "gelu", "tie_word_embeddings": True},
        present={"attention_bias": "layers.0.query_bias"},
        weights=TENSORS | FUSED_QKV,  # the converter has put the heads' queries, keys and values one after another
    ),
)
