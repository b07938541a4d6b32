"""A model folder as a set of plain files that stay inside it.

Nothing outside the folder is opened: a symbolic link must lead back into the folder, or into the blobs of the same
repository in the Hugging Face cache (reliability.md, P2 and A10). Special files are refused before they are read (A13).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config_json import MAX_BYTES, parse_object
from .errors import CheckpointError, StorageError


@dataclass(frozen=True)
class ModelFolder:
    """The files of one model. Names are relative, for example "config.json" or "1_Pooling/config.json"."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether a file of that name exists; a broken or foreign link counts and fails when it is read."""
        return os.path.lexists(self.path / name)

    def file(self, name: str) -> Path:
        """The path of a regular file that rightly belongs to the model. Errors: `CheckpointError`."""
        path = self.path / name
        try:
            real, root = Path(os.path.realpath(path, strict=True)), Path(os.path.realpath(self.path, strict=True))
            mode = real.stat().st_mode
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened ({error.strerror}); is the download complete?") from None
        if not (real.is_relative_to(root) or any(real.is_relative_to(blobs) for blobs in _cache_blobs(root))):
            raise CheckpointError(f"{path}: leads outside the model folder, to {real}; copy the file into the folder")
        if not stat.S_ISREG(mode):
            raise CheckpointError(f"{path}: not a regular file")
        return real

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """The bytes of a file of at most `limit` bytes. Errors: `CheckpointError`, `StorageError`."""
        path = self.file(name)
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
                data = stream.read(limit + 1)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}") from None
        if len(data) > limit:
            raise CheckpointError(f"{path}: larger than {limit} bytes, the most that is read of such a file")
        return data

    def text(self, name: str, limit: int = MAX_BYTES) -> str:
        """A UTF-8 text file. Errors: as `read`, and `CheckpointError` with the byte offset of what is not UTF-8."""
        try:
            return self.read(name, limit).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path / name}: byte {error.start}: invalid UTF-8") from None

    def json(self, name: str) -> dict[str, Any]:
        """A file that holds one JSON object, read strictly (config_json); {} where there is no such file."""
        return parse_object(self.read(name), str(self.path / name)) if self.has(name) else {}


def _cache_blobs(root: Path) -> list[Path]:
    """`.../models--org--name/blobs` for `.../models--org--name/snapshots/<revision>`, the cache's own layout."""
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        return [root.parent.parent / "blobs"]
    return []
