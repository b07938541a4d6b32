"""What opening a model costs: its time beside a plain loop that reads the same files, and the most memory it takes.

    python bench/loading.py                                    # llama-3.2-1b's shape: 10 GB on disk, ten minutes
    python bench/loading.py --shape gpt2-xl --formats int8 --kinds store --caches warm --repeat 9

A checkpoint with random weights is written to the work folder, and packed in every format; both stay there for the
next run. Every loading runs in a fresh process. Stores are what `lamella pack` wrote, ready to be read; a checkpoint is
packed to memory while it is read, which for bf16 moves bytes and for the other formats quantises too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lamella
from lamella import _core
from lamella.engine_options import EngineOptions
from lamella.shapes import SHAPES, spec_for_shape
from peers.ablated import FORMATS, Format
from peers.guard import Guard
from peers.loaded import Loading, Loadings, Round, report
from peers.options import add_common, parse_checked, positive, some_of
from peers.output import origin_of, write
from peers.random_checkpoint import write_checkpoint
from peers.run import child_environment

Turn = Literal["engine"] | int  # or the plain loop, by its threads


@dataclass(frozen=True)
class Case:
    """What is opened: a checkpoint or a store of it, in one format, with the page cache in one state."""

    kind: str
    chosen: Format
    cache: str

    @property
    def options(self) -> dict[str, Any]:
        """Of an engine; a store has its own format."""
        formats = {"dtype": self.chosen.dtype, "quantization": self.chosen.quantization}
        return formats if self.kind == "checkpoint" else {}

    def made(self, folder: Path, shape: str, threads: int) -> Path:
        """The one file with the weights, below the work folder, made where it is not there."""
        checkpoint = folder / "checkpoint"
        if not checkpoint.exists():
            _tell(f"writing {checkpoint}")
            write_checkpoint(shape, checkpoint)
        if self.kind == "checkpoint":
            return checkpoint / "model.safetensors"
        store = folder / self.chosen.name / "model.lamella"
        if not store.exists():
            _tell(f"packing {store}")
            dtype, quantization = self.chosen.dtype, self.chosen.quantization
            lamella.pack(checkpoint, store.parent, dtype=dtype, quantization=quantization, threads=threads)
        return store


def main() -> None:
    args = parse(sys.argv[1:], _core.usable_cores())
    work = args.work.expanduser().resolve() / "loading" / args.shape
    work.mkdir(parents=True, exist_ok=True)
    stem = args.output or work / "last"
    stem.parent.mkdir(parents=True, exist_ok=True)
    about = origin_of("bench/loading.py", sys.argv[1:], args.threads)
    cases = [Case(kind, chosen, cache) for kind in args.kinds for chosen in args.formats for cache in args.caches]
    loadings: list[Loading] = []
    for case in cases:
        file = case.made(work, args.shape, args.threads)
        loadings.append(measure(case, file, args))
        found = Loadings(about, args.context, loadings)
        write(found, report(found), stem)
    print(f"wrote {stem}.md", file=sys.stderr)


def measure(case: Case, file: Path, args: argparse.Namespace) -> Loading:
    """Rounds of one case, each a turn of the engine and of the plain loop on one and on all threads."""
    spec, options = (
        spec_for_shape(args.shape),
        EngineOptions(dtype=case.chosen.dtype, quantization=case.chosen.quantization),
    )
    formats = _core.choose_formats_for_shape(spec, options.format_options(options.resolved_dtype("bfloat16")))
    room = _core.resident_bytes(spec, formats)
    turns: list[Turn] = ["engine", *sorted({1, args.threads})]
    files = {"files": [str(file)], "is_cold": case.cache == "cold", "room": room}
    engine_job = {
        "model": str(file.parent),
        "options": {**case.options, "threads": args.threads},
        "context": args.context,
    }
    guard, rounds, opened = Guard(args.guard), list[Round](), dict[str, Any]()
    try:
        guard.take()
        run_job({**files, **engine_job}, args.threads)  # not counted: the first finds nothing of the model in memory
        for number in range(args.repeat):
            plain_s: dict[int, float] = {}
            for turn in in_turn(turns, number):
                guard.take()
                if turn == "engine":
                    opened = run_job({**files, **engine_job}, args.threads)
                else:
                    found = run_job({**files, "threads": turn}, args.threads)
                    plain_s[turn] = found["seconds"]
            rounds.append(Round(plain_s, opened["seconds"], opened["peak_bytes"], opened["before_bytes"]))
            loops = ", ".join(f"{seconds:.2f}" for seconds in plain_s.values())
            _tell(f"{case.kind}, {case.chosen.name}, {case.cache}: engine {opened['seconds']:.2f} s, loop {loops} s")
    finally:
        guard.release()
    name, sizes = f"{case.kind}, {case.chosen.name}", (opened["weight_bytes"], opened["kv_bytes"])
    return Loading(name, case.cache, file.stat().st_size, *sizes, rounds)


def in_turn(turns: Sequence[Turn], number: int) -> list[Turn]:
    """A round's order: each begins with the next, so that none always follows the same."""
    first = number % len(turns)
    return [*turns[first:], *turns[:first]]


def run_job(job: dict[str, Any], threads: int) -> dict[str, Any]:
    """What a fresh process found. Errors: `subprocess.CalledProcessError`; its own words go to standard error."""
    command = [sys.executable, "-m", "peers.load_worker", json.dumps(job)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=child_environment(threads))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def parse(words: list[str], cores: int) -> argparse.Namespace:
    """The options, with formats in place of their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", choices=SHAPES, default="llama-3.2-1b", metavar="NAME", help="as `lamella bench --shape`"
    )
    for flag, names, default in (
        ("--kinds", ("store", "checkpoint"), ("store", "checkpoint")),
        ("--formats", tuple(FORMATS), ("bf16", "int8", "int4")),
        ("--caches", ("warm", "cold"), ("warm", "cold")),
    ):
        known: dict[str, Any] = {name: FORMATS.get(name, name) for name in names}
        parser.add_argument(
            flag,
            type=some_of(known),
            default=[known[name] for name in default],
            metavar="A,B",
            help=f"of {', '.join(names)}; default: {','.join(default)}",
        )
    parser.add_argument(
        "--context", type=positive, default=1024, metavar="N", help="tokens that the KV cache holds; default: 1024"
    )
    add_common(parser, cores)
    return parse_checked(parser, cores, words)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
