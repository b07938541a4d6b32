"""Expansion of stored blocks to fp32 against the packages that define the formats, bit for bit, on random bytes."""

from __future__ import annotations

import json
from pathlib import Path

import lamella
import numpy as np
import pytest
import torch
from corrupt_files import gguf, gguf_tensor, safetensors
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from lamella import _core

SEED = 20261121


def dequantisable() -> list[GGMLQuantizationType]:
    """Every type that the package gguf turns into fp32; asked of the package, so that no new one is passed over."""
    kinds = []
    for kind in GGMLQuantizationType:
        try:
            dequantize(np.zeros(GGML_QUANT_SIZES[kind][1], dtype=np.uint8), kind)
        except NotImplementedError:
            continue
        kinds.append(kind)
    return kinds


DEQUANTISABLE = dequantisable()
OTHERS = [kind for kind in GGMLQuantizationType if kind not in DEQUANTISABLE]


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal shapes and bits; a NaN need only be one (random scales are NaN in one block of sixteen or so)."""
    equal = found.view(np.uint32) == expected.view(np.uint32)
    return found.shape == expected.shape and bool((equal | (np.isnan(found) & np.isnan(expected))).all())


def ggml_file(path: Path, kind: GGMLQuantizationType, stored: np.ndarray) -> Path:
    """A GGUF file of one tensor "w" with those rows of bytes."""
    elements, size = GGML_QUANT_SIZES[kind]
    rows, row_bytes = stored.shape
    path.write_bytes(gguf([], [gguf_tensor("w", [row_bytes // size * elements, rows], kind)], stored.tobytes()))
    return path


@pytest.mark.parametrize("kind", DEQUANTISABLE, ids=lambda kind: kind.name)
def test_ggml_types(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    size = GGML_QUANT_SIZES[kind][1]
    # 32,448 blocks; more than one 1 MiB piece of all types with blocks of 33 bytes or more. Then every byte alone:
    # scales and codes at their ends, each also in rows of its own.
    blocks = np.random.default_rng(SEED).integers(0, 256, (507, 64 * size), dtype=np.uint8)
    repeated = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 64 * size, axis=1)
    stored = np.concatenate([blocks, repeated])
    path = ggml_file(tmp_path / "m.gguf", kind, stored)
    with np.errstate(all="ignore"):
        expected = dequantize(stored, kind)
    assert same_bits(_core.open_checkpoint(path).read_f32("w"), expected), f"seed {SEED}"
    assert GGUFReader(path).tensors[0].tensor_type == kind  # the file is what the package takes for one, too


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.name)
def test_ggml_types_without_a_reference(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    size = GGML_QUANT_SIZES[kind][1]
    path = ggml_file(tmp_path / "m.gguf", kind, np.zeros((1, size), dtype=np.uint8))
    if kind == GGMLQuantizationType.F64:  # the one that gguf leaves alone; compared with torch below
        assert _core.open_checkpoint(path).read_f32("w") == 0
        return
    with pytest.raises(lamella.Error, match=kind.name) as caught:
        _core.open_checkpoint(path).read_f32("w")
    assert caught.value.code == "UNSUPPORTED_MODEL"


def test_the_package_has_not_lost_types() -> None:
    assert len(DEQUANTISABLE) >= 26


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("F64", torch.float64),
        ("F32", torch.float32),
        ("F16", torch.float16),
        ("BF16", torch.bfloat16),
        ("F8_E4M3", torch.float8_e4m3fn),
        ("F8_E5M2", torch.float8_e5m2),
    ],
)
def test_float_types(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    stored = torch.from_numpy(rng.integers(0, 256, 1 << 21, dtype=np.uint8))  # two pieces of 1 MiB
    values = stored.view(dtype)
    entry = {"dtype": name, "shape": [16, values.numel() // 16], "data_offsets": [0, 1 << 21]}
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(json.dumps({"w": entry}), stored.numpy().tobytes()))
    expected = values.to(torch.float32).reshape(16, -1).numpy()
    assert same_bits(_core.open_checkpoint(path).read_f32("w"), expected), f"seed {SEED}"


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    header = {
        "empty": {"dtype": "F32", "shape": [3, 0], "data_offsets": [0, 0]},
        "scalar": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
    }
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(json.dumps(header), np.float32(2.5).tobytes()))
    table = _core.open_checkpoint(path)
    assert table.read_f32("empty").shape == (3, 0)
    assert table.read_f32("scalar").shape == ()
    assert table.read_f32("scalar") == 2.5


def test_integers_are_not_expanded(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors('{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}', bytes(8)))
    with pytest.raises(lamella.Error, match="I64 is not floating-point") as caught:
        _core.open_checkpoint(path).read_f32("n")
    assert caught.value.code == "UNSUPPORTED_MODEL"
