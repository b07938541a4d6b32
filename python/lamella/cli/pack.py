"""MODEL becomes one file, OUT/model.lamella, in which the weights stand as the kernels read them, with the tokenizer,
the chat template and the generation defaults beside it. OUT is then a MODEL for every other command, and opens as fast
as it can be read. Packing takes little memory. Cut short, by whatever, the same command goes on where it was.

--json prints {"store", "bytes", "digest", "dtype", "weights", "files", "seconds", "resumed", "resumed_bytes"}: the
folder, the bytes of its store, what became of the weights as `lamella info` says it, the files beside the store, and
how many of the bytes were there already."""

from __future__ import annotations

import argparse
from typing import Any

from lamella.packing import Packed, pack
from lamella.progress import bytes_text

from .conversions import conversion_lines, conversions
from .options import ENGINE, add_engine_options, add_model, check_model, engine_keywords
from .output import print_json, seconds_text
from .parser import Parser, UsageError

_MEANINGFUL = ("dtype", "quantization", "smoothing", "quantize_head", "threads")


def add_arguments(parser: Parser) -> None:
    """MODEL, OUT, formats, threads."""
    add_model(parser, shape=False)
    parser.usage = f"{parser.prog} [MODEL] [OUT] [options]"
    parser.add_argument("out", nargs="?", metavar="OUT", help="a folder for this store alone; made if it is not there")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the packed store that OUT holds, with the config and tokenizer files beside it; other files stay",
    )
    add_engine_options(parser, without=tuple(option.keyword for option in ENGINE if option.keyword not in _MEANINGFUL))


def run(args: argparse.Namespace) -> int:
    """Packs, and says what was written."""
    check_model(args, "lamella pack")
    if args.out is None:
        raise UsageError("no OUT given: the folder to write to", "lamella pack")
    packed = pack(args.model, args.out, force=args.force, **engine_keywords(args))
    facts = _facts(packed)
    if args.json:
        print_json(facts)
    else:
        print(_as_text(facts))
    return 0


def _facts(packed: Packed) -> dict[str, Any]:
    return {
        "store": str(packed.path),
        "bytes": packed.bytes,
        "digest": packed.digest,
        "dtype": packed.dtype.name,
        "weights": conversions(packed.formats),
        "files": packed.files,
        "seconds": packed.seconds,
        "resumed": packed.resumed_bytes > 0,
        "resumed_bytes": packed.resumed_bytes,
    }


def _as_text(facts: dict[str, Any]) -> str:
    there = f", {bytes_text(facts['resumed_bytes'])} of it from a packing cut short before" if facts["resumed"] else ""
    lines = [
        ("packed store", facts["store"]),
        ("size", f"{bytes_text(facts['bytes'])}, for {facts['dtype']}"),
        *conversion_lines(facts["weights"]),
        ("beside it", ", ".join(facts["files"]) or "nothing: an engine will work on ids"),
        ("digest", facts["digest"]),
        ("written in", f"{seconds_text(facts['seconds'])}{there}"),
    ]
    return "\n".join(f"{name:18}{value}" for name, value in lines)
