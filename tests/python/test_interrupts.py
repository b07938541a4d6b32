"""Ctrl-C inside a native call: the signal's handler runs between two steps of the call, not after it.

Handlers are counted, not seconds: signals that come while nobody looks for them are one call of the handler at the end,
however many came. So a handler that raises at its third call proves that somebody looked three times.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lamella
import pytest
from lamella import _core


class Third(KeyboardInterrupt):
    """Raised by the third call of the handler."""


def interrupted(call: Callable[[], Any], pause: float = 0.02) -> None:
    """Makes the call under a timer that fires every `pause` seconds; the third signal's handler must end it."""
    calls = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Third

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, pause, pause)
        with pytest.raises(Third):
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def spec(**changed: Any) -> _core.ModelSpec:
    """A shape whose step takes milliseconds."""
    norm = _core.NormSpec(kind=_core.NormKind.layer_norm, bias=True)
    causal = changed.pop("causal", True)
    layer = _core.LayerSpec(
        residual=_core.Residual.sequential,
        attention_norm=norm,
        attention=_core.AttentionSpec(heads=8, kv_heads=8, head_dim=32, scale=0.1, causal=causal),
        mlp_norm=norm,
        mlp=_core.MlpSpec(intermediate=1024, activation=_core.Activation.relu),
    )
    return _core.ModelSpec(
        family="test",
        vocab=500,
        hidden=256,
        max_positions=4096,
        embedding=_core.EmbeddingSpec(positions=_core.PositionKind.learned, position_rows=4096),
        layers=[layer] * 6,
        **changed,
    )


def test_G_an_interrupt_ends_encode_and_leaves_the_engine_as_it_was() -> None:
    encoder = spec(causal=False, head=_core.HeadSpec(kind=_core.HeadKind.hidden))
    with lamella.Engine.random(encoder, dtype="float32", max_num_seqs=4, max_model_len=64) as engine:
        expected = engine.encode([5, 6, 7]).tobytes()
        texts = [[7] * 60] * 5_000
        interrupted(lambda: engine.core.encode(texts, _core.Pooling.mean), pause=0.05)  # no time in Python
        assert engine.stats()["kv_blocks_used"] == 0
        assert engine.encode([5, 6, 7]).tobytes() == expected


def test_G_an_interrupt_ends_logits_and_leaves_the_engine_as_it_was() -> None:
    norm = _core.NormSpec(kind=_core.NormKind.layer_norm, bias=True)
    decoder = spec(head=_core.HeadSpec(kind=_core.HeadKind.logits, norm=norm, tied=True))
    with lamella.Engine.random(decoder, dtype="float32", max_num_seqs=1) as engine:
        expected = engine.generate([5, 6, 7], max_tokens=5).token_ids
        interrupted(lambda: engine.logits([7] * 4096), pause=0.011)
        assert engine.stats()["kv_blocks_used"] == 0
        assert engine.generate([5, 6, 7], max_tokens=5).token_ids == expected


@pytest.mark.parametrize("progress", [None, lambda done, total: None], ids=["silent", "with_progress"])
def test_G_an_interrupt_ends_loading(smollm2_path: Path, progress: Callable[[int, int], None] | None) -> None:
    from lamella.checkpoint import open_model
    from lamella.engine_options import EngineOptions

    weights = open_model(smollm2_path).weights
    options = EngineOptions(dtype="float32", quantization="int4")  # the search for clips takes seconds
    dtype = weights.resolved_dtype(options.dtype)
    config = options.config(dtype, [choice.format for choice in weights.choose_formats(options.format_options(dtype))])
    interrupted(lambda: weights.open_engine(config, 2, None, progress), pause=0.011)
    weights.open_engine(config, 2, None, progress)
