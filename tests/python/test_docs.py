"""What README and docs/ show does what they say: their Python runs, page by page, and so do their commands, on real
models; their links lead somewhere; what they repeat of the code is still what the code says."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from lamella.cli import main
from pages import PAGES, ROOT, blocks, table, text_of

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


def command_lines(page: str) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("lamella ")]


WITH_COMMANDS = [page for page in PAGES if command_lines(page)]


def test_the_pages_are_found() -> None:
    assert {"README.md", "docs/quick-start.md", "docs/requests.md", "docs/errors.md"} <= set(WITH_PYTHON)
    assert {"README.md", "docs/quick-start.md"} <= set(WITH_COMMANDS)


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_the_python_of_a_page_runs(
    page: str, smollm2_path: Path, minilm_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks of a page are one program."""
    source = "\n".join(blocks(page, "python"))
    source = source.replace("path/to/model", str(smollm2_path)).replace("path/to/encoder", str(minilm_path))
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(source, page, "exec"), names)
    assert "engine" in names
    said = capsys.readouterr().out
    assert ("Paris" in said) == ("capital of France" in source), page


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run(
    page: str,
    smollm2_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in command_lines(page):
        words = shlex.split(line.replace("[MODEL]", "MODEL"), comments=True)[1:]
        words = [str(smollm2_path) if word == "MODEL" else word for word in words]
        if words[0] == "pack":
            shutil.rmtree(tmp_path / "OUT", ignore_errors=True)
        if words[0] == "chat" and "--prompt" not in words:
            words += ["--prompt", "Hello"]  # without a prompt it talks to a person
        if words[0] in ("chat", "generate") and "--max-tokens" not in words:
            words += ["--max-tokens", "5"]
        if words[0] == "bench":
            words += ["--repeat", "1"]
        assert main(words) == 0, line
        assert capsys.readouterr().out, line


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, link


def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md|CHANGELOG\.md)\)", text_of("README.md")))
    assert linked == {*PAGES, "CHANGELOG.md"} - {"README.md"}


def test_a_requests_life_is_that_of_the_code() -> None:
    """The diagram is the header's, and the table has its states, in order."""
    header = (ROOT / "cpp" / "runtime" / "request_state.h").read_text(encoding="utf-8")
    drawn = [
        line.removeprefix("//").removeprefix("     ") for line in header.splitlines() if line.startswith("//     ")
    ]
    drawn = [line.rstrip() for line in drawn]
    (diagram,) = blocks("docs/requests.md", "text")
    assert [line for line in diagram.splitlines() if line] == drawn
    enum = re.search(r"enum class RequestState[^{]*\{([^}]*)\}", header)
    assert enum is not None
    states = [row[0] for row in table("docs/requests.md", "## A request's life")]
    assert states == [name.strip() for name in enum[1].split(",")]
