"""The `lamella` command. One file a command; only the one that runs is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from .parser import Parser, UsageError, nearest
from .process import guarded

COMMANDS = {
    "generate": "continue one or more prompts",
    "chat": "talk with a model in its own chat template",
    "bench": "measure prompt and decode speed",
    "explain": "show every op of a step with its cost and its measured time",
    "pack": "write a model as a packed store, which opens as fast as it can be read",
    "info": "show what this machine and a model are",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (`sys.argv` without it) and returns its exit code.

    0 fine, 1 other, 2 usage and invalid arguments, 3 checkpoint, 4 memory and storage, 130 and 143 interrupted.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    return guarded(lambda: _run(arguments), as_json="--json" in arguments)


def _run(arguments: list[str]) -> int:
    if not arguments:
        raise UsageError(f"no command; expected {', '.join(COMMANDS)}", "lamella")
    name = arguments[0]
    if name.startswith("-"):
        return _without_command(name)
    if name not in COMMANDS:
        hint = nearest(name, COMMANDS) or f"expected {', '.join(COMMANDS)}"
        raise UsageError(f"unknown command {name[:64]!r}; {hint}", "lamella")
    command = importlib.import_module(f".{name}", __name__)
    args = parser_of(name, command).parse(arguments[1:])
    result: int = command.run(args)
    return result


def parser_of(name: str, command: ModuleType) -> Parser:
    """The parser of a command's own arguments: what its `add_arguments` adds, and `--json`."""
    parser = Parser(f"lamella {name}", COMMANDS[name], command.__doc__ or "")
    command.add_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, and nothing else there"
    )
    return parser


def _without_command(option: str) -> int:
    if option in ("-h", "--help"):
        lines = [f"  {name:10}{summary}" for name, summary in COMMANDS.items()]
        print("usage: lamella COMMAND [...]\n\n" + "\n".join(lines))
        print("\n`lamella COMMAND --help` describes a command. LAMELLA_DEBUG=1 shows tracebacks.")
        return 0
    if option == "--version":
        from lamella import __version__

        print(f"lamella {__version__}")
        return 0
    hint = nearest(option, ["--help", "--version"]) or "expected a command, --help or --version"
    raise UsageError(f"unknown option {option[:64]!r}; {hint}", "lamella")
