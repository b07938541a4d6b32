"""Bit for bit: a sequence's logits and tokens depend on nothing but the sequence (design, section 2).

Neither its company in the batch, nor how its prompt was cut, nor the number of threads, nor the GeMM that few tokens
take, nor in float32 the fusion of ops may change a single bit. Comparisons are of float32 arrays with
`np.array_equal`; generated tokens are sampled, so that every one of them depends on all of its logits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from random_models import draw, rope_parameters

# Contexts so long that attention is computed in several parts of 256. Dynamic angles follow the sequence's length.
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": 320},
    "gpt_neox": {"max_position_embeddings": 320},
    "llama": {"max_position_embeddings": 320, "head_dim": 10},
    "llama dynamic": {"max_position_embeddings": 48, "head_dim": 22},
    "bert": {"max_position_embeddings": 320},
}
DECODERS = [name for name in MODELS if name != "bert"]
DTYPES = ("float32", "bfloat16")
CONTEXT = 300
TOKENS = 24


@pytest.fixture(scope="module")
def models(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, int]]:
    """A drawn model of a family by name, with its vocabulary's size; one a module."""
    made: dict[str, tuple[Path, int]] = {}

    def get(name: str) -> tuple[Path, int]:
        if name not in made:
            family, _, dynamic = name.partition(" ")
            fixed = dict(MODELS[name])
            if family == "llama":
                rng = random.Random(seed)
                rope_type = dynamic or rng.choice(["default", "linear", "yarn", "llama3"])
                fixed["rope_parameters"] = rope_parameters(rope_type, fixed["head_dim"], rng)
                if dynamic:
                    fixed["rope_parameters"]["factor"] = 8.0
            folder = tmp_path_factory.mktemp(family)
            model = draw(family, seed, folder, **fixed)
            print(f"{name} seed {seed}: {model.config.to_diff_dict()}")
            made[name] = folder, model.config.vocab_size
        return made[name]

    return get


def ragged(rng: random.Random, vocab: int, count: int, longest: int = CONTEXT - TOKENS) -> list[list[int]]:
    """`count` prompts, some of them one token, some around a KV block's border of 16, some long."""
    lengths = [rng.choice([1, 2, 15, 16, 17, rng.randint(1, longest), rng.randint(1, longest)]) for _ in range(count)]
    return [[rng.randrange(vocab) for _ in range(length)] for length in lengths]


def continued(engine: lamella.Engine, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Sampled continuations; the seed of each is its prompt's length, so that it does not depend on the batch."""
    streams = [
        engine.stream(prompt, max_tokens=TOKENS, temperature=1.0, seed=len(prompt), ignore_eos=True)
        for prompt in prompts
    ]
    tokens: list[list[int]] = [[] for _ in streams]
    alive = set(range(len(streams)))
    while alive:  # in turns: all of them share the engine's steps
        for i in sorted(alive):
            chunk = next(streams[i], None)
            if chunk is None:
                alive.discard(i)
            else:
                tokens[i] += chunk.token_ids
    return tokens


def assert_equal_bits(ours: Sequence[np.ndarray], expected: Sequence[np.ndarray], what: object) -> None:
    for i, (one, other) in enumerate(zip(ours, expected, strict=True)):
        assert one.dtype == other.dtype == np.float32
        assert np.array_equal(one, other), f"{what}: sequence {i} differs in {int((one != other).sum())} of {one.size}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", DECODERS)
def test_the_rest_of_the_batch_changes_no_bit(
    family: str, dtype: str, seed: int, full_stage: bool, models: Callable[[str], tuple[Path, int]]
) -> None:
    """1 to 9 ragged sequences together, and each of them alone."""
    folder, vocab = models(family)
    rng = random.Random(seed)
    print(f"seed {seed}")
    with lamella.Engine(folder, dtype=dtype) as engine:
        prompts = ragged(rng, vocab, 9)
        alone = [continued(engine, [prompt])[0] for prompt in prompts]
        for count in range(1, 10) if full_stage else (2, 5, 9):
            chosen = rng.sample(range(9), count)
            assert continued(engine, [prompts[i] for i in chosen]) == [alone[i] for i in chosen], chosen
        greedy = [engine.generate(prompt, max_tokens=8, temperature=0.0).token_ids for prompt in prompts]
        together = engine.generate(prompts, max_tokens=8, temperature=0.0)
        assert [completion.token_ids for completion in together] == greedy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", DECODERS)
