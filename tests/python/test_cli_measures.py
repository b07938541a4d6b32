"""`lamella bench`, `explain` and `info`: their fields, and figures that must agree; and how answers are shown."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import lamella
import pytest
from lamella import _core
from lamella.cli import bench, main
from lamella.cli.answers import stream_answer
from random_models import draw

SPREADS = (
    *("prefill_s", "prefill_tokens_per_s", "decode_step_s"),
    *("decode_tokens_per_s", "total_s", "achieved_GBps"),
)
PLAIN = (
    *("weight_bytes_per_step", "read_GBps", "bandwidth_fraction"),
    *("tflops", "peak_memory_bytes", "load_s"),
)
ROW = (
    *("op", "layer", "region", "inputs", "outputs", "shape", "dtype", "kernel", "arithmetic"),
    *("bytes_read", "bytes_written", "flops", "roofline_s", "measured_s"),
)
LAYERS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "llama"
    draw("llama", seed, folder, num_hidden_layers=LAYERS, max_position_embeddings=256, rope_parameters=None)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "bert"
    draw("bert", seed, folder)
    return folder


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reads 10 GB/s, always."""
    monkeypatch.setattr(_core, "measure_read_bandwidth", lambda threads: 1e10)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    value = json.loads(captured.out)
    assert isinstance(value, dict)
    return value


