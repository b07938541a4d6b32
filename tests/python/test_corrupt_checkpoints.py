"""Corrupt checkpoints, one file or folder each: the error is the one that reliability.md promises (rows A1 to A14)."""

from __future__ import annotations

import json
import os
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lamella
import pytest
from corrupt_files import (
    ARRAY,
    BOOL,
    F32,
    INDEX,
    NVFP4,
    Q1_0,
    Q4_0,
    Q6_K,
    Q8_K,
    STRING,
    U8,
    U32,
    f32_shard,
    gguf,
    gguf_pair,
    gguf_string,
    gguf_tensor,
    one_tensor,
    safetensors,
    tensor,
    write_sharded,
)
from lamella import _core

INVALID, UNSUPPORTED, IO_ERROR = "INVALID_CHECKPOINT", "UNSUPPORTED_MODEL", "IO_ERROR"
CLASSES = {INVALID: lamella.CheckpointError, UNSUPPORTED: lamella.CheckpointError, IO_ERROR: lamella.StorageError}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n"


@dataclass(frozen=True)
class Case:
    """A corrupt checkpoint: its row, a name, what builds it in a folder, the promised code and parts of the message."""

    row: str
    name: str
    build: Callable[[Path], Path]
    code: str
    parts: tuple[str, ...]


CASES: list[Case] = []


def file_case(row: str, name: str, content: bytes, *parts: str, code: str = INVALID) -> None:
    """A single file; GGUF or safetensors by the case's name."""
    ending = "gguf" if name.startswith("gguf") else "safetensors"

    def build(folder: Path) -> Path:
        path = folder / f"m.{ending}"
        path.write_bytes(content)
        return path

    CASES.append(Case(row, name, build, code, parts))


def folder_case(row: str, name: str, build: Callable[[Path], object], *parts: str, code: str = INVALID) -> None:
    def build_folder(folder: Path) -> Path:
        build(folder)
        return folder

    CASES.append(Case(row, name, build_folder, code, parts))


def text_case(
    row: str, name: str, header: str | bytes, *parts: str, data: bytes = b"1234", code: str = INVALID
) -> None:
    """A safetensors file with that header text."""
    file_case(row, name, safetensors(header, data), *parts, code=code)


GOOD = json.dumps({"t": tensor()})
WEIGHT = gguf_tensor("w", [8])
DATA = bytes(32)

