"""Sending tokens to their experts and back: tables and copies against one-hot tensors and sparse einsums in torch.

    python bench/routing.py PATH/TO/bench_experts [--experts 64] [--hidden 2048] [--threads 1] [--repeat 15]

Both take tokens' rows to a gate, to the rows of its choice's expert, through experts that give back what they are
given, and back, in float32 with one expert a token. The other side is the formulation that the paper (V-C) starts from:
a one-hot mask of the choices, a cumulative sum for the place in the expert's room, one einsum to dispatch and one to
combine, with room for the fullest expert, so that nothing is dropped. Goal: at least six times faster, which is what
the paper says of its kernels.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import time

import torch
from torch.nn import functional

GOAL = 6.0


def one_hot(x: torch.Tensor, router: torch.Tensor) -> torch.Tensor:
    """x (tokens, hidden), router (experts, hidden) -> (tokens, hidden): each row times its expert's probability."""
    gates = functional.softmax(x @ router.T, dim=1)
    mask = functional.one_hot(gates.argmax(dim=1), gates.shape[1])
    places = torch.cumsum(mask, dim=0) - 1
    capacity = int(mask.sum(dim=0).max())
    room = functional.one_hot((places * mask).sum(dim=1), capacity).float()
    combine = torch.einsum("s,se,sc->sec", (gates * mask).sum(dim=1), mask.float(), room)
    dispatched = torch.einsum("sec,sm->ecm", combine.bool().float(), x)
    return torch.einsum("sec,ecm->sm", combine, dispatched)


def check() -> None:
    """Nothing is dropped and rows come back where they were."""
    x, router = torch.randn(33, 16), torch.randn(5, 16)
    expected = x * functional.softmax(x @ router.T, dim=1).max(dim=1, keepdim=True).values
    torch.testing.assert_close(one_hot(x, router), expected)


def median_us(x: torch.Tensor, router: torch.Tensor, repeat: int) -> float:
    one_hot(x, router)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        one_hot(x, router)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="bench_experts, built with -DLAMELLA_BENCH=ON")
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    check()
    sizes = [args.program, *map(str, (args.experts, args.hidden, 1, args.threads))]
    ours = subprocess.run(sizes, capture_output=True, text=True, check=True).stdout
    print(ours.splitlines()[0])
    for found in re.finditer(r"(\d+) tokens: .*median +([\d.]+) us; copying +([\d.]+) us", ours):
        tokens, own, copying = int(found[1]), float(found[2]), float(found[3])
        x, router = torch.randn(tokens, args.hidden), torch.randn(args.experts, args.hidden)
        with torch.inference_mode():
            theirs = median_us(x, router, args.repeat)
        print(
            f"{tokens:6d} tokens: tables {own:10.1f} us ({copying:.1f} us of it are copies), "
            f"one-hot einsums {theirs:12.1f} us, {theirs / own:.1f} times as long (goal {GOAL:g})"
        )


if __name__ == "__main__":
    main()
