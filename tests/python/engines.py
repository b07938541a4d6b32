"""Engines that tests disturb: tiny and busy models, and what must hold of an engine while and after it is disturbed."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamella
from lamella import _core
from random_models import draw
from tiny_tokenizers import byte_level

CONTEXT = 300
OUTCOMES = ("running", "finished", "cancelled", "rejected", "failed")
#: Seconds after which something that should come at once counts as never coming. Generous: test machines are shared.
PATIENCE = 20.0


def write_text_model(seed: int, folder: Path, context: int = CONTEXT, **config: Any) -> int:
    """A GPT-2 with a byte-level tokenizer: most sampled tokens are pieces of UTF-8. Returns its vocabulary's size."""
    tokenizer = byte_level()
    vocab = tokenizer.get_vocab_size()
    draw("gpt2", seed, folder, vocab_size=vocab, n_positions=context, **config)
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocab


def shape(**changed: Any) -> _core.ModelSpec:
    """A shape whose step takes about a millisecond, so that there is time to disturb it. `causal` False: an encoder."""
    norm = _core.NormSpec(kind=_core.NormKind.layer_norm, bias=True)
    causal = changed.pop("causal", True)
    layer = _core.LayerSpec(
        residual=_core.Residual.sequential,
        attention_norm=norm,
        attention=_core.AttentionSpec(heads=8, kv_heads=8, head_dim=32, scale=0.1, causal=causal),
        mlp_norm=norm,
        mlp=_core.MlpSpec(intermediate=1024, activation=_core.Activation.relu),
    )
    head = _core.HeadSpec(norm=norm, tied=True) if causal else _core.HeadSpec(kind=_core.HeadKind.hidden)
    fields = {"vocab": 2000, "max_positions": 4096, "head": head, **changed}
    return _core.ModelSpec(
        family="test",
        hidden=256,
        embedding=_core.EmbeddingSpec(positions=_core.PositionKind.learned, position_rows=4096),
        layers=[layer] * 6,
        **fields,
    )


def assert_counted(stats: dict[str, Any]) -> None:
    """Nothing lost: every request that came is in exactly one state."""
    assert stats["received"] == sum(int(stats[name]) for name in OUTCOMES), stats


def assert_idle(engine: lamella.Engine) -> None:
    """Nothing runs and no block is held: at once after calls that went to their end."""
    stats = engine.stats()
    assert (stats["kv_blocks_used"], stats["running"]) == (0, 0), stats
    assert_counted(stats)


def until(holds: Callable[[], bool], what: str) -> None:
    """Waits until `holds`; fails where that never comes."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.001)


def until_idle(engine: lamella.Engine, steps: int | None = None) -> None:
    """Waits for what was cancelled to end; `steps` is the most that the engine may take until then."""

    def idle() -> bool:
        stats = engine.stats()
        assert_counted(stats)
        return stats["running"] == 0 and stats["kv_blocks_used"] == 0

    before = int(engine.stats()["steps"])
    until(idle, f"an idle engine; it has {engine.stats()}")
    taken = int(engine.stats()["steps"]) - before
    assert steps is None or taken <= steps, f"it took {taken} steps to end what was cancelled"


def until_running(engine: lamella.Engine) -> None:
    """Waits until some request holds blocks: it is in the middle of its work."""
    until(lambda: int(engine.stats()["kv_blocks_used"]) > 0, "a request that runs")


def descriptors() -> int:
    """Files, sockets and event descriptors that this process holds open."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def native_threads() -> int:
    """Threads of this process, those that Python does not know included."""
    gc.collect()
    return len(list(Path("/proc/self/task").iterdir()))


def in_threads(works: list[Callable[[], Any]]) -> list[Any]:
    """Runs all at once, each in its own thread; what they return, in order. Raises what the first of them raises."""
    results: list[Any] = [None] * len(works)
    failures: list[BaseException] = []

    def run(i: int) -> None:
        try:
            results[i] = works[i]()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 3)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results
