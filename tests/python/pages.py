"""The documentation as tests read it: pages, their blocks of code, their tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: All pages, by their path from the repository's root.
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The page's blocks of code in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, cells without the marks of code; no header."""
    section = f"\n{text_of(page)}".partition(f"\n{heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n?)+", re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)
    assert lines is not None, f"{page}: no table below {heading!r}"
    return [cells(line) for line in lines[0].splitlines()[2:]]


def cells(line: str) -> list[str]:
    """The cells of a table's line. A | inside a cell is written \\|."""
    inner = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [cell.strip().replace("\\|", "|").replace("`", "") for cell in inner]
