"""What `pip install lamella` gives: a small, stripped, typed wheel, and an import that brings in only what it needs."""

import ast
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

import lamella
import lamella.cli
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
    assert names(required) == {"numpy", "tokenizers", "jinja2"}


def test_the_readme_is_the_projects_page(wheel: zipfile.ZipFile) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata(wheel).get_payload().strip() == (ROOT / project["readme"]).read_text().strip()
    assert metadata(wheel)["Description-Content-Type"] == "text/markdown"


def version() -> str:
    """CMake's version of the project, the one place that a new version is written to."""
    found = re.search(r"project\(lamella VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())
    assert found is not None
    return found[1]


def test_the_module_and_the_command_are_of_that_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert lamella.__version__ == version()
    assert lamella.cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lamella {version()}\n"


def test_the_wheel_is_of_that_version(wheel: zipfile.ZipFile) -> None:
    assert metadata(wheel)["Version"] == version()


def test_the_newest_version_of_the_changelog_is_that_version() -> None:
    """Keep a Changelog's form: the newest first, each with a day, changes under six headings, Unreleased before all."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    released = [title for title in versions if title != "[Unreleased]"]
    assert versions.count("[Unreleased]") <= 1 and versions[len(versions) - len(released) :] == released
    parsed = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", title) for title in released]
    assert all(parsed), released
    numbers = [tuple(map(int, found[1].split("."))) for found in parsed if found]
    assert numbers == sorted(set(numbers), reverse=True)
    assert parsed[0] is not None and parsed[0][1] == version()
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_dependency_is_imported_and_nothing_else_is() -> None:
    """What nothing uses would be installed for nothing; what is missing would fail at run time."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folders = (ROOT / "tests" / "python", ROOT / "bench")
    own = {path.stem for folder in folders for path in folder.iterdir()} | {"lamella"}
    assert names(project["dependencies"]) == imported(ROOT / "python" / "lamella") - own
    tested = imported(ROOT / "tests" / "python") - own - names(project["dependencies"])
    extras = project["optional-dependencies"]
    assert set(extras) == {"test", "lint"}
    assert names(extras["test"]) == tested


def imported(folder: Path) -> set[str]:
    """The packages outside the standard library that Python files below `folder` import at any place."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names)


def names(requirements: list[str]) -> set[str]:
    """The packages that requirements such as "numpy>=1.26" name."""
    return {re.split(r"[<>=!~ ;]", line)[0] for line in requirements}
