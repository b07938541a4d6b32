"""The `lamella` command as a process: standard input, signals, closed pipes, terminals, and what it imports."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from random_models import draw
from tiny_tokenizers import byte_level

LAMELLA = (sys.executable, "-m", "lamella")
DEADLINE_S = 120


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A random model with a tokenizer and a chat template that shows only the last message."""
    folder = tmp_path_factory.mktemp("cli") / "tiny"
    draw("llama", seed, folder, vocab_size=330, max_position_embeddings=8192, rope_parameters=None)
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{% for m in messages %}{{ m.content }}\n{% endfor %}"})
    )
    return folder


def lamella(*arguments: object, stdin: bytes = b"", **keywords: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*LAMELLA, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=DEADLINE_S, check=False, **keywords)


def start(*arguments: object, **keywords: Any) -> subprocess.Popen[bytes]:
    """A running command that takes SIGINT even where the tests themselves run in the background."""
    return subprocess.Popen(
        [*LAMELLA, *map(str, arguments)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords},
    )


# ---- standard input ------------------------------------------------------------------------------------------------


def test_a_piped_prompt_is_all_of_standard_input(tiny: Path) -> None:
    options = ("--max-tokens", 4, "--json")
    piped = lamella("generate", tiny, *options, stdin="hello\nworld é\n".encode())
    given = lamella("generate", tiny, *options, "--prompt", "hello\nworld é")
    assert piped.returncode == 0, piped.stderr
    assert json.loads(piped.stdout)["completions"] == json.loads(given.stdout)["completions"]


def test_standard_input_without_a_prompt_is_an_error(tiny: Path) -> None:
    for stdin, said in ((b"", b"standard input is empty"), (b"\xffhello", b"byte 0 is not valid UTF-8")):
        result = lamella("generate", tiny, stdin=stdin)
        assert (result.returncode, result.stdout) == (2, b"")
        assert said in result.stderr


def test_a_prompt_that_is_not_unicode_is_an_error(tiny: Path) -> None:
    result = lamella("generate", tiny, "--prompt", os.fsdecode(b"\xff"))
    assert result.returncode == 2
    assert b"lone surrogate" in result.stderr


def test_piped_lines_are_the_turns_of_a_chat(tiny: Path) -> None:
    lines = b"hello\n/reset\n\nhello\n/quit\nnot read\n"
    result = lamella("chat", tiny, "--max-tokens", 3, "--ignore-eos", "--json", stdin=lines)
    assert result.returncode == 0, result.stderr
    first, second = json.loads(result.stdout)["completions"]  # /reset made the second turn equal the first
    assert first == second


# ---- signals and pipes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_generation(tiny: Path, number: signal.Signals, code: int) -> None:
    process = start("generate", tiny, "--prompt", "hello", "--max-tokens", 8000, "--ignore-eos")
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)  # it runs
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(DEADLINE_S) == code
        error = process.stderr.read()
    assert b"interrupted" in error
    assert b"Traceback" not in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_chat_that_waits(tiny: Path, number: signal.Signals, code: int) -> None:
    with start("chat", tiny, "--max-tokens", 3, "--json", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stderr.readline().startswith(b"[load")  # the answer is over, the next line is waited for
        time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == code
        assert json.loads(process.stdout.read()) == {"error": {"code": "CANCELLED", "message": "interrupted"}}


def test_a_reader_that_leaves_ends_the_command_quietly(tiny: Path) -> None:
    with start("generate", tiny, "--prompt", "hello", "--max-tokens", 8000, "--ignore-eos") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 1
        assert process.stderr.read() == b""


def test_a_full_disk_is_an_error(tiny: Path) -> None:
    with Path("/dev/full").open("wb") as full, start("info", "--shape", "bert-base", "--json", stdout=full) as process:
        assert process.stderr is not None
        assert process.wait(DEADLINE_S) == 4
        error = process.stderr.read()
    assert b"No space left on device" in error
    assert b"Traceback" not in error
    assert b"Exception ignored" not in error


def test_a_terminal_that_knows_ascii_only_gets_escapes(tiny: Path) -> None:
    """The random model's text has bytes that are no characters: U+FFFD, which ASCII does not have."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = lamella(
        "generate", tiny, "--prompt", "hello", "--max-tokens", 100, "--ignore-eos", "--temperature", 9, env=environment
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.isascii()


# ---- a terminal ----------------------------------------------------------------------------------------------------


def test_a_conversation_at_a_terminal(tiny: Path) -> None:
    """An answer stopped by Ctrl-C, a message that fails, /quit: the conversation ends when it is told to."""
    ours, theirs = pty.openpty()
    arguments = ("chat", tiny, "--max-model-len", 4000, "--max-tokens", 3500, "--ignore-eos")
    environment = {**os.environ, "TERM": "dumb"}
    process = start(*arguments, stdin=theirs, stdout=theirs, env=environment, start_new_session=True)
    os.close(theirs)
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + DEADLINE_S
        while text not in shown:
            assert select.select([ours], [], [], deadline - time.monotonic())[0], f"{text!r} did not come: {shown!r}"
            shown += os.read(ours, 4096)
        shown = shown.partition(text)[2]

    with process:
        assert process.stderr is not None
        until(b"> ")
        os.write(ours, b"hello\n")
        until(b"hello\r\n")
        while not shown:
            shown += os.read(ours, 4096)  # it answers
        process.send_signal(signal.SIGINT)
        until(b"> ")
        os.write(ours, b"hello " * 600 + b"\n")  # with the answer, more tokens than the context holds
        until(b"> ")
        os.write(ours, b"/quit\n")
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while os.read(ours, 4096):
                pass
        assert process.wait(DEADLINE_S) == 0
        error = process.stderr.read()
    os.close(ours)
    assert b"(stopped)" in error
    assert b"exceeds the context of 4000" in error
    assert b"Traceback" not in error


# ---- imports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["--help", "bench --help", "generate model --bad", "info --shape nothing"])
def test_what_needs_no_model_imports_little(arguments: str) -> None:
    code = f"import sys, lamella.cli; lamella.cli.main({arguments.split()!r}); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    loaded = set(result.stderr.splitlines()[-1].split())
    assert "lamella.cli" in loaded
    assert loaded & {"numpy", "tokenizers", "jinja2", "torch", "transformers", "lamella.cli.chat"} == set()
