"""One loading in a fresh process, whose peak of memory is then its own: python -m peers.load_worker JOB, in JSON.

{"files": [...], "is_cold": bool, "room": bytes, and either
 "threads": n                                      the plain loop -> seconds
 "model": path, "options": {...}, "context": n}    an engine, then a prompt and results that fill its context
                                                   -> seconds, peak_bytes, before_bytes, weight_bytes, kv_bytes

Just before, another process touches as many pages and gives them back: the host of a virtual machine may have taken
idle ones away, and to get one back costs ten times what clearing it does (seen: 0.2 to 3 s for the same 1.2 GB).
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from .worker import peak_bytes

_PIECE = 1 << 22  # bytes a pread, as fast as longer ones
_RESULT = 8  # tokens


def _prepare(files: Sequence[str], is_cold: bool, room: int) -> None:
    """Drops the files from the page cache, or brings them into it, and has the pages ready."""
    buffer = memoryview(bytearray(_PIECE))
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            if is_cold:
                os.fsync(file)  # what is not written yet would stay
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                for offset in range(0, os.fstat(file).st_size, _PIECE):
                    os.preadv(file, [buffer], offset)
        finally:
            os.close(file)
    child = os.fork()  # its pages do not count in this process's peak
    if child == 0:
        _touch(_new_pages(room), 0)
        os._exit(0)
    os.waitpid(child, 0)


def _new_pages(room: int) -> mmap.mmap:
    """So many bytes that nobody has touched, in huge pages where the system has such. Shared ones would be small."""
    memory = mmap.mmap(-1, room, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _touch(memory: mmap.mmap, begin: int) -> None:
    for page in range(begin, len(memory), mmap.PAGESIZE):
        memory[page] = 0


def plain_read(files: Sequence[str], room: int, threads: int) -> float:
    """Seconds of reading every byte of the files with pread into `room` bytes of new pages, all of which are touched.

    Pages are huge where the system has such, as an engine's. Where the files are longer than the room, the loop goes
    round in it; where they are shorter, the pages that are left are written to. Each of the threads takes every n-th
    piece; the interpreter's lock is released while the kernel copies.
    """
    started = time.perf_counter()
    memory = _new_pages(room)
    handles = [os.open(path, os.O_RDONLY) for path in files]
    pieces, at, at_once = [], 0, min(_PIECE, room)
    for handle in handles:
        size = os.fstat(handle).st_size
        for offset in range(0, size, at_once):
            length = min(at_once, size - offset)
            at = at if at + length <= room else 0
            pieces.append((handle, offset, at, length))
            at += length

    def read(own: Sequence[tuple[int, int, int, int]]) -> None:
        with memoryview(memory) as view:
            for handle, offset, at, length in own:
                done = 0
                while done < length:
                    done += os.preadv(handle, [view[at + done : at + length]], offset + done)

    workers = [threading.Thread(target=read, args=(pieces[i::threads],)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    _touch(memory, max(at + length for _, _, at, length in pieces))
    seconds = time.perf_counter() - started
    for handle in handles:
        os.close(handle)
    memory.close()
    return seconds


def _load_engine(model: str, options: dict[str, Any], context: int) -> dict[str, Any]:
    import lamella
    from lamella import _core

    before = peak_bytes()
    with lamella.Engine(model, max_num_seqs=1, max_model_len=context, progress=False, **options) as engine:
        seconds = engine.load_s
        engine.generate([[7] * (context - _RESULT)], max_tokens=_RESULT, ignore_eos=True)
        config = engine.core.config
        per_token = _core.kv_bytes_per_token(engine.core.spec, config.dtype, config.kv_cache_dtype)
        return {
            "seconds": seconds,
            "peak_bytes": peak_bytes(),
            "before_bytes": before,
            "weight_bytes": engine.stats()["bytes_weights"],
            "kv_bytes": per_token * context,
        }


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """See the module."""
    _prepare(job["files"], job["is_cold"], job["room"])
    if "model" in job:
        return _load_engine(job["model"], job["options"], job["context"])
    return {"seconds": plain_read(job["files"], job["room"], job["threads"])}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))))
