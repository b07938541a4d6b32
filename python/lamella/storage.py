"""Folders and small files that are on the drive when a call returns. Errors: `StorageError`."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
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


def stored(files: Mapping[Path, bytes], before_renaming: Callable[[], None]) -> None:
    """Writes files whole, in place of those that have their names; makes the folders they stand in.

    First all of them go to the drive as "<name>.partial": where that fails, those are removed and nothing else has
    changed. Then `before_renaming` is called, and then they get their names.
    """
    partials: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            made_folders(path.parent)
            _write_partial(path, data, partials)
        before_renaming()
        for path in files:
            with _reported(path, "cannot write"):
                partials[path].replace(path)
                del partials[path]
        for folder in {path.parent: None for path in files}:
            with _reported(folder, "cannot write the folder to the drive"):
                _sync(folder)
    finally:
        for partial in partials.values():
            with contextlib.suppress(OSError):  # what went wrong before is what the caller must see
                partial.unlink()


def _write_partial(path: Path, data: bytes, partials: dict[Path, Path]) -> None:
    """Writes the file that is to become `path`; it is in `partials` once it is there."""
    partial = path.with_name(path.name + ".partial")
    # A link in its place is not followed, and a FIFO not waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with _reported(path, "cannot write"), os.fdopen(os.open(partial, flags, 0o666), "wb") as stream:
        partials[path] = partial
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


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
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems know no such thing and say so
            raise
    finally:
        os.close(descriptor)
