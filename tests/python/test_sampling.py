"""The sampler against exact probabilities, and what makes a sampled continuation the same again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
import torch
import transformers
from lamella import _core
from lamella.checkpoint import open_model
from lamella.generation_defaults import default_params
from lamella.seeds import drawn_seed
from random_models import draw
from scipy import stats

LEAST_P = 1e-6
DRAWS, MORE_DRAWS = 20_000, 400_000
Parameters = dict[str, Any]

# What a request asks for, in every combination that changes the order of events: temperature, then top-k, then top-p.
CASES: dict[str, Parameters] = {
    "temperature 1": {"temperature": 1.0},
    "temperature 0.3": {"temperature": 0.3},
    "temperature 2.5": {"temperature": 2.5},
    "top-k": {"temperature": 1.0, "top_k": 7},
    "top-k 1": {"temperature": 5.0, "top_k": 1},
    "top-k all": {"temperature": 1.0, "top_k": 40},
    "top-p": {"temperature": 1.0, "top_p": 0.8},
    "top-p tiny": {"temperature": 3.0, "top_p": 1e-9},
    "temperature and top-k": {"temperature": 0.7, "top_k": 12},
    "temperature and top-p": {"temperature": 1.8, "top_p": 0.6},
    "all three": {"temperature": 1.3, "top_k": 15, "top_p": 0.7},
}


def exact_probabilities(
    logits: np.ndarray, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The distribution that the parameters define, in float64, from their definitions."""
    scaled = logits.astype(np.float64) / temperature
    if top_k:
        scaled = np.where(scaled >= np.sort(scaled)[-min(top_k, len(scaled))], scaled, -np.inf)
    weights = np.exp(scaled - scaled.max())
    order = np.argsort(-weights, kind="stable")
    sorted_weights = weights[order] / weights.sum()
    before = np.cumsum(sorted_weights) - sorted_weights  # the mass of all better tokens; rounding may bring it to 1
    cut = (before >= top_p) & (top_p < 1.0)
    cut[0] = False
    weights[order[cut]] = 0.0
    return weights / weights.sum()


