"""The type in which the KV cache holds K and V: what it takes, what it changes, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import lamella
import numpy as np
import pytest
from engines import shape
from lamella import InvalidArgumentError

#: Bytes of a head of 32 places a token, and the most by which logits may differ from those of a float32 cache, in units
#: of their own size (20 seeds: 1.2e-4, 7.9e-4 and 2.6e-3 at most).
TYPES = {
    "float32": (32 * 4, 0.0),
    "fp16": (32 * 2, 4e-4),
    "bf16": (32 * 2, 2.5e-3),
    "int8": (32 + 4, 8e-3),
}


def engine(**options: Any) -> lamella.Engine:
    return lamella.Engine.random(shape(), dtype="float32", max_model_len=512, max_num_seqs=2, threads=2, **options)


@pytest.mark.parametrize("name", TYPES)
def test_a_cache_of_every_type_takes_its_bytes_and_gives_nearly_the_same_logits(name: str, seed: int) -> None:
    ids = random.Random(seed).choices(range(2000), k=300)
    head_bytes, bound = TYPES[name]
    with engine() as exact, engine(kv_cache_dtype=name) as other:
        want, got = exact.logits([ids])[0], other.logits([ids])[0]
        stats = other.stats()
        block = int(stats["bytes_kv"]) // int(stats["kv_blocks_total"])
        assert block == 6 * 2 * 8 * 16 * head_bytes  # layers, K and V, heads, slots
        error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
        assert error <= bound, (name, seed, error)
        assert (error > 0.0) == (bound > 0.0)
        # Whatever the chunks, and token by token behind them: what the cache holds was rounded once.
        again = other.generate(ids, max_tokens=8, ignore_eos=True)
    with engine(kv_cache_dtype=name, max_num_batched_tokens=17) as chunked:
        assert np.array_equal(chunked.logits([ids])[0], got), (name, seed)
        assert chunked.generate(ids, max_tokens=8, ignore_eos=True).token_ids == again.token_ids


def test_what_is_read_shows_in_the_plan() -> None:
    def read(**options: Any) -> int:
        with engine(**options) as one:
            rows = one.plan(1, 1, 400)
        return sum(int(row["bytes_read"]) for row in rows if row["op"] == "layout_attention")

    whole, codes = read(), read(kv_cache_dtype="int8")
    assert whole - codes == 6 * 400 * 2 * 8 * (32 * 4 - 36)


@pytest.mark.parametrize("name", ["int4", "fp8", "INT8", "", 8, None])
def test_an_unknown_type_is_refused_by_naming_what_there_is(name: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"kv_cache_dtype.*auto.*float32.*bfloat16.*int8"):
        engine(kv_cache_dtype=name)
