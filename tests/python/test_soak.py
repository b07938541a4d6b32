"""The engine under mixed load, ten minutes in the full stage and seconds otherwise: nothing grows, nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import time
from pathlib import Path

import lamella
import pytest
from random_models import draw
from tiny_tokenizers import byte_level

_SECONDS = {True: 600.0, False: 3.0}
_GROWTH_BYTES = 4 << 20  # of resident memory, from the end of the first fifth on


@pytest.fixture(scope="module")
def folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("soak")
    tokenizer = byte_level()
    # No RoPE: where it depends on a sequence's length, equal beginnings share nothing.
    draw("gpt2", seed, path, vocab_size=tokenizer.get_vocab_size(), n_positions=256)
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def handles() -> tuple[int, int]:
    """Open files and threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir()))


def become(expected: tuple[int, int]) -> bool:
    """Whether files and threads are so many, at once or soon: a thread that was joined may be listed for a moment."""
    deadline = time.monotonic() + 5
    while handles() != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return handles() == expected


class Load:
    """What callers do, each with random choices of its own. One request in five is given up."""

    def __init__(self, engine: lamella.Engine, seed: int) -> None:
        self.engine = engine
        self.rng = random.Random(seed)
        self.prefixes = [[random.Random(i).randrange(200) for _ in range(100)] for i in range(3)]
        self.submitted = self.given_up = 0

    def request(self) -> dict[str, object]:
        rng = self.rng
        prompt = rng.choice(self.prefixes)[: rng.randrange(101)] + [
            rng.randrange(200) for _ in range(1 + rng.randrange(60))
        ]
        self.submitted += 1
        return {
            "prompt": prompt,
            "max_tokens": 1 + rng.randrange(80),
            "temperature": rng.choice([0.0, 0.7]),
            "top_p": 0.9,
            "seed": rng.randrange(100),
            "n": rng.choice([1, 1, 1, 3]),
            "logprobs": rng.choice([None, 2]),
            "stop": rng.choice([(), ("ab", "\u00e9")]),
            "repetition_penalty": rng.choice([1.0, 1.2]),
        }

    def gives_up(self) -> bool:
        leaves = self.rng.random() < 0.2
        self.given_up += leaves
        return leaves

    def in_a_thread(self, until: float) -> None:
        while time.monotonic() < until:
            request = self.request()
            prompt = request.pop("prompt")
            if self.gives_up():
                for _ in self.engine.stream(prompt, **request):  # type: ignore[arg-type]
                    break
            else:
                self.engine.generate(prompt, **request)  # type: ignore[call-overload]

    async def in_tasks(self, until: float) -> None:
        async def one() -> None:
            while time.monotonic() < until:
                request = self.request()
                prompt = request.pop("prompt")
                task = asyncio.create_task(self.engine.agenerate(prompt, **request))  # type: ignore[arg-type]
                if self.gives_up():
                    await asyncio.sleep(self.rng.random() * 0.02)
                    task.cancel()
                await asyncio.wait([task])

        await asyncio.gather(*(one() for _ in range(4)))


def run_load(loads: list[Load], seconds: float) -> None:
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=load.in_a_thread, args=(until,)) for load in loads[1:]]
    for thread in threads:
        thread.start()
    asyncio.run(loads[0].in_tasks(until))
    for thread in threads:
        thread.join()
    gc.collect()


def test_a_long_mixed_load_leaves_memory_handles_and_threads_as_they_were(
    folder: Path, seed: int, full_stage: bool
) -> None:
    with lamella.Engine(folder) as engine:
        stats = engine.stats()
        blocks = 20 * int(stats["bytes_kv"]) // int(stats["kv_blocks_total"])  # 15 are what one sequence needs at most
    before = handles()
    with lamella.Engine(folder, max_num_seqs=8, kv_cache_memory=blocks, max_num_batched_tokens=64, threads=2) as engine:
        fresh = engine.generate([5, 6, 7], max_tokens=30).token_ids
        loads = [Load(engine, seed + i) for i in range(3)]
        seconds = _SECONDS[full_stage]
        run_load(loads, seconds / 5)
        time.sleep(0.2)  # see become()
        settled, bytes_settled = handles(), resident_bytes()
        run_load(loads, seconds * 4 / 5)
        assert become(settled), (handles(), settled)
        if full_stage:
            grown = resident_bytes() - bytes_settled
            assert grown < _GROWTH_BYTES, f"{grown} bytes more after {seconds:g} s"
        deadline = time.monotonic() + 10
        while engine.stats()["running"] and time.monotonic() < deadline:
            time.sleep(0.01)
        stats = engine.stats()
        assert stats["running"] == stats["kv_blocks_used"] == stats["failed"] == stats["rejected"] == 0
        submitted, given_up = (sum(getattr(load, name) for load in loads) for name in ("submitted", "given_up"))
        assert 0 < submitted - int(stats["finished"]) <= given_up  # some ended before they were given up
        assert int(stats["preemptions"]) > 0 and int(stats["reused_tokens"]) > 0
        print(f"{submitted} requests, {given_up} given up, {stats['cancelled']} cancelled, {stats}")
        assert engine.generate([5, 6, 7], max_tokens=30).token_ids == fresh
    assert become(before), (handles(), before)
