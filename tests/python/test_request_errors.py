"""The rows of the error contract (reliability.md) that are about requests: F, and values of wrong types."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
from engines import (
    OUTCOMES,
)
from random_models import draw
from tiny_tokenizers import byte_level, sentence_piece

CONTEXT = 128


@pytest.fixture(scope="module")
def vocab() -> int:
    return byte_level().get_vocab_size()


@pytest.fixture(scope="module")
def folder(seed: int, vocab: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with a tokenizer that adds no BOS, and without special ids."""
    path = tmp_path_factory.mktemp("gpt2")
    draw("gpt2", seed, path, vocab_size=vocab, n_positions=CONTEXT)
    byte_level().save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def engine(folder: Path) -> Iterator[lamella.Engine]:
    """A fresh engine, which must answer as before after whatever the test did to it."""
    with lamella.Engine(folder) as engine:
        expected = engine.generate([5, 6], max_tokens=5).token_ids
        yield engine
        assert engine.generate([5, 6], max_tokens=5).token_ids == expected
        stats = engine.stats()
        assert stats["kv_blocks_used"] == stats["running"] == 0
        assert stats["received"] == sum(int(stats[name]) for name in OUTCOMES)


@pytest.fixture(scope="module")
def encoder_folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bert")
    draw("bert", seed, path, max_position_embeddings=64, vocab_size=100)
    return path


def started(engine: lamella.Engine) -> int:
    """Requests that the engine has accepted so far."""
    stats = engine.stats()
    return int(stats["received"]) - int(stats["rejected"])


@pytest.mark.parametrize("bad", ["negative", "the vocabulary's size", "beyond 32 bits", "beyond 64 bits"])
def test_F1_ids_outside_the_vocabulary_are_refused_by_name(engine: lamella.Engine, vocab: int, bad: str) -> None:
    token = {"negative": -1, "the vocabulary's size": vocab, "beyond 32 bits": 2**40, "beyond 64 bits": 10**5000}[bad]
    shown = "beyond 64 bits" if token > 2**64 else str(token)
    before = started(engine)
    calls: list[Callable[[], Any]] = [
        lambda: engine.generate([5, token]),
        lambda: engine.stream([5, token]),  # at the call, not at the first chunk
        lambda: engine.logits([5, token]),
    ]
    for call in calls:
        with pytest.raises(lamella.InvalidArgumentError, match=rf"prompt.*1\]? is {shown}; ") as error:
            call()
        assert error.value.code == "INVALID_ARGUMENT"
    for stop in ([token], [5, token]):
        with pytest.raises(lamella.InvalidArgumentError, match=rf"stop_token_ids.* is {shown}; expected"):
            engine.generate([5], stop_token_ids=stop)
    for name, value in (
        ("suppress_tokens", [5, token]),
        ("allowed_token_ids", [5, token]),
        ("logit_bias", {5: 1.0, token: 1.0}),
        ("bad_words", [[5], [6, token]]),
    ):
        field = (
            "(suppress_tokens|bad_words)" if name == "suppress_tokens" else name
        )  # which the core does not tell apart
        with pytest.raises(lamella.InvalidArgumentError, match=rf"{field}.* is {shown}; expected"):
            engine.generate([5], **{name: value})
    with pytest.raises(lamella.InvalidArgumentError, match=rf"(request|prompt) 2.* is {shown}; "):
        engine.generate([[5], [6], [7, token], [8]])
    assert started(engine) == before, "a list is checked whole before it starts"


def test_F1_an_encoders_inputs_are_checked_before_any_is_run(encoder_folder: Path) -> None:
    with lamella.Engine(encoder_folder) as engine:
        with pytest.raises(lamella.InvalidArgumentError, match=r"input 1: prompt token 2 is 100; .* 0 to 99"):
            engine.encode([[5], [6, 7, 100]])
        with pytest.raises(lamella.InvalidArgumentError, match=r"prompt token 0 is -1; "):
            engine.encode([-1])
        assert engine.encode([5]).shape[0] == 1


