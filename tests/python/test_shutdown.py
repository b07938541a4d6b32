"""G: the interpreter ends while the engine runs. Each case is a process, which must end by itself, quietly, with 0."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from engines import (
    PATIENCE,
)

PRELUDE = """
import asyncio, contextlib, gc, sys, threading, time
import lamella
folder = sys.argv[1]
engine = lamella.Engine(folder, max_num_seqs=4, threads=1)
def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)
def daemon(work):
    def suppressed():
        with contextlib.suppress(lamella.Error):
            work()
    threading.Thread(target=suppressed, daemon=True).start()
    until(lambda: engine.stats()["kv_blocks_used"] > 0)
"""

CASES = {
    "an engine that is idle": "engine.generate([7], max_tokens=3)",
    "an engine in a cycle": "engine.itself = engine",
    "an engine held by a module": "lamella.kept = engine; lamella.stream = engine.stream([7], max_tokens=4000)\n"
    "next(lamella.stream)",
    "a live stream": "stream = engine.stream([7], max_tokens=4000); next(stream)",
    "live streams and no engine": "streams = [engine.stream([7], max_tokens=4000) for _ in range(4)]\n"
    "for stream in streams: next(stream)\n"
    "del engine",
    "a stream that nobody started": "stream = engine.stream([7], max_tokens=4000)",
    "requests of a client of the core's": "client = engine.core.client()\n"
    "client.submit([lamella._core.Request([7], lamella._core.SamplingParams(max_tokens=4000))])",
    "a daemon thread in generate": "daemon(lambda: engine.generate([7], max_tokens=4000))",
    "a daemon thread in a stream": "daemon(lambda: list(engine.stream([7], max_tokens=4000)))",
    "a daemon thread in logits": "daemon(lambda: [engine.logits([7] * 4000) for _ in range(1000)])",
    "a daemon thread in agenerate": "daemon(lambda: asyncio.run(engine.agenerate([7], max_tokens=4000)))",
    "a daemon thread in generate, and the engine closed": "daemon(lambda: engine.generate([7], max_tokens=4000))\n"
    "engine.close()",
    "an async generator that was not exhausted": "async def main():\n"
    "    stream = engine.astream([7], max_tokens=4000)\n"
    "    await anext(stream)\n"
    "    global kept; kept = stream\n"
    "asyncio.run(main())",
    "an async generator that outlives its loop": "loop = asyncio.new_event_loop()\n"
    "stream = engine.astream([7], max_tokens=4000)\n"
    "loop.run_until_complete(anext(stream))\n"
    "loop.close()",
    "a task that nobody awaits": "async def main():\n"
    "    global task; task = asyncio.create_task(engine.agenerate([7], max_tokens=4000))\n"
    "    await asyncio.sleep(0.05)\n"
    "asyncio.run(main())",
    "an exit inside a stream": "for chunk in engine.stream([7], max_tokens=4000): sys.exit(0)",
    "two engines": "other = lamella.Engine(folder, threads=1)\n"
    "streams = [one.stream([7], max_tokens=4000) for one in (engine, other)]\n"
    "for stream in streams: next(stream)",
    "a forked child that ends as any process": "import os, warnings; warnings.simplefilter('ignore')\n"
    "stream = engine.stream([7], max_tokens=4000); next(stream)\n"
    "daemon(lambda: engine.generate([8], max_tokens=4000))\n"
    "child = os.fork()\n"
    "if child == 0: sys.exit(0)\n"
    "until(lambda: os.waitpid(child, os.WNOHANG) == (child, 0))\n"
    "next(stream)",
    "an exit handler that uses the engine": "import atexit\n"
    "atexit.register(lambda: engine.generate([7], max_tokens=3))\n"
    "stream = engine.stream([7], max_tokens=4000); next(stream)",
}


@pytest.mark.parametrize("name", CASES)
def test_G_the_interpreter_ends_with(name: str, slow_folder: Path) -> None:
    code = PRELUDE + CASES[name] + "\nprint('the end', flush=True)"
    command = [sys.executable, "-X", "faulthandler", "-c", code, str(slow_folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ("" if name == "an exit inside a stream" else "the end\n")
    # A daemon thread's objects are never freed, of which nanobind tells, and so is a loop's that was closed too early.
    tells = ("a daemon thread", "a forked child", "an async generator that outlives")
    assert not ended.stderr or name.startswith(tells), ended.stderr
    assert "Fatal" not in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
