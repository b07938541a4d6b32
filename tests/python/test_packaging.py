"""What `pip install lamella` gives: a small, stripped, typed wheel, and an import that brings in only what it needs."""

import os
import re
import statistics
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST_WHEEL = 15 * 1000 * 1000

# Never at run time: they are what the engine replaces, or what only the tests compare with.
FOREIGN = {"torch", "transformers", "safetensors", "gguf", "huggingface_hub", "mpi4py", "cupy"}
# At run time, but only when a text, a template or the command line needs them.
LAZY = {"tokenizers", "jinja2", "asyncio", "argparse", "lamella.cli"}


def modules_after_import() -> set[str]:
    code = "import sys, lamella; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_leaves_out_what_it_does_not_need() -> None:
    loaded = modules_after_import()
    assert "lamella._core" in loaded
    assert loaded & (FOREIGN | LAZY) == set()


def test_import_in_few_modules(capsys: pytest.CaptureFixture[str]) -> None:
    """The import should take under 0.3 s. Time is printed, not asserted; what costs it is the number of modules."""
    code = "import time; start = time.perf_counter(); import lamella; print(time.perf_counter() - start)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    with capsys.disabled():
        print(f"\nimport lamella: median {statistics.median(times) * 1000:.0f} ms of {len(times)}")
    assert len(modules_after_import()) < 400


def test_pins_agree() -> None:
    """A version that pyproject.toml names exactly is the one that the tests are run with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [*project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        named += extra
    exact = dict(line.split("==") for line in named if "==" in line)
    lines = (ROOT / "scripts" / "requirements-test.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert "nanobind" in exact
    assert exact == {name: tested.get(name) for name in exact}


@pytest.fixture(scope="module")
def wheel() -> Iterator[zipfile.ZipFile]:
    path = os.environ.get("LAMELLA_WHEEL")
    if path is None:
        pytest.skip("scripts/test.sh builds the wheel and names it in LAMELLA_WHEEL")
    with zipfile.ZipFile(path) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_wheel_is_small(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename is not None
    assert Path(wheel.filename).stat().st_size <= LARGEST_WHEEL


def test_wheel_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {"lamella/__init__.py", "lamella/py.typed", "lamella/_core.pyi"} <= set(wheel.namelist())


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    outside = [name for name in wheel.namelist() if not re.match(r"lamella/|lamella-[^/]+\.dist-info/", name)]
    unexpected = [name for name in wheel.namelist() if name.endswith((".cpp", ".h", ".a", ".pyc", "CMakeLists.txt"))]
    assert (outside, unexpected) == ([], [])


def test_wheel_is_stripped(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".so")]
    sections = subprocess.run(
        ["readelf", "--section-headers", "--wide", wheel.extract(name, tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ".dynsym" in sections
    assert ".symtab" not in sections
    assert ".debug_info" not in sections


def test_wheel_depends_on_little(wheel: zipfile.ZipFile) -> None:
    required = [line for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[<>=!~ ;]", line)[0] for line in required} == {"numpy", "tokenizers", "jinja2"}


def test_the_readme_is_the_projects_page(wheel: zipfile.ZipFile) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata(wheel).get_payload().strip() == (ROOT / project["readme"]).read_text().strip()
    assert metadata(wheel)["Description-Content-Type"] == "text/markdown"


def test_version_comes_from_one_place(wheel: zipfile.ZipFile) -> None:
    found = re.search(r"project\(lamella VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())
    assert found is not None
    assert metadata(wheel)["Version"] == found[1]