def transformers_keeps(logits: np.ndarray, temperature: float, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """Which tokens transformers' own warpers leave, as a mask."""
    ids, scores = torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(logits.astype(np.float64))[None]
    warpers: list[Any] = [transformers.TemperatureLogitsWarper(temperature)]
    warpers += [transformers.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [transformers.TopPLogitsWarper(top_p)] if top_p < 1.0 else []
    for warper in warpers:
        scores = warper(ids, scores)
    return torch.isfinite(scores[0]).numpy()


def sampled(logits: np.ndarray, parameters: Parameters, seed: int, count: int) -> np.ndarray:
    """Tokens at positions 0 to count - 1 of one request."""
    params = _core.SamplingParams(seed=seed, **parameters)
    return np.array([_core.sample(logits, params, 0, position) for position in range(count)])


def p_value(tokens: np.ndarray, probabilities: np.ndarray) -> float:
    """Chi-square of the tokens' counts, the rarest tokens in one bin that expects at least five, as every bin must."""
    observed, expected = np.bincount(tokens, minlength=len(probabilities)), probabilities * len(tokens)
    assert observed[expected == 0].sum() == 0, "a token without any probability was drawn"
    order = np.argsort(expected)
    rare = int((expected < 5).sum())
    while rare < len(order) and expected[order[:rare]].sum() < 5:
        rare += 1
    bins = [order[:rare], *order[rare:, None]] if rare else order[:, None]
    if len(bins) < 2:
        return 1.0
    return float(
        stats.chisquare(
            [observed[each].sum() for each in bins], [expected[each].sum() for each in bins], sum_check=False
        ).pvalue
    )


def random_logits(seed: int, vocab: int = 40) -> np.ndarray:
    return (2.5 * np.random.default_rng(seed).standard_normal(vocab)).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_tokens_follow_the_exact_distribution(name: str, seed: int, full_stage: bool) -> None:
    parameters = CASES[name]
    logits = random_logits(seed + len(name))
    probabilities = exact_probabilities(logits, **parameters)
    assert np.array_equal(probabilities > 0, transformers_keeps(logits, **parameters)), (
        "transformers keeps other tokens"
    )
    p = p_value(sampled(logits, parameters, seed, MORE_DRAWS if full_stage else DRAWS), probabilities)
    print(f"seed {seed}: {int((probabilities > 0).sum())} tokens, p = {p:.3g}")
    assert p >= LEAST_P


def test_the_chi_square_notices_a_distribution_that_is_a_little_off(seed: int) -> None:
    logits = random_logits(seed)
    tokens = sampled(logits, {"temperature": 1.0}, seed, DRAWS)
    assert p_value(tokens, exact_probabilities(logits, 1.1)) < LEAST_P


def test_top_k_keeps_every_token_equal_to_the_kth(seed: int) -> None:
    logits = np.full(12, -1.0, np.float32)
    logits[[2, 5, 7, 11]] = 0.5  # four share places two to five
    logits[9] = 1.0
    for k, kept in ((1, {9}), (2, {2, 5, 7, 9, 11}), (4, {2, 5, 7, 9, 11}), (5, {2, 5, 7, 9, 11}), (6, set(range(12)))):
        parameters = {"temperature": 1.0, "top_k": k}
        assert np.flatnonzero(transformers_keeps(logits, **parameters)).tolist() == sorted(kept)
        tokens = sampled(logits, parameters, seed, 4000)
        assert set(tokens.tolist()) == kept
        assert p_value(tokens, exact_probabilities(logits, **parameters)) >= LEAST_P


def test_top_p_counts_what_top_k_left(seed: int) -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    assert set(sampled(logits, {"temperature": 1.0, "top_p": 0.65}, seed, 2000).tolist()) == {0, 1}
    # Of the two best alone, the first has 4/7 of the mass.
    assert set(sampled(logits, {"temperature": 1.0, "top_k": 2, "top_p": 0.55}, seed, 2000).tolist()) == {0}
    assert set(sampled(logits, {"temperature": 1.0, "top_k": 2, "top_p": 0.6}, seed, 2000).tolist()) == {0, 1}


def test_masked_tokens_are_never_drawn(seed: int) -> None:
    logits = random_logits(seed)
    logits[::3] = -np.inf
    tokens = sampled(logits, {"temperature": 50.0}, seed, 5000)
    assert not (tokens % 3 == 0).any()
    assert p_value(tokens, exact_probabilities(logits, 50.0)) >= LEAST_P


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logits = np.array([0.0, 3.0, 1.0, 3.0], np.float32)
    assert set(sampled(logits, {"temperature": 0.0}, 1, 50).tolist()) == {1}


def test_a_draw_is_a_function_of_seed_sample_and_position_alone(seed: int) -> None:
    logits = random_logits(seed)
    first, again = (sampled(logits, {"temperature": 1.0}, seed, 500) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, sampled(logits, {"temperature": 1.0}, seed + 1, 500))
    params = _core.SamplingParams(temperature=1.0, seed=seed)
    other_sample = [_core.sample(logits, params, 1, position) for position in range(500)]
    assert not np.array_equal(first, other_sample)
    backwards = [_core.sample(logits, params, 0, position) for position in reversed(range(500))]
    assert np.array_equal(first, backwards[::-1]), "the order of the calls decides something"


@pytest.mark.parametrize("what", ["positions", "seeds", "samples"])
def test_neighbouring_draws_are_independent(what: str, seed: int, full_stage: bool) -> None:
    """Pairs of neighbours fill a table of 6 x 6 cells evenly, and their ranks do not correlate."""
    vocab, count = 6, MORE_DRAWS if full_stage else DRAWS
    even = np.zeros(vocab, np.float32)
    if what == "positions":
        tokens = sampled(even, {"temperature": 1.0}, seed, count)
    elif what == "seeds":  # a server hands out consecutive ones
        draws = (_core.SamplingParams(temperature=1.0, seed=seed + i) for i in range(count))
        tokens = np.array([_core.sample(even, params, 0, 17) for params in draws])
    else:
        params = _core.SamplingParams(temperature=1.0, seed=seed)
        tokens = np.array([_core.sample(even, params, i, 17) for i in range(count)])
    pairs = vocab * tokens[0::2] + tokens[1::2]
    p = float(stats.chisquare(np.bincount(pairs, minlength=vocab * vocab)).pvalue)
    correlation = float(np.corrcoef(tokens[:-1], tokens[1:])[0, 1])
    print(f"seed {seed}, {what}: pairs p = {p:.3g}, serial correlation {correlation:.4f}")
    assert p >= LEAST_P
    assert abs(correlation) < 5 / count**0.5


# ---- end to end ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sampling")
    draw("llama", seed, path, vocab_size=150, max_position_embeddings=160, rope_parameters=PLAIN_ROPE)
    (path / "generation_config.json").unlink(missing_ok=True)
    return path


PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[lamella.Engine]:
    with lamella.Engine(folder) as engine:
        yield engine


def test_a_seeded_request_gives_the_same_tokens_whatever_shares_its_batch(engine: lamella.Engine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parameters: Parameters = {"max_tokens": 20, "temperature": 1.2, "top_k": 60, "top_p": 0.95, "seed": seed}
    prompt = [5, 6, 7, 8]
    alone = engine.generate(prompt, **parameters).token_ids
    assert len(alone) == 20
    for others in (1, 4, 8):
        batch = [rng.integers(0, 150, rng.integers(1, 40)).tolist() for _ in range(others)]
        at = int(rng.integers(0, others + 1))
        batch.insert(at, prompt)
        assert engine.generate(batch, **parameters)[at].token_ids == alone
    streamed = [token for chunk in engine.stream(prompt, **parameters) for token in chunk.token_ids]
    assert streamed == alone


def test_different_seeds_and_requests_without_a_seed_differ(engine: lamella.Engine, seed: int) -> None:
    runs = [engine.generate([5, 6], max_tokens=20, temperature=1.5, seed=seed + i).token_ids for i in range(5)]
    assert len({tuple(run) for run in runs}) == 5
    unseeded = engine.generate([[5, 6]] * 5, max_tokens=20, temperature=1.5)
    assert len({tuple(completion.token_ids) for completion in unseeded}) == 5


def test_requests_without_a_seed_repeat_with_the_engines_seed(folder: Path) -> None:
    def run(seed: int) -> list[list[int]]:
        with lamella.Engine(folder, seed=seed) as engine:
            return [done.token_ids for done in engine.generate([[5, 6]] * 3, max_tokens=15, temperature=1.5)]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_a_sampled_continuation_follows_the_models_own_probabilities(
    engine: lamella.Engine, seed: int, full_stage: bool
) -> None:
    """The first new token of many requests, against the distribution of the logits that the engine itself reports."""
    prompt, count = [3, 1, 4, 1, 5], 20_000 if full_stage else 2000
    parameters: Parameters = {"temperature": 0.8, "top_k": 30, "top_p": 0.9}
    probabilities = exact_probabilities(engine.logits(prompt)[0][-1], **parameters)
    requests = engine.generate([prompt] * count, max_tokens=1, **parameters)
    p = p_value(np.array([completion.token_ids[0] for completion in requests]), probabilities)
    print(f"seed {seed}: p = {p:.3g}")
    assert p >= LEAST_P


# ---- the model's own defaults ----------------------------------------------------------------------------------------


def with_generation_config(folder: Path, tmp_path: Path, config: dict[str, Any]) -> Path:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    return tmp_path


def greedy(engine: lamella.Engine, prompt: list[int], tokens: int) -> list[int]:
    return engine.generate(prompt, max_tokens=tokens, temperature=0.0).token_ids


@pytest.mark.parametrize("config", [{}, {"temperature": 0.9, "top_k": 3, "top_p": 0.5}, {"do_sample": False}])
def test_without_do_sample_the_default_is_greedy(folder: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    with lamella.Engine(with_generation_config(folder, tmp_path, config)) as engine:
        assert engine.generate([5, 6], max_tokens=12).token_ids == greedy(engine, [5, 6], 12)


@pytest.mark.parametrize(
    ("config", "means"),
    [
        ({"do_sample": True}, {"temperature": 1.0, "top_k": 50, "top_p": 1.0}),
        ({"do_sample": True, "top_k": 0}, {"temperature": 1.0, "top_k": 0, "top_p": 1.0}),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.8},
            {"temperature": 0.6, "top_k": 20, "top_p": 0.8},
        ),
        ({"do_sample": True, "top_k": 9999}, {"temperature": 1.0, "top_k": 150, "top_p": 1.0}),
    ],
)
def test_with_do_sample_the_defaults_are_those_of_transformers(
    folder: Path, tmp_path: Path, config: dict[str, Any], means: Parameters, seed: int
) -> None:
    read = default_params(config)
    assert (read.temperature, min(read.top_k, 150), read.top_p) == tuple(means.values())
    with lamella.Engine(with_generation_config(folder, tmp_path, config)) as engine:
        for i in range(4):
            sampled = engine.generate([5, 6], max_tokens=30, seed=seed + i).token_ids
            explicit = lamella.SamplingParams(max_tokens=30, seed=seed + i, **means)
            assert sampled == engine.generate([5, 6], explicit).token_ids
        assert engine.generate([5, 6], max_tokens=12, do_sample=False).token_ids == greedy(engine, [5, 6], 12)


def test_the_default_number_of_tokens_is_the_configs_and_is_clipped_to_the_context(
    folder: Path, tmp_path: Path
) -> None:
    with lamella.Engine(with_generation_config(folder, tmp_path, {"max_new_tokens": 100})) as engine:
        assert len(engine.generate([5, 6]).token_ids) == 100
        assert len(engine.generate([5] * 150).token_ids) == 10, "a default is clipped, not refused"
        assert len(engine.generate([5, 6], max_tokens=3).token_ids) == 3
        assert len(engine.generate([5, 6], max_new_tokens=4).token_ids) == 4
        assert len(engine.generate([5, 6], lamella.SamplingParams()).token_ids) == 100
        with pytest.raises(lamella.ContextLengthError):
            engine.generate([5] * 150, max_tokens=100)


def test_what_a_config_asks_and_requests_cannot_say_is_warned_about_once(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"repetition_penalty": 1.3, "num_beams": 4, "top_k": 3, "typical_p": 0.5, "guidance_scale": None}
    config |= {"use_cache": False, "pad_token_id": 0, "max_length": 100, "num_return_sequences": 3}
    lamella.Engine(with_generation_config(folder, tmp_path, config)).close()
    messages = [record.getMessage() for record in caplog.records if "generation_config" in record.getMessage()]
    assert messages == [
        "generation_config.json: not supported and left out: num_beams, typical_p, num_return_sequences"
    ]


def test_what_a_config_asks_of_every_request_is_done_as_transformers_does_it(
    folder: Path, engine: lamella.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """Also where the model does not sample, but for min_p."""
    (favourite,) = engine.generate([5, 6], max_tokens=1, temperature=0.0, ignore_eos=True).token_ids
    config = {
        "repetition_penalty": 1.4,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": [[7], [8, 9]],
        "suppress_tokens": [favourite, 11],
        "min_new_tokens": 9,
        "min_p": 0.2,
    }
    meant: Parameters = {**config, "max_tokens": 12}
    del meant["min_p"]
    with lamella.Engine(with_generation_config(folder, tmp_path, config)) as engine:
        asked = engine.generate([5, 6], lamella.SamplingParams().override(meant)).token_ids
        assert engine.generate([5, 6], max_tokens=12).token_ids == asked
        assert favourite not in asked
        assert len(engine.generate([5, 6], max_tokens=4).token_ids) == 4, "the file's minimum gives way"
        plain = lamella.SamplingParams(max_tokens=1, ignore_eos=True)
        assert engine.generate([5, 6], plain).token_ids == [favourite], "given parameters leave the defaults aside"
    (tmp_path / "generation_config.json").write_text(json.dumps({**config, "do_sample": True, "top_k": 0}))
    with lamella.Engine(tmp_path) as engine:
        sampled = {**meant, "temperature": 1.0, "min_p": 0.2, "seed": seed}
        expected = engine.generate([5, 6], lamella.SamplingParams().override(sampled)).token_ids
        assert engine.generate([5, 6], max_tokens=12, seed=seed).token_ids == expected
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_ids_of_a_config_outside_the_vocabulary_are_left_out_with_one_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"suppress_tokens": [-1, 3, 150], "bad_words_ids": [[4, 5], [5, 999]]}
    with lamella.Engine(with_generation_config(folder, tmp_path, config)) as engine:
        known = {"suppress_tokens": [3], "bad_words": [[4, 5]]}
        expected = engine.generate([5, 6], lamella.SamplingParams(max_tokens=5, **known)).token_ids
        assert engine.generate([5, 6], max_tokens=5).token_ids == expected
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert messages == [
        "generation_config.json: ids outside the vocabulary of 150 left out: suppress_tokens, bad_words"
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_sample": True, "temperature": "hot"}, "temperature is 'hot'; expected 0 or a number from 1e-6 up"),
        ({"do_sample": True, "temperature": -1.0}, "temperature is -1.0; expected"),
        ({"do_sample": True, "temperature": 1e-9}, "temperature is 1e-09; expected"),
        ({"do_sample": True, "temperature": True}, "temperature is True; expected"),
        ({"do_sample": True, "top_k": -1}, "top_k is -1; expected a whole number from 0 up"),
        ({"do_sample": True, "top_k": 5.0}, "top_k is 5.0; expected"),
        ({"do_sample": True, "top_p": 0}, "top_p is 0; expected a number above 0 and at most 1"),
        ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5; expected"),
        ({"do_sample": True, "top_p": [0.5]}, "top_p is [0.5]; expected"),
        ({"do_sample": "yes", "temperature": 0.7}, "do_sample is 'yes'; expected true or false"),
        ({"do_sample": 1}, "do_sample is 1; expected true or false"),
        ({"max_new_tokens": "many"}, "max_new_tokens is 'many'; expected a whole number from 1 up"),
        ({"max_new_tokens": -5}, "max_new_tokens is -5; expected"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; expected"),
        ({"min_new_tokens": -1}, "min_new_tokens is -1; expected a whole number from 0 up"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; expected a number above 0, from 1e-30 to 1e30"),
        ({"no_repeat_ngram_size": 1.5}, "no_repeat_ngram_size is 1.5; expected a whole number from 0 up"),
        ({"do_sample": True, "min_p": 2}, "min_p is 2; expected a number from 0 to 1"),
        ({"bad_words_ids": [5]}, "bad_words_ids: bad_words[0] is of type int; expected token ids"),
        ({"bad_words_ids": [[5], "five"]}, "bad_words_ids: a text among its lists; expected ids"),
        ({"bad_words_ids": [[]]}, "bad_words_ids: bad_words[0] is empty"),
        ({"suppress_tokens": "none"}, "suppress_tokens: suppress_tokens is of type str; expected token ids"),
        ({"stop_strings": 5}, "stop_strings: stop is 5; expected a list of texts"),
    ],
)
def test_a_config_with_which_no_request_could_run_is_refused_when_it_is_opened(
    folder: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    path = with_generation_config(folder, tmp_path, config)
    expected = re.escape(f"{path / 'generation_config.json'}: {message}")
    with pytest.raises(lamella.CheckpointError, match=expected) as error:
        open_model(path)
    assert error.value.code == "INVALID_CHECKPOINT"


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": 0, "top_k": -1, "top_p": 0.0},  # nothing of this matters to a model that does not sample
        {"do_sample": False, "temperature": 0.0, "top_p": 7, "top_k": "all"},
        {"do_sample": None, "temperature": None, "top_k": None, "top_p": None, "max_new_tokens": None},
        {"do_sample": True, "temperature": 0, "top_k": 0},
        {"do_sample": True, "temperature": 1, "top_k": None, "top_p": 1},
        {"do_sample": True, "temperature": 1e308, "top_k": 2**40, "top_p": 1e-300},
        {"max_new_tokens": 10**30},
    ],
)
def test_a_config_that_transformers_can_use_opens_and_generates(
    folder: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    with lamella.Engine(with_generation_config(folder, tmp_path, config)) as engine:
        completion = engine.generate([5, 6], seed=1)
        assert len(completion.token_ids) == min(256, 160 - 2) or "max_new_tokens" in config
        if config.get("do_sample") is not True or config.get("temperature") == 0:
            assert completion.token_ids == greedy(engine, [5, 6], len(completion.token_ids))


# ---- seeds that nobody gave ------------------------------------------------------------------------------------------


def test_every_bit_of_an_engines_seed_counts_and_its_requests_draw_apart(folder: Path) -> None:
    def drawn(seed: int) -> list[list[int]]:
        with lamella.Engine(folder, seed=seed, threads=1) as engine:
            return [done.token_ids for done in engine.generate([[5, 6]] * 3, max_tokens=20, temperature=2.0)]

    seeds = (0, 1, 2**32, 2**63, 2**64 - 1)
    outputs = [tokens for seed in seeds for tokens in drawn(seed)]
    assert len(set(map(tuple, outputs))) == 3 * len(seeds)
    assert drawn(2**63) == outputs[9:12], "the same seed gives the same again"
    with lamella.Engine(folder, threads=1) as engine:
        for seed in range(3):
            assert engine.generate([5, 6], max_tokens=20, temperature=2.0, seed=seed).token_ids not in outputs


def test_drawn_seeds_are_apart_and_of_64_bits() -> None:
    seeds = [drawn_seed(seed, number) for seed in (*range(50), 2**32, 2**63, 2**64 - 1) for number in range(200)]
    assert len(set(seeds)) == len(seeds)
    assert all(2**32 < seed < 2**64 for seed in seeds), "none is one that people choose"
    assert 0.49 < sum(seed.bit_count() for seed in seeds) / 64 / len(seeds) < 0.51
