"""Where an id such as "org/name" lies in the local Hugging Face cache. Reads directories only; never the network."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import CheckpointError

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_REVISION = re.compile(r"[0-9a-f]{40}")


def expanded(path: str) -> Path:
    """`path` with a leading ~ or ~user replaced; as it is where there is no such user, or no home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises RuntimeError where this keeps the ~


def cache_folder() -> Path:
    """The cache's folder, found the way Hugging Face's own tools find it: HF_HUB_CACHE, HF_HOME/hub, ~/.cache/..."""
    if folder := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(folder)
    if home := os.environ.get("HF_HOME"):
        return expanded(home) / "hub"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expanded(caches) / "huggingface" / "hub"


def id_of(snapshot: Path) -> str | None:
    """The id of the model whose snapshot folder this is; None for any other folder."""
    repository = snapshot.parent.parent.name
    if snapshot.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/")


def find(model_id: str) -> Path | None:
    """The snapshot folder of `model_id` that its branch `main` names, or None when the cache does not have the model.

    Errors: `CheckpointError` when the cache knows the model but its snapshot is absent.
    """
    if ".." in model_id or not _ID.fullmatch(model_id):
        return None
    repository = cache_folder() / ("models--" + model_id.replace("/", "--"))
    if not repository.is_dir():
        return None
    try:
        revision = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        raise CheckpointError(f"{repository}: refs/main cannot be read; download the model again") from None
    snapshot = repository / "snapshots" / revision
    if not _REVISION.fullmatch(revision) or not snapshot.is_dir():
        raise CheckpointError(f"{repository}: no snapshot of revision {revision[:64]!r}; download the model again")
    return snapshot