def test_F2_a_prompt_beyond_the_context_is_refused(engine: lamella.Engine) -> None:
    for call in (engine.generate, engine.stream, engine.logits):
        with pytest.raises(lamella.ContextLengthError, match="has 129 tokens and the context holds 128") as error:
            call([5] * (CONTEXT + 1))
        assert error.value.code == "CONTEXT_TOO_LONG"
    before = engine.stats()
    with pytest.raises(lamella.ContextLengthError, match="request 1: "):
        engine.generate([[5], [5] * (CONTEXT + 1)])
    after = engine.stats()
    assert [int(after[name]) - int(before[name]) for name in ("received", "rejected")] == [2, 2]


def test_F2_an_explicit_max_tokens_is_refused_and_a_default_one_clipped(engine: lamella.Engine) -> None:
    prompt = [5] * 100
    for name in ("max_tokens", "max_new_tokens"):
        with pytest.raises(lamella.ContextLengthError, match=r"plus max_tokens 29 exceeds .* ask for at most 28"):
            engine.generate(prompt, **{name: 29})
    with pytest.raises(lamella.ContextLengthError):
        engine.generate(prompt, lamella.SamplingParams(max_tokens=29))
    with pytest.raises(lamella.ContextLengthError):
        engine.generate(prompt, max_tokens=2**62)
    assert len(engine.generate(prompt, max_tokens=28).token_ids) == 28
    assert len(engine.generate(prompt).token_ids) == 28
    with pytest.raises(lamella.ContextLengthError):
        engine.generate([5] * CONTEXT)  # no room for a single token


def test_F2_an_encoders_input_beyond_the_context_is_refused(encoder_folder: Path) -> None:
    with lamella.Engine(encoder_folder) as engine:
        with pytest.raises(lamella.ContextLengthError, match=r"input 1: .* 65 tokens and the context holds 64"):
            engine.encode([[5], [5] * 65])
        assert engine.encode([5] * 64).shape[0] == 1


def test_F3_empty_things(engine: lamella.Engine, seed: int, tmp_path: Path) -> None:
    assert engine.generate([]) == [] and engine.logits([]) == []
    for call in (lambda: engine.generate([[]]), lambda: engine.stream([]), lambda: engine.logits([[]])):
        with pytest.raises(lamella.InvalidArgumentError, match="no tokens"):
            call()
    with pytest.raises(lamella.InvalidArgumentError, match=r"request 1: .*no tokens"):
        engine.generate([[5], []])
    with pytest.raises(lamella.InvalidArgumentError, match="no tokens"):
        engine.generate("")  # this model has no BOS

    byte_level().save(str(tmp_path / "tokenizer.json"))
    draw("gpt2", seed, tmp_path, vocab_size=byte_level().get_vocab_size(), bos_token_id=3)
    with lamella.Engine(tmp_path) as with_bos:
        empty = with_bos.generate("", max_tokens=4)
        assert (empty.prompt_tokens, empty.token_ids) == (1, with_bos.generate([3], max_tokens=4).token_ids)


