"""Models known by their dimensions only, for plans, benchmarks and explanations without a checkpoint (`--shape NAME`).

The GPT dimensions are those of the paper's Tables I and II. A shape is a family and a config, so it needs no code of
its own. Table II leaves out the heads: they are of 128 here, as in GPT-3's large models. Its numbers of layers of the
8B and the 24B models stand in each other's row: only exchanged, as here, do they give the sizes beside them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._core import ModelSpec, validate
from .config_json import MAX_BYTES, parse_object
from .errors import InvalidArgumentError
from .families import Config, Family, Weights, bert, family_of_config, gpt2, gpt_neo, gpt_neox, llama
from .families import gpt_moe as paper_moe
from .model_folder import ModelFolder


@dataclass(frozen=True)
class Shape:
    """A family, the config fields that differ from its defaults, and optional tensors that the model has."""

    family: Family
    config: dict[str, Any]
    tensors: Collection[str] = field(default_factory=tuple)


def _gpt(layers: int, hidden: int, heads: int, positions: int = 2048, vocab: int = 50257) -> Shape:
    return Shape(
        gpt2.FAMILY,
        {"n_layer": layers, "n_embd": hidden, "n_head": heads, "n_positions": positions, "vocab_size": vocab},
    )


def _gpt_moe(layers: int, hidden: int) -> Shape:
    base = _gpt(layers, hidden, hidden // 128)
    return Shape(paper_moe.FAMILY, {**base.config, "num_experts": 128})


def _bert(layers: int, token_types: int, tensors: tuple[str, ...] = ()) -> Shape:
    sizes = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512}
    return Shape(
        bert.FAMILY,
        {**sizes, "vocab_size": 30522, "num_hidden_layers": layers, "type_vocab_size": token_types},
        tensors,
    )


SHAPES: dict[str, Shape] = {
    "gpt2-xl": _gpt(48, 1600, 25, positions=1024),
    "gpt-neo-2.7b": Shape(
        gpt_neo.FAMILY,
        {
            "num_layers": 32,
            "hidden_size": 2560,
            "num_heads": 20,
            "attention_types": [[["global", "local"], 16]],
            "window_size": 256,
            "vocab_size": 50257,
            "max_position_embeddings": 2048,
        },
    ),
    "gpt-13b": _gpt(40, 5120, 40),
    "gpt-neox-20b": Shape(
        gpt_neox.FAMILY,
        {
            "num_hidden_layers": 44,
            "hidden_size": 6144,
            "num_attention_heads": 64,
            "intermediate_size": 24576,
            "hidden_act": "gelu_fast",
            "vocab_size": 50432,
            "max_position_embeddings": 2048,
            "rotary_pct": 0.25,
        },
    ),
    "gpt-50b": _gpt(62, 8192, 64),
    "gpt-87b": _gpt(48, 12288, 96),
    "lm-175b": _gpt(96, 12288, 96),
    "lm-530b": _gpt(105, 20480, 128),
    "moe-1.3b-128": _gpt_moe(24, 2048),
    "moe-2.4b-128": _gpt_moe(16, 3584),
    "moe-8b-128": _gpt_moe(40, 4096),
    "moe-24b-128": _gpt_moe(30, 8192),
    "moe-47b-128": _gpt_moe(58, 8192),
    "llama-3.2-1b": Shape(
        llama.FAMILY,
        {
            "num_hidden_layers": 16,
            "hidden_size": 2048,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 8192,
            "rms_norm_eps": 1e-5,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "bert-base": _bert(12, token_types=2, tensors=("bert.pooler.dense.weight",)),
    "distilbert": _bert(6, token_types=0),
}


def spec_for_shape(name: str) -> ModelSpec:
    """The spec of a shape in `SHAPES`, or of a config.json (a path to it or to its folder).

    Errors: `InvalidArgumentError` for another name, `CheckpointError` for a config that is not valid or not supported.
    """
    if name in SHAPES:
        shape, source = SHAPES[name], f"shape {name}"
        config = Config(shape.config, source)
        return _validated(shape.family, config, shape.tensors)
    path = Path(name).expanduser()
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        fields = parse_object(ModelFolder(path.parent).read(path.name, MAX_BYTES), str(path))
        config = Config(fields, str(path))
        config.ignore_bookkeeping()
        return _validated(family_of_config(fields, str(path)), config, ())
    nearest = difflib.get_close_matches(name, SHAPES, n=1, cutoff=0.0)
    raise InvalidArgumentError(
        f"shape {name[:80]!r} is neither a known name nor a config.json; did you mean {nearest[0]!r}? "
        f"Known: {', '.join(SHAPES)}"
    )


def _validated(family: Family, config: Config, tensors: Collection[str]) -> ModelSpec:
    spec = family.spec(config, Weights(family.weights, tensors, "", {}))
    config.refuse_unread()
    validate(spec)
    return spec
