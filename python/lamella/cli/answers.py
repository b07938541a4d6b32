"""Running prompts and timing them: what generate and chat share."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

from lamella.completion import Chunk, Completion, Timing
from lamella.engine import Engine

Show = Callable[[str], None]


def stream_answer(engine: Engine, ids: list[int], sampling: dict[str, Any], show: Show) -> Completion:
    """Generates from one prompt and hands each piece to `show`: its text, or its ids where there is no tokenizer."""
    texts: list[str] = []
    tokens: list[int] = []
    reason, first = None, 0.0
    chunks = engine.stream(ids, **sampling)
    started = time.perf_counter()
    with contextlib.closing(cast("Generator[Chunk, None, None]", chunks)):
        for chunk in chunks:
            first = first or time.perf_counter() - started
            ids_shown = ",".join(map(str, chunk.token_ids))  # any number of them, none in a last chunk
            show(chunk.text if engine.tokenizer else ("," if tokens and ids_shown else "") + ids_shown)
            texts.append(chunk.text)
            tokens += chunk.token_ids
            reason = chunk.finish_reason
    timing = Timing(first, time.perf_counter() - started)
    return Completion("".join(texts), tokens, reason or "cancelled", len(ids), timing)


def completion_json(completion: Completion) -> dict[str, Any]:
    """A completion as `--json` shows it; a failed one says why."""
    fields = ("text", "token_ids", "finish_reason", "prompt_tokens", *(("error",) if completion.error else ()))
    return {name: getattr(completion, name) for name in fields}


def decode_step_s(completion: Completion) -> float | None:
    """Seconds from one token of the completion to the next; None where there was only one step."""
    steps = len(completion.token_ids) - (completion.finish_reason != "stop")  # a stop token took a step too
    return (completion.timing.total_s - completion.timing.first_token_s) / steps if steps > 0 else None


def timing_json(engine: Engine, completions: Sequence[Completion], total_s: float) -> dict[str, float | None]:
    """Loading, time to the first token and between tokens (medians over the completions), and all of the generation."""
    ttfts = [completion.timing.first_token_s for completion in completions]
    steps = [step for completion in completions if (step := decode_step_s(completion)) is not None]
    return {
        "load_s": engine.load_s,
        "ttft_s": statistics.median(ttfts) if ttfts else None,
        "decode_step_s": statistics.median(steps) if steps else None,
        "total_s": total_s,
    }
