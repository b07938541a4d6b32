"""What Deep-Fusion and SBI-GeMM are worth on this machine's CPU, step by step: the paper's figure 10(a).

    python bench/ablation.py                                       # bf16, int8 and int4; half an hour on two cores
    python bench/ablation.py --model gpt2-xl --formats fp32 --batches 1,4 --repeat 9

The time of a generated token, from unfused PyTorch (eager, through transformers) over Lamella's plain plan and its
fused plan with the GeMM for many tokens to the fused plan with SBI-GeMM. All have the model's shape with random weights
and turns in one run; read bandwidth and the time from core to core are measured around every measurement, and what the
machine changed under is dropped.

torch, transformers and matplotlib are taken from the environment that bench/cpu_peers.py makes under the work folder,
or from this Python; without the first two the baseline is left out, without the last the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lamella import _core
from peers.ablated import ARTIFACT, FORMATS, lamella_entries, torch_entry
from peers.ablation_report import report
from peers.cells import MOST_BATCH, Cell, decode_cell
from peers.environment import python_with
from peers.guard import Guard
from peers.models import MODELS
from peers.options import add_common, parse_checked, positive, some_of
from peers.output import draw, origin_of, write
from peers.run import Bench, start_machine

_SHAPES = {model.name: model for model in MODELS.values() if model.config and not model.is_encoder}


def main() -> None:
    args = parse(sys.argv[1:], _core.usable_cores())
    work = args.work.expanduser().resolve()
    work.mkdir(parents=True, exist_ok=True)
    stem = args.output or work / "ablation"
    about = origin_of("bench/ablation.py", sys.argv[1:], args.threads)
    stem.parent.mkdir(parents=True, exist_ok=True)
    torch, plots = python_with(work, "torch", "transformers"), python_with(work, "matplotlib")
    picture = None if plots is None else stem.name + ".svg"
    machine = start_machine(work, args.threads)
    try:
        bench = Bench(work, torch or Path(sys.executable), args.threads, args.repeat, Guard(args.guard), machine)
        if torch is None:
            bench.note(
                "torch's rows are left out: neither this Python nor the work folder's has torch and transformers"
            )
        if plots is None:
            bench.note("there is no picture: neither this Python nor the work folder's has matplotlib")
        shape = bench.folder(args.model) / ARTIFACT
        shape.parent.mkdir(parents=True, exist_ok=True)
        shape.write_text(json.dumps(dict(args.model.config)), encoding="utf-8")
        for chosen in args.formats:
            entries = lamella_entries(chosen) + ([] if torch is None else [torch_entry(chosen)])
            for _ in bench.run(args.model, entries, args.batches):
                found = bench.results(about)
                write(found, report(found, picture), stem)
    finally:
        machine.close()
    if plots is not None:
        draw(plots, "peers.ablation_picture", stem)
    print(f"wrote {stem}.md", file=sys.stderr)


def parse(words: list[str], cores: int) -> argparse.Namespace:
    """The options, with objects in place of their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        type=lambda name: some_of(_SHAPES)(name)[0],
        default=_SHAPES["llama-3.2-1b"],
        metavar="NAME",
        help=f"a shape: {', '.join(_SHAPES)}; default: llama-3.2-1b",
    )
    parser.add_argument(
        "--formats",
        type=some_of(FORMATS),
        default=[FORMATS[name] for name in ("bf16", "int8", "int4")],
        metavar="A,B",
        help=f"formats of weights, of {', '.join(FORMATS)}; default: bf16,int8,int4",
    )
    parser.add_argument(
        "--batches",
        type=_batches,
        default=_batches("1,2,4,8,16,32"),
        metavar="N,N",
        help=f"sequences at once, 1 to {MOST_BATCH}; default: 1,2,4,8,16,32",
    )
    add_common(parser, cores)
    return parse_checked(parser, cores, words)


def _batches(text: str) -> list[Cell]:
    sizes = sorted({positive(size) for size in text.split(",")})
    if sizes[-1] > MOST_BATCH:
        raise argparse.ArgumentTypeError(f"{sizes[-1]} sequences are more than {MOST_BATCH}")
    return [decode_cell(size) for size in sizes]


if __name__ == "__main__":
    main()
