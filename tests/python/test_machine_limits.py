"""Less of the machine than it seems to have: more threads than cores, a CPU quota, a busy neighbour, one core, and
cores that are taken away while the engine runs. The tokens are the same, whatever happens; bench/fair_share.py measures
the time. An engine that waits, for a request or for its caller, uses no CPU, as the kernel counts it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import lamella
import pytest
from engines import shape, until_idle
from lamella import _core
from machine_limits import NotAllowedError, busy_neighbour, cpu_quota

NEW = 24
#: Threads that poll would use a whole core each; what wakes now and then uses next to nothing.
IDLE_S = 1.0
MOST_IDLE_CPU_S = 0.2

Tokens = list[tuple[int, ...]]


@pytest.fixture(scope="module")
def prompts(seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(2000) for _ in range(draw.randrange(1, 40))] for _ in range(3)]


def open_engine(threads: int | None) -> lamella.Engine:
    return lamella.Engine.random(shape(), threads=threads, dtype="float32", seed=5, max_num_seqs=4, max_model_len=128)


def tokens(engine: lamella.Engine, prompts: list[list[int]]) -> Tokens:
    return [tuple(own.token_ids) for own in engine.generate(prompts, max_tokens=NEW, ignore_eos=True)]


@pytest.fixture(scope="module")
def undisturbed(prompts: list[list[int]]) -> Tokens:
    with open_engine(1) as engine:
        return tokens(engine, prompts)


@contextmanager
def allowed(condition: AbstractContextManager[None]) -> Iterator[None]:
    """The condition, or a test that is skipped with the reason where the machine does not allow it."""
    try:
        condition.__enter__()
    except NotAllowedError as reason:
        pytest.skip(str(reason))
    try:
        yield
    finally:
        condition.__exit__(None, None, None)


@pytest.mark.parametrize("threads", [2, 3, 4, 9])
def test_more_threads_than_cores_give_the_same_tokens(
    threads: int, prompts: list[list[int]], undisturbed: Tokens
) -> None:
    with open_engine(threads) as engine:
        assert tokens(engine, prompts) == undisturbed


@pytest.mark.parametrize("threads", [None, 1, 2, 4])
def test_half_a_core_gives_the_same_tokens(threads: int | None, prompts: list[list[int]], undisturbed: Tokens) -> None:
    with allowed(cpu_quota(0.5)), open_engine(threads) as engine:
        assert engine.core.threads == (threads or 1)  # half a core is worth one thread
        assert tokens(engine, prompts) == undisturbed


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_quota_that_comes_and_goes_changes_no_token(
    threads: int, prompts: list[list[int]], undisturbed: Tokens
) -> None:
    with open_engine(threads) as engine:
        for quota in (0.5, 0.2):
            with allowed(cpu_quota(quota)):
                assert tokens(engine, prompts) == undisturbed
            assert tokens(engine, prompts) == undisturbed


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_busy_neighbour_changes_no_token(threads: int, prompts: list[list[int]], undisturbed: Tokens) -> None:
    with open_engine(threads) as engine:
        for core in sorted(os.sched_getaffinity(0))[:2]:
            with allowed(busy_neighbour(core)):
                assert tokens(engine, prompts) == undisturbed


def test_cores_taken_away_from_running_threads_change_no_token(prompts: list[list[int]], undisturbed: Tokens) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("this process may use one core only")
    with open_engine(2) as engine:
        threads = [int(task.name) for task in Path("/proc/self/task").iterdir()]
        try:
            for thread in threads:
                os.sched_setaffinity(thread, {min(cores)})
            assert _core.usable_cores() == 1
            assert tokens(engine, prompts) == undisturbed
        finally:
            for thread in threads:
                os.sched_setaffinity(thread, cores)
        assert tokens(engine, prompts) == undisturbed


def test_a_process_that_may_use_one_core_has_one_thread_and_the_same_tokens(
    prompts: list[list[int]], undisturbed: Tokens
) -> None:
    program = (
        "import os, test_machine_limits as t\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "with t.open_engine(None) as engine:\n"
        f"    print(engine.core.threads, t.tokens(engine, {prompts}))\n"
    )
    places = os.pathsep.join(path for path in sys.path if path)  # this module's, the bench's and lamella's
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places}
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"1 {undisturbed}\n"


# ---- waiting costs nothing -------------------------------------------------------------------------------------------


def cpu_s_while_waiting(seconds: float) -> float:
    """CPU time of all threads of this process while its main thread sleeps."""
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_an_idle_engine_uses_no_cpu(threads: int, prompts: list[list[int]]) -> None:
    with open_engine(threads) as engine:
        assert cpu_s_while_waiting(IDLE_S) < MOST_IDLE_CPU_S  # before its first request
        tokens(engine, prompts)
        assert cpu_s_while_waiting(IDLE_S) < MOST_IDLE_CPU_S


def test_a_stream_whose_reader_pauses_uses_no_cpu_once_its_tokens_are_made(prompts: list[list[int]]) -> None:
    with open_engine(2) as engine:
        chunks = engine.stream(prompts[0], max_tokens=NEW, ignore_eos=True)
        first = next(chunks)
        until_idle(engine)  # the engine goes on without its reader
        assert cpu_s_while_waiting(IDLE_S) < MOST_IDLE_CPU_S
        assert len(first.token_ids) + sum(len(chunk.token_ids) for chunk in chunks) == NEW


def test_an_engine_between_requests_of_a_slow_caller_uses_cpu_for_its_steps_only(prompts: list[list[int]]) -> None:
    with open_engine(4) as engine:
        tokens(engine, prompts)
        before, steps = time.process_time(), 40
        for _ in range(steps):  # each wakes the team for one step of one token
            engine.generate([7], max_tokens=1)
            time.sleep(0.025)
        assert time.process_time() - before < 0.5  # polling would use three threads' second each