def test_neither_chunks_nor_threads_nor_places_change_a_bit(
    family: str, dtype: str, seed: int, full_stage: bool, models: Callable[[str], tuple[Path, int]]
) -> None:
    """Every way to cut prompts into steps, every number of threads and of sequences at once, against one engine."""
    folder, vocab = models(family)
    rng = random.Random(seed + 1)
    prompts = ragged(rng, vocab, 4)
    prompts.append([rng.randrange(vocab) for _ in range(CONTEXT - TOKENS)])  # one that every chunk size cuts
    with lamella.Engine(folder, dtype=dtype, threads=1, max_model_len=CONTEXT) as engine:
        logits, tokens = engine.logits(prompts), continued(engine, prompts)
    variants: list[dict[str, Any]] = [
        # A step holds at least one token of each sequence, so that one token a step takes one sequence at a time.
        {"max_num_batched_tokens": 1, "max_num_seqs": 1},
        {"max_num_batched_tokens": 7, "max_num_seqs": 3, "threads": 2},
        {"max_num_batched_tokens": 64, "threads": 3},
        {"max_num_batched_tokens": 512, "threads": 4},
        {"sbi_gemm": False, "threads": 2},
    ]
    if full_stage:
        variants += [{"threads": n} for n in range(1, 5)] + [{"max_num_seqs": n, "threads": 2} for n in range(1, 10)]
        variants += [{"max_num_batched_tokens": n, "max_num_seqs": 1} for n in (2, 3, 5, 15, 16, 17, 31, 33)]
    else:
        variants.append({"max_num_seqs": rng.randint(1, 9), "threads": rng.randint(1, 4)})
    for variant in variants:
        with lamella.Engine(folder, dtype=dtype, **{"threads": 1, "max_model_len": CONTEXT, **variant}) as engine:
            assert engine.core.config.max_num_batched_tokens == variant.get("max_num_batched_tokens", 512)
            assert_equal_bits(engine.logits(prompts), logits, variant)
            assert continued(engine, prompts) == tokens, variant


