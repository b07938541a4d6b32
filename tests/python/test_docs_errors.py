"""docs/errors.md against the code: every code of the core, its number in C, its class in Python, its exit code."""

from __future__ import annotations

import re

import lamella
from lamella import errors
from lamella.cli.process import INTERRUPTED, TERMINATED, exit_code
from pages import ROOT, table, text_of

PAGE = "docs/errors.md"


def rows() -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table(PAGE, "# Errors")}


def header(name: str) -> str:
    return (ROOT / "cpp" / "include" / "lamella" / name).read_text(encoding="utf-8")


def test_every_code_of_the_core_is_there_in_its_order() -> None:
    enum = re.search(r"enum class ErrorCode[^{]*\{(.*?)\};", header("error.h"), re.DOTALL)
    assert enum is not None
    names = re.findall(r"^\s*(\w+),", enum[1], re.MULTILINE)
    assert list(rows()) == [name.upper() for name in names]


def test_the_numbers_are_those_of_c() -> None:
    enum = re.search(r"enum \{\s*LAMELLA_OK.*?\}", header("c.h"), re.DOTALL)
    assert enum is not None
    numbers = dict(re.findall(r"LAMELLA_(\w+) = (\d+)", enum[0]))
    assert numbers.pop("OK") == "0"
    assert {code: row[1] for code, row in rows().items()} == numbers


def test_the_classes_are_those_that_are_raised() -> None:
    assert {code: row[0] for code, row in rows().items()} == {
        code: found.__name__ for code, found in errors._CLASSES.items()
    }
    exported = {name for name in lamella.__all__ if name.endswith("Error")} - {"Error"}
    assert {row[0] for row in rows().values()} == exported
    parents = {name: getattr(lamella, name).__bases__[-1].__name__ for name in exported}
    said = dict(re.findall(r"`(\w+Error)`\s+of\s+`(\w+)`", text_of(PAGE)))
    assert said == {name: parent for name, parent in parents.items() if parent != "Error"}


def test_the_exit_codes_are_those_of_the_command() -> None:
    for code, row in rows().items():
        assert int(row[2]) == exit_code(errors.class_for_code(code)("", code)), code
    assert f"{INTERRUPTED} and {TERMINATED}" in text_of(PAGE)


def test_nothing_is_left_unsaid() -> None:
    for code, row in rows().items():
        assert len(row) == 5 and all(row), code
