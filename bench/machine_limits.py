"""Less of the machine than it seems to have: a CPU quota, a busy neighbour on a core.

A machine that does not allow one of them says so: `NotAllowedError`, with the reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PERIOD_US = 100_000  # the kernel's default, and that of container engines
_NEIGHBOUR = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print("busy", flush=True)
while True:
    pass
"""


class NotAllowedError(Exception):
    """This machine, or this process's rights on it, do not allow the condition."""


@contextmanager
def cpu_quota(cores: float) -> Iterator[None]:
    """Holds this process, with all its threads, to so many cores on average, in a control group of its own.

    What its threads do at once may take all cores, until the quota of a tenth of a second is used up.
    """
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():  # version 2: groups below the root's take part
        home, parent = Path("/sys/fs/cgroup") / _own_group("").lstrip("/"), Path("/sys/fs/cgroup")
        limits = {"cpu.max": f"{int(cores * _PERIOD_US)} {_PERIOD_US}"}
    else:
        home = parent = Path("/sys/fs/cgroup/cpu") / _own_group("cpu").lstrip("/")
        limits = {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(int(cores * _PERIOD_US))}
    group = parent / f"lamella-quota-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise NotAllowedError(f"no control group can be made: {error}") from None
    try:
        try:
            for name, limit in limits.items():
                if not (group / name).exists():
                    raise NotAllowedError(f"control groups under {parent} have no {name}")
                (group / name).write_text(limit)
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            raise NotAllowedError(f"no CPU quota can be set: {error}") from None
        try:
            yield
        finally:
            (home / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


def _own_group(controller: str) -> str:
    """This process's group of that controller; of version 2 for an empty one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    raise NotAllowedError(f"this process is in no control group of the controller {controller!r}")


@contextmanager
def busy_neighbour(core: int) -> Iterator[None]:
    """A process of equal priority that does nothing but count, on that core alone."""
    if core not in os.sched_getaffinity(0):
        raise NotAllowedError(f"this process may not use core {core}")
    neighbour = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(core)], stdout=subprocess.PIPE)
    try:
        assert neighbour.stdout is not None
        if neighbour.stdout.readline() != b"busy\n":
            raise NotAllowedError(f"no neighbour could be put on core {core}")
        yield
    finally:
        neighbour.kill()
        neighbour.communicate()
