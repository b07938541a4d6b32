"""Where an opened model's weights come from: the tensors of a checkpoint, or a packed store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import _core
from .engine_options import resolve_dtype
from .errors import InvalidArgumentError
from .progress import Progress


class ModelWeights(Protocol):
    """What an engine and `lamella info` ask of weights, wherever they come from."""

    def resolved_dtype(self, dtype: str) -> _core.DataType:
        """The dtype of an engine whose option says `dtype`; the weights decide what "auto" means."""

    def choose_formats(self, options: _core.FormatOptions) -> list[_core.FormatChoice]:
        """What becomes of each declared weight in an engine of those options."""

    def open_engine(
        self, config: _core.EngineConfig, threads: int, kernels: str | None, progress: Progress | None
    ) -> _core.Engine:
        """An engine of that configuration, whose formats are those chosen, with the weights loaded."""

    def stored(self) -> dict[str, tuple[int, int]]:
        """By type in the files: tensors and their bytes."""

    @property
    def files(self) -> list[Path]:
        """The files that hold the weights."""


@dataclass(frozen=True)
class TensorWeights:
    """The tensors of a checkpoint, packed for each engine anew. `stored_dtype` is the type of most weight bytes:
    "float32", "bfloat16", "float16", "q4_1"...

    `tensors` keeps the files open for as long as someone holds it.
    """

    spec: _core.ModelSpec
    recipe: list[_core.WeightSource]
    tensors: _core.TensorTable
    stored_dtype: str

    def resolved_dtype(self, dtype: str) -> _core.DataType:
        return resolve_dtype(dtype, self.stored_dtype)

    def choose_formats(self, options: _core.FormatOptions) -> list[_core.FormatChoice]:
        return _core.choose_formats(self.spec, self.recipe, self.tensors, options)

    def open_engine(
        self, config: _core.EngineConfig, threads: int, kernels: str | None, progress: Progress | None
    ) -> _core.Engine:
        return _core.open_engine(self.spec, self.recipe, self.tensors, config, threads, kernels, progress)

    def stored(self) -> dict[str, tuple[int, int]]:
        entries = [self.tensors.entry(name) for name in self.tensors.names()]
        return _summed([(kind, size) for kind, _, _, _, size in entries])

    @property
    def files(self) -> list[Path]:
        return sorted({Path(self.tensors.entry(source.tensor)[2]) for source in self.recipe})


@dataclass(frozen=True)
class StoreWeights:
    """A packed store: its weights keep the formats that they were packed in."""

    store: _core.PackedStore

    def resolved_dtype(self, dtype: str) -> _core.DataType:
        """Any: the kernels take every format with every dtype of activations. "auto" is what it was packed for."""
        return self.store.dtype if dtype == "auto" else resolve_dtype(dtype, "")

    def choose_formats(self, options: _core.FormatOptions) -> list[_core.FormatChoice]:
        """Errors: `InvalidArgumentError` for a preset."""
        preset = options.quantization
        if preset != "none":
            origin = self.store.source.get("model", "the model")[:256]
            raise InvalidArgumentError(
                f"quantization is {preset!r}, but {self.store.path} is a packed store, whose weights stay "
                f"{_listed(list(self.stored()))}: leave quantization out, or pack {origin!r} once more: "
                f"lamella pack MODEL OUT --quantization {preset}"
            )
        return self.store.formats()

    def open_engine(
        self, config: _core.EngineConfig, threads: int, kernels: str | None, progress: Progress | None
    ) -> _core.Engine:
        return _core.open_store_engine(self.store, config, threads, kernels, progress)

    def stored(self) -> dict[str, tuple[int, int]]:
        return _summed([(str(weight.format), weight.bytes) for weight in self.store.formats()])

    @property
    def files(self) -> list[Path]:
        return [self.store.path]


def _summed(sizes: list[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """(kind, bytes) of many tensors as kind: (tensors, bytes), by kind."""
    counts, totals = Counter[str](), Counter[str]()
    for kind, size in sizes:
        counts[kind] += 1
        totals[kind] += size
    return {kind: (counts[kind], totals[kind]) for kind in sorted(counts)}


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