def test_F3_a_tokenizer_that_adds_bos_makes_an_empty_text_one_token(seed: int, tmp_path: Path) -> None:
    tokenizer = sentence_piece()
    draw(
        "llama",
        seed,
        tmp_path,
        vocab_size=tokenizer.get_vocab_size(),
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with lamella.Engine(tmp_path) as engine:
        assert engine.generate("", max_tokens=2).prompt_tokens == 1


def test_F4_a_lone_surrogate_is_refused(engine: lamella.Engine) -> None:
    for call in (engine.generate, engine.stream, engine.logits, engine.score):
        with pytest.raises(lamella.InvalidArgumentError, match="character 2 is a lone surrogate"):
            call("ab\ud800")
    with pytest.raises(lamella.InvalidArgumentError, match=r"prompt 1 of 2: .*lone surrogate"):
        engine.generate(["fine", "\udfff"])
    with pytest.raises(lamella.InvalidArgumentError, match=r"stop\[1\]: character 1 is a lone surrogate"):
        engine.generate([5], stop=["fine", "a\udfff"])


def test_F4_a_text_that_no_context_holds_is_refused_before_it_is_tokenized(
    engine: lamella.Engine, encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One word of ten million letters, for which a tokenizer takes minutes and gigabytes where it takes them."""
    word = "ab" * 5_000_000
    cap = 4 * 2**20

    def never(*_: Any, **__: Any) -> list[int]:
        raise AssertionError("tokenized")

    with monkeypatch.context() as patch:
        patch.setattr(engine.tokenizer_or_raise(), "encode", never)
        for call in (engine.generate, engine.stream, engine.logits, engine.score, engine.encode_prompt):
            with pytest.raises(
                lamella.ContextLengthError,
                match=f"has 10000000 bytes; a text for the context of {CONTEXT} tokens may have {cap}",
            ) as error:
                call(word)
            assert error.value.code == "CONTEXT_TOO_LONG" and len(str(error.value)) < 300
        for text in ("a" * (cap + 1), "é" * (cap // 2 + 1), "\N{GRINNING FACE}" * (cap // 4 + 1)):
            with pytest.raises(lamella.ContextLengthError, match="bytes"):
                engine.generate(text)
        with pytest.raises(lamella.ContextLengthError, match=r"prompt 1 of 2: .*bytes"):
            engine.generate([[5], word])
        for text in ("a" * cap, "\N{GRINNING FACE}" * (cap // 4)):
            with pytest.raises(AssertionError, match="tokenized"):
                engine.generate(text)
    assert started(engine) == 1, "nothing but the fixture's own"


def test_F4_the_cap_grows_with_the_context(seed: int, tmp_path: Path) -> None:
    context, vocab = 70_000, byte_level().get_vocab_size()
    draw("gpt2", seed, tmp_path, vocab_size=vocab, n_positions=context)
    byte_level().save(str(tmp_path / "tokenizer.json"))
    for length, most in ((context, 64 * context), (100, 4 * 2**20)):
        with (
            lamella.Engine(tmp_path, max_num_seqs=1, max_model_len=length) as engine,
            pytest.raises(lamella.ContextLengthError, match=f"the context of {length} tokens may have {most}:"),
        ):
            engine.generate("a" * (64 * context + 1))


def test_F4_stop_strings_are_few_and_short(engine: lamella.Engine) -> None:
    for stop, message in (
        (["x"] * 10**6, "stop has 1000000 texts; expected at most 16"),
        (["x"] * 17, "stop has 17 texts"),
        ("x" * 10**7, r"stop\[0\] is 'xxx.*expected a text of 1 to 256 bytes"),
        (["x", "é" * 129], r"stop\[1\]"),
        ("", r"stop\[0\] is ''"),
    ):
        with pytest.raises(lamella.InvalidArgumentError, match=message) as error:
            engine.generate("hello", stop=stop)
        assert len(str(error.value)) < 300
    assert engine.generate("hello", stop=["x" * 256] * 16, max_tokens=3).token_ids


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n", 129, "n is 129; expected 1 to 128"),
        ("n", 0, "n is 0; expected 1 to 128"),
        ("n", 2**31 - 1, "n is 2147483647; expected 1 to 128"),
        ("n", 2**40, "n is 1099511627776"),
        ("logprobs", 21, "logprobs is 21; expected 0 to 20"),
        ("logprobs", -1, "logprobs is -1; expected 0 to 20"),
        ("prompt_logprobs", 21, "prompt_logprobs is 21; expected 0 to 20"),
        ("prompt_logprobs", 2**31 - 1, "prompt_logprobs is 2147483647"),
    ],
)
def test_F5_choices_and_logprobs_are_bounded(engine: lamella.Engine, name: str, value: int, message: str) -> None:
    for call in (engine.generate, engine.stream):
        with pytest.raises(lamella.InvalidArgumentError, match=message):
            call([5], **{name: value})


def test_F5_the_most_of_everything_is_taken(engine: lamella.Engine) -> None:
    done = engine.generate([5] * 100, n=128, logprobs=20, prompt_logprobs=20, max_tokens=3, temperature=1.0, seed=1)
    assert len(done.choices) == 128
    assert all(len(position) == 21 for choice in done.choices for position in choice.logprobs or [])
    assert [len(position) for position in done.prompt_logprobs or []] == [0] + [21] * 99


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        1.5,
        b"abc",
        [1.5],
        [5, 1.5],
        [None],
        [[1.5]],
        [["a"]],
        [[[5]]],
        {},
        {"text": 1},
        {5, 6},
        iter([5]),
        [5, b"a"],
        [np.float32(1.0)],
        np.array([[1.5]]),
        object(),
    ],
    ids=lambda prompt: type(prompt).__name__ + repr(prompt)[:16],
)
def test_a_prompt_of_a_wrong_type_is_an_argument_error(engine: lamella.Engine, prompt: Any) -> None:
    before = started(engine)
    for call in (engine.generate, engine.logits):
        with pytest.raises(lamella.InvalidArgumentError, match="prompt"):
            call(prompt)
    if not hasattr(prompt, "__next__"):
        with pytest.raises(lamella.InvalidArgumentError, match="prompt"):
            engine.stream(prompt)
    assert started(engine) == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_tokens", "3", "max_tokens is '3'; expected a whole number"),
        ("max_tokens", 2.5, "max_tokens is 2.5"),
        ("max_tokens", 0, "max_tokens is 0; expected at least 1"),
        ("max_tokens", -(2**80), "max_tokens is beyond 64 bits; expected"),
        ("seed", -1, "seed is -1; expected 0 to"),
        ("seed", 2**64, "seed is beyond 64 bits; expected 0 to"),
        ("seed", "7", "seed is '7'"),
        ("top_k", -1, "top_k is -1; expected 0"),
        ("top_k", 2.0, "top_k is 2.0"),
        ("top_k", 2**31, "top_k is 2147483648"),
        ("temperature", "hot", "temperature is 'hot'; expected a number"),
        ("temperature", [1.0], "temperature is"),
        ("top_p", "0.5", "top_p is '0.5'"),
        ("ignore_eos", "no", "ignore_eos is 'no'; expected True or False"),
        ("stop_token_ids", 5, "stop_token_ids is of type int"),
        ("stop_token_ids", "56", "stop_token_ids is of type str"),
        ("stop_token_ids", ["5"], "stop_token_ids"),
        ("stop_token_ids", ["x" * 100_000], "stop_token_ids"),
    ],
)
def test_a_parameter_of_a_wrong_type_or_range_is_an_argument_error(
    engine: lamella.Engine, name: str, value: Any, message: str
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)) as error:
        engine.generate([5], **{name: value})
    assert len(str(error.value)) < 512, "errors do not echo long input (P8)"
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)):
        engine.stream([5], **{name: value})


def test_params_must_be_sampling_params(engine: lamella.Engine) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match="params is of type dict; expected SamplingParams"):
        engine.generate([5], {"max_tokens": 3})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("temprature", "temperature"),
        ("maxtokens", "max_tokens"),
        ("max_new_token", "max_new_tokens"),
        ("topk", "top_k"),
        ("ignore_eos_token", "ignore_eos"),
        ("stop_tokens_ids", "stop_token_ids"),
        ("sample", "do_sample"),
    ],
)
def test_an_unknown_keyword_names_the_nearest(engine: lamella.Engine, name: str, nearest: str) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=f"unknown parameter '{name}'; did you mean {nearest}\\?"):
        engine.generate([5], **{name: 1})


def test_a_parameter_and_its_alias_together_are_refused(engine: lamella.Engine) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match="both given"):
        engine.generate([5], max_tokens=3, max_new_tokens=3)


def test_a_decoder_does_not_encode_and_an_encoder_does_not_generate(
    engine: lamella.Engine, encoder_folder: Path
) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match="decoder"):
        engine.encode([5])
    with lamella.Engine(encoder_folder) as encoder:
        for call in (encoder.generate, encoder.stream, encoder.logits):
            with pytest.raises(lamella.InvalidArgumentError, match=r"encoder.*encode\(\)"):
                call([5])
        with pytest.raises(lamella.InvalidArgumentError, match="pooling is 'max'; expected auto, mean, cls"):
            encoder.encode([5], pooling="max")  # type: ignore[arg-type]
