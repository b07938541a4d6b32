"""Packed stores that tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lamella
import tiny_tokenizers
from lamella import _core
from random_models import draw


def write_packable_model(seed: int, folder: Path) -> None:
    """A random model with a tokenizer and files of all kinds beside its weights."""
    heads = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    draw("llama", seed, folder, vocab_size=330, rope_parameters=None, **heads)
    tiny_tokenizers.byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages[0].content }}"}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2], "do_sample": true, "top_k": 7}')
    for name in ("README.md", "pytorch_model.bin", "modeling_custom.py", "optimizer.pt"):
        (folder / name).write_bytes(b"not for a store")


def same_logits(model: Path, store: Path, **options: Any) -> None:
    """An engine of the store gives bit for bit what an engine of the model with those options gives."""
    ids = [5, 80, 7, 33, 2, 71, 64]
    with lamella.Engine(model, **options) as expected, lamella.Engine(store) as found:
        assert found.logits(ids)[0].tobytes() == expected.logits(ids)[0].tobytes()


def sound(store: Path) -> _core.PackedStore:
    """The store, every byte of it checked."""
    opened = _core.open_store(store)
    opened.verify()
    return opened


def names_in(folder: Path) -> set[str]:
    """The names of what a folder holds."""
    return {path.name for path in folder.iterdir()}
