"""bench/cpu_peers.py where it needs no peer: what it chooses, in which order it measures, what it concludes."""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT
from peers.cells import CELLS
from peers.entries import CLASSES, LAMELLA, MODULES, Entry, entries
from peers.groups import groups
from peers.guard import Guard
from peers.machine import Reading
from peers.models import MODELS
from peers.options import parse, public
from peers.readme import renewed
from peers.report import report
from peers.results import Line, Results, Sample
from peers.rounds import run_rounds

ONE_DIE, TWO_DIES = Reading(50e9, 55e-9), Reading(85e9, 200e-9)


def sample(entry: str, number: int, seconds: float, cell: str = "b1", *, before=ONE_DIE, after=None) -> Sample:
    first_s, decode_s = (0.1, seconds) if CELLS[cell].kind == "decode" else (seconds, 0.0)
    return Sample("llama-3.2-1b", entry, cell, number, first_s, decode_s, before, after or before)


def line(entry: str, engine: str, bits: str = "8", **more) -> Line:
    return Line("llama-3.2-1b", entry, engine, bits, "1.0", 2.0, 1_500_000_000, **more)


def results(lines: list[Line], samples: list[Sample], **peaks: float) -> Results:
    about = {"date": "2026-11-22", "commit": "abc", "processor": "p", "threads": 2, "command": "c"}
    return Results(about, peaks, lines, samples, ["a note"])


def work_of(streamed: float = 1e9, flops: float = 1e9, arithmetic: str = "int8") -> dict[str, Any]:
    op = {"bytes": streamed, "flops": flops, "arithmetic": arithmetic}
    return {"bytes": streamed, "flops": flops, "ops": [op]}


# ---- what is chosen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_every_entry_is_one_that_its_model_and_class_can_have(model) -> None:
    found = entries(model, MODULES, CLASSES)
    assert len({entry.name for entry in found}) == len(found)
    assert {entry.engine for entry in found} <= MODULES.keys()
    assert all(entry.bits in CLASSES for entry in found)
    assert all(bool(entry.arithmetic) == (entry.engine == LAMELLA) for entry in found)
    for bits in {entry.bits for entry in found}:
        assert next(entry.engine for entry in found if entry.bits == bits) == LAMELLA  # so that ratios have a numerator
    gguf = {entry.artifact for entry in found if entry.artifact.endswith(".gguf")}
    assert gguf <= {"bf16.gguf", *(f"{name}.gguf" for name in model.formats)}
    assert not (model.is_encoder and gguf)
    if not model.is_llama and not model.is_encoder:
        assert "openvino" not in {entry.engine for entry in found}


def test_entries_are_those_asked_for() -> None:
    found = entries(MODELS["llama-3.2-1b"], [LAMELLA, "llama.cpp"], ["4"])
    own = ["lamella int4", "lamella int4_a8", "lamella int4_a8, head too"]
    assert [entry.name for entry in found] == [*own, "llama.cpp Q4_0", "llama.cpp Q4_K_M"]


def test_cells_go_to_models_of_their_kind_that_hold_them() -> None:
    def of(model: str) -> list[str]:
        return [cell.name for cell in CELLS.values() if cell.suits(MODELS[model])]

    assert of("llama-3.2-1b") == ["b1", "b8", "b32", "p128", "p512", "kv4096"]
    assert of("gpt2-xl") == ["b1", "b8", "b32", "p128", "p512"]  # a context of 1,024
    assert of("bert-base") == ["e128"]


def test_rates_count_what_the_cell_counts() -> None:
    llama, bert = MODELS["llama-3.2-1b"], MODELS["bert-base"]
    assert CELLS["b8"].rate(llama, 2.0) == 8 * llama.steps / 2.0
    assert CELLS["p512"].rate(llama, 2.0) == 256.0
    assert CELLS["e128"].rate(bert, 0.004) == pytest.approx(4.0)  # ms


