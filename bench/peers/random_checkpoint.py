"""A Hugging Face folder with random bf16 weights for a shape of `lamella.shapes`, made without torch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from lamella import _core
from lamella.families import Weights
from lamella.shapes import SHAPES, spec_for_shape

_DRAWN_AT_ONCE = 1 << 24  # values


def write_checkpoint(shape: str, folder: Path) -> None:
    """Writes config.json and model.safetensors, which stand whole in `folder` when it is there. It works on ids."""
    growing = folder.with_name("growing-" + folder.name)
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    family = SHAPES[shape].family
    config = {
        "architectures": [family.architectures[0]],
        "model_type": family.name,
        "dtype": "bfloat16",
        **SHAPES[shape].config,
    }
    (growing / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    with (growing / "model.safetensors").open("wb") as stream:
        _write_safetensors(tensors_of(shape), stream)
    growing.rename(folder)


def tensors_of(shape: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint by name, with their sizes as transformers stores them: fused ones whole."""
    names = Weights(SHAPES[shape].family.weights, (), "", {})
    tensors: dict[str, tuple[int, ...]] = {}
    for weight in _core.declare_weights(spec_for_shape(shape)):
        cut = names.find(weight.name)
        assert cut is not None, weight.name
        rows = (weight.rows * cut.parts, weight.columns)
        is_vector = weight.rows == 1
        tensors[cut.tensor] = (weight.columns * cut.parts,) if is_vector else rows[::-1] if cut.transposed else rows
    return tensors


def _write_safetensors(tensors: Mapping[str, tuple[int, ...]], stream: BinaryIO) -> None:
    header, end = {}, 0
    for name, sizes in tensors.items():
        begin, end = end, end + 2 * math.prod(sizes)
        header[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    draw = np.random.default_rng(0)
    for left in range(end // 2, 0, -_DRAWN_AT_ONCE):
        bits = draw.integers(0, 1 << 16, min(left, _DRAWN_AT_ONCE), np.uint16)
        stream.write((bits & 0x80FF | 0x3C00).astype("<u2").tobytes())  # either sign, 2^-7 to 2^-5
