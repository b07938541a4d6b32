"""docs/options.md against the code: every option is there, with its type, its default and where that comes from."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamella
import pytest
from lamella import params
from lamella.cli import COMMANDS, parser_of
from lamella.engine_options import EngineOptions
from lamella.generation_defaults import default_params
from pages import ROOT, table

PAGE = "docs/options.md"


def shown(default: Any) -> str:
    """A default as the page writes it."""
    if default is inspect.Parameter.empty:
        return "-"
    return f'"{default}"' if isinstance(default, str) else repr(default)


def arguments(call: Callable[..., Any], but: set[str]) -> list[list[str]]:
    """Name, type and default of what a call takes."""
    parameters = inspect.signature(call).parameters.values()
    return [[one.name, one.annotation, shown(one.default)] for one in parameters if one.name not in {"self", *but}]


def test_every_option_of_an_engine() -> None:
    assert [row[:3] for row in table(PAGE, "## Engine")] == arguments(lamella.Engine.__init__, set())
    options = {field.name for field in dataclasses.fields(EngineOptions)}
    assert {row[0] for row in table(PAGE, "## Engine")} == options | {"model", "progress"}


def test_every_field_of_sampling_params() -> None:
    fields = dataclasses.fields(lamella.SamplingParams)
    expected = [[field.name, field.type, shown(field.default)] for field in fields]
    assert [row[:3] for row in table(PAGE, "## SamplingParams")] == expected


def test_what_generation_config_json_sets() -> None:
    """The page says so of the fields that such a file changes, and of no other."""
    asked = {
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.5,
        "min_p": 0.25,
        "max_new_tokens": 9,
        "min_new_tokens": 3,
        "repetition_penalty": 1.5,
        "no_repeat_ngram_size": 4,
        "suppress_tokens": [5],
        "bad_words_ids": [[6, 7]],
        "stop_strings": ["x"],
        "presence_penalty": 1.0,
        "frequency_penalty": 1.0,
        "seed": 5,
        "n": 3,
        "logprobs": 2,
        "ignore_eos": True,
    }
    plain, found = lamella.SamplingParams(), default_params(asked)
    changed = {name for name in params.FIELDS if getattr(found, name) != getattr(plain, name)}
    rows = table(PAGE, "## SamplingParams")
    assert {row[0] for row in rows if row[3].startswith("generation_config.json")} == changed
    sampled = default_params({"do_sample": True})
    for name, _, default, origin, _ in rows:
        silent = re.search(r"there ([0-9.]+) if it is silent", origin)
        assert getattr(sampled, name) == (float(silent[1]) if silent else getattr(plain, name)), (name, default)
    for name, alias in params.ALIASES.items():
        origin = next(row[3] for row in rows if row[0] == alias)
        if name in asked:
            assert origin.startswith(f"generation_config.json's {name}"), name


def test_every_other_spelling() -> None:
    rows = {row[0]: row[1] for row in table(PAGE, "### Other spellings")}
    assert list(rows) == [*params.ALIASES, *params.CONVERTED]
    assert {name: rows[name] for name in params.ALIASES} == params.ALIASES


def test_every_keyword_of_every_call() -> None:
    """But for what each call is about: prompts, messages, inputs, a model; and the sampling parameters."""
    about = {"prompts", "prompt", "messages", "inputs", "params", "overrides", "model"}
    calls = {name: call for name, call in inspect.getmembers(lamella.Engine, inspect.isfunction) if name[0] != "_"}
    expected = [
        [name, *row]
        for name, call in {**calls, "pack": lamella.pack}.items()
        if name not in ("core", "encode_prompt", "chat_ids")
        for row in arguments(call, about)
    ]
    assert sorted(row[:4] for row in table(PAGE, "## Other calls")) == sorted(expected)


def commands_options() -> dict[str, tuple[str, list[str], set[Any]]]:
    """Of every option as it is typed: the keyword, the commands that have it, and argparse's defaults."""
    found: dict[str, tuple[str, list[str], set[Any]]] = {}
    for command in COMMANDS:
        parser = parser_of(command, importlib.import_module(f"lamella.cli.{command}"))
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            takes = f" {action.metavar}" if action.option_strings and action.nargs != 0 else ""
            name = f"{action.option_strings[-1]}{takes}" if action.option_strings else str(action.metavar)
            keyword, commands, defaults = found.setdefault(name, (action.dest, [], set()))
            assert keyword == action.dest
            commands.append(command)
            defaults.add(action.default)
    return found


def test_every_option_of_the_command() -> None:
    rows = {row[0]: row[1:] for row in table(PAGE, "## The command")}
    found = commands_options()
    assert set(rows) == set(found)
    engine, sampling = {row[0] for row in table(PAGE, "## Engine")}, set(params.FIELDS)
    for name, (keyword, commands, defaults) in found.items():
        said = rows[name]
        assert said[0] == keyword
        assert said[1] == ("all" if commands == list(COMMANDS) else ", ".join(commands)), name
        (default,) = defaults
        if default is not None and default is not False:
            assert said[2] == str(default), name
        elif "as Engine" in said[2]:
            assert keyword in engine, name
        elif "as SamplingParams" in said[2]:
            assert keyword in sampling, name


def test_what_commands_choose_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options that a command gives an engine without being asked are those whose row names the command."""
    opened: dict[str, Any] = {}

    class OpenedError(Exception):
        """Raised in place of opening anything."""

    def engine(model: str, **keywords: Any) -> lamella.Engine:
        opened.update(keywords)
        raise OpenedError

    monkeypatch.setattr("lamella.cli.opening.Engine", engine)
    rows = {row[1]: row[3] for row in table(PAGE, "## The command")}
    engines = {row[0] for row in table(PAGE, "## Engine")} - {"model"}
    for command in ("generate", "chat", "bench", "explain"):
        module = importlib.import_module(f"lamella.cli.{command}")
        given = [] if command in ("bench", "explain") else ["--prompt", "hello"]
        opened.clear()
        with pytest.raises(OpenedError):
            module.run(parser_of(command, module).parse([str(folder), *given]))
        assert set(opened) == {name for name in engines if re.search(rf"\b{command}\b", rows.get(name, ""))}, command


def test_every_environment_variable() -> None:
    read = re.compile(r"""(?:os\.environ\.get\(|os\.environ\[|getenv\()["'](\w+)["']""")
    found = set()
    for folder, endings in (("python/lamella", (".py",)), ("python/bindings", (".cpp", ".h")), ("cpp", (".cpp", ".h"))):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in endings:
                found |= set(read.findall(path.read_text(encoding="utf-8")))
    assert {row[0] for row in table(PAGE, "## Environment variables")} == found
