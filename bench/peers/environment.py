"""The environment of the peers: a folder of its own, installed from PyPI once, and kept."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

#: The versions that the adaptors were written for. Without torch's pin a peer may draw in another, with CUDA.
PEERS = (
    "llama-cpp-python==0.3.36",
    "openvino-genai==2026.4.1.0",
    "ctranslate2==4.8.5",
    "torch==2.13.0",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "onnx==1.23.2",
    "onnxruntime==1.31.1",
    "gguf==0.19.0",
    "safetensors==0.8.0",
    "matplotlib==3.11.2",
)
#: llama.cpp is built here: for this processor's own instructions, as its users are told to.
_BUILD = {"CMAKE_ARGS": "-DGGML_NATIVE=ON"}
GIGABYTES = 2.0  # with torch's build for CPUs


def python_of(work: Path) -> Path:
    """The interpreter of the environment."""
    return work / "environment" / "bin" / "python"


def python_with(work: Path, *modules: str) -> Path | None:
    """An interpreter that has the modules: the environment's, else this one; None where neither does."""
    look = "import sys; from importlib.util import find_spec; sys.exit(not all(map(find_spec, sys.argv[1:])))"
    for python in (python_of(work), Path(sys.executable)):
        if python.exists() and subprocess.run([str(python), "-c", look, *modules]).returncode == 0:
            return python
    return None


def install(work: Path, packages: tuple[str, ...]) -> None:
    """Makes the environment where it is not there, with the peers and, without what they depend on, `packages`.

    Errors: `subprocess.CalledProcessError` where pip fails; what it says goes to standard error.
    """
    python, stamp = python_of(work), work / "environment" / "installed.txt"
    done = stamp.read_text(encoding="utf-8").split("\n") if stamp.exists() else []
    if not set(PEERS) <= set(done):
        print(f"installing the peers in {python.parent.parent}: llama.cpp is compiled, a few minutes", file=sys.stderr)
        venv.create(python.parent.parent, with_pip=True, clear=True)
        _pip(python, *PEERS)
        done = list(PEERS)
    for package in packages:
        if package not in done:
            _pip(python, "--no-deps", package)
            done.append(package)
    stamp.write_text("\n".join(done), encoding="utf-8")


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **_BUILD})
