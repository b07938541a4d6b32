"""What the README shows does what it says: its Python runs, in order, and so do its commands, on real models."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from lamella.cli import main

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_python_of_the_readme_runs(
    smollm2_path: Path, minilm_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "\n".join(blocks("python"))
    assert source.count("path/to/model") == source.count("path/to/encoder") == 1
    source = source.replace("path/to/model", str(smollm2_path)).replace("path/to/encoder", str(minilm_path))
    names: dict[str, object] = {}
    exec(compile(source, str(README), "exec"), names)
    assert "Paris" in capsys.readouterr().out
    assert "engine" in names and "answer" in names


def test_the_commands_of_the_readme_run(
    smollm2_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("lamella ")]
    assert len(lines) >= 9
    for line in lines:
        words = shlex.split(line.replace("[MODEL]", "MODEL"), comments=True)[1:]
        words = [str(smollm2_path) if word == "MODEL" else word for word in words]
        if words[0] == "pack":
            shutil.rmtree(tmp_path / "OUT", ignore_errors=True)
        if words[0] == "chat":
            words += ["--prompt", "Hello", "--max-tokens", "5"]  # without a prompt it talks to a person
        if words[0] == "generate" and "--max-tokens" not in words:
            words += ["--max-tokens", "5"]
        if words[0] == "bench":
            words += ["--repeat", "1"]
        assert main(words) == 0, line
        assert capsys.readouterr().out, line
