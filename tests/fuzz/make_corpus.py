"""Writes the seed corpora of the fuzz targets: make_corpus.py FOLDER gives FOLDER/{safetensors,gguf,index}/*.

Each seed is a small file that the parsers accept, or one step away from it. Nothing but the standard library is needed.
Those of packed stores come from make_store_seeds.cpp.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

Seed = tuple[str, bytes]

# ggml's number of each quantised type that the core expands, and the bytes that 256 elements take.
BYTES_OF_256 = (
    {2: 144, 3: 160, 6: 176, 7: 192, 8: 272, 10: 84, 11: 110, 12: 144, 13: 176, 14: 210}  # Q4_0 to Q6_K
    | {16: 66, 17: 74, 18: 98, 19: 50, 20: 144, 21: 110, 22: 82, 23: 136, 29: 56}  # IQ2_XXS to IQ1_M
    | {34: 54, 35: 66, 39: 136, 40: 144}  # TQ1_0, TQ2_0, MXFP4, NVFP4
)


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors_seeds() -> Iterator[Seed]:
    headers: dict[str, tuple[str, int]] = {
        "empty": ("{}", 0),
        "one": (json.dumps({"a": tensor("F32", [1], 0, 4)}), 4),
        "metadata": (json.dumps({"__metadata__": {"format": "pt"}, "w": tensor("BF16", [2, 3], 0, 12)}), 12),
        "three": (
            json.dumps(
                {"a": tensor("F16", [4], 0, 8), "b": tensor("I64", [], 8, 16), "c": tensor("U8", [0, 5], 16, 16)}
            ),
            16,
        ),
        "padded": (json.dumps({"a": tensor("BOOL", [3], 0, 3)}) + "     ", 3),
        "escapes": ('{"\\u00e9\\ud83d\\ude00\\n":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}', 2),
        "unsupported": (json.dumps({"a": tensor("F4", [8], 0, 4)}), 4),
        "hole": (json.dumps({"a": tensor("F32", [1], 4, 8)}), 8),
        "large": (json.dumps({"a": tensor("F32", [2**48, 2**48], 0, 2**63)}), 4),
    }
    for name, (text, data_bytes) in headers.items():
        header = text.encode()
        yield f"{name}-header", struct.pack("<BH", 1, data_bytes) + header
        yield f"{name}-file", struct.pack("<BHQ", 0, data_bytes, len(header)) + header
    yield "lfs", struct.pack("<BH", 0, 0) + b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_pair(key: str, kind: int, value: bytes) -> bytes:
    return gguf_string(key) + struct.pack("<I", kind) + value


def gguf_tensor(name: str, dims: list[int], kind: int, offset: int) -> bytes:
    return gguf_string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf_file(pairs: list[bytes], tensors: list[bytes], version: int = 3, alignment: int = 32) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % alignment)


def gguf_seeds() -> Iterator[Seed]:
    scalars = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
    pairs = [gguf_pair(f"k{kind}", kind, struct.pack(form, 1)) for kind, form in scalars.items()]
    pairs.append(gguf_pair("name", 8, gguf_string("tiny")))
    pairs += [
        gguf_pair(f"a{kind}", 9, struct.pack("<IQ", kind, 2) + 2 * struct.pack(form, 1))
        for kind, form in scalars.items()
    ]
    pairs.append(gguf_pair("tokens", 9, struct.pack("<IQ", 8, 2) + gguf_string("x") + gguf_string("yz")))
    pairs.append(gguf_pair("nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 4, 1) + struct.pack("<I", 7)))
    two = [gguf_tensor("a", [32, 2], 3, 0), gguf_tensor("b", [5], 0, 64)]
    yield "empty", struct.pack("<I", 0) + gguf_file([], [])
    yield "types", struct.pack("<I", 0) + gguf_file(pairs, [])
    yield "tensors", struct.pack("<I", 64 + 32) + gguf_file([], two)
    yield "version2", struct.pack("<I", 64 + 20) + gguf_file(pairs[:3], two, version=2)
    yield (
        "aligned64",
        struct.pack("<I", 256)
        + gguf_file(
            [gguf_pair("general.alignment", 4, struct.pack("<I", 64))],
            [gguf_tensor("a", [256], 14, 0)],
            alignment=64,
        ),
    )
    blocks, end = [], 0
    for kind, size in BYTES_OF_256.items():
        blocks.append(gguf_tensor(f"t{kind}", [256], kind, end))
        end += -(-size // 32) * 32
    yield "blocks", struct.pack("<I", end) + gguf_file([], blocks)
    yield "unsupported", struct.pack("<I", 512) + gguf_file([], [gguf_tensor("q8_k", [256], 15, 0)])
    yield "big-endian", struct.pack("<I", 0) + b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    yield "short", struct.pack("<I", 1000) + gguf_file(pairs, two)[:100]


def index_seeds() -> Iterator[Seed]:
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    yield "plain", json.dumps({"metadata": {"total_size": 8}, "weight_map": shards}).encode()
    yield (
        "float-size",
        json.dumps({"metadata": {"total_size": 8.0, "more": [None, True, -1, 1e3]}, "weight_map": shards}).encode(),
    )
    yield "escapes", b'{"weight_map":{"\\u00e9\\ud83d\\ude00\\\\":"\\/x\\t","\xc3\xa9":""}}'
    yield "deep", b'{"x":' + b"[" * 60 + b"]" * 60 + b',"weight_map":{"a":"b"}}'
    yield "twice", b'{"weight_map":{"a":"b","\\u0061":"c","d":"e","f":"g","h":"i"}}'
    yield "hostile", b'{"weight_map":{"a":"../x","b":"/etc/passwd","c":""}}'


def main() -> None:
    root = Path(sys.argv[1])
    for kind, seeds in (("safetensors", safetensors_seeds()), ("gguf", gguf_seeds()), ("index", index_seeds())):
        folder = root / kind
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds:
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
