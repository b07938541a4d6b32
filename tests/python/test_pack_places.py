"""Where a packed store may be written: in nobody else's place, and on after a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import lamella
import pytest
from lamella.checkpoint import open_model
from random_models import draw
from stores import names_in, same_logits, sound

WORK_FILES = {"model.lamella.partial", "model.lamella.journal"}


def test_an_existing_store_is_replaced_only_when_told_to(llama: Path, tmp_path: Path, seed: int) -> None:
    store = tmp_path / "store"
    first = lamella.pack(llama, store)
    before = (store / "model.lamella").read_bytes()
    with pytest.raises(lamella.StorageError, match=r"holds a packed store already.*--force"):
        lamella.pack(llama, store, quantization="int4")
    assert (store / "model.lamella").read_bytes() == before
    (store / "notes.txt").write_text("mine")
    second = lamella.pack(llama, store, quantization="int4", force=True)
    assert second.digest != first.digest == lamella.pack(llama, store, force=True).digest
    draw("gpt2", seed, tmp_path / "gpt2", vocab_size=90)
    last = lamella.pack(tmp_path / "gpt2", store, force=True)
    assert names_in(store) == {*last.files, "model.lamella", "notes.txt"}  # no tokenizer of the model before
    assert open_model(store).tokenizer is None
    assert (store / "notes.txt").read_text() == "mine"


def test_only_a_folder_for_the_store_is_written_to(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for out, said in (("file", "Not a directory"), ("full", "not empty: it holds thesis.tex"), ("file/x", "Not a")):
        for force in (False, True):
            with pytest.raises(lamella.StorageError, match=said):
                lamella.pack(llama, tmp_path / out, force=force)
    assert names_in(tmp_path) == {"file", "full"}
    assert names_in(tmp_path / "full") == {"thesis.tex"}


def test_a_folder_is_made_or_may_be_empty_or_a_link_to_one(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert lamella.pack(llama, tmp_path / "link").path == tmp_path / "disk"
    lamella.pack(llama, str(tmp_path / "a" / "b" / "c"))
    assert {path.name for path in (tmp_path / "a" / "b" / "c").iterdir()} >= {"model.lamella"}


def test_out_may_not_be_inside_the_models_folder(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(llama)
    before = names_in(llama)
    for out in (llama, llama / "packed", tmp_path / "link" / "packed"):
        with pytest.raises(lamella.InvalidArgumentError, match="inside the model's own folder"):
            lamella.pack(llama, out)
    assert names_in(llama) == before


def test_a_store_is_not_packed_again(llama: Path, tmp_path: Path) -> None:
    lamella.pack(llama, tmp_path / "store")
    with pytest.raises(lamella.InvalidArgumentError, match="is a packed store already"):
        lamella.pack(tmp_path / "store", tmp_path / "again", quantization="int4")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantization": "int3"}, "quantization"),
        ({"dtype": "float8"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"threads": 10**6}, "threads"),
        ({"force": 1}, "force"),
        ({"progress": 7}, "progress"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_made(
    llama: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=said):
        lamella.pack(llama, tmp_path / "a" / "store", **options)
    for out in ("", None, b"x", 3, "a\0b"):
        with pytest.raises(lamella.InvalidArgumentError, match="out"):
            lamella.pack(llama, out)  # type: ignore[arg-type]
    assert names_in(tmp_path) == set()


def test_two_at_once_are_one_too_many(llama: Path, tmp_path: Path) -> None:
    failures: list[str] = []

    def second(done: int, total: int) -> None:
        if not failures:
            command = [sys.executable, "-m", "lamella", "pack", str(llama), str(tmp_path / "store"), "--json"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            failures.append(f"{result.returncode} {json.loads(result.stdout)['error']}")

    packed = lamella.pack(llama, tmp_path / "store", progress=second)
    assert failures[0].startswith("4 ") and "another process" in failures[0]
    sound(packed.path)


def test_many_packings_of_one_process_at_a_time(llama: Path, tmp_path: Path) -> None:
    digests: list[str] = []
    threads = [
        threading.Thread(target=lambda i=i: digests.append(lamella.pack(llama, tmp_path / str(i)).digest))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4 and len(set(digests)) == 1


# ---- stopping and going on -------------------------------------------------------------------------------------------


class Stop(KeyboardInterrupt):
    """Raised by a progress function."""


def stopped(model: Path, out: Path, part: float, **options: Any) -> None:
    """Packs until that part of the store is written."""

    def progress(done: int, total: int) -> None:
        if done > part * total:
            raise Stop

    with pytest.raises(Stop):
        lamella.pack(model, out, progress=progress, **options)
    assert names_in(out) == WORK_FILES


def test_stopped_by_the_progress_function_it_goes_on(llama: Path, tmp_path: Path) -> None:
    expected = lamella.pack(llama, tmp_path / "whole")
    kept = []
    for part in (0.0, 0.3, 0.6, 0.95):
        stopped(llama, tmp_path / "store", part)
        with pytest.raises(lamella.CheckpointError, match="cut short"):
            lamella.Engine(tmp_path / "store")
        packed = lamella.pack(llama, tmp_path / "store", force=True, threads=3)
        assert (packed.path / "model.lamella").read_bytes() == (expected.path / "model.lamella").read_bytes()
        assert names_in(packed.path) == names_in(expected.path)
        kept.append(packed.resumed_bytes)
        for file in packed.path.iterdir():
            file.unlink()
    assert kept == sorted(kept) and kept[-1] > expected.bytes / 2


def test_other_options_start_afresh_and_say_so(llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stopped(llama, tmp_path / "store", 0.9)
    packed = lamella.pack(llama, tmp_path / "store", quantization="int8")
    assert packed.resumed_bytes == 0
    assert [record.message for record in caplog.records if "afresh" in record.message]
    same_logits(llama, packed.path, quantization="int8")


def test_another_model_starts_afresh_and_says_so(
    llama: Path, tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(llama, tmp_path / "store", 0.9)
    copy = tmp_path / "llama"
    copy.mkdir()
    for file in llama.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
        os.utime(copy / file.name, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    packed = lamella.pack(copy, tmp_path / "store")
    assert packed.resumed_bytes == 0
    assert any("afresh" in record.message for record in caplog.records)


def test_an_error_leaves_no_folder_that_was_not_there(llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in llama.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    weights = next(model.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-4:] = b"\xff\xff\xff\x7f"  # NaN
    weights.write_bytes(data)
    with pytest.raises(lamella.CheckpointError, match="NaN"):
        lamella.pack(model, tmp_path / "a" / "store")
    assert not (tmp_path / "a").exists()
    with pytest.raises(lamella.CheckpointError):
        lamella.pack(tmp_path / "absent", tmp_path / "b" / "store")
    assert not (tmp_path / "b").exists()
