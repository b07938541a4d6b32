"""Engines of several ranks, threads of this process, beside engines of one: every family, format and way in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
from compare import assert_greedy_equal, relative_error
from engines import assert_idle
from lamella.cli import main
from lamella.shapes import spec_for_shape
from random_models import FAMILIES, draw

DECODERS = [family for family in FAMILIES if family != "bert"]
LAYOUTS = [(2, 1), (3, 1), (4, 1), (1, 2), (2, 2)]  # tensor, pipeline
#: Of the drawn models: heads that do not divide, and layers enough for the stages.
SHAPE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 60, "n_head": 5, "n_layer": 3},
    "gpt_neo": {"hidden_size": 60, "num_heads": 5, "num_layers": 4, "attention_types": [[["global", "local"], 2]]},
    "gpt_neox": {"hidden_size": 80, "num_attention_heads": 5, "num_hidden_layers": 3},
    "llama": {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 3},
    "mistral": {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 3, "num_hidden_layers": 3},
    "qwen2": {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 3},
    "bert": {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 64},
}
SHAPE["mixtral"] = dict(SHAPE["mistral"])
SHAPE["qwen2_moe"] = {**SHAPE["qwen2"], "mlp_only_layers": [1]}
SHAPE["qwen3_moe"] = {**SHAPE["qwen2"], "head_dim": 10}
SHAPE["olmoe"] = dict(SHAPE["qwen2"])
for _family in ("gpt_neox", "llama", "mistral", "mixtral"):
    SHAPE[_family]["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
SHAPE["gpt_neox"]["rope_parameters"]["partial_rotary_factor"] = 0.5
for _family in ("llama", "mistral", "mixtral"):
    SHAPE[_family]["head_dim"] = 10
for _family in ("qwen2", "qwen2_moe"):
    SHAPE[_family]["layer_types"] = ["full_attention", "sliding_attention", "full_attention"]
    SHAPE[_family]["use_sliding_window"] = True

Models = Callable[[str], tuple[Path, int]]


@pytest.fixture(scope="module")
def models(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A drawn model of a family, with its vocabulary's size; one a module."""
    made: dict[str, tuple[Path, int]] = {}

    def get(family: str) -> tuple[Path, int]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            model = draw(family, seed, folder, **SHAPE[family])
            made[family] = folder, model.config.vocab_size
        return made[family]

    return get


def sizes(layout: tuple[int, int]) -> dict[str, int]:
    """A layout as keyword arguments."""
    return {"tensor_parallel_size": layout[0], "pipeline_parallel_size": layout[1]}


