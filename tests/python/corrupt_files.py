"""Builders of small checkpoints, sound ones and broken ones, byte by byte: a library would refuse to write them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path

INDEX = "model.safetensors.index.json"
F32, F16, Q4_0, Q4_1, Q6_K, Q8_K, NVFP4, Q1_0 = 0, 1, 2, 3, 14, 15, 40, 41
U8, I32, U32, BOOL, STRING, ARRAY, U64 = 0, 5, 4, 7, 8, 9, 10


def safetensors(header: str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with that header text; `length` is its declared length when it is to be a lie."""
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    """The description of one tensor as a safetensors header has it."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def one_tensor(**description: object) -> bytes:
    """A safetensors file of the tensor "t", with four bytes of data."""
    return safetensors(json.dumps({"t": tensor(**description)}), b"1234")


def f32_shard(*names: str) -> bytes:
    """A sound safetensors file of scalars with those names."""
    header = {name: tensor(offsets=(4 * i, 4 * i + 4)) for i, name in enumerate(names)}
    return safetensors(json.dumps(header), b"1234" * len(names))


def write_sharded(folder: Path, weight_map: object, total_size: object = None, **shards: bytes) -> Path:
    """A folder with an index and with shards, `model_1` standing for model-1.safetensors."""
    for name, content in shards.items():
        (folder / f"{name.replace('_', '-')}.safetensors").write_bytes(content)
    metadata = {} if total_size is None else {"total_size": total_size}
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))
    return folder


def gguf_string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def gguf_pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return gguf_string(key) + struct.pack("<I", kind) + value


def gguf_tensor(name: str | bytes, dims: Iterable[int], kind: int = F32, offset: int = 0) -> bytes:
    dims = list(dims)
    return gguf_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(
    pairs: Iterable[bytes] = (),
    tensors: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A GGUF file; `counts` are the declared numbers of tensors and pairs when they are to be lies."""
    pairs, tensors = list(pairs), list(tensors)
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, pair_count) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data
