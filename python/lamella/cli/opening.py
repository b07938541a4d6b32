"""From MODEL or `--shape` to a spec or an engine."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella import _core
from lamella.engine import Engine
from lamella.engine_options import EngineOptions

from .options import engine_keywords

if TYPE_CHECKING:
    from lamella.checkpoint import Checkpoint

_FORMATS = ("dtype", "kv_cache_dtype", "quantization", "smoothing", "quantize_head")


@dataclass(frozen=True)
class Named:
    """What a command line names: a model whose weights were not read yet, or a shape."""

    name: str
    spec: _core.ModelSpec
    dtype: _core.DataType
    formats: list[_core.WeightFormat]  # one a declared weight
    kv_cache_dtype: _core.DataType | None  # None: the dtype
    choices: list[_core.FormatChoice]  # of a model: what becomes of each weight; a shape has none
    checkpoint: Checkpoint | None = None  # of a model

    @property
    def is_encoder(self) -> bool:
        """Whether the model embeds instead of generating."""
        return bool(self.spec.head.kind == _core.HeadKind.hidden)


def named(args: argparse.Namespace) -> Named:
    """The spec of MODEL or `--shape`, the dtype and the formats that an engine would use.

    Errors: those of opening the files and of the options.
    """
    options = EngineOptions(**{name: value for name in _FORMATS if (value := getattr(args, name, None)) is not None})
    if args.model is not None:
        from lamella.checkpoint import open_model

        checkpoint = open_model(args.model)
        dtype = checkpoint.weights.resolved_dtype(options.dtype)
        choices = checkpoint.weights.choose_formats(options.format_options(dtype))
        formats = [choice.format for choice in choices]
        return Named(args.model, checkpoint.spec, dtype, formats, options.resolved_kv_cache_dtype, choices, checkpoint)
    from lamella.shapes import spec_for_shape

    spec, dtype = spec_for_shape(args.shape), options.resolved_dtype("bfloat16")
    formats = _core.choose_formats_for_shape(spec, options.format_options(dtype))
    return Named(args.shape, spec, dtype, formats, options.resolved_kv_cache_dtype, [])


def open_engine(args: argparse.Namespace, spec: _core.ModelSpec | None = None, **defaults: Any) -> Engine:
    """The engine for MODEL, or for `spec` with random weights where `--shape` named it.

    `defaults` are the keyword arguments that the command would choose; options of the command line win.
    """
    keywords = {**defaults, **engine_keywords(args)}
    if args.model is not None:
        return Engine(args.model, **keywords)
    assert spec is not None
    return Engine.random(spec, **keywords)


def measured_bandwidth(threads: int, at_least: int = 0) -> float | None:
    """Bytes/s that `threads` threads read from memory; None where too little of it is free, or less than `at_least`."""
    return _core.measure_read_bandwidth(threads) if _core.bandwidth_buffer() >= at_least else None
