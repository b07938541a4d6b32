"""logits() and encode(): a row for every position of an input, or one for all."""

from __future__ import annotations

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
from random_models import draw
from tiny_tokenizers import word_piece


def test_encode_pools_and_normalizes(seed: int, tmp_path: Path) -> None:
    tokenizer = word_piece()
    draw("bert", seed, tmp_path, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with lamella.Engine(tmp_path) as engine:
        hidden = engine.core.spec.hidden
        texts = ["hello world", "the quick brown fox", ""]
        ids = [engine.encode_prompt(text) for text in texts]
        assert [len(one) for one in ids][2] == 2, "an empty text is [CLS] [SEP]"
        rows = engine.encode(texts, pooling=None)
        assert isinstance(rows, list) and [row.shape for row in rows] == [(len(one), hidden) for one in ids]
        means, first = engine.encode(texts), engine.encode(texts, pooling="cls")
        assert isinstance(means, np.ndarray) and means.shape == (3, hidden) and means.dtype == np.float32
        assert np.array_equal(first, np.stack([row[0] for row in rows]))
        np.testing.assert_allclose(means, [row.astype(np.float64).mean(axis=0) for row in rows], rtol=1e-4, atol=1e-5)
        assert np.array_equal(engine.encode(ids), means)
        assert np.array_equal(engine.encode("hello world"), means[:1])
        assert np.array_equal(engine.encode(ids[0]), means[:1])
        unit = engine.encode(texts, normalize=True)
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(unit, means / np.linalg.norm(means, axis=1, keepdims=True), rtol=1e-5)
        assert np.array_equal(engine.encode(texts, normalize=False), means)
        assert engine.encode([]).shape == (0, hidden) and engine.encode([], pooling=None) == []
        many = [[5 + i % 40] * (1 + i % 60) for i in range(100)]  # several steps
        assert np.array_equal(engine.encode(many)[41], engine.encode(many[41])[0])
        assert_idle(engine)


def test_logits_are_one_array_an_input(engine: lamella.Engine) -> None:
    ids = engine.encode_prompt("hello world")
    arrays = engine.logits(["hello world", ids, [5]])
    vocab = engine.core.spec.vocab
    assert [array.shape for array in arrays] == [(len(ids), vocab), (len(ids), vocab), (1, vocab)]
    assert all(array.dtype == np.float32 for array in arrays)
    assert np.array_equal(arrays[0], arrays[1])
    assert engine.generate(ids, max_tokens=1).token_ids == [int(arrays[0][-1].argmax())]
    assert engine.logits([]) == []


def test_a_list_for_logits_is_checked_whole_before_it_starts(engine: lamella.Engine) -> None:
    class Counting:
        """The native engine, which counts the inputs that it runs."""

        def __init__(self, core: Any) -> None:
            self.core, self.runs = core, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.core, name)

        def logits(self, ids: list[int]) -> np.ndarray:
            self.runs += 1
            return self.core.logits(ids)

    native = engine.core
    counting = Counting(native)
    engine._core = counting  # type: ignore[assignment]
    for inputs, kind, message in (
        ([[1], [2, 9999]], lamella.InvalidArgumentError, "prompt 1 of 2: prompt token 1 is 9999; the vocabulary has"),
        ([[1], [-1]], lamella.InvalidArgumentError, "prompt 1 of 2: prompt token 0 is -1; the vocabulary has"),
        ([[1], []], lamella.InvalidArgumentError, "prompt 1 of 2: the prompt has no tokens"),
        ([[1], [1] * (CONTEXT + 1)], lamella.ContextLengthError, "prompt 1 of 2: the prompt has 301 tokens"),
        (["a", "\ud800"], lamella.InvalidArgumentError, "prompt 1 of 2: .*lone surrogate"),
    ):
        with pytest.raises(kind, match=message):
            engine.logits(inputs)
        assert counting.runs == 0
    assert len(engine.logits([[1], [2]])) == counting.runs == 2
    engine._core = native


def test_logits_wait_in_the_queue_while_others_hold_the_kv_cache(busy_spec: _core.ModelSpec) -> None:
    """A cache of one context: the stream and the logits want all of it, and both get what they get alone."""
    with lamella.Engine.random(busy_spec, dtype="float32", max_model_len=400, max_num_seqs=1) as engine:
        assert engine.stats()["kv_blocks_total"] == 25
        ids = [(7 * i) % 2000 for i in range(400)]
        alone = engine.logits(ids)[0]
        whole = engine.generate([7], max_tokens=399).token_ids
        stream = engine.stream([7], max_tokens=399)
        tokens = list(next(stream).token_ids)
        assert engine.stats()["running"] == 1
        assert np.array_equal(engine.logits(ids)[0], alone)
        tokens += [token for chunk in stream for token in chunk.token_ids]
        assert tokens == whole
        assert_idle(engine)
        assert engine.stats()["received"] == 2, "logits are no request"