@pytest.mark.parametrize("family", DECODERS)
def test_fusion_changes_no_bit_in_float32(family: str, seed: int, models: Callable[[str], tuple[Path, int]]) -> None:
    folder, vocab = models(family)
    prompts = ragged(random.Random(seed + 2), vocab, 5)
    fused, plain = (lamella.Engine(folder, dtype="float32", deep_fusion=fusion) for fusion in (True, False))
    with fused, plain:
        assert fused.core.plan_tables() != plain.core.plan_tables()
        assert_equal_bits(fused.logits(prompts), plain.logits(prompts), "deep_fusion")
        assert continued(fused, prompts) == continued(plain, prompts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", [name for name in DECODERS if name != "llama dynamic"])
def test_decoding_step_by_step_gives_the_bits_of_the_whole_prompt(
    family: str, dtype: str, seed: int, models: Callable[[str], tuple[Path, int]]
) -> None:
    """What is sampled while generating is what the logits of the finished sequence say, bit for bit."""
    folder, vocab = models(family)
    rng = random.Random(seed + 3)
    prompt = [rng.randrange(vocab) for _ in range(rng.randint(1, 30))]
    with lamella.Engine(folder, dtype=dtype) as engine:
        tokens = engine.generate(prompt, max_tokens=TOKENS, temperature=1.0, seed=seed, ignore_eos=True).token_ids
        rows = engine.logits(prompt + tokens)[0][len(prompt) - 1 : -1]
        params = lamella._core.SamplingParams(temperature=1.0, seed=seed)
        replayed = [lamella._core.sample(row, params, 0, len(prompt) + i) for i, row in enumerate(rows)]
        assert replayed == tokens
        longer = engine.logits(prompt + tokens)[0][: len(prompt)]
        assert np.array_equal(longer, engine.logits(prompt)[0]), "later tokens changed the logits of earlier ones"


@pytest.mark.parametrize("family", DECODERS)
def test_a_reused_kv_cache_changes_no_bit(family: str, seed: int, models: Callable[[str], tuple[Path, int]]) -> None:
    """A cache that others have filled, cancelled requests included, gives what a fresh one gives (row P9)."""
    folder, vocab = models(family)
    rng = random.Random(seed + 4)
    prompts = ragged(rng, vocab, 3)
    with lamella.Engine(folder, max_num_seqs=3) as fresh:
        expected = continued(fresh, prompts)
    with lamella.Engine(folder, max_num_seqs=3) as used:
        for _ in range(4):
            used.generate(ragged(rng, vocab, 5), max_tokens=rng.randint(1, TOKENS))
            for _ in used.stream(ragged(rng, vocab, 1)[0], max_tokens=TOKENS):
                break
        assert continued(used, prompts) == expected


def test_any_batch_under_any_limits_gives_each_sequence_its_own_tokens(
    seed: int, full_stage: bool, models: Callable[[str], tuple[Path, int]]
) -> None:
    """Batches, lengths and limits as hypothesis draws them, and shrinks where one differs."""
    folder, vocab = models("gpt_neox")
    limits = st.fixed_dictionaries(
        {
            "max_num_seqs": st.integers(1, 9),
            "max_num_batched_tokens": st.integers(1, 80),
            "threads": st.integers(1, 4),
            "deep_fusion": st.booleans(),
            "sbi_gemm": st.booleans(),
        }
    )
    prompt = st.lists(st.integers(0, vocab - 1), min_size=1, max_size=100)
    with lamella.Engine(folder, dtype="float32", threads=1, max_num_seqs=1) as single:

        @hypothesis_seed(seed)
        @settings(
            max_examples=300 if full_stage else 12,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(limits=limits, prompts=st.lists(prompt, min_size=1, max_size=9))
        def check(limits: dict[str, Any], prompts: list[list[int]]) -> None:
            with lamella.Engine(folder, dtype="float32", **limits) as engine:
                assert_equal_bits(engine.logits(prompts), single.logits(prompts), limits)
                assert continued(engine, prompts) == [continued(single, [one])[0] for one in prompts]

        check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_encoders_rows_do_not_depend_on_the_batch(
    dtype: str, seed: int, models: Callable[[str], tuple[Path, int]]
) -> None:
    folder, vocab = models("bert")
    prompts = ragged(random.Random(seed + 5), vocab, 9, CONTEXT)
    with lamella.Engine(folder, dtype=dtype, threads=1) as engine:
        poolings: list[Any] = [None, "mean", "cls"] + (["pooler"] if engine.core.spec.head.pooler else [])
        alone = {pooling: [engine.encode(prompt, pooling)[0] for prompt in prompts] for pooling in poolings}
    variants: list[dict[str, Any]] = [
        {},
        {"threads": 4},
        {"max_num_seqs": 2, "threads": 3},
        {"max_num_batched_tokens": 1},  # raised to the context: an encoder's inputs are never cut
        {"max_num_batched_tokens": 300, "max_num_seqs": 5, "threads": 2},
        {"sbi_gemm": False},
    ]
    if dtype == "float32":
        variants.append({"deep_fusion": False})
    for variant in variants:
        with lamella.Engine(folder, dtype=dtype, **variant) as engine:
            for pooling in poolings:
                assert_equal_bits(list(engine.encode(prompts, pooling)), alone[pooling], (variant, pooling))