# ---- A1: the file's length -----------------------------------------------------------------------
file_case("A1", "one byte short", one_tensor()[:-1], '"t"', "download incomplete?")
file_case("A1", "no data", one_tensor()[:-4], '"t"', "download incomplete?")
file_case("A1", "cut in the header", one_tensor()[:20], "only 20 bytes", "download incomplete?")
file_case("A1", "cut in the length", one_tensor()[:7], "only 7 bytes", "download incomplete?")
file_case("A1", "trailing byte", one_tensor() + b"x", "trailing bytes")
file_case("A1", "data of no tensor", safetensors("{}", b"x"), "trailing bytes")
file_case("A1", "gguf cut in the data", gguf([], [WEIGHT], DATA[:-1]), '"w"', "download incomplete?")
file_case("A1", "gguf cut in the tensor list", gguf([], [WEIGHT], DATA)[:40], "download incomplete?")
file_case("A1", "gguf cut in the counts", gguf()[:12], "download incomplete?")
file_case("A1", "gguf cut in the magic", b"GG", "download incomplete?")
file_case("A1", "gguf trailing bytes", gguf([], [WEIGHT], DATA + b"x"), "trailing bytes")
# ---- A2: the header's length ---------------------------------------------------------------------
file_case("A2", "length 0", safetensors("{}", length=0), "length is 0")
file_case("A2", "length beyond the file", safetensors("{}", length=3), "needs 11 bytes", "only 10")
file_case("A2", "length above 1e8", safetensors("{}", length=100_000_001), "at most 100000000")
file_case("A2", "length 2^63", safetensors("{}", length=1 << 63), "9223372036854775808")
file_case("A2", "length 2^64 - 1", safetensors("{}", length=(1 << 64) - 1), "at most 100000000")
file_case("A2", "git-lfs pointer", LFS, "git lfs pull")
file_case("A2", "gguf git-lfs pointer", LFS, "git lfs pull")
file_case("A2", "gguf other magic", b"GGML" + bytes(60), "not a GGUF file")
file_case("A2", "gguf version 1", gguf(version=1), "version 1", code=UNSUPPORTED)
file_case("A2", "gguf version 4", gguf(version=4), "version 4", code=UNSUPPORTED)
file_case("A2", "gguf big-endian", b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian", code=UNSUPPORTED)
file_case("A2", "gguf 2^64 - 1 tensors", gguf(counts=((1 << 64) - 1, 0)), "tensor count", "18446744073709551615")
file_case("A2", "gguf 2^63 pairs", gguf(counts=(0, 1 << 63)), "metadata count")
file_case("A2", "gguf endless string", gguf([gguf_pair("k", STRING, struct.pack("<Q", 1 << 62))]), "metadata value")
file_case("A2", "gguf endless array", gguf([gguf_pair("k", ARRAY, struct.pack("<IQ", U32, 1 << 62))]), "array's length")
file_case("A2", "gguf split", gguf([gguf_pair("split.count", U32, b"\2\0\0\0")]), "--merge", code=UNSUPPORTED)
# ---- A3: offsets ---------------------------------------------------------------------------------
two = {"a": tensor(offsets=(0, 4))}
text_case(
    "A3", "overlap", json.dumps({**two, "b": tensor(offsets=(2, 6))}), '"b"', "offset 2", "overlap", data=bytes(6)
)
text_case("A3", "same bytes twice", json.dumps({**two, "b": tensor(offsets=(0, 4))}), '"b"', "overlap")
text_case("A3", "hole", json.dumps({**two, "b": tensor(offsets=(8, 12))}), '"b"', "offset 8", "hole", data=bytes(12))
file_case("A3", "hole at the start", one_tensor(offsets=(1, 5)), '"t"', "hole")
file_case("A3", "begin after end", one_tensor(offsets=(4, 0)), '"t"', "begin at 4", "end at 0")
file_case("A3", "negative", one_tensor(offsets=(-4, 0)), '"t"', "data_offsets[0]")
file_case("A3", "float", one_tensor(offsets=(0, 4.0)), '"t"', "data_offsets[1]")
file_case("A3", "past the end", one_tensor(shape=(2,), offsets=(0, 8)), '"t"', "offset 8", "download incomplete?")
file_case("A3", "size that does not fit", one_tensor(shape=(2,)), '"t"', "need 8 bytes", "give 4")
file_case("A3", "three offsets", one_tensor(offsets=(0, 4, 8)), '"t"', "two numbers")
a_and_b = [gguf_tensor("a", [8]), gguf_tensor("b", [8])]
file_case("A3", "gguf overlap", gguf([], a_and_b, DATA), '"b"', "overlap")
file_case("A3", "gguf hole", gguf([], [gguf_tensor("a", [8], F32, 32)], DATA * 2), '"a"', "hole")
file_case("A3", "gguf unaligned", gguf([], [gguf_tensor("a", [8], F32, 4)], DATA * 2), '"a"', "alignment 32")
file_case("A3", "gguf alignment 3", gguf([gguf_pair("general.alignment", U32, b"\3\0\0\0")]), "power of two")
# ---- A4: dimensions ------------------------------------------------------------------------------
file_case("A4", "dimension above 2^48", one_tensor(shape=(2**48 + 1,)), '"t"', "2^48")
file_case("A4", "dimension 2^64", one_tensor(shape=(2**64,)), "[J4]")
file_case("A4", "0 x 2^62", one_tensor(shape=(0, 2**62), offsets=(0, 0)), "2^48")
file_case("A4", "product overflows", one_tensor(shape=(2**40, 2**40)), '"t"', "overflows")
file_case("A4", "product overflows beside 0", one_tensor(shape=(0, 2**48, 2**48), offsets=(0, 0)), "overflows")
file_case("A4", "nine dimensions", one_tensor(shape=(1,) * 9), "9 dimensions")
file_case("A4", "negative dimension", one_tensor(shape=(-1,)), '"t"', "dimension 0")
file_case("A4", "gguf dimension above 2^48", gguf([], [gguf_tensor("w", [2**48 + 1])]), '"w"', "2^48")
file_case("A4", "gguf product overflows", gguf([], [gguf_tensor("w", [2**48, 2**48])]), '"w"', "overflows")
file_case("A4", "gguf nine dimensions", gguf([], [gguf_tensor("w", [1] * 9)]), "9 dimensions")
file_case("A4", "gguf part of a block", gguf([], [gguf_tensor("w", [48], Q4_0)], DATA), '"w"', "blocks of 32")
file_case("A4", "gguf part of a superblock", gguf([], [gguf_tensor("w", [32], Q6_K)], DATA), "blocks of 256")
part_of_nvfp4 = gguf([], [gguf_tensor("w", [32], NVFP4)], DATA)
file_case("A4", "gguf half an NVFP4 block", part_of_nvfp4, "rows of 32 elements", "NVFP4 blocks of 64")
# ---- A5: element types ---------------------------------------------------------------------------
file_case("A5", "unknown dtype", one_tensor(dtype="Q9"), '"t"', '"Q9"', code=UNSUPPORTED)
file_case("A5", "lower-case dtype", one_tensor(dtype="f32"), '"f32"', code=UNSUPPORTED)
file_case("A5", "sub-byte misaligned", one_tensor(dtype="F4", shape=(7,)), '"t"', '"F4"', code=UNSUPPORTED)
file_case("A5", "complex", one_tensor(dtype="C64", shape=()), '"C64"', code=UNSUPPORTED)
file_case("A5", "gguf Q8_K", gguf([], [gguf_tensor("w", [256], Q8_K)]), '"w"', "Q8_K", code=UNSUPPORTED)
file_case("A5", "gguf Q1_0", gguf([], [gguf_tensor("w", [128], Q1_0)]), '"w"', "Q1_0", code=UNSUPPORTED)
file_case("A5", "gguf type 999", gguf([], [gguf_tensor("w", [32], 999)]), '"w"', "999 (unknown)", code=UNSUPPORTED)
# ---- A6: the header's text -----------------------------------------------------------------------
text_case("A6", "leading space", " " + GOOD, "[S1]")
text_case("A6", "byte order mark", "\ufeff" + GOOD, "[S1]")
text_case("A6", "tensor twice", GOOD[:-1] + ", " + GOOD[1:], '"t" occurs twice', "[J2]")
text_case("A6", "tensor twice, once escaped", GOOD[:-1] + ", " + GOOD[1:].replace('"t"', '"\\u0074"'), "[J2]")
text_case("A6", "NUL in a name", GOOD.replace('"t"', '"\\u0000"'), "NUL", "[S2]")
text_case("A6", "empty name", GOOD.replace('"t"', '""'), "0 bytes", "[S2]")
text_case("A6", "name of a megabyte", GOOD.replace('"t"', '"' + "n" * 10**6 + '"'), "1000000 bytes", "[S2]")
text_case("A6", "metadata number", '{"__metadata__": {"a": 1}}', "not a string", "[S6]", data=b"")
text_case("A6", "metadata null", '{"__metadata__": null}', "[S6]", data=b"")
text_case("A6", "metadata key twice", '{"__metadata__": {"a": "1", "a": "2"}}', "[J2]", data=b"")
text_case("A6", "deep nesting", '{"t": ' + "[" * 70 + "]" * 70 + "}", "deeper than 64", "[J1]")
text_case("A6", "bottomless nesting", '{"t": ' + "[" * 10**6, "deeper than 64", "[J1]")
text_case("A6", "unknown key", GOOD.replace('"shape"', '"strides": [1], "shape"'), '"strides"', "[S3]")
text_case("A6", "array for an object", '{"t": ["F32", [1], [0, 4]]}', '"t"', "[S3]")
text_case("A6", "half a surrogate", GOOD.replace('"t"', '"\\ud800"'), "[J3]")
text_case("A6", "invalid UTF-8", GOOD.encode().replace(b'"t"', b'"\xff"'), "byte 10", "UTF-8")
text_case("A6", "NaN", GOOD.replace("[1]", "[NaN]"), "JSON error")
text_case("A6", "not closed", GOOD[:-1], "JSON error")
text_case("A6", "NUL after the header", GOOD + "\0", "after the end")
pair = gguf_pair("k", U8, b"x")
file_case("A6", "gguf key twice", gguf([pair, pair]), '"k"', "occurs twice")
file_case("A6", "gguf tensor twice", gguf([], [gguf_tensor("w", [0]), gguf_tensor("w", [0])]), '"w"', "described twice")
file_case("A6", "gguf NUL in a name", gguf([], [gguf_tensor("w\0", [0])]), "NUL")
file_case("A6", "gguf empty name", gguf([pair], [gguf_tensor("", [0])]), "0 bytes")
file_case("A6", "gguf long name", gguf([], [gguf_tensor("w" * 1025, [0])]), "1025 bytes")
file_case("A6", "gguf name not UTF-8", gguf([], [gguf_tensor(b"\xff", [0])]), "UTF-8")
file_case("A6", "gguf boolean 2", gguf([gguf_pair("k", BOOL, b"\2")]), "boolean")
file_case("A6", "gguf type 13", gguf([gguf_pair("k", 13, b"x")]), "unknown type 13")
nest = struct.pack("<IQ", ARRAY, 1) * 100 + struct.pack("<IQ", U8, 0)
file_case("A6", "gguf deep nesting", gguf([gguf_pair("k", ARRAY, nest)]), "deeper than 64")
# ---- A9: the index -------------------------------------------------------------------------------
MODEL_1 = "model-1.safetensors"


def index_case(name: str, weight_map: object, *parts: str, total_size: object = None, **shards: bytes) -> None:
    shards = shards or {"model_1": f32_shard("a")}
    folder_case("A9", name, lambda folder: write_sharded(folder, weight_map, total_size, **shards), *parts)


index_case("shard above the folder", {"a": "../model-1.safetensors"}, "../model-1.safetensors", "not allowed")
index_case("absolute shard", {"a": "/etc/passwd"}, "/etc/passwd", "not allowed")
index_case("empty shard", {"a": ""}, "not allowed")
index_case("shard in a subfolder", {"a": "sub/model-1.safetensors"}, "not allowed")
index_case("shard with NUL", {"a": "model\0"}, "not allowed")
index_case("shard is the folder", {"a": "."}, "not allowed")
index_case(
    "missing shards", {"a": MODEL_1, "b": "x1", "c": "x2"}, "2 of 3 shards", '"x1", "x2"', "download incomplete?"
)
index_case("wrong total_size", {"a": MODEL_1}, "total_size is 8", "have 4", total_size=8)
index_case("total_size as text", {"a": MODEL_1}, "total_size", total_size="4")
index_case("listed but absent", {"a": MODEL_1, "b": MODEL_1}, "b (model-1.safetensors)")
index_case("not listed", {"a": MODEL_1}, '"b"', "does not list it", model_1=f32_shard("a", "b"))
index_case("weight_map is a list", [["a", MODEL_1]], "weight_map")
index_case("weight_map is empty", {}, "lists no tensors")
index_case("shard is a number", {"a": 1}, '"a"', "not a file name")
both = {"a": MODEL_1, "b": "model-2.safetensors"}
index_case("tensor in two shards", both, '"a"', "lists it in", model_1=f32_shard("a"), model_2=f32_shard("a", "b"))
index_case("shards mixed up", both, "lists it in", model_1=f32_shard("b"), model_2=f32_shard("a"))
index_case(
    "damaged shard", both, "model-2", "download incomplete?", model_1=f32_shard("a"), model_2=f32_shard("b")[:-1]
)


def write_index(text: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / INDEX).write_bytes(text)


def shard_folder(folder: Path) -> None:
    write_sharded(folder, {"a": "shards"})
    (folder / "shards").mkdir()


folder_case("A9", "shard is a folder", shard_folder, "is a folder")
folder_case("A9", "index twice", write_index(b'{"weight_map": {"a": "x", "a": "y"}}'), "[J2]")
folder_case("A9", "index not JSON", write_index(b"weights"), "byte 0")
folder_case("A9", "index empty", write_index(b""), "0 bytes")
folder_case("A9", "index is a git-lfs pointer", write_index(LFS), "git lfs pull")


# ---- A10: links ----------------------------------------------------------------------------------
def link_out(name: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        model = folder / "model"
        model.mkdir()
        (folder / "outside").write_bytes(f32_shard("a"))
        (model / name).symlink_to("../outside")
        return model

    return build


CASES.append(Case("A10", "model link leads out", link_out("model.safetensors"), INVALID, ("leads out",)))
CASES.append(Case("A10", "index link leads out", link_out(INDEX), INVALID, ("leads out",)))


def shard_link_out(folder: Path) -> Path:
    return write_sharded(link_out(MODEL_1)(folder), {"a": MODEL_1})


def other_repository(folder: Path) -> Path:
    snapshot = folder / "models--o--m" / "snapshots" / "1"
    blobs = folder / "models--o--other" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir(parents=True)
    (blobs / "b").write_bytes(f32_shard("a"))
    (snapshot / "model.safetensors").symlink_to("../../../models--o--other/blobs/b")
    return snapshot


def device_link(folder: Path) -> None:
    (folder / "model.safetensors").symlink_to("/dev/zero")


CASES.append(Case("A10", "shard link leads out", shard_link_out, INVALID, ("leads out",)))
CASES.append(Case("A10", "blob of another repository", other_repository, INVALID, ("leads out",)))
folder_case("A10", "link to a device", device_link, "leads out")
# ---- A13: special files --------------------------------------------------------------------------
file_case("A13", "empty file", b"", "0 bytes", "download incomplete?")
file_case("A13", "gguf empty file", b"", "0 bytes", "download incomplete?")
folder_case("A13", "FIFO", lambda folder: os.mkfifo(folder / "model.safetensors"), "not a regular file")
folder_case("A13", "folder for a file", lambda folder: (folder / "model.safetensors").mkdir(), "is a folder")


def loop(folder: Path) -> None:
    (folder / "model.safetensors").symlink_to("model.safetensors")


folder_case("A13", "link loop", loop, "errno 40", code=IO_ERROR)
CASES.append(Case("A13", "no such path", lambda folder: folder / "none", IO_ERROR, ("none", "errno 2")))
CASES.append(Case("A13", "device", lambda _: Path("/dev/zero"), INVALID, ("not a regular file",)))
# ---- A14: pickle ---------------------------------------------------------------------------------
for pickled in ("pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"):

    def pickle_only(folder: Path, name: str = pickled) -> None:
        (folder / name).write_bytes(b"\x80\x02cos\nsystem\n(S'exit 1'\ntR.")

    folder_case("A14", pickled, pickle_only, pickled, "python -c", "safe_serialization=True", code=UNSUPPORTED)

folder_case("A14", "no weights at all", lambda folder: (folder / "config.json").write_text("{}"), "download complete?")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.name.replace(' ', '-')}")
def test_corrupt_checkpoint(case: Case, tmp_path: Path) -> None:
    path = case.build(tmp_path)
    with pytest.raises(lamella.Error) as caught:
        _core.open_checkpoint(path)
    message = str(caught.value)
    assert type(caught.value) is CLASSES[case.code]
    assert caught.value.code == case.code
    for part in case.parts:
        assert part in message
    assert len(message) < 1200, "P8: little of the input is echoed"
    assert message.isprintable(), "P8: control characters are escaped"


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
    assert len({(case.row, case.name) for case in CASES}) == len(CASES)


def test_a10_the_cache_of_hugging_face_is_allowed(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--o--m/snapshots/1", tmp_path / "models--o--m/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "b").write_bytes(f32_shard("a"))
    (snapshot / "model.safetensors").symlink_to("../../blobs/b")
    assert _core.open_checkpoint(snapshot).names() == ["a"]
    assert _core.check_model_file(snapshot, "model.safetensors") == blobs / "b"


def test_a11_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(f32_shard("a"))
    table = _core.open_checkpoint(path)
    assert table.read_f32("a").shape == (1,)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(lamella.CheckpointError) as caught:
        table.read_f32("a")
    assert caught.value.code == "CHECKPOINT_CHANGED"


def test_p1_pickle_next_to_safetensors_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(f32_shard("a"))
    (tmp_path / "pytorch_model.bin").symlink_to("/dev/zero")
    assert _core.open_checkpoint(tmp_path).names() == ["a"]


def test_wrong_arguments(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(f32_shard("a"))
    table = _core.open_checkpoint(tmp_path / "m.safetensors")
    with pytest.raises(lamella.InvalidArgumentError, match='no tensor "b"'):
        table.entry("b")
    with pytest.raises(lamella.CheckpointError, match="there is no file"):
        _core.check_model_file(tmp_path, "config.json")


def test_metadata_of_every_kind(tmp_path: Path) -> None:
    pairs = [
        gguf_pair("yes", BOOL, b"\1"),
        gguf_pair("text", STRING, gguf_string("h\u00e9")),
        gguf_pair("bytes", STRING, gguf_string(b"\xff")),
        gguf_pair("numbers", ARRAY, struct.pack("<IQ3I", U32, 3, 1, 2, 3)),
        gguf_pair("words", ARRAY, struct.pack("<IQ", STRING, 1) + gguf_string("w")),
    ]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(pairs))
    expected = {"yes": True, "text": "h\u00e9", "bytes": b"\xff", "numbers": [1, 2, 3], "words": ["w"]}
    assert _core.open_checkpoint(path).metadata == expected


@pytest.mark.skipif(os.environ.get("LAMELLA_STAGE") != "full", reason="imports transformers twice: full stage only")
def test_a14_the_command_in_the_message_converts(tmp_path: Path) -> None:
    import torch
    import transformers

    config = transformers.GPT2Config(
        n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=8, architectures=["GPT2LMHeadModel"]
    )
    model = transformers.GPT2LMHeadModel(config)
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(lamella.CheckpointError) as caught:
        _core.open_checkpoint(tmp_path)
    command = shlex.split(str(caught.value).partition("convert them once: ")[2])
    assert command[:2] == ["python", "-c"]
    subprocess.run([sys.executable, *command[1:]], check=True, capture_output=True, timeout=300)
    table = _core.open_checkpoint(tmp_path)
    assert "transformer.h.0.attn.c_attn.weight" in table
    assert (table.read_f32("transformer.wte.weight") == model.transformer.wte.weight.detach().numpy()).all()
