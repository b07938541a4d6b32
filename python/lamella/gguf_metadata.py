"""GGUF metadata, read as untrusted: typed access, and what a family file would have found in a config.json."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from ._core import TensorTable
from .errors import CheckpointError
from .families import Config, Gguf, Weights

_Value = TypeVar("_Value")
_ROPE_FACTORS = "rope_freqs.weight"


class GgufMetadata:
    """The key-values of a GGUF file. Getters return None for an absent key; a wrong type is a `CheckpointError`."""

    def __init__(self, values: dict[str, Any], source: str) -> None:
        self.values = values
        self.source = source

    def text(self, key: str) -> str | None:
        """A string."""
        return self._typed(key, str, "text")

    def flag(self, key: str) -> bool | None:
        """A boolean."""
        return self._typed(key, bool, "a boolean")

    def integer(self, key: str) -> int | None:
        """An integer of any width."""
        return self._typed(key, int, "an integer")

    def texts(self, key: str) -> list[str] | None:
        """An array of strings that are valid UTF-8."""
        return self._array(key, str)

    def integers(self, key: str) -> list[int] | None:
        """An array of integers."""
        return self._array(key, int)

    def floats(self, key: str) -> list[float] | None:
        """An array of finite floats."""
        values = self._array(key, float)
        if values is not None and not all(map(math.isfinite, values)):
            raise CheckpointError(f"{self.source}: {key}: expected finite numbers")
        return values

    def section(self, name: str) -> dict[str, Any]:
        """The keys under `name.`, without that prefix."""
        return {key.removeprefix(name + "."): value for key, value in self.values.items() if key.startswith(name + ".")}

    def _typed(self, key: str, kind: type[_Value], what: str) -> _Value | None:
        value = self.values.get(key)
        if value is None or type(value) is kind:  # exactly: a bool is no integer here
            return value
        raise CheckpointError(f"{self.source}: {key} is {repr(value)[:64]}, expected {what}")

    def _array(self, key: str, kind: type[_Value]) -> list[_Value] | None:
        value = self._typed(key, list, "an array")
        for element in value or ():
            if type(element) is not kind:
                found = repr(element)[:64]
                raise CheckpointError(f"{self.source}: {key} holds {found}, expected {kind.__name__} elements")
        return value


def config_of(metadata: GgufMetadata, gguf: Gguf, weights: Weights, tensors: TensorTable) -> Config:
    """The family's config as this file says it. A key of the architecture that nobody reads is UNSUPPORTED_MODEL."""
    path = gguf.architecture + "."
    keys = Config(metadata.section(gguf.architecture), metadata.source, path)
    fields: dict[str, Any] = dict(gguf.constants)
    fields |= {name: keys.take(key) for name, key in gguf.fields.items()}  # absent is null, never a family's default
    fields |= {flag: weights.has(weight) for flag, weight in gguf.present.items()}
    fields["vocab_size"] = _rows(tensors, "token_embd.weight", metadata.source)
    if "token_types.weight" in tensors:
        fields["type_vocab_size"] = _rows(tensors, "token_types.weight", metadata.source)
    keys.expect("vocab_size", fields["vocab_size"])
    head_dim = _head_dim(keys)
    keys.expect("attention.value_length", head_dim)
    if rope := _rope(keys, head_dim, tensors):
        fields["rope_parameters"] = rope
    keys.only("expert_count", 0)
    keys.only("expert_used_count", 0)
    keys.ignore(*gguf.ignored_keys)
    keys.refuse_unread()
    return Config(fields, metadata.source, called={name: path + key for name, key in gguf.fields.items()})


def _head_dim(keys: Config) -> int:
    if keys.has("attention.key_length"):
        return keys.integer("attention.key_length")
    return max(keys.integer("embedding_length") // keys.integer("attention.head_count"), 1)


def _rope(keys: Config, head_dim: int, tensors: TensorTable) -> dict[str, Any]:
    """`rope_parameters` as config.json would have them; {} where the file says nothing of rotary positions."""
    rope: dict[str, Any] = {}
    if keys.has("rope.freq_base"):
        rope["rope_theta"] = keys.number("rope.freq_base")
    if keys.has("rope.dimension_count"):
        rotary_dim = keys.integer("rope.dimension_count", high=head_dim)
        rope["partial_rotary_factor"] = 1.0 if rotary_dim == head_dim else math.nextafter(rotary_dim / head_dim, 1.0)
    kind = keys.choice("rope.scaling.type", {"none": None, "linear": "linear", "yarn": "yarn"}, "none")
    if kind is not None:
        rope |= {"rope_type": kind, "factor": keys.number("rope.scaling.factor")}
        if keys.has("rope.scaling.original_context_length"):
            rope["original_max_position_embeddings"] = keys.integer("rope.scaling.original_context_length")
        keys.ignore("rope.scaling.finetuned")
    if _ROPE_FACTORS in tensors:  # llama3's scaling, already worked out: one divisor a frequency, whatever the length
        if tensors.entry(_ROPE_FACTORS)[1] != (head_dim // 2,):
            raise CheckpointError(f"{keys.source}: {_ROPE_FACTORS}: expected shape [{head_dim // 2}]")
        divisors = tensors.read_f32(_ROPE_FACTORS).tolist()
        rope |= {"rope_type": "longrope", "short_factor": divisors, "long_factor": divisors, "factor": 1.0}
    return rope


def _rows(tensors: TensorTable, name: str, source: str) -> int:
    if name not in tensors:
        raise CheckpointError(f"{source}: {name}: missing")
    shape = tensors.entry(name)[1]
    return shape[0] if shape else 0