def test_groups_fit_and_leave_nobody_out_that_fits(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(200):
        sizes = {f"peer {i}": draw.randrange(1, 12) for i in range(draw.randrange(6))}
        sizes |= {f"{LAMELLA} {i}": draw.randrange(1, 5) for i in range(draw.randrange(1, 3))}
        members = [Entry(*name.split(), "8", "file") for name in sizes]
        room = draw.randrange(1, 30)
        parts, too_large = groups(members, {entry: sizes[entry.name] for entry in members}.__getitem__, room)

        own = {name for name in sizes if name.startswith(LAMELLA)}
        beside = room - sum(sizes[name] for name in own)
        for part in parts:
            assert own <= {entry.name for entry in part}
            assert sum(sizes[entry.name] for entry in part) <= room, seed
        placed = [entry.name for part in parts for entry in part if entry.engine != LAMELLA]
        assert placed == [name for name in sizes if name not in own and sizes[name] <= beside], seed
        assert {entry.name for entry in too_large} == sizes.keys() - own - set(placed), seed


# ---- when figures count ----------------------------------------------------------------------------------------------


def test_readings_of_two_placements_are_not_alike() -> None:
    assert ONE_DIE.is_like(Reading(54e9, 65e-9))
    assert not ONE_DIE.is_like(Reading(50e9, 200e-9))  # the cores moved, whatever the memory says
    assert not ONE_DIE.is_like(Reading(40e9, 55e-9))  # somebody else reads
    assert ONE_DIE.is_like(Reading(50e9, None)) and Reading(None).is_like(TWO_DIES)  # nothing known against it


def test_rounds_take_turns_and_stop_when_enough_compare() -> None:
    calls: list[tuple[str, int]] = []

    def measure(entry: str, number: int) -> Sample:
        calls.append((entry, number))
        return sample(entry, number, 1.0)

    found = run_rounds(["a", "b", "c"], measure, repeat=3, first_round=10)
    assert [number for _, number in calls] == [10] * 3 + [11] * 3 + [12] * 3
    assert [entry for entry, _ in calls] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert len(found) == 9


def test_rounds_go_on_where_the_machine_changed_but_not_for_ever() -> None:
    calls = []

    def one_bad_round(entry: str, number: int) -> Sample:
        calls.append(number)
        return sample(entry, number, 1.0, after=TWO_DIES if (entry, number) == ("b", 1) else None)

    run_rounds(["a", "b"], one_bad_round, repeat=3)
    assert calls == [0, 0, 1, 1, 2, 2, 3, 3]
    calls.clear()
    run_rounds(["a", "b"], lambda entry, n: calls.append(n) or sample(entry, n, 1.0, after=TWO_DIES), repeat=3)
    assert calls == [n for n in range(6) for _ in range(2)]


def test_an_entry_that_cannot_is_asked_once_and_the_others_go_on() -> None:
    calls = []

    def measure(entry: str, number: int) -> Sample | None:
        calls.append(entry)
        return None if entry == "b" else sample(entry, number, 1.0)

    found = run_rounds(["a", "b", "c"], measure, repeat=2)
    assert calls.count("b") == 1
    assert [(each.entry, each.round) for each in found] == [("a", 0), ("c", 0), ("c", 1), ("a", 1)]


# ---- what is concluded -----------------------------------------------------------------------------------------------


def test_ratios_pair_rounds_and_drop_those_that_saw_two_machines(seed: int) -> None:
    draw = random.Random(seed)
    states = [ONE_DIE, TWO_DIES]
    samples, expected = [], []
    for number in range(40):
        (ours, theirs), seconds = draw.choices(states, k=2), (draw.uniform(1, 2), draw.uniform(1, 2))
        changed = draw.random() < 0.3
        other = TWO_DIES if ours is ONE_DIE else ONE_DIE
        samples.append(sample("ours", number, seconds[0], before=ours, after=other if changed else ours))
        samples.append(sample("theirs", number, seconds[1], before=theirs))
        if not changed and ours is theirs:
            expected.append(seconds[1] / seconds[0])
    draw.shuffle(samples)
    found = results([], samples).ratio(line("ours", LAMELLA), line("theirs", "llama.cpp"), CELLS["b1"])
    assert found == (pytest.approx(statistics.median(expected)) if expected else None), seed


def test_the_best_peer_is_the_fastest_of_its_class_and_model() -> None:
    ours = line("ours", LAMELLA)
    lines = [ours, line("slow", "llama.cpp"), line("fast", "openvino"), line("other", "openvino", "4")]
    times = {"ours": 1.0, "slow": 3.0, "fast": 2.0, "other": 0.5}
    samples = [sample(entry, number, seconds) for number in range(3) for entry, seconds in times.items()]
    found = results(lines, samples)
    best = found.best_peer(ours, CELLS["b1"])
    assert best is not None and best[0].entry == "fast" and best[1] == pytest.approx(2.0)
    assert found.best_peer(ours, CELLS["b8"]) is None


def test_no_slower_peer_stands_for_the_fastest_that_never_compares() -> None:
    ours = line("ours", LAMELLA)
    times = {"ours": 1.0, "slow": 3.0, "fast": 2.0}
    samples = [
        sample(entry, number, seconds, before=TWO_DIES if entry == "fast" else ONE_DIE)
        for number in range(3)
        for entry, seconds in times.items()
    ]
    found = results([ours, line("slow", "llama.cpp"), line("fast", "openvino")], samples)
    assert found.ratio(ours, found.lines[1], CELLS["b1"]) == pytest.approx(3.0)
    assert found.best_peer(ours, CELLS["b1"]) is None


def test_shares_are_of_what_was_measured_around() -> None:
    steps = MODELS["llama-3.2-1b"].steps
    ours = line("ours", LAMELLA, arithmetic="int8", work={"b1": work_of()})
    found = results([ours], [sample("ours", 0, steps * 0.025)], int8=2e12)  # 40 of 50 GB/s, 40 of 2,000 GFLOP/s
    assert found.share_of_read(ours, CELLS["b1"]) == pytest.approx(0.8)
    assert found.share_of_peak(ours, CELLS["b1"]) == pytest.approx(0.02)
    assert found.share_of_read(ours, CELLS["b8"]) is None
    assert results([ours], found.samples).share_of_peak(ours, CELLS["b1"]) is None  # no peak was measured


def test_a_roof_is_every_ops_own() -> None:
    steps = MODELS["llama-3.2-1b"].steps
    bytes_bound, flops_bound = work_of(5e8, 5e9, "int8"), work_of(5e8, 5e9, "bf16")
    work = {"bytes": 10**9, "flops": 10**10, "ops": [*bytes_bound["ops"], *flops_bound["ops"]]}
    ours = line("ours", LAMELLA, arithmetic="int8", work={"b1": work, "b8": {"bytes": 1, "flops": 1}, "p128": work})
    peer = line("peer", "llama.cpp")
    samples = [sample("ours", 0, steps * 0.04), sample("ours", 0, 1.0, "b8"), sample("ours", 0, 0.06, "p128")]
    samples += [sample("peer", 0, steps * 0.12), sample("ours", 1, steps * 0.05), sample("ours", 2, steps * 0.04)]
    found = results([ours, peer], samples, int8=2e12, bf16=2.5e11)
    assert found.least_s(ours, CELLS["b1"], 5e10) == pytest.approx(0.01 + 0.02)  # of 50 GB/s, of 250 GFLOP/s
    assert found.least_s(ours, CELLS["b1"], 5e10, tokens=8) == pytest.approx(0.02 + 0.16)
    assert found.share_of_roof(ours, CELLS["b1"]) == pytest.approx(0.75)
    assert found.roof_beside(ours, peer, CELLS["b1"]) == pytest.approx(4.0)  # of the one round where both were
    assert found.share_of_roof(ours, CELLS["p128"]) == pytest.approx(0.5)  # one step
    assert found.share_of_roof(ours, CELLS["b32"]) is None
    assert found.share_of_roof(ours, CELLS["b8"]) is None
    assert found.least_s(ours, CELLS["b8"], 5e10) is None  # a file from before ops were written
    assert results([ours], found.samples, int8=2e12).share_of_roof(ours, CELLS["b1"]) is None  # a peak is missing


def test_results_survive_json() -> None:
    ours = line("ours", LAMELLA, arithmetic="int8", work={"b1": {"bytes": 1, "flops": 2}})
    found = results([ours], [sample("ours", 0, 1.0, after=TWO_DIES), sample("ours", 1, 1.0, "p128")], f32=1e12)
    assert Results.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_the_page_shows_rates_ratios_and_what_is_missing() -> None:
    steps = MODELS["llama-3.2-1b"].steps
    ours = line("lamella int8", LAMELLA, arithmetic="int8", work={"b1": work_of()})
    lines = [ours, line("llama.cpp Q8_0", "llama.cpp")]
    step_s = {"lamella int8": 0.025, "llama.cpp Q8_0": 0.05}
    samples = [sample(entry, number, steps * each_s) for number in range(3) for entry, each_s in step_s.items()]
    page = report(results(lines, samples, int8=2e12), "x.png")
    rows = {
        row.split("|")[1].strip(): [field.strip() for field in row.split("|")[2:-1]]
        for row in page.split("\n")
        if "|" in row
    }
    assert rows["8.0 to 8.5 bits"] == ["batch 1", "load, s", "peak, GB"]  # no column for a cell that nobody ran
    assert rows["**lamella int8**"] == ["40.0 (40.0-40.0)", "2.0", "1.5"]
    assert rows["llama.cpp Q8_0"] == ["20.0 (20.0-20.0)", "2.0", "1.5"]
    assert rows["lamella int8 / best peer"][0] == "2.00x llama.cpp"
    assert rows["lamella int8, share of reads or peak"][0] == "0.80 of reads"
    assert rows["lamella int8, share of its roof"][0] == "0.80, at 2.50x llama.cpp"
    assert "- a note" in page and "x.png" in page and "6 of 6 measurements" in page


def test_a_readme_shows_the_figures_of_the_files_that_it_names(tmp_path: Path) -> None:
    steps = MODELS["llama-3.2-1b"].steps
    lines = [line("lamella int8", LAMELLA), line("llama.cpp Q8_0", "llama.cpp")]
    first = [sample(each.entry, 0, steps * step_s) for each, step_s in zip(lines, (0.025, 0.05), strict=True)]
    second = [sample("lamella int8", 0, steps * 0.1), sample("lamella int8", 0, 0.5, "p128")]
    for name, samples in (("a", first), ("b", second)):
        found = dataclasses.asdict(results(lines, samples))
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    text = "before\n<!-- peers: a.json b.json -->\nold\n<!-- end of peers -->\nafter\n"
    page = renewed(text, tmp_path)
    assert page.startswith("before\n<!-- peers: a.json b.json -->\n| llama-3.2-1b, tokens/s | batch 1 | prompt 128 |\n")
    assert page.endswith("<!-- end of peers -->\nafter\n")
    assert "old" not in page and "[llama-3.2-1b, 8 bits](b.md): 2026-11-22, commit abc, p, 2 threads. " in page
    assert "| int8 | 40.0 (2.00x llama.cpp) | 256 |" in page  # batch 1 of the first file
    assert renewed(page, tmp_path) == page
    with pytest.raises(ValueError, match="no place"):
        renewed("nothing", tmp_path)


def test_the_readme_shows_what_its_results_say() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert renewed(text, ROOT) == text, "python bench/readme_table.py writes its tables anew"


# ---- options and the guard -------------------------------------------------------------------------------------------


def test_options_choose_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    args = parse("", 4, ["--models", "minilm,smollm2", "--cells", "b1", "--threads", "3"])
    assert [model.name for model in args.models] == ["minilm", "smollm2"] and args.cells == [CELLS["b1"]]
    assert args.classes == list(CLASSES) and args.repeat == 5 and LAMELLA not in args.peers
    for words, what in (
        (["--models", "gpt5"], "'gpt5' is not among llama-3.2-1b"),
        (["--repeat", "0"], "'0' is not a whole number from 1 on"),
        (["--threads", "5"], "--threads is 5; this process may use 4 cores"),
    ):
        with pytest.raises(SystemExit):
            parse("", 4, words)
        assert what in capsys.readouterr().err


def test_the_command_that_is_shown_tells_nothing_of_the_machine() -> None:
    words = ["--work", "/tmp/w", "--repeat", "3", "--guard=quiet cat", "--output", "o", "--list"]
    assert public(words) == ["--repeat", "3", "--list"]


def test_the_guard_holds_from_its_line_until_it_is_released(tmp_path: Path) -> None:
    mark = tmp_path / "held"
    guard = Guard(f"sh -c 'touch {mark}; echo go; cat > /dev/null; rm {mark}'")
    for _ in range(2):
        assert guard.take() and mark.exists()
        assert not guard.take()  # still held
        guard.release()
        assert not mark.exists()
    with pytest.raises(RuntimeError, match="status 3, without a line"):
        Guard("sh -c 'exit 3'").take()
    assert not Guard(None)._command and Guard(None).take()
