"""Values of a wrong type or range at every door of the Python layer: one typed error that names what was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import lamella
import numpy as np
import pytest
from random_models import draw

Call = Callable[[], Any]


@pytest.fixture(scope="module")
def folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2")
    draw("gpt2", seed, path, n_positions=128, vocab_size=150)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[lamella.Engine]:
    with lamella.Engine(folder, threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def encoder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lamella.Engine]:
    path = tmp_path_factory.mktemp("bert")
    draw("bert", seed, path, max_position_embeddings=64, vocab_size=100)
    with lamella.Engine(path, threads=1) as engine:
        yield engine


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"do_sample": "false"}, "do_sample is 'false'; expected True or False"),
        ({"do_sample": 0}, "do_sample is 0; expected True or False"),
        ({"temperature": 10**400}, "temperature is beyond what a float holds"),
        ({"temperature": Fraction(10**400)}, "temperature is beyond what a float holds"),
        ({"top_p": 10**5000}, "top_p is beyond what a float holds"),
        ({"ignore_eos": 1}, "ignore_eos is 1; expected True or False"),
        ({"stop_token_ids": iter(["a"])}, "stop_token_ids[0] is 'a'; expected a whole number"),
    ],
)
def test_request_parameters(engine: lamella.Engine, parameters: dict[str, Any], message: str) -> None:
    for call in (engine.generate, engine.stream):
        with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)):
            call([5], **parameters)
        if "stop_token_ids" in parameters:  # an iterator is spent by the first call
            break


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": np.dtype("float32")}, "dtype is dtype('float32'); expected auto, float32"),
        ({"dtype": np.array(["auto", "auto"])}, "dtype is array("),
        ({"device": np.array([1, 2])}, "device is array("),
        ({"device": "x" * 10_000}, "device is 'xxx"),
        ({"quantization": ["dequantize"]}, "quantization is ['dequantize']; expected None, dequantize, int8"),
        ({"memory_budget": 1.5}, "memory_budget is 1.5; expected a whole number"),
        ({"memory_budget": [1]}, "memory_budget is [1]"),
        ({"progress": 3}, "progress is 3; expected True, False, None, or a function"),
    ],
)
def test_engine_options(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)) as error:
        lamella.Engine(folder, **options)
    assert len(str(error.value)) < 512, "errors do not echo long input (P8)"


@pytest.mark.parametrize("model", [None, 5, b"model", "", ["model"]], ids=repr)
def test_what_names_no_model(model: Any) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(f"model is {model!r}; expected a path or the id")):
        lamella.Engine(model)


@pytest.mark.parametrize("model", ["~nouser/x", "a\0b", "\ud800", "x" * 10_000], ids=ascii)
def test_a_model_that_is_nowhere(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for home in (None, "~nouser/huggingface"):
        if home is not None:
            monkeypatch.setenv("HF_HOME", home)
        with pytest.raises(lamella.CheckpointError, match="no such folder or file") as error:
            lamella.Engine(model)
        assert len(str(error.value)) < 1024


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 1.5}, "batch_size is 1.5; expected a whole number"),
        ({"batch_size": "a"}, "batch_size is 'a'"),
        ({"batch_size": 0}, "batch_size is 0; expected 1 to"),
        ({"tokens": None}, "tokens is None"),
        ({"tokens": 2**40, "context": 2**41}, "tokens is 1099511627776; expected 1 to"),
        ({"context": 1.0}, "context is 1.0"),
        ({"context": 10**5000}, "context is beyond 64 bits"),
        ({"tokens": 9, "context": 8}, "context is 8; expected at least the 9 new tokens"),
    ],
)
def test_plan_arguments(engine: lamella.Engine, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)):
        engine.plan(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": ["mean"]}, "pooling is ['mean']; expected auto, mean, cls, pooler or None"),
        ({"pooling": {}}, "pooling is {}"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"pooling": 10**5000}, "pooling is "),
        ({"normalize": "false"}, "normalize is 'false'; expected True or False"),
        ({"normalize": 1}, "normalize is 1"),
    ],
)
def test_encode_arguments(encoder: lamella.Engine, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(lamella.InvalidArgumentError, match=re.escape(message)):
        encoder.encode([5], **arguments)


# ---- and values that only look wrong ---------------------------------------------------------------------------------


def test_integers_and_numbers_of_other_libraries_are_taken(folder: Path, engine: lamella.Engine) -> None:
    parameters: dict[str, Any] = {"max_tokens": 6, "temperature": 0.5, "top_k": 20, "top_p": 0.5, "seed": 3}
    expected = engine.generate([5, 6], **parameters).token_ids
    kinds: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("max_tokens", "top_k", "seed"), np.int64),
        "temperature": np.float32,
        "top_p": lambda p: Fraction(p),
    }
    others = {name: kinds[name](value) for name, value in parameters.items()}
    assert engine.generate(np.array([5, 6]), **others).token_ids == expected
    params = lamella.SamplingParams(**others)
    assert params == lamella.SamplingParams(**parameters) and hash(params) == hash(lamella.SamplingParams(**parameters))
    assert all(type(getattr(params, name)) in (int, float) for name in parameters)
    with lamella.Engine(folder, threads=np.int64(1), memory_budget=np.int64(2**30), seed=np.uint64(2**63)) as other:
        assert other.core.config.memory_budget == 2**30


@pytest.mark.parametrize(
    "make", [list, tuple, iter, np.array, lambda ids: map(int, ids), lambda ids: (id for id in ids)]
)
def test_stop_tokens_come_in_any_sequence_or_iterator(engine: lamella.Engine, make: Callable[[list[int]], Any]) -> None:
    options: dict[str, Any] = {"max_tokens": 30, "temperature": 2.0, "seed": 1}
    tokens = engine.generate([5], **options).token_ids
    at = next(i for i in range(3, 30) if tokens[i] not in tokens[:i])
    assert engine.generate([5], stop_token_ids=make([tokens[at]]), **options).token_ids == tokens[:at]
    params = lamella.SamplingParams(**options, stop_token_ids=make([tokens[at]]))
    assert params.stop_token_ids == (tokens[at],)
    for _ in range(2):  # the parameters can be used again
        assert engine.generate([5], params).token_ids == tokens[:at]
        assert engine.generate([5], params, top_p=1.0).token_ids == tokens[:at]
