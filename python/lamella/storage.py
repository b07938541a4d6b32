"""Folders and small files that are on the drive when a call returns. Errors: `StorageError`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import StorageError


def made_folders(folder: Path) -> list[Path]:
    """Makes `folder` and the folders on its way; those that were not there, innermost last."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)][::-1]
    for path in missing:
        with _reported(path, "cannot make the folder"):
            path.mkdir(exist_ok=True)
            _sync(path.parent)
    return missing


def stored(path: Path, data: bytes) -> None:
    """Writes a file whole, in place of one that has its name; makes the folder it stands in."""
    made_folders(path.parent)
    partial = path.with_name(path.name + ".partial")
    with _reported(path, "cannot write"):
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        _sync(path.parent)


def removed(path: Path) -> None:
    """Removes a file; there may be none."""
    with _reported(path, "cannot remove"):
        path.unlink(missing_ok=True)
        _sync(path.parent)


@contextlib.contextmanager
def _reported(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {doing}: {error.strerror} (errno {error.errno})") from None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems know no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
