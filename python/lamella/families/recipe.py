"""From a family's tensor names and a ModelSpec to the load recipe, checked against what the checkpoint holds."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Protocol

from lamella._core import AttentionSpec, ModelSpec, WeightDeclaration, WeightSource, declare_weights
from lamella.errors import CheckpointError

from .family import Cut, Weights

_log = logging.getLogger("lamella")
_SHOWN = 10


class Tensors(Protocol):
    """What a recipe needs to know of a TensorTable."""

    def names(self) -> list[str]: ...
    def entry(self, name: str) -> tuple[str, tuple[int, ...], str, int, int]: ...


@dataclass(frozen=True)
class Recipe:
    """One source per weight, and the element type that most of the weights' bytes have ("F32", "BF16", "Q4_1", ...)."""

    sources: list[WeightSource]
    stored_type: str


def build_recipe(spec: ModelSpec, weights: Weights, tensors: Tensors, ignored: str, source: str) -> Recipe:
    """The sources of every weight that `spec` declares.

    Errors: `CheckpointError` that lists the first ten tensors that are missing or have another shape than the spec asks
    for. Tensors that nobody asked for and `ignored` (a pattern) does not match are listed in one warning.
    """
    names = set(tensors.names())
    layers = spec.layers
    sources: list[WeightSource] = []
    problems: list[str] = []
    types: dict[str, int] = {}
    for declared in declare_weights(spec):
        cut = weights.find(declared.name)
        if declared.slot == "token_embedding" and spec.head.tied and not weights.has("token_embedding"):
            cut = weights.find("head")  # some checkpoints keep the tied weight under the head's name only
        if cut is None or cut.tensor not in names:
            problems.append(f"{cut.tensor if cut else declared.name}: missing")
            continue
        stored, found, _, _, size = tensors.entry(cut.tensor)
        types[stored] = types.get(stored, 0) + size // cut.parts
        if (expected := _stored_shape(declared, cut)) != found:
            problems.append(f"{cut.tensor}: expected shape {list(expected)}, found {list(found)}")
            continue
        sources.append(_source(declared, cut, layers[declared.layer].attention))
    if problems:
        raise CheckpointError(f"{source}: {len(problems)} tensors do not fit the config: {_listed(problems)}")
    _warn_of_unused(names - {s.tensor for s in sources}, ignored, source)
    return Recipe(sources, max(types, key=lambda name: types[name]))


def _stored_shape(declared: WeightDeclaration, cut: Cut) -> tuple[int, ...]:
    if declared.slot.endswith(("_bias", "_norm")):
        return (declared.columns * cut.parts,)
    rows = declared.rows * cut.parts
    return (declared.columns, rows) if cut.transposed else (rows, declared.columns)


def _source(declared: WeightDeclaration, cut: Cut, attention: AttentionSpec) -> WeightSource:
    heads = attention.heads if declared.slot.startswith("query") else attention.kv_heads
    return WeightSource(
        weight=declared.name,
        tensor=cut.tensor,
        transposed=cut.transposed,
        groups=heads if cut.per_head else 1,
        parts=cut.parts,
        part=cut.part,
        rotary_pair_heads=heads if cut.rotary_pairs else 0,
    )


def _warn_of_unused(names: set[str], ignored: str, source: str) -> None:
    unused = sorted(name for name in names if not re.fullmatch(ignored, name))
    if unused:
        _log.warning("%s: %d tensors are not used: %s", source, len(unused), _listed(unused))


def _listed(items: list[str]) -> str:
    more = f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(item[:256] for item in items[:_SHOWN]) + more
