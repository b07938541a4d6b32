"""What a family file declares: how a checkpoint's config and tensor names become a ModelSpec and a load recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from lamella._core import ModelSpec

from .config import Config


@dataclass(frozen=True)
class Cut:
    """A weight that is part of a fused tensor or stored in another order (cpp/model/load_recipe.h).

    The tensor's rows are [groups][parts][rows of a part]; `part` picks one. `per_head` makes every head a group.
    """

    tensor: str
    part: int = 0
    parts: int = 1
    per_head: bool = False
    transposed: bool = False
    rotary_pairs: bool = False


Where = str | Cut


@dataclass(frozen=True)
class Gguf:
    """How llama.cpp's converter writes this family.

    `fields` maps config fields to metadata keys under the architecture's name; `constants` are config fields that the
    format does not store; `present` are config flags that say whether a weight exists.
    """

    architecture: str
    fields: Mapping[str, str]
    weights: Mapping[str, Where]
    constants: Mapping[str, object] = field(default_factory=dict)
    present: Mapping[str, str] = field(default_factory=dict)
    ignored_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One model family. `weights` maps slots (weights.h) to tensor names with `{i}` for the layer; a slot `x_bias` that
    is not listed is slot x's name with ".bias" for ".weight". Slots of an expert are listed as "experts.x", with `{e}`
    for the expert. Names may lack `prefix`, as in a bare model's checkpoint.
    """

    name: str
    architectures: tuple[str, ...]
    spec: Callable[[Config, Weights], ModelSpec]
    weights: Mapping[str, Where]
    gguf: Gguf | None = None  # None: llama.cpp has no such architecture, or calls it another family's
    prefix: str = ""
    ignored: str = r"(?!)"  # tensors that are no weights: buffers of old checkpoints, heads that are not run
    renamed: Mapping[str, str] = field(default_factory=dict)  # endings of canonical names -> of old checkpoints' names


class Weights:
    """Which tensor of a checkpoint holds a canonical weight such as "layers.3.query_bias"."""

    def __init__(
        self, where: Mapping[str, Where], names: Collection[str], prefix: str, renamed: Mapping[str, str]
    ) -> None:
        self._where = where
        self._names = frozenset(names)
        self._renamed = renamed
        self._dropped = prefix if prefix and not any(name.startswith(prefix) for name in names) else ""

    def find(self, weight: str) -> Cut | None:
        """Where `weight` should be, or None when the family has no such weight. The tensor may still be absent."""
        match = re.fullmatch(r"(?:layers\.(\d+)\.)?(?:experts\.(\d+)\.)?(\w+)", weight)
        assert match is not None, weight
        layer, expert, slot = match.groups()
        if expert is not None:
            slot = f"experts.{slot}"
        where = self._where.get(slot)
        if where is None and slot.endswith("_bias"):
            where = _bias_of(self._where.get(slot.removesuffix("_bias")))
        if where is None:
            return None
        cut = Cut(where) if isinstance(where, str) else where
        name = cut.tensor.replace("{i}", layer or "").replace("{e}", expert or "").removeprefix(self._dropped)
        return replace(cut, tensor=self._stored(name))

    def has(self, weight: str) -> bool:
        """Whether the checkpoint holds `weight`."""
        cut = self.find(weight)
        return cut is not None and cut.tensor in self._names

    def _stored(self, name: str) -> str:
        if name not in self._names:
            for ending, old in self._renamed.items():
                if name.endswith(ending) and (older := name.removesuffix(ending) + old) in self._names:
                    return older
        return name


def _bias_of(where: Where | None) -> Where | None:
    if where is None:
        return None
    if isinstance(where, str):
        return where.replace(".weight", ".bias")
    return Cut(
        where.tensor.replace(".weight", ".bias"), where.part, where.parts, where.per_head, False, where.rotary_pairs
    )