def prompts_for(seed: int, vocab: int) -> list[list[int]]:
    """Prompts of several lengths."""
    draws = np.random.default_rng(seed)
    return [draws.integers(0, vocab, length).tolist() for length in (21, 1, 9)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", DECODERS)
def test_every_family_agrees_with_one_rank(models: Models, family: str, layout: tuple[int, int], seed: int) -> None:
    folder, vocab = models(family)
    if family == "olmoe" and layout[0] > 1:  # whose norms need all heads of a token
        with pytest.raises(lamella.CheckpointError, match="tensor_parallel_size"):
            lamella.Engine(folder, **sizes(layout))
        return
    prompts = prompts_for(seed, vocab)
    with (
        lamella.Engine(folder, dtype="float32") as one,
        lamella.Engine(folder, dtype="float32", **sizes(layout)) as all,
    ):
        expected, found = one.logits(prompts), all.logits(prompts)
        if layout[0] == 1:
            assert all_equal(found, expected), "stages give the bits of one"
        for ours, theirs in zip(found, expected, strict=True):
            assert relative_error(ours, theirs) < 1e-5
        error = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        theirs = one.generate(prompts, max_tokens=8, temperature=0, ignore_eos=True)
        ours = all.generate(prompts, max_tokens=8, temperature=0, ignore_eos=True)
        for prompt, a, b in zip(prompts, ours, theirs, strict=True):
            rows = one.logits([*prompt, *b.token_ids])[0][len(prompt) - 1 : -1]
            assert_greedy_equal(a.token_ids, b.token_ids, rows, error)
        assert_idle(all)


def all_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Whether two lists of arrays have the same bits."""
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("layout", [(2, 1), (1, 3), (2, 2)])
def test_an_encoder_agrees_with_one_rank(models: Models, layout: tuple[int, int], seed: int) -> None:
    folder, vocab = models("bert")
    inputs = prompts_for(seed, vocab)
    with lamella.Engine(folder) as one, lamella.Engine(folder, **sizes(layout)) as all:
        for pooling in ("mean", "cls"):
            assert relative_error(all.encode(inputs, pooling=pooling), one.encode(inputs, pooling=pooling)) < 1e-5


@pytest.mark.parametrize("layout", [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "int8_weight_only"},
        {"quantization": "int8"},
        {"quantization": "int8", "smoothing": False, "quantize_head": True},
        {"quantization": "int4"},
        {"quantization": "int4_a8"},
        {"dtype": "bfloat16"},
        {"dtype": "float16", "kv_cache_dtype": "int8"},
    ],
    ids=str,
)
def test_every_format_agrees_with_one_rank(
    models: Models, options: dict[str, Any], layout: tuple[int, int], seed: int
) -> None:
    folder, vocab = models("llama")
    prompts = prompts_for(seed, vocab)
    with lamella.Engine(folder, **options) as one, lamella.Engine(folder, **options, **sizes(layout)) as all:
        expected, found = one.logits(prompts), all.logits(prompts)
    if layout[0] == 1:
        assert all_equal(found, expected)
    narrow = options.get("dtype") is not None  # activations are rounded, in another order of additions
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs) < (3e-2 if narrow else 1e-5)


def test_a_store_serves_any_number_of_ranks(models: Models, tmp_path: Path, seed: int) -> None:
    folder, vocab = models("qwen2")
    prompts = prompts_for(seed, vocab)
    lamella.pack(folder, tmp_path / "store", quantization="int4")
    with lamella.Engine(tmp_path / "store") as one:
        expected = one.logits(prompts)
    for layout in LAYOUTS:
        told: list[tuple[int, int]] = []

        def progress(done: int, total: int, told: list[tuple[int, int]] = told) -> None:
            told.append((done, total))

        with lamella.Engine(tmp_path / "store", progress=progress, **sizes(layout)) as all:
            for ours, theirs in zip(all.logits(prompts), expected, strict=True):
                assert relative_error(ours, theirs) < 1e-5
        if told:
            assert told == sorted(told)
            assert told[-1][0] == told[-1][1]


def test_damage_anywhere_in_a_store_is_found_by_several_ranks(models: Models, tmp_path: Path) -> None:
    lamella.pack(models("llama")[0], tmp_path / "store")
    file = tmp_path / "store" / "model.lamella"
    content = bytearray(file.read_bytes())
    content[-1 - 4096 - 64] ^= 1
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(lamella.CheckpointError, match="segment"):
        lamella.Engine(tmp_path / "store", tensor_parallel_size=2)


def test_ranks_get_parts_of_the_same_random_weights(models: Models) -> None:
    spec = spec_for_shape(str(models("llama")[0] / "config.json"))
    ids = [5, 80, 7, 33]
    for quantization in (None, "int4"):
        options: dict[str, Any] = {"dtype": "float32", "quantization": quantization, "seed": 3}
        with lamella.Engine.random(spec, **options) as one:
            expected = one.logits(ids)[0]
        for layout in LAYOUTS:
            with lamella.Engine.random(spec, **options, **sizes(layout)) as all:
                assert relative_error(all.logits(ids)[0], expected) < 1e-5
    with lamella.Engine.random(spec, dtype="float32", seed=4) as other:
        assert relative_error(other.logits(ids)[0], expected) > 0.1


@pytest.mark.parametrize("schedule", ["hybrid", "single", "training"])
def test_schedules_change_no_bit(models: Models, schedule: str, seed: int) -> None:
    folder, vocab = models("gpt2")
    prompts = prompts_for(seed, vocab) * 3
    options: dict[str, Any] = {"max_tokens": 9, "temperature": 0.9, "seed": 5}
    with lamella.Engine(folder) as one:
        expected = [completion.token_ids for completion in one.generate(prompts, **options)]
    for counts in ({}, {"prompt_micro_batches": 5}, {"prompt_micro_batches": 1}):
        with lamella.Engine(folder, pipeline_parallel_size=3, pipeline_schedule=schedule, **counts) as all:
            assert [completion.token_ids for completion in all.generate(prompts, **options)] == expected
            assert_idle(all)


def test_threads_are_shared_out(models: Models) -> None:
    folder, _ = models("gpt2")
    with lamella.Engine(folder, threads=5, tensor_parallel_size=2) as engine:
        assert engine.core.threads == 5
        assert engine.core.device_name.startswith("2 ranks: cpu (")
    with lamella.Engine(folder, threads=1, tensor_parallel_size=2) as engine:
        assert engine.core.threads == 2, "one each at least"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size is 0; expected 1 to 65536"),
        (
            {"tensor_parallel_size": 6},
            "tensor_parallel_size is 6, but the query heads of layer 0 are 5; expected at most 5",
        ),
        (
            {"pipeline_parallel_size": 4},
            "pipeline_parallel_size is 4, but the model has 3 layers; expected at most that",
        ),
        ({"tensor_parallel_size": 60_000}, "the query heads of layer 0 are 5"),
        ({"pipeline_schedule": "zigzag"}, "pipeline_schedule is 'zigzag'"),
        ({"pipeline_parallel_size": 2, "prompt_micro_batches": 17}, "prompt_micro_batches is 17; expected 1 to 16"),
        (
            {"pipeline_schedule": "single", "prompt_micro_batches": 2, "generation_micro_batches": 3},
            "the schedule single has one count",
        ),
    ],
)
def test_layouts_that_do_not_work_are_refused_before_weights_are_read(
    models: Models, options: dict[str, Any], message: str
) -> None:
    def progress(done: int, total: int) -> None:
        pytest.fail("a weight was read")

    with pytest.raises(lamella.InvalidArgumentError, match=message):
        lamella.Engine(models("gpt2")[0], progress=progress, **options)


def test_memory_is_counted_over_all_ranks(models: Models) -> None:
    folder, _ = models("llama")
    with lamella.Engine(folder) as one, lamella.Engine(folder, tensor_parallel_size=2) as all:
        assert all.stats()["bytes_weights"] >= one.stats()["bytes_weights"]
    with pytest.raises(lamella.OutOfMemoryError):
        lamella.Engine(folder, tensor_parallel_size=2, memory_budget=50_000)


# ---- the command -----------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """A command line in this process: (exit code, standard output, standard error)."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_generate_with_ranks_says_the_same(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = models("gpt2")
    said = []
    for options in ([], ["--pipeline-parallel-size", 2], ["--tensor-parallel-size", 2, "--threads", 2]):
        code, out, _ = run(capsys, "generate", folder, "--prompt-ids", "5,6,7", "--max-tokens", 8, "--json", *options)
        assert code == 0
        said.append(json.loads(out)["completions"][0]["token_ids"])
    assert said[0] == said[1] == said[2]


def test_bench_runs_with_stages(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = models("gpt2")
    layout = ["--pipeline-parallel-size", 2, "--tensor-parallel-size", 2]
    work = ["--prompt-tokens", 12, "--new-tokens", 4, "--batch-size", 4, "--repeat", 2]
    code, out, _ = run(capsys, "bench", folder, *layout, *work, "--json")
    assert code == 0
    assert json.loads(out)["decode_step_s"]["median"] > 0


def test_info_prints_the_ranks(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = models("gpt2")
    layout = ["--tensor-parallel-size", 2, "--pipeline-parallel-size", 2]
    code, out, _ = run(capsys, "info", folder, *layout)
    assert code == 0
    assert out.splitlines()[-5:] == [
        "rank    tensor        pipeline    ",
        "0       0 of 2        0 of 2      ",
        "1       1 of 2        0 of 2      ",
        "2       0 of 2        1 of 2      ",
        "3       1 of 2        1 of 2      ",
    ] or [line.split() for line in out.splitlines()[-5:]] == [
        ["rank", "tensor", "pipeline"],
        *([str(rank), str(rank % 2), "of", "2", str(rank // 2), "of", "2"] for rank in range(4)),
    ]
    code, out, _ = run(capsys, "info", folder, *layout, "--json")
    assert json.loads(out)["ranks"][2] == {"rank": 2, "tensor": 0, "pipeline": 1}
    code, _, error = run(capsys, "info", folder, "--tensor-parallel-size", 9)
    assert code == 2
    assert "expected at most 5" in error


def test_explain_prints_the_schedule_and_writes_a_trace(
    models: Models, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, _ = models("gpt2")
    trace = tmp_path / "trace.json"
    batch = ["--batch-size", 4, "--tokens", 16, "--new-tokens", 3]
    counts = ["--prompt-micro-batches", 4, "--generation-micro-batches", 2]
    layout = ["--schedule", "--pipeline-parallel-size", 2, *counts]
    code, out, _ = run(capsys, "explain", folder, *layout, *batch, "--trace", trace)
    assert code == 0
    assert "stage 0  P0" in out
    assert "stage 1  . " in out
    assert "measured" in out
    events = json.loads(trace.read_text())["traceEvents"]
    assert {event["tid"] for event in events} == {0, 1}
    steps = {event["name"] for event in events if event["ph"] == "X"}
    assert len(steps) >= 4 + 2 * 2, "of two tokens more, by two micro-batches; the first may go alone"
    assert sum(event["ph"] == "X" for event in events) == 2 * len(steps)
    code, out, _ = run(capsys, "explain", folder, *layout, *batch, "--json")
    facts = json.loads(out)
    assert (facts["prompt_micro_batches"], facts["generation_micro_batches"]) == (4, 2)
    for part in ("formula", "measured"):
        assert 0 < facts[part]["prompt_s"] < facts[part]["total_s"]
        assert 0 <= facts[part]["bubble_fraction"] < 1
    assert len(facts["runs"]) == 2 * (4 + 2 * 2)
    code, _, error = run(capsys, "explain", folder, "--schedule")
    assert code == 2
    assert "--pipeline-parallel-size" in error


def test_plans_of_stages_are_explained_together(models: Models) -> None:
    folder, _ = models("gpt2")
    with lamella.Engine(folder, tensor_parallel_size=2, pipeline_parallel_size=3) as engine:
        rows = engine.plan(batch_size=2, tokens=1, context=8)
        assert [row["op"] for row in rows].count("send") == 2
        assert sorted({row["layer"] for row in rows}) == [-1, 0, 1, 2]
        assert len(engine.core.plan_tables()) == 3
