"""bench/ablation.py where it needs no long run: what it compares, what it concludes, and shapes without files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ablation
import pytest
from lamella.engine_options import EngineOptions
from peers.ablated import FORMATS, STEPS, lamella_entries, torch_entry
from peers.ablation_report import report, step_times
from peers.cells import CELLS, MOST_BATCH, cell_named, decode_cell
from peers.entries import CLASSES, LAMELLA, MODULES, Entry
from peers.environment import python_with
from peers.machine import Reading
from peers.models import MODELS
from peers.results import Line, Results, Sample
from peers.worker import Worker

MODEL = MODELS["llama-3.2-1b"]
STEADY = Reading(50e9, 55e-9)
TINY = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


def as_line(entry: Entry, **more: Any) -> Line:
    return Line(MODEL.name, entry.name, entry.engine, entry.bits, "1.0", 1.0, 1, entry.arithmetic, **more)


@pytest.mark.parametrize("chosen", FORMATS.values(), ids=lambda chosen: chosen.name)
def test_every_step_is_an_engine_and_each_adds_one_technique(chosen) -> None:
    entries = [*lamella_entries(chosen), torch_entry(chosen)]
    assert len({entry.name for entry in entries}) == len(STEPS) + 1
    assert {entry.engine for entry in entries} <= MODULES.keys()
    options = [EngineOptions(**entry.options) for entry in entries if entry.engine == LAMELLA]
    assert [(each.deep_fusion, each.sbi_gemm) for each in options] == [(False, False), (True, False), (True, True)]
    assert len({(each.dtype, each.quantization) for each in options}) == 1
    assert entries[-1].options["dtype"] == options[0].dtype


def test_names_of_entries_tell_formats_apart() -> None:
    names = [entry.name for each in FORMATS.values() for entry in (*lamella_entries(each), torch_entry(each))]
    assert len(set(names)) == len(names)
    assert not FORMATS.keys() & CLASSES.keys()  # a line's `bits` says of which comparison it is


def test_cells_of_any_batch_size_have_names() -> None:
    for batch in (1, 2, 7, 32):
        cell = decode_cell(batch)
        assert cell_named(cell.name) == cell and cell.batch == batch and cell.suits(MODEL)
    assert all(cell_named(name) is cell for name, cell in CELLS.items())
    with pytest.raises(ValueError, match="p9"):
        cell_named("p9")


def test_the_page_shows_times_and_what_each_step_adds() -> None:
    entries = [*lamella_entries(FORMATS["int8"]), torch_entry(FORMATS["int8"])]
    step_ms = dict(zip((entry.name for entry in entries), (60.0, 50.0, 25.0, 120.0), strict=True))
    work = {"b1": {"bytes": 10**9, "flops": 2 * 10**9}, "b4": {"bytes": 10**9, "flops": 8 * 10**9}}
    lines = [as_line(entry, work=work if entry.engine == LAMELLA else {}) for entry in entries]
    samples = [
        Sample(MODEL.name, name, cell, number, 0.1, MODEL.steps * ms * factor / 1e3, STEADY, STEADY)
        for number, factor in enumerate((0.5, 1.0, 2.0))
        for cell in ("b4", "b1")
        for name, ms in step_ms.items()
    ]
    about = {"date": "2026-11-22", "commit": "abc", "processor": "p", "threads": 2, "command": "c"}
    found = Results(about, {"int8": 2e12}, lines, samples, ["a note"])
    assert step_times(found, lines[0], decode_cell(1)) == pytest.approx([30.0, 60.0, 120.0])

    page = report(found, "x.png")
    table = [[field.strip() for field in row.split("|")[1:-1]] for row in page.split("\n") if row.startswith("|")]
    assert table[0] == ["ms a token, int8", "batch 1", "batch 4"]
    rows = {row[0]: row[1:] for row in table[2:]}
    assert list(rows)[:4] == ["torch, eager bfloat16", *STEPS]  # in the order in which the paper adds them
    assert rows["Deep-Fusion, SBI-GeMM"] == ["25.0 (12.5-50.0)"] * 2
    assert rows["unfused, blocked GeMM, against torch, eager bfloat16"] == ["2.00x"] * 2
    assert rows["Deep-Fusion, blocked GeMM, against unfused, blocked GeMM"] == ["1.20x"] * 2
    assert rows["Deep-Fusion, SBI-GeMM, against Deep-Fusion, blocked GeMM"] == ["2.00x"] * 2
    assert rows["Deep-Fusion, SBI-GeMM, against torch, eager bfloat16"] == ["4.80x"] * 2
    assert rows["Deep-Fusion, SBI-GeMM: share of the read bandwidth"] == ["0.80"] * 2  # 1 GB in 25 ms, of 50 GB/s
    assert "- a note" in page and "(x.png)" in page and "24 of 24 measurements" in page


def test_a_page_without_torch_starts_with_the_plain_plan() -> None:
    lines = [as_line(entry) for entry in lamella_entries(FORMATS["bf16"])]
    samples = [Sample(MODEL.name, line.entry, "b1", 0, 0.1, 1.0, STEADY, STEADY) for line in lines]
    about = {"date": "2026-11-22", "commit": "abc", "processor": "p", "threads": 2, "command": "c"}
    page = report(Results(about, {}, lines, samples, []))
    assert "torch" not in page.split("## ")[1] and "![" not in page
    assert "| Deep-Fusion, SBI-GeMM, against unfused, blocked GeMM | 1.00x |" in page


def test_options_choose_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    args = ablation.parse([], 4)
    assert args.model is MODEL and [cell.batch for cell in args.batches] == [1, 2, 4, 8, 16, 32] and args.repeat == 5
    args = ablation.parse(["--model", "gpt2-xl", "--formats", "fp32,bf16", "--batches", "8,3,8"], 4)
    assert args.model.name == "gpt2-xl" and args.formats == [FORMATS["fp32"], FORMATS["bf16"]]
    assert [cell.name for cell in args.batches] == ["b3", "b8"]
    for words, what in (
        (["--model", "bert-base"], "'bert-base' is not among llama-3.2-1b"),
        (["--formats", "fp8"], "'fp8' is not among bf16"),
        (["--batches", "1,x"], "'x' is not a whole number from 1 on"),
        (["--batches", str(MOST_BATCH + 1)], f"{MOST_BATCH + 1} sequences are more than {MOST_BATCH}"),
    ):
        with pytest.raises(SystemExit):
            ablation.parse(words, 4)
        assert what in capsys.readouterr().err


def test_an_interpreter_is_found_by_what_it_has(tmp_path: Path) -> None:
    assert python_with(tmp_path, "json", "lamella") == Path(sys.executable)
    assert python_with(tmp_path, "json", "no_such_module") is None


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_a_shape_without_files_decodes(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    job = {
        "path": str(tmp_path / "config.json"),
        "options": {"dtype": "bfloat16", "quantization": "int8", **options},
        "threads": 1,
        "batch": 4,
        "context": 40,
    }
    worker = Worker("engine_lamella")
    worker.answer({"open": job, "encoder": False})
    cell = {**decode_cell(3).as_message(MODEL), "steps": 5}
    found = worker.answer({"cell": cell, "vocab": TINY["vocab_size"], "seed": "s"})
    assert found["first_s"] > 0 and found["decode_s"] > 0
    core = worker._engine._engine.core
    assert core.config.sbi_gemm == options.get("sbi_gemm", True)
    assert core.config.deep_fusion == options.get("deep_fusion", True)
    work = worker.answer({"work": cell})["work"]
    assert work["bytes"] > 2 * 64 * 300 and work["flops"] > 3 * 2 * 64 * 300
    kinds = {op["arithmetic"] for op in work["ops"]}
    assert "int8" in kinds and len(kinds) > 1  # the head's inputs stay bf16: pairs, or fp32 where there are none
    assert [sum(op[each] for op in work["ops"]) for each in ("bytes", "flops")] == [work["bytes"], work["flops"]]
