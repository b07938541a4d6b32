"""Expansion of stored blocks to fp32 against the packages that define the formats, bit for bit, on random bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from corrupt_files import gguf, gguf_tensor, safetensors
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from lamella import _core

SEED = 20261121
BLOCKED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


def same_bits(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal shapes and bits; a NaN need only be one (random scales are NaN in one block of sixteen or so)."""
    equal = found.view(np.uint32) == expected.view(np.uint32)
    return found.shape == expected.shape and bool((equal | (np.isnan(found) & np.isnan(expected))).all())


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", *BLOCKED])
def test_ggml_types(name: str, tmp_path: Path) -> None:
    kind = GGMLQuantizationType[name]
    elements, size = GGML_QUANT_SIZES[kind]
    rows, blocks = 61, 64  # 3,904 blocks; more than one 1 MiB piece for the largest of them would be 5,000
    rng = np.random.default_rng(SEED)
    stored = rng.integers(0, 256, (rows, blocks * size), dtype=np.uint8)
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf([], [gguf_tensor("w", [blocks * elements, rows], kind)], stored.tobytes()))
    with np.errstate(all="ignore"):
        expected = dequantize(stored, kind)
    assert same_bits(_core.open_checkpoint(path).read_f32("w"), expected), f"seed {SEED}"
    assert GGUFReader(path).tensors[0].tensor_type == kind  # the file is what the package takes for one, too


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
    with pytest.raises(Exception, match="I64 is not floating-point") as caught:
        _core.open_checkpoint(path).read_f32("n")
    assert caught.value.code == "UNSUPPORTED_MODEL"
