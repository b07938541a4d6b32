"""The process that renders chat templates: jinja2 in its sandbox, with bounds on memory and output.

A template comes with the model and is untrusted. The sandbox keeps it from Python's internals; this process keeps what
a sandbox lets through (loops without end, gigabytes of text) away from the engine: its parent, chat_template, kills it
at the deadline, and an alarm ends it even without a parent. Reads one JSON request a line, writes one JSON answer a
line. Run as a script with -I; it imports nothing of Lamella. Arguments: seconds until the alarm, bytes of memory, bytes
of output, folders of jinja2.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from datetime import datetime
from typing import Any

ALARM, MEMORY, OUTPUT = (int(argument) for argument in sys.argv[1:4])
sys.path += sys.argv[4:]

import jinja2  # noqa: E402
from jinja2 import ext, nodes, parser, sandbox, utils  # noqa: E402


class OutputSizeError(Exception):
    """The template wrote more than the output limit."""


class Generation(ext.Extension):
    """`{% generation %}` marks the assistant's text for training; here it is its body and nothing else."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class PlainDict:
    """`dict` for templates: callable, and nothing to climb out by."""

    def __call__(self, *args: Any, **fields: Any) -> dict[Any, Any]:
        return dict(*args, **fields)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class PlainNamespace(utils.Namespace):
    """`namespace` without underscored attributes, which reach Python's internals."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.TemplateError(f"a namespace has no attribute {name!r}")
        super().__setitem__(name, value)


def raise_exception(message: str) -> None:
    """What templates call when messages do not suit them."""
    raise jinja2.TemplateError(message)


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """The `tojson` that chat templates mean: no HTML escapes, transformers' options."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment() -> sandbox.ImmutableSandboxedEnvironment:
    """The environment that transformers gives to chat templates."""
    made = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": PlainDict(),
        "namespace": PlainNamespace,
    }
    return made


def render(jinja: sandbox.ImmutableSandboxedEnvironment, request: dict[str, Any]) -> str:
    """The rendered text. Errors: whatever the template raises, and `OutputSizeError`."""
    pieces: list[str] = []
    size = 0
    for piece in jinja.from_string(request["template"]).generate(**request["variables"]):
        size += len(piece) if len(piece) > OUTPUT else len(piece.encode("utf-8", errors="replace"))
        if size > OUTPUT:
            raise OutputSizeError(f"the rendered prompt is larger than {OUTPUT} bytes")
        pieces.append(piece)
    return "".join(pieces)


def answer(jinja: sandbox.ImmutableSandboxedEnvironment, line: str) -> dict[str, str]:
    """What to reply to one request: the text, or what went wrong in at most 500 characters."""
    try:
        return {"text": render(jinja, json.loads(line))}
    except MemoryError:
        return {"error": "the template needs too much memory"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def main() -> None:
    jinja = environment()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", flush=True)
    for line in sys.stdin:
        signal.alarm(ALARM)
        reply = json.dumps(answer(jinja, line))
        signal.alarm(0)
        print(reply, flush=True)


if __name__ == "__main__":
    main()
