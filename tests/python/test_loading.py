"""bench/loading.py on tiny shapes: the checkpoints that it writes, its plain loop, and what it concludes."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

import lamella
import loading
import numpy as np
import pytest
from lamella.families import bert, gpt2, gpt_neo, gpt_neox, llama
from lamella.shapes import SHAPES, Shape
from peers import load_worker
from peers.loaded import Loading, Loadings, Round, report
from peers.random_checkpoint import tensors_of, write_checkpoint

LLAMA = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 300,
    "max_position_embeddings": 64,
}
TINY = {
    "llama": Shape(llama.FAMILY, {**LLAMA, "tie_word_embeddings": True}),
    "llama-untied": Shape(llama.FAMILY, {**LLAMA, "tie_word_embeddings": False}),
    "gpt2": Shape(gpt2.FAMILY, {"n_layer": 2, "n_embd": 48, "n_head": 3, "n_positions": 64, "vocab_size": 300}),
    "gpt_neo": Shape(
        gpt_neo.FAMILY,
        {
            "num_layers": 2,
            "hidden_size": 48,
            "num_heads": 3,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 16,
            "vocab_size": 300,
            "max_position_embeddings": 64,
        },
    ),
    "gpt_neox": Shape(
        gpt_neox.FAMILY,
        {
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "vocab_size": 300,
            "max_position_embeddings": 64,
        },
    ),
    "bert": Shape(
        bert.FAMILY,
        {
            "hidden_size": 48,
            "num_attention_heads": 3,
            "intermediate_size": 96,
            "max_position_embeddings": 64,
            "vocab_size": 300,
            "num_hidden_layers": 2,
            "type_vocab_size": 2,
        },
    ),
}


@pytest.fixture(autouse=True)
def shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shape in TINY.items():
        monkeypatch.setitem(SHAPES, name, shape)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", list(TINY))
def test_a_random_checkpoint_opens_as_its_family(shape: str, tmp_path: Path) -> None:
    write_checkpoint(shape, tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    with lamella.Engine(tmp_path / "model", dtype="float32", threads=1) as engine:
        assert engine.core.spec.family == TINY[shape].family.name
        ids = [5, 6, 7]
        values = engine.encode([ids], pooling=None)[0] if shape == "bert" else engine.logits(ids)[0]
        assert np.isfinite(values).all() and values.std() > 0


def test_tensors_are_whole_and_as_transformers_stores_them() -> None:
    found = tensors_of("gpt2")
    assert found["transformer.h.1.attn.c_attn.weight"] == (48, 144)  # fused and transposed
    assert found["transformer.h.0.attn.c_attn.bias"] == (144,)
    assert found["transformer.wte.weight"] == (300, 48)
    assert tensors_of("gpt_neox")["gpt_neox.layers.0.attention.query_key_value.weight"] == (192, 64)
    assert "lm_head.weight" not in tensors_of("llama")
    assert tensors_of("llama-untied")["lm_head.weight"] == (300, 64)


# ---- the plain loop --------------------------------------------------------------------------------------------------


def test_the_loop_reads_every_byte_once_into_the_room(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(load_worker, "_PIECE", 1 << 14)
    read, lock, preadv = dict[str, bytearray](), threading.Lock(), os.preadv

    def recorded(file: int, views: list[memoryview], offset: int) -> int:
        count = preadv(file, [views[0][: draw.randrange(1, len(views[0]) + 1)]], offset)  # as short as it may be
        with lock:
            name = str(Path(f"/proc/self/fd/{file}").readlink())
            for at in range(offset, offset + count):
                read[name][at] += 1
        return count

    monkeypatch.setattr(load_worker.os, "preadv", recorded)
    for turn in range(8):
        paths = [tmp_path / f"{turn}-{i}" for i in range(draw.randrange(1, 4))]
        for path in paths:
            path.write_bytes(draw.randbytes(draw.randrange(1, 90_000)))
        read = {str(path): bytearray(path.stat().st_size) for path in paths}
        room = draw.choice([4096, 5000, 40_000, 300_000])
        assert load_worker.plain_read([str(path) for path in paths], room, draw.randrange(1, 4)) > 0
        assert all(set(counts) == {1} for counts in read.values()), seed


def test_the_loop_touches_as_many_pages_as_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000))
    job = {"files": [str(tmp_path / "file")], "is_cold": True, "room": 400 << 20, "threads": 2}
    code = (
        "import json, sys; from peers.load_worker import answer; from peers.worker import peak_bytes;"
        "before = peak_bytes(); answer(json.loads(sys.argv[1])); print(peak_bytes() - before)"
    )
    grown = loading.subprocess.run(
        [sys.executable, "-c", code, json.dumps(job)],
        check=True,
        stdout=loading.subprocess.PIPE,
        env=loading.child_environment(1),
    ).stdout
    assert 395 << 20 < int(grown) < 440 << 20  # the kernel counts in batches


# ---- the whole -------------------------------------------------------------------------------------------------------


def test_a_run_makes_its_files_once_and_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loading.py", "--shape", "llama", "--formats", "int8", "--caches", "cold", "--context", "40"]
    words += ["--repeat", "1", "--threads", "1", "--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    loading.main()
    assert "packing" in capsys.readouterr().err
    loading.main()
    assert "packing" not in capsys.readouterr().err

    found = json.loads((tmp_path / "out.json").read_text())
    assert [each["name"] for each in found["loadings"]] == ["store, int8", "checkpoint, int8"]
    for each in found["loadings"]:
        (only,) = each["rounds"]
        assert list(only["plain_s"]) == ["1"] and only["load_s"] > 0
        assert only["peak_bytes"] > only["before_bytes"] > 0
        assert each["weight_bytes"] > 2 * 96 * 64 * 2 and each["kv_bytes"] == 40 * 2 * 2 * 2 * 16 * 2
    store, checkpoint = found["loadings"]
    assert store["weight_bytes"] == checkpoint["weight_bytes"] < checkpoint["file_bytes"]
    assert str(tmp_path) not in (tmp_path / "out.md").read_text()


def test_the_page_says_shares_and_what_is_beside_the_weights() -> None:
    rounds = [Round({1: plain, 2: plain / 2}, 2.0, 1500_000_000, 60_000_000) for plain in (1.0, 1.8, 3.0)]
    one = Loading("store, bf16", "warm", 1_300_000_000, 1_250_000_000, 50_000_000, rounds)
    assert one.share(1) == pytest.approx(0.9) and one.share(2) == pytest.approx(0.45)
    assert one.excess_bytes == 200_000_000
    about = {"date": "2026-11-22", "commit": "abc", "processor": "p", "threads": 2, "command": "c"}
    page = report(Loadings(about, 1024, [one]))
    rows = [[field.strip() for field in row.split("|")[1:-1]] for row in page.split("\n") if row.startswith("| store")]
    assert rows[0] == [
        *("store, bf16", "1.30", "warm", "2.00 (2.00-2.00)"),
        *("1.80 (1.00-3.00)", "0.90", "0.90 (0.50-1.50)", "0.45"),
    ]
    assert rows[1] == ["store, bf16", "warm", "1500", "1250", "50", "200", "60"]


def test_everybody_is_first_once() -> None:
    turns: list[Any] = ["engine", 1, 2]
    assert [loading.in_turn(turns, number) for number in range(4)] == [
        ["engine", 1, 2],
        [1, 2, "engine"],
        [2, "engine", 1],
        ["engine", 1, 2],
    ]


def test_options_choose_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    args = loading.parse([], 4)
    assert (args.shape, args.kinds, args.caches) == ("llama-3.2-1b", ["store", "checkpoint"], ["warm", "cold"])
    assert [each.name for each in args.formats] == ["bf16", "int8", "int4"]
    for words, what in ((["--kinds", "gguf"], "'gguf' is not among store"), (["--shape", "gpt5"], "invalid choice")):
        with pytest.raises(SystemExit):
            loading.parse(words, 4)
        assert what in capsys.readouterr().err
