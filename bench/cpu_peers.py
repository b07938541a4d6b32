"""Lamella beside its peers on this machine's CPU: installs them, makes the models, runs all in turns, writes a table.

    python bench/cpu_peers.py                                         # everything; hours on two cores
    python bench/cpu_peers.py --models llama-3.2-1b --peers llama.cpp,openvino --cells b1,b8 --repeat 3
    python bench/cpu_peers.py --list                                  # what there is to choose, and what it takes

Peers come from PyPI into an environment under the work folder, models beside it; both stay there for the next run.
Every engine is a process of its own that lives as long as its class is measured and is stopped while another has its
turn; all get the same cores, prompts of the same lengths and results of the same lengths. The read bandwidth and the
time from core to core are measured around every measurement, and what the machine changed under is dropped.

llama.cpp is compiled here, which takes a C++ compiler. torch is 2.13.0: where pip's index has it with CUDA only,
gigabytes of that come along; give pip an index with torch's builds for CPUs, by its own variables or configuration.
"""

from __future__ import annotations

import sys

from lamella import _core
from peers import environment
from peers.cells import CELLS
from peers.entries import CLASSES, LAMELLA, MODULES, entries
from peers.guard import Guard
from peers.models import MODELS
from peers.options import parse
from peers.output import draw, origin_of, write
from peers.report import report
from peers.run import Bench, start_machine


def main() -> None:
    args = parse(__doc__ or "", _core.usable_cores())
    if args.list:
        _list()
        return
    work = args.work.expanduser().resolve()
    work.mkdir(parents=True, exist_ok=True)
    environment.install(work, tuple(model.package for model in args.models if model.package))
    python, stem = environment.python_of(work), args.output or work / "last"
    about = origin_of("bench/cpu_peers.py", sys.argv[1:], args.threads)
    stem.parent.mkdir(parents=True, exist_ok=True)
    machine = start_machine(work, args.threads)
    try:
        bench = Bench(work, python, args.threads, args.repeat, Guard(args.guard), machine)
        for model in args.models:
            chosen = entries(model, [LAMELLA, *args.peers], args.classes)
            bench.make(model, chosen)
            for bits in args.classes:
                for _ in bench.run(model, [entry for entry in chosen if entry.bits == bits], args.cells):
                    found = bench.results(about)
                    write(found, report(found, stem.name + ".svg"), stem)
                if bench.results(about).drawn:
                    draw(python, "peers.picture", stem)
                    print(f"wrote {stem}.md, {stem}.png and {stem}.svg", file=sys.stderr)
    finally:
        machine.close()


def _list() -> None:
    print(f"models (GB on disk, beside {environment.GIGABYTES} of the peers):")
    for model in MODELS.values():
        print(
            f"  {model.name:14} {model.gigabytes:5.1f}  {', '.join(e.name for e in entries(model, MODULES, CLASSES))}"
        )
    print("peers:", ", ".join(engine for engine in MODULES if engine != LAMELLA))
    print("classes:", ", ".join(f"{bits} ({title})" for bits, title in CLASSES.items()))
    print("cells:", ", ".join(f"{cell.name} ({cell.title})" for cell in CELLS.values()))


if __name__ == "__main__":
    main()