def run_text(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([*map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def weight_bytes(folder: Path, dtype: str = "float32") -> int:
    """Bytes of the model's parameters in fp32."""
    with lamella.Engine(folder, dtype=dtype, max_model_len=32) as engine:
        return 4 * int(_core.parameter_count(engine.core.spec))


# ---- bench ---------------------------------------------------------------------------------------------------------


def check_bench(value: dict[str, Any]) -> None:
    assert sorted(value) == sorted((*SPREADS, *PLAIN))
    for name in SPREADS:
        spread = value[name]
        assert list(spread) == ["median", "min", "max"]
        assert 0 < spread["min"] <= spread["median"] <= spread["max"], name


def test_bench_measures_what_it_says(model: Path, capsys: pytest.CaptureFixture[str], steady: None) -> None:
    options = ("--prompt-tokens", 20, "--new-tokens", 5, "--batch-size", 3, "--repeat", 3)
    value = run_json(capsys, "bench", model, *options)
    check_bench(value)
    step, total = value["decode_step_s"], value["total_s"]
    assert value["decode_tokens_per_s"]["max"] == pytest.approx(3 / step["min"])
    assert value["prefill_tokens_per_s"]["max"] == pytest.approx(60 / value["prefill_s"]["min"])
    assert value["achieved_GBps"]["median"] == pytest.approx(value["weight_bytes_per_step"] / step["median"] / 1e9)
    assert value["bandwidth_fraction"] == pytest.approx(value["achieved_GBps"]["median"] / 10)
    assert value["read_GBps"] == 10
    assert total["max"] >= value["prefill_s"]["min"] + 4 * step["min"]
    # A step reads all weights, with the padding of their panels, and its tokens' rows of the embedding, which may be
    # the head as well.
    with lamella.Engine(model, max_model_len=32) as engine:
        rows = 3 * 4 * engine.core.spec.hidden
        assert value["weight_bytes_per_step"] <= int(engine.stats()["bytes_weights"]) + rows
    assert value["peak_memory_bytes"] > weight_bytes(model)
    assert value["tflops"] > 0


@pytest.mark.parametrize("step_tokens", [3, 4, 7, 33])
def test_bench_of_prompts_that_take_several_steps(
    model: Path, capsys: pytest.CaptureFixture[str], steady: None, step_tokens: int
) -> None:
    """Early prompts generate while late ones are still read; decode steps count only once all run together."""
    options = ("--prompt-tokens", 20, "--new-tokens", 5, "--batch-size", 3, "--repeat", 2)
    check_bench(run_json(capsys, "bench", model, *options, "--max-num-batched-tokens", step_tokens))


def test_bench_up_to_the_very_end_of_the_context(model: Path, capsys: pytest.CaptureFixture[str], steady: None) -> None:
    options = ("--prompt-tokens", 250, "--new-tokens", 6, "--batch-size", 2, "--repeat", 1)
    check_bench(run_json(capsys, "bench", model, *options))


def test_bench_refuses_a_batch_that_cannot_run_as_one(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(model), "--batch-size", "4", "--max-num-seqs", "2"]) == 2
    assert "--max-num-seqs" in capsys.readouterr().err


def test_bench_of_an_encoder_has_no_decode_figures(
    encoder: Path, capsys: pytest.CaptureFixture[str], steady: None
) -> None:
    value = run_json(capsys, "bench", encoder, "--prompt-tokens", 9, "--batch-size", 2, "--repeat", 2)
    assert sorted(value) == sorted((*SPREADS, *PLAIN))
    absent = {name for name in value if value[name] is None}
    assert absent == {"decode_step_s", "decode_tokens_per_s", "achieved_GBps", "bandwidth_fraction"}
    text = run_text(capsys, "bench", encoder, "--prompt-tokens", 9, "--repeat", 1)
    assert "prefill_s" in text
    assert "decode_step_s" not in text


def test_bench_of_a_shape_reads_the_machine_before_and_after(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings 10, 10.5, 20, 21 GB/s around three repetitions: the middle pair differs too much and is dropped."""
    readings: Iterator[float] = iter([10e9, 10.5e9, 20e9, 21e9])
    monkeypatch.setattr(_core, "measure_read_bandwidth", lambda threads: next(readings))
    config = model / "config.json"
    value = run_json(capsys, "bench", "--shape", config, "--prompt-tokens", 5, "--new-tokens", 3, "--repeat", 3)
    check_bench(value)
    assert next(readings, None) is None
    assert value["read_GBps"] == pytest.approx((10.25 + 20.5) / 2)


def test_bench_on_an_unsteady_machine_leaves_the_share_out(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([10e9, 15e9, 10e9])
    monkeypatch.setattr(_core, "measure_read_bandwidth", lambda threads: next(readings))
    assert main(["bench", str(model), "--prompt-tokens", "5", "--repeat", "2", "--json"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert value["read_GBps"] is None
    assert value["bandwidth_fraction"] is None
    assert value["decode_step_s"]["median"] > 0
    assert "not steady" in captured.err


def test_bench_measures_the_bandwidth_of_nothing_that_a_cache_could_hold(
    model: Path, steady: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("bench", model, "--prompt-tokens", 5, "--repeat", 1)
    monkeypatch.setattr(_core, "bandwidth_buffer", lambda: 2**30)
    assert run_json(capsys, *arguments)["read_GBps"] == 10
    monkeypatch.setattr(_core, "bandwidth_buffer", lambda: 2**30 - 1)
    assert run_json(capsys, *arguments)["read_GBps"] is None


def test_pairs_of_readings_may_differ_by_a_tenth() -> None:
    assert bench.Repetition(1, 1, (9.0, 10.0)).steady_read == 9.5
    assert bench.Repetition(1, 1, (10.0, 8.9)).steady_read is None
    assert bench.Repetition(1, 1, (None, 10.0)).steady_read is None


def test_bench_in_words(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run_text(capsys, "bench", model, "--prompt-tokens", 5, "--new-tokens", 3, "--repeat", 1)
    for line in (*SPREADS, "weights read by a step", "machine reads", "peak memory", "load"):
        assert f"\n{line}" in text


# ---- explain -------------------------------------------------------------------------------------------------------


def test_explain_rows_are_the_plan(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = run_json(capsys, "explain", model, "--batch-size", 2, "--tokens", 3, "--context", 40)
    assert (value["batch_size"], value["tokens"], value["context"]) == (2, 3, 40)
    rows = value["rows"]
    for row in rows:
        assert tuple(row) == ROW
        assert row["measured_s"] >= 0
        assert row["kernel"]
    assert {row["layer"] for row in rows} == {-1, *range(LAYERS)}
    assert any(row["op"] == "norm_qkv" for row in rows)
    with lamella.Engine(model) as engine:
        expected = engine.plan(2, 3, 40)
    for name in ("op", "layer", "region", "shape", "dtype", "kernel", "bytes_read", "bytes_written", "flops"):
        assert [row[name] for row in rows] == [row[name] for row in expected]
    # Each matrix multiplies every token (the head one row a sequence): a multiply and an add a weight.
    assert sum(row["flops"] for row in rows) > 2 * weight_bytes(model) / 4


def test_explain_names_what_each_op_multiplies(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_json(capsys, "explain", model, "--dtype", "float32", "--quantization", "int8")["rows"]
    found = {row["op"]: row["arithmetic"] for row in rows}
    assert {found[op] for op in ("norm_qkv", "norm_mlp_up", "output_residual")} == {"int8"}
    assert {found[op] for op in ("embed", "norm", "layout_attention", "greedy_head")} == {
        "f32"
    }  # the head: weights only


def test_explain_without_deep_fusion_has_the_plain_ops(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = run_json(capsys, "explain", model, "--no-deep-fusion")["rows"]
    fused = run_json(capsys, "explain", model)["rows"]
    assert len(plain) > len(fused)
    assert {"linear", "attention"} <= {row["op"] for row in plain}
    assert "norm_qkv" not in {row["op"] for row in plain}


def test_explain_names_the_gemm_that_few_tokens_take(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ways(*options: str) -> set[str]:
        rows = run_json(capsys, "explain", model, *options)["rows"]
        return {way for row in rows for way in ("SBI-GeMM", "blocked GeMM") if way in row["kernel"]}

    assert ways() == {"SBI-GeMM"}
    assert ways("--no-sbi-gemm") == {"blocked GeMM"}
    assert ways("--no-sbi-gemm", "--no-deep-fusion") == {"blocked GeMM"}


def test_explain_of_a_shape_that_does_not_fit_has_costs_only(capsys: pytest.CaptureFixture[str]) -> None:
    value = run_json(capsys, "explain", "--shape", "lm-530b")
    rows = value["rows"]
    assert all(tuple(row) == ROW for row in rows)
    assert {row["measured_s"] for row in rows} == {None}
    assert sum(row["bytes_read"] for row in rows) > 2 * 530e9  # two bytes a parameter
    assert {row["arithmetic"] for row in rows if row["op"] == "norm"} == {"f32"}
    slowest = max(rows, key=lambda row: int(row["bytes_read"]))
    peak = value["peak_GFLOPs"][slowest["arithmetic"]] * 1e9
    memory_s = (slowest["bytes_read"] + slowest["bytes_written"]) / value["read_GBps"] / 1e9
    assert slowest["roofline_s"] == pytest.approx(max(memory_s, slowest["flops"] / peak))


def test_explain_where_the_bandwidth_cannot_be_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "measure_read_bandwidth", lambda threads: None)
    value = run_json(capsys, "explain", "--shape", "lm-530b")
    assert value["read_GBps"] is None
    assert {row["roofline_s"] for row in value["rows"]} == {None}
    assert "memory not measured" in run_text(capsys, "explain", "--shape", "lm-530b")


def test_explain_of_a_model_that_does_not_fit_is_an_error(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(model), "--memory-budget", "10KiB"]) == 4
    assert main(["explain", "--shape", str(model / "config.json"), "--memory-budget", "10KiB"]) == 0
    assert "costs only" in capsys.readouterr().err


def test_explain_folds_layers_that_are_alike(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folded = run_text(capsys, "explain", model)
    assert f"layers 0-{LAYERS - 1} x{LAYERS}" in folded
    whole = run_text(capsys, "explain", model, "--all-layers")
    assert "layers 0" not in whole
    per_layer = sum(1 for row in run_json(capsys, "explain", model)["rows"] if row["layer"] == 0)
    assert len(whole.splitlines()) - len(folded.splitlines()) == (LAYERS - 1) * per_layer
    assert folded.splitlines()[-1].startswith("total")


def test_explain_shows_the_buffers(model: Path, encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (model, encoder):
        text = run_text(capsys, "explain", folder, "--memory", "--tokens", 5)
        assert text.startswith("buffer ")
        assert "one allocation of" in text
        assert run_json(capsys, "explain", folder, "--memory", "--tokens", 5)["memory"] == text


def test_explain_of_an_encoder(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = run_json(capsys, "explain", encoder, "--batch-size", 2, "--tokens", 7)
    assert value["context"] == 7
    assert all(row["measured_s"] is not None for row in value["rows"])


# ---- info ----------------------------------------------------------------------------------------------------------


def check_machine(value: dict[str, Any]) -> None:
    assert value["version"] == lamella.__version__
    machine = value["machine"]
    assert machine["usable_cores"] >= 1
    assert machine["kernel_sets"] == _core.kernel_sets()
    assert machine["memory_available_bytes"] > 0
    assert machine["peak_GFLOPs"] > 0


def test_info_of_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    value = run_json(capsys, "info")
    check_machine(value)
    assert list(value) == ["version", "machine"]
    assert value["machine"]["read_GBps"] > 0
    text = run_text(capsys, "info", "--threads", 1)
    assert value["machine"]["processor"] in text
    assert "(1 threads)" in text


def test_info_of_a_model_agrees_with_its_engine(model: Path, capsys: pytest.CaptureFixture[str], steady: None) -> None:
    value = run_json(capsys, "info", model, "--dtype", "bf16", "--max-model-len", 100, "--max-num-seqs", 3)
    check_machine(value)
    facts = value["model"]
    stored = facts["stored"]["F32"]
    assert stored["bytes"] == 4 * facts["parameters"]
    assert (facts["family"], facts["kind"], facts["layers"]) == ("llama", "decoder", LAYERS)
    assert facts["context"] == 256
    assert facts["tokenizer"] is None
    with lamella.Engine(model, dtype="bf16", max_model_len=100, max_num_seqs=3) as engine:
        stats = engine.stats()
        weights = len(_core.declare_weights(engine.core.spec))
    assert 0 <= int(stats["bytes_weights"]) - facts["memory"]["weights_bytes"] < 4096 * (weights + 1)  # alignment
    assert facts["memory"]["kv_bytes"] == stats["bytes_kv"]
    assert "weights in memory" in run_text(capsys, "info", model)


def test_info_of_shapes(encoder: Path, capsys: pytest.CaptureFixture[str], steady: None) -> None:
    facts = run_json(capsys, "info", "--shape", "lm-530b")["model"]
    assert facts["parameters"] == pytest.approx(530e9, rel=0.01)
    assert "stored" not in facts
    facts = run_json(capsys, "info", "--shape", encoder / "config.json")["model"]
    assert facts["kind"] == "encoder"
    assert facts["memory"]["kv_bytes"] == 0


def test_info_of_smollm2(smollm2_path: Path, capsys: pytest.CaptureFixture[str], steady: None) -> None:
    facts = run_json(capsys, "info", smollm2_path)["model"]
    assert facts["parameters"] == 134515008
    assert set(facts["stored"]) == {"F32", "Q4_1", "Q8_0"}
    assert facts["tokenizer"] == {"tokens": 49152}
    assert facts["chat_template"]


def test_ids_are_shown_with_commas_however_many_come_at_once() -> None:
    """A chunk has the ids that were new when one looked."""

    class Engine:
        tokenizer = None

        def stream(self, ids: list[int], **_: Any) -> Generator[lamella.Chunk, None, None]:
            yield from (lamella.Chunk("", ids) for ids in ([5, 6, 7], [8], [9, 10]))
            yield lamella.Chunk("", [], "length")

    shown: list[str] = []
    done = stream_answer(Engine(), [1], {}, shown.append)  # type: ignore[arg-type]
    assert "".join(shown) == "5,6,7,8,9,10"
    assert (done.token_ids, done.finish_reason) == ([5, 6, 7, 8, 9, 10], "length")
