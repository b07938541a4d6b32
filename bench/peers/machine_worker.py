"""Reads what the machine can do, in a process of its own: python -m peers.machine_worker THREADS.

It answers over `pipe`:

{"reading": true}  -> the fields of a `Reading`
{"peaks": true}    -> operations/s from registers, by arithmetic
"""

from __future__ import annotations

import sys
from typing import Any

from lamella import _core

from .pipe import serve

_ARITHMETICS = ("f32", "bf16", "int8")


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    threads = int(sys.argv[1])
    if "peaks" in question:
        return {arithmetic: _core.measure_peak(arithmetic, threads) for arithmetic in _ARITHMETICS}
    return {"read_bytes_s": _core.measure_read_bandwidth(threads), "latency_s": _core.measure_core_latency()}


if __name__ == "__main__":
    serve(_answer)
