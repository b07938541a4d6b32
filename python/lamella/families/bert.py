"""BERT and the sentence encoders made from it: bidirectional attention, norms after the residual, token types."""

from __future__ import annotations

from lamella import _core as core
from lamella._core import ModelSpec

from .config import Config
from .family import Family, Gguf, Weights
from .gguf_names import FIELDS, TENSORS
from .parts import ACTIVATIONS, divided


def spec(config: Config, weights: Weights) -> ModelSpec:
    heads, positions = config.integer("num_attention_heads"), config.integer("max_position_embeddings")
    head_dim = divided(config, "hidden_size", "num_attention_heads")
    norm = core.NormSpec(kind=core.NormKind.layer_norm, eps=config.number("layer_norm_eps", 1e-12), bias=True)
    config.only("position_embedding_type", "absolute")
    config.only("is_decoder", False)
    config.ignore("tie_word_embeddings")  # about the masked-language head, which is not run
    layer = core.LayerSpec(
        residual=core.Residual.post_norm,
        attention_norm=norm,
        attention=core.AttentionSpec(
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            causal=False,
            qkv_bias=True,
            output_bias=True,
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
        family="bert",
        vocab=config.integer("vocab_size"),
        hidden=config.integer("hidden_size"),
        max_positions=positions,
        embedding=core.EmbeddingSpec(
            positions=core.PositionKind.learned,
            position_rows=positions,
            token_types=config.integer("type_vocab_size", 2, low=0),
            norm=norm,
        ),
        layers=[layer] * config.layers("num_hidden_layers"),
        head=core.HeadSpec(kind=core.HeadKind.hidden, pooler=weights.has("pooler")),
    )


FAMILY = Family(
    name="bert",
    architectures=("BertModel", "BertForMaskedLM", "BertForPreTraining"),
    spec=spec,
    prefix="bert.",
    weights={
        "token_embedding": "bert.embeddings.word_embeddings.weight",
        "position_embedding": "bert.embeddings.position_embeddings.weight",
        "type_embedding": "bert.embeddings.token_type_embeddings.weight",
        "embedding_norm": "bert.embeddings.LayerNorm.weight",
        "query": "bert.encoder.layer.{i}.attention.self.query.weight",
        "key": "bert.encoder.layer.{i}.attention.self.key.weight",
        "value": "bert.encoder.layer.{i}.attention.self.value.weight",
        "attention_output": "bert.encoder.layer.{i}.attention.output.dense.weight",
        "attention_norm": "bert.encoder.layer.{i}.attention.output.LayerNorm.weight",
        "mlp_up": "bert.encoder.layer.{i}.intermediate.dense.weight",
        "mlp_down": "bert.encoder.layer.{i}.output.dense.weight",
        "mlp_norm": "bert.encoder.layer.{i}.output.LayerNorm.weight",
        "pooler": "bert.pooler.dense.weight",
    },
    ignored=r"(bert\.)?embeddings\.(position_ids|token_type_ids)|cls\..*",
    renamed={"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"},
    gguf=Gguf(
        architecture="bert",
        fields={**FIELDS, "layer_norm_eps": "attention.layer_norm_epsilon"},
        constants={"hidden_act": "gelu"},
        ignored_keys=("attention.causal", "pooling_type"),
        weights=TENSORS
        | {"attention_norm": "blk.{i}.attn_output_norm.weight", "mlp_norm": "blk.{i}.layer_output_norm.weight"},
    ),
)
