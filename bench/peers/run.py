"""Runs the comparison: opens the engines of a class together and lets them take turns, cell by cell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lamella import _core
from lamella.shapes import spec_for_shape

from .cells import MOST_BATCH, MOST_TOKENS, Cell
from .entries import LAMELLA, MODULES, Entry
from .groups import groups
from .guard import Guard
from .machine import Reading
from .models import Model
from .pipe import Child, PeerError
from .results import Line, Results, Sample
from .rounds import run_rounds

_BENCH = Path(__file__).parents[1]
_RESERVE = 2 << 30  # bytes kept free beside the engines: reading the bandwidth takes one GiB of them
_REFERENCE = Entry("transformers", "float32", "32", "hf", {"dtype": "float32"})
_REFERENCE_TOKENS = 128


@dataclass
class Opened:
    """An entry whose worker has its model open."""

    entry: Entry
    worker: Child
    load_s: float
    version: str


@dataclass
class Bench:
    """What stays the same during a run, and what it found so far."""

    work: Path
    python: Path  # that has the peers
    threads: int
    repeat: int
    guard: Guard
    machine: Child
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)  # by model and entry
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)

    def make(self, model: Model, entries: Sequence[Entry]) -> None:
        """The files of the entries, where they are not there yet. Errors: `subprocess.CalledProcessError`."""
        wanted = [entry.artifact for entry in entries] + [_REFERENCE.artifact] * model.is_encoder
        for artifact in dict.fromkeys(wanted):
            if not (path := self.folder(model) / artifact).exists():
                command = [str(self.python), "-m", f"{__package__}.make"]
                command += [model.name, artifact, str(path.parent)]
                subprocess.run(command, check=True, env=child_environment(self.threads), stdout=sys.stderr)

    def run(self, model: Model, entries: Sequence[Entry], cells: Sequence[Cell]) -> Iterator[None]:
        """All cells that a model has, of its entries of one class; yields after each, so that it can be saved."""
        able = [cell for cell in cells if cell.suits(model)]
        parts, too_large = groups(
            entries,
            lambda entry: entry.memory * _bytes_of(self.folder(model) / entry.artifact),
            _core.available_memory() - _RESERVE,
        )
        for entry in too_large:
            self.note(f"{model.name}: {entry.name} is left out: it needs more memory than is free")
        self._read_peaks()
        reference = self._reference(model) if model.is_encoder else None
        for i, part in enumerate(parts):
            with self._opened(model, part) as opened:
                for cell in able:
                    self._run_cell(model, cell, opened, first_round=1000 * i)
                    self._describe(model, opened, able, reference)
                    yield

    def results(self, about: Mapping[str, Any]) -> Results:
        """What was found so far."""
        return Results(about, self.peaks, list(self.lines.values()), self.samples, self.notes)

    def folder(self, model: Model) -> Path:
        """Where its files are."""
        return self.work / "models" / model.name

    @contextmanager
    def _opened(self, model: Model, entries: Sequence[Entry]) -> Iterator[list[Opened]]:
        """The entries that open their model, stopped; to the others a note."""
        with ExitStack() as workers:
            workers.callback(self.guard.release)
            opened = []
            for entry in entries:
                worker = self._start(entry.engine)
                workers.callback(worker.close)
                job = {
                    "path": str(self.folder(model) / entry.artifact),
                    "options": entry.options,
                    "threads": self.threads,
                    "batch": MOST_BATCH,
                    "context": min(model.context, MOST_TOKENS + 256),
                }
                self.guard.take()
                try:
                    found = worker.ask({"open": job, "encoder": model.is_encoder})
                    opened.append(Opened(entry, worker, found["load_s"], found["version"]))
                except PeerError as error:
                    self.note(f"{model.name}: {entry.name} does not open: {error}")
            self.guard.release()
            yield opened

    def _run_cell(self, model: Model, cell: Cell, opened: Sequence[Opened], first_round: int) -> None:
        """Rounds of one cell. Every measurement has prompts of its own, so that no cache of prompts helps."""
        workers = {each.entry.name: each.worker for each in opened}
        last: list[Reading] = []

        def measure(entry: str, number: int) -> Sample | None:
            draw = "kept" if cell.kept else f"{cell.name} {number}"
            before = self._reading() if self.guard.take() or not last else last[-1]
            try:
                found = workers[entry].ask({"cell": cell.as_message(model), "vocab": model.vocab, "seed": draw})
            except PeerError as error:
                self.note(f"{model.name}: {entry} does not run {cell.title}: {error}")
                return None
            last.append(self._reading())
            sample = Sample(model.name, entry, cell.name, number, found["first_s"], found["decode_s"], before, last[-1])
            unsteady = "" if sample.is_steady else "  (the machine changed)"
            _tell(f"{model.name}  {entry:24} {cell.title:12} {sample.rate:9.1f}{unsteady}")
            return sample

        try:
            ready = [entry for entry in workers if measure(entry, -1) is not None]  # warms up; not counted
            self.samples += run_rounds(ready, measure, self.repeat, first_round)
        finally:
            self.guard.release()

    def _describe(self, model: Model, opened: Sequence[Opened], cells: Sequence[Cell], reference: Any) -> None:
        """The lines of a part, as far as its cells have run."""
        for each in opened:
            work, error, peak = {}, None, each.worker.ask({"peak": True})["peak_bytes"]
            if each.entry.engine == LAMELLA:
                work = {cell.name: each.worker.ask({"work": cell.as_message(model)})["work"] for cell in cells}
            if reference is not None:
                found = _hidden(each.worker, model)
                error = float(np.linalg.norm(found - reference) / np.linalg.norm(reference))
            self.lines[model.name, each.entry.name] = Line(
                model.name,
                each.entry.name,
                each.entry.engine,
                each.entry.bits,
                each.version,
                each.load_s,
                peak,
                each.entry.arithmetic,
                work,
                error,
            )

    def _reference(self, model: Model) -> Any:
        with self._opened(model, [_REFERENCE]) as opened:
            return _hidden(opened[0].worker, model) if opened else None

    def _start(self, engine: str) -> Child:
        """A process for an engine: Lamella's in this Python, a peer's in the one that has them."""
        python = Path(sys.executable) if engine == LAMELLA else self.python
        command = [str(python), "-m", f"{__package__}.worker", MODULES[engine], str(self.threads)]
        return Child(command, child_environment(self.threads), self.work / f"{engine}.log")

    def _reading(self) -> Reading:
        return Reading(**self.machine.ask({"reading": True}))

    def _read_peaks(self) -> None:
        """The best of all times counts, as of anything that only disturbances make smaller."""
        self.guard.take()
        for arithmetic, peak in self.machine.ask({"peaks": True}).items():
            self.peaks[arithmetic] = max(peak, self.peaks.get(arithmetic, 0.0))
        self.guard.release()

    def note(self, text: str) -> None:
        """Says it now and in the results."""
        _tell(text)
        self.notes.append(text)


def start_machine(work: Path, threads: int) -> Child:
    """The process that reads what the machine can do."""
    command = [sys.executable, "-m", f"{__package__}.machine_worker", str(threads)]
    return Child(command, child_environment(threads), work / "machine.log")


def child_environment(threads: int) -> dict[str, str]:
    """The variables of a process that finds these modules and, where it is a peer's, so many threads."""
    paths = [str(_BENCH), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}


def _hidden(worker: Child, model: Model) -> Any:
    return np.array(worker.ask({"hidden": _REFERENCE_TOKENS, "vocab": model.vocab})["hidden"])


def _bytes_of(path: Path) -> int:
    """Of a file or a folder; of a shape, what its weights would take in 16 bits."""
    if path.suffix == ".json":
        return 2 * _core.parameter_count(spec_for_shape(str(path)))
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
