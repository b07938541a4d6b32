"""The engine's surface: what it takes and what it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
from engines import (
    CONTEXT,
    assert_idle,
)
from lamella import _core
from lamella.checkpoint import open_model

FIELDS = (
    *("op", "layer", "region", "inputs", "outputs", "shape", "dtype", "kernel", "arithmetic"),
    *("bytes_read", "bytes_written", "flops", "roofline_s", "measured_s"),
)


def test_a_prompt_is_text_or_ids_and_a_list_gives_a_list(engine: lamella.Engine) -> None:
    tokenizer = engine.tokenizer_or_raise()
    text = "hello world"
    ids = tokenizer.encode(text)
    one = engine.generate(text, max_tokens=9)
    assert isinstance(one, lamella.Completion)
    assert one.text == tokenizer.decode(one.token_ids)
    assert (len(one.token_ids), one.finish_reason, one.prompt_tokens, one.error) == (9, "length", len(ids), None)
    assert 0 < one.timing.first_token_s <= one.timing.total_s
    assert engine.generate(ids, max_tokens=9).token_ids == one.token_ids
    assert engine.generate(np.array(ids), max_tokens=9).token_ids == one.token_ids
    for prompts in ([text], [ids], [text, ids], (ids, text), np.array([ids, ids])):
        many = engine.generate(prompts, max_tokens=9)
        assert isinstance(many, list) and len(many) == len(prompts)
        assert all(completion.token_ids == one.token_ids for completion in many)
    assert engine.generate([], max_tokens=9) == []


def test_results_stand_in_the_order_of_the_prompts(engine: lamella.Engine) -> None:
    prompts = [[7] * (50 - i) for i in range(40)]  # more than run at once, the longest first
    completions = engine.generate(prompts, max_tokens=3)
    assert [completion.prompt_tokens for completion in completions] == [len(prompt) for prompt in prompts]
    assert [done.token_ids for done in completions] == [engine.generate(one, max_tokens=3).token_ids for one in prompts]


def test_the_default_of_256_tokens_is_clipped_to_the_context(engine: lamella.Engine) -> None:
    for length in (1, CONTEXT - 256, CONTEXT - 255, CONTEXT - 1):
        completion = engine.generate([7] * length)
        assert len(completion.token_ids) == min(256, CONTEXT - length)
        assert completion.finish_reason == "length"


def test_max_model_len_shortens_the_context(folder: Path) -> None:
    with lamella.Engine(folder, max_model_len=20) as engine:
        assert len(engine.generate([7, 8]).token_ids) == 18
        with pytest.raises(lamella.ContextLengthError):
            engine.generate([7] * 21)


def test_generation_stops_at_stop_tokens_and_at_the_configs_end_of_sequence(
    folder: Path, engine: lamella.Engine, seed: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"max_tokens": 40, "temperature": 1.5, "seed": seed}
    tokens = engine.generate([7, 8], **options).token_ids
    at = next(i for i in range(5, 40) if tokens[i] not in tokens[:i])
    stopped = engine.generate([7, 8], stop_token_ids=[tokens[at]], **options)
    assert (stopped.token_ids, stopped.finish_reason) == (tokens[:at], "stop")
    chunks = list(engine.stream([7, 8], stop_token_ids=(tokens[at],), **options))
    assert [token for chunk in chunks for token in chunk.token_ids] == tokens[:at]
    assert chunks[-1].finish_reason == "stop"

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = next(token for token in range(100) if token not in tokens)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokens[at], other]}))
    with lamella.Engine(tmp_path) as ending:
        assert ending.generate([7, 8], **options).token_ids == tokens[:at]
        assert ending.generate([7, 8], **options).finish_reason == "stop"
        assert ending.generate([7, 8], ignore_eos=True, **options).token_ids == tokens
        first = tokens.index(tokens[2])
        assert (
            ending.generate([7, 8], ignore_eos=True, stop_token_ids=[tokens[2]], **options).token_ids == tokens[:first]
        )


def test_params_and_keywords_say_the_same(engine: lamella.Engine, seed: int) -> None:
    params = lamella.SamplingParams(max_tokens=12, temperature=0.9, top_k=40, top_p=0.9, seed=seed)
    expected = engine.generate([7, 8], max_new_tokens=12, temperature=0.9, top_k=40, top_p=0.9, seed=seed).token_ids
    assert engine.generate([7, 8], params).token_ids == expected
    assert engine.generate([7, 8], params, max_tokens=5).token_ids == expected[:5]
    assert params.max_tokens == 12


def test_a_random_engine_works_on_ids_and_repeats_with_its_seed(folder: Path) -> None:
    spec = open_model(folder).spec

    def run(**options: Any) -> tuple[np.ndarray, list[int]]:
        with lamella.Engine.random(spec, **options) as engine:
            with pytest.raises(lamella.InvalidArgumentError, match="no tokenizer"):
                engine.generate("hello")
            assert engine.checkpoint is None and engine.generate([7], max_tokens=2).text == ""
            return engine.logits([5, 6, 7])[0], engine.generate([5], max_tokens=9, temperature=1.0).token_ids

    logits, tokens = run(seed=3)
    assert logits.shape == (3, spec.vocab) and np.isfinite(logits).all()
    again, tokens_again = run(seed=3, threads=3)
    assert np.array_equal(again, logits) and tokens_again == tokens
    assert not np.array_equal(run(seed=4)[0], logits)


def test_plan_rows_have_their_fields_and_their_flops_are_twice_the_parameters(busy_spec: _core.ModelSpec) -> None:
    parameters, layers = _core.parameter_count(busy_spec), len(busy_spec.layers)
    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        rows = engine.plan(batch_size=2, tokens=3, context=40)
        assert_idle(engine)
        for row in rows:
            assert tuple(row) == FIELDS
            assert row["bytes_written"] > 0 and row["measured_s"] > 0 and row["roofline_s"] > 0
            assert row["kernel"] and row["dtype"] == "float32"
        assert [row["layer"] for row in rows if row["layer"] >= 0] == sorted(
            row["layer"] for row in rows if row["layer"] >= 0
        )
        # Matrices take part once a token, the position table not at all, and the head (tied) for two rows of logits.
        head, table = busy_spec.vocab * busy_spec.hidden, 4096 * busy_spec.hidden
        products = 2 * 6 * (parameters - head - table) + 2 * 2 * head
        attention = 4 * 2 * 3 * 40 * 8 * 32 * layers  # at most
        flops = sum(row["flops"] for row in rows)
        assert 0.98 * products <= flops <= 1.05 * products + 1.3 * attention, (flops, products, attention)
        read = sum(row["bytes_read"] for row in engine.plan())
        assert read >= 0.99 * 4 * (parameters - table), "one token reads every weight"
        assert len(engine.plan(tokens=5)) == len(rows)
        for wrong in (
            {"batch_size": 0},
            {"tokens": 0},
            {"tokens": 9, "context": 8},
            {"batch_size": 33},
            {"context": 9999},
        ):
            with pytest.raises(lamella.InvalidArgumentError):
                engine.plan(**wrong)
    with lamella.Engine.random(busy_spec, dtype="float32", deep_fusion=False) as engine:
        plain = engine.plan(batch_size=2, tokens=3, context=40)
        assert len(plain) >= len(rows) + 4 * layers, "the four regions of a layer each stand for several ops"
        assert {row["region"] for row in plain} == {row["region"] for row in rows}
        assert sum(row["flops"] for row in plain) == pytest.approx(flops, rel=0.05)
