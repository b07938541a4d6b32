"""Chat messages to a prompt by the model's own template, which is untrusted code: rendered in another process, bounded.

Templates come from the model's files only, never from a request (reliability.md, P5). Whatever goes wrong in one is a
`ChatTemplateError` of that request; the next request finds a fresh worker.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ChatTemplateError, CheckpointError
from .model_folder import ModelFolder

RENDER_SECONDS = 1.0
START_SECONDS = 30.0
OUTPUT_BYTES = 1 << 20
MEMORY_BYTES = 512 << 20
REQUEST_BYTES = 16 << 20
TEMPLATE_BYTES = 1 << 20
_PASSED_ON = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ")  # all that the worker sees of the environment


def read_chat_template(folder: ModelFolder) -> str | None:
    """The folder's template: chat_template.jinja, else `chat_template` of tokenizer_config.json, else None.

    Of several named templates it is the one called "default". Errors: `CheckpointError` for files that are damaged.
    """
    if folder.has("chat_template.jinja"):
        return folder.text("chat_template.jinja", TEMPLATE_BYTES)
    found = folder.json("tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    if found is not None and (not isinstance(found, str) or len(found) > TEMPLATE_BYTES):
        raise CheckpointError(
            f"{folder.path}/tokenizer_config.json: chat_template is not a text of at most {TEMPLATE_BYTES} bytes"
        )
    return found


def render_chat(
    template: str | None,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    special_tokens: Mapping[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The prompt for `messages` ({"role", "content"} each), to be encoded without adding special tokens again.

    `special_tokens` (bos_token, eos_token, ...) and `variables` (tools, documents, ...) are what the template may use.
    Errors: `ChatTemplateError` when there is no template, or it fails, takes over a second or writes over 1 MiB.
    """
    if template is None:
        raise ChatTemplateError("the model brings no chat template; use generate() with a prompt of your own")
    known = {"tools": None, "documents": None, **(special_tokens or {}), **(variables or {})}
    request = {
        "template": template,
        "variables": {**known, "messages": messages, "add_generation_prompt": add_generation_prompt},
    }
    try:
        line = json.dumps(request, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise ChatTemplateError(f"messages and variables must be plain JSON values: {error}") from None
    if len(line) > REQUEST_BYTES:
        raise ChatTemplateError(f"the messages take {len(line)} bytes, more than {REQUEST_BYTES}")
    return _worker.render(line)


def start_worker() -> None:
    """Starts the rendering process in the background, so that the first chat does not wait for it."""
    _worker.start()


class _Worker:
    """One rendering process, started when needed, killed at the deadline, and gone with its parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def start(self) -> None:
        with self._lock:
            self._started()

    def render(self, line: bytes) -> str:
        with self._lock:
            process = self._started()
            if not self._ready:
                self._receive(process, START_SECONDS, "the template worker did not start")
                self._ready = True
            self._send(process, line)
            late = f"the chat template took longer than {RENDER_SECONDS:g} s"
            reply = json.loads(self._receive(process, RENDER_SECONDS, late))
        if "text" in reply:
            return str(reply["text"])
        raise ChatTemplateError(f"the model's chat template failed: {reply['error']}")

    def stop(self) -> None:
        """Ends the process. For the end of the program."""
        with self._lock:
            self._discard()

    def forget(self) -> None:
        """In a forked child: the process and the lock belong to the parent."""
        self._lock = threading.Lock()
        process, self._process = self._process, None
        _close(process)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._discard()
        limits = [str(round(RENDER_SECONDS) + 1), str(MEMORY_BYTES), str(OUTPUT_BYTES)]
        script = str(Path(__file__).with_name("chat_worker.py"))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", script, *limits, *_folders("jinja2", "markupsafe")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        except OSError as error:
            raise ChatTemplateError(f"the template worker cannot be started: {error.strerror}") from None
        self._ready = False
        return self._process

    def _send(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(line + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._failed("the template worker died") from None

    def _receive(self, process: subprocess.Popen[bytes], seconds: float, late: str) -> bytes:
        """One line from the worker; kills it when that takes longer than `seconds`."""
        assert process.stdout is not None
        deadline, received = time.monotonic() + seconds, b""
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while not received.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise self._failed(late)
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                raise self._failed("the chat template needs too much memory or time")
            received += piece
        return received

    def _failed(self, message: str) -> ChatTemplateError:
        self._discard()
        return ChatTemplateError(message)

    def _discard(self) -> None:
        process, self._process = self._process, None
        _close(process)
        if process is not None:
            process.kill()
            process.wait()


def _close(process: subprocess.Popen[bytes] | None) -> None:
    for pipe in (process.stdin, process.stdout) if process is not None else ():
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


def _folders(*packages: str) -> list[str]:
    """Where packages are installed, for a process that looks nowhere by itself."""
    specs = (importlib.util.find_spec(package) for package in packages)
    found = [Path(spec.origin).parent.parent for spec in specs if spec is not None and spec.origin]
    return list(dict.fromkeys(map(str, found)))


_worker = _Worker()
atexit.register(_worker.stop)
os.register_at_fork(after_in_child=_worker.forget)
