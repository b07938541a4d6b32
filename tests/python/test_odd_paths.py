"""Model folders whose names are bytes and no text: Linux allows them, so they open and their errors can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import lamella
import pytest
from lamella.checkpoint import open_model
from random_models import draw

NAME = os.fsdecode(b"m\xff\xfe\xc3\xa9")


@pytest.fixture
def folder(seed: int, tmp_path: Path) -> Path:
    path = tmp_path / NAME
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"this file system takes UTF-8 names only: {error}")
    draw("llama", seed, tmp_path / "plain", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    for file in (tmp_path / "plain").iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_folder_whose_name_is_not_utf8_opens(folder: Path, as_path: type) -> None:
    with lamella.Engine(as_path(folder), threads=1) as engine, lamella.Engine(folder.parent / "plain") as plain:
        assert engine.generate([5], max_tokens=3).token_ids == plain.generate([5], max_tokens=3).token_ids
    files = open_model(as_path(folder)).weights.files
    assert files and all(file.exists() and file.parent.name == NAME for file in files)


@pytest.mark.parametrize("broken", ["weights", "config.json", "generation_config.json", "tokenizer.json", "missing"])
def test_errors_about_such_a_folder_can_be_printed(folder: Path, broken: str) -> None:
    for file in folder.glob("*.safetensors") if broken == "weights" else [folder / broken]:
        if broken == "missing":
            (folder / "config.json").unlink()
        else:
            file.write_bytes(b"xx")
    with pytest.raises(lamella.CheckpointError) as error:
        lamella.Engine(folder, threads=1)
    message = str(error.value)
    assert "m\\xff\\xfe\N{LATIN SMALL LETTER E WITH ACUTE}" in message
    message.encode()


def test_the_command_shows_such_a_folder(folder: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "lamella", "generate", os.fspath(folder), "--prompt-ids", "5", "--max-tokens", "2"]
    shown = subprocess.run([*command, "--json"], capture_output=True, env=environment, check=True).stdout
    assert len(json.loads(shown)["completions"][0]["token_ids"]) == 2
    (folder / "config.json").write_bytes(b"xx")
    failed = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert failed.returncode == 3 and b"m\\xff\\xfe\xc3\xa9/config.json" in failed.stderr
