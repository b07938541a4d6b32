"""GPT-2: learned positions, LayerNorm, GELU, fused query-key-value weights stored as [inputs, outputs]."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Cut, Family, Gguf, Weights
from .gguf_names import FUSED_QKV, TENSORS
from .parts import ACTIVATIONS, divided, tied_head


def spec(config: Config, weights: Weights) -> ModelSpec:
    hidden, heads, positions = config.integer("n_embd"), config.integer("n_head"), config.integer("n_positions")
    head_dim = divided(config, "n_embd", "n_head")
    norm = core.NormSpec(kind=core.NormKind.layer_norm, eps=config.number("layer_norm_epsilon", 1e-5), bias=True)
    scale = head_dim**-0.5 if config.flag("scale_attn_weights", True) else 1.0
    scale_by_layer = config.flag("scale_attn_by_inverse_layer_idx", False)
    mlp = core.MlpSpec(
        intermediate=config.integer("n_inner", 4 * hidden),
        activation=config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        up_bias=True,
        down_bias=True,
    )
    config.ignore("n_ctx", "reorder_and_upcast_attn")  # the scores are formed in fp32 anyway

    def layer(index: int) -> core.LayerSpec:
        attention = core.AttentionSpec(
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            scale=scale / (index + 1) if scale_by_layer else scale,
            qkv_bias=True,
            output_bias=True,
        )
        return core.LayerSpec(
            residual=core.Residual.sequential, attention_norm=norm, attention=attention, mlp_norm=norm, mlp=mlp
        )

    return ModelSpec(
        family="gpt2",
        vocab=config.integer("vocab_size"),
        hidden=hidden,
        max_positions=positions,
        embedding=core.EmbeddingSpec(positions=core.PositionKind.learned, position_rows=positions),
        layers=[layer(index) for index in range(config.layers("n_layer"))],
        head=core.HeadSpec(norm=norm, tied=tied_head(config, weights, default=True)),
    )


FAMILY = Family(
    name="gpt2",
    architectures=("GPT2LMHeadModel",),
    spec=spec,
    prefix="transformer.",
    weights={
        "token_embedding": "transformer.wte.weight",
        "position_embedding": "transformer.wpe.weight",
        "attention_norm": "transformer.h.{i}.ln_1.weight",
        "query": Cut("transformer.h.{i}.attn.c_attn.weight", part=0, parts=3, transposed=True),
        "key": Cut("transformer.h.{i}.attn.c_attn.weight", part=1, parts=3, transposed=True),
        "value": Cut("transformer.h.{i}.attn.c_attn.weight", part=2, parts=3, transposed=True),
        "attention_output": Cut("transformer.h.{i}.attn.c_proj.weight", transposed=True),
        "mlp_norm": "transformer.h.{i}.ln_2.weight",
        "mlp_up": Cut("transformer.h.{i}.mlp.c_fc.weight", transposed=True),
        "mlp_down": Cut("transformer.h.{i}.mlp.c_proj.weight", transposed=True),
        "final_norm": "transformer.ln_f.weight",
        "head": "lm_head.weight",
    },
    ignored=r".*\.attn\.(bias|masked_bias)",
    gguf=Gguf(
        architecture="gpt2",
        fields={
            "n_embd": "embedding_length",
            "n_layer": "block_count",
            "n_head": "attention.head_count",
            "n_inner": "feed_forward_length",
            "n_positions": "context_length",
            "layer_norm_epsilon": "attention.layer_norm_epsilon",
        },
        constants={"activation_function": "gelu_new", "tie_word_embeddings": True},
        weights=TENSORS | FUSED_QKV,
    ),
)
