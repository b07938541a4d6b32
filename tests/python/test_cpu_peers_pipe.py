"""The processes of bench/cpu_peers.py: questions and answers over a pipe, and what happens when one goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers.pipe import Child, PeerError

BENCH = Path(__file__).parents[2] / "bench"
SERVER = """
import os, time
from peers.pipe import serve

def answer(question):
    print("noise on standard output")
    os.system("echo noise of a child")
    if question["do"] == "fail":
        raise ValueError("no such thing")
    if question["do"] == "end":
        os._exit(7)
    if question["do"] == "sleep":
        time.sleep(60)
    return {"pid": os.getpid(), "echo": question["text"]}

serve(answer)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Child]]:
    children = []

    def run() -> Child:
        environment = {**os.environ, "PYTHONPATH": str(BENCH)}
        children.append(Child([sys.executable, "-c", SERVER], environment, tmp_path / "log"))
        return children[-1]

    yield run
    for child in children:
        child.close()


def state(pid: int) -> str:
    """The letter by which the kernel tells a process's state; Z as well for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def wait_for_state(pid: int, letter: str) -> None:
    deadline = time.monotonic() + 20
    while (found := state(pid)) != letter:
        assert time.monotonic() < deadline, f"process {pid} is in state {found}, not {letter}"
        time.sleep(0.01)


def test_it_answers_and_is_stopped_between_questions(start: Callable[[], Child], tmp_path: Path) -> None:
    child = start()
    long = "ä" * 300_000  # more than a pipe holds
    for text in ("one", long, "three"):
        found = child.ask({"do": "echo", "text": text})
        assert found["echo"] == text
        wait_for_state(found["pid"], "T")
    assert "noise on standard output" in (tmp_path / "log").read_text()


def test_an_error_is_told_and_the_next_question_answered(start: Callable[[], Child]) -> None:
    child = start()
    with pytest.raises(PeerError, match="ValueError: no such thing"):
        child.ask({"do": "fail"})
    assert child.ask({"do": "echo", "text": "still here"})["echo"] == "still here"


def test_one_that_ends_or_does_not_answer_is_told(start: Callable[[], Child]) -> None:
    with pytest.raises(PeerError, match=r"ended with status 7.*log"):
        start().ask({"do": "end"})
    child = start()
    child.ask({"do": "echo", "text": ""})
    with pytest.raises(PeerError, match="no answer within 0 s"):
        child.ask({"do": "sleep"}, timeout_s=0.2)
    with pytest.raises(PeerError, match="ended with status -9"):
        child.ask({"do": "echo", "text": ""})


def test_one_that_is_stopped_dies_with_its_parent(tmp_path: Path) -> None:
    parent = f"""
import os, sys, time
from pathlib import Path
from peers.pipe import Child
child = Child([sys.executable, "-c", {SERVER!r}], dict(os.environ), Path({str(tmp_path / "log")!r}))
print(child.ask({{"do": "echo", "text": ""}})["pid"], flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(BENCH)}
    with subprocess.Popen(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        process.send_signal(signal.SIGKILL)
    wait_for_state(pid, "Z")
