"""Packing: a model as one file that is ready to be read, with the files for text beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import _core, hub_cache
from .checks import check_flag, shown
from .engine_options import EngineOptions
from .errors import InvalidArgumentError, StorageError
from .model_weights import TensorWeights
from .progress import Progress, check_progress, told_of_bytes
from .storage import made_folders

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_log = logging.getLogger("lamella")


@dataclass(frozen=True)
class Packed:
    """A packed store that `pack` has written.

    Attributes:
        path: its folder, which `Engine` opens.
        digest: "sha256:...", equal for equal models in equal formats.
        bytes: of the store's file; the files beside it come on top.
        dtype: what "auto" means to an engine that opens it.
        formats: what became of each weight.
        files: the names of the files beside it.
        seconds: that packing took.
        resumed_bytes: of these, found written by a packing that was cut short.
    """

    path: Path
    digest: str
    bytes: int
    dtype: _core.DataType
    formats: list[_core.FormatChoice]
    files: list[str]
    seconds: float
    resumed_bytes: int


def pack(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str = EngineOptions.dtype,
    quantization: str | None = EngineOptions.quantization,
    smoothing: bool = EngineOptions.smoothing,
    quantize_head: bool = EngineOptions.quantize_head,
    threads: int | None = EngineOptions.threads,
    force: bool = False,
    progress: Progress | bool | None = None,
) -> Packed:
    """Writes `model` as a packed store into the folder `out`, which is made, or is empty.

    Cut short, by whatever, the same call goes on where it was. A call with another model or other options starts afresh
    (one warning says so). The store appears under its name when all of it is on the drive.

    Args:
        model: a Hugging Face folder, an id in the local Hugging Face cache, or a GGUF file.
        out: a folder for this store alone, outside the model's.
        dtype: the type of weights that are not quantised, and of activations and KV cache of an engine that opens the
            store; as for `Engine`.
        quantization, smoothing, quantize_head: as for `Engine`.
        threads: None is every core that affinity and cgroup limits leave. Changes no byte.
        force: replace the packed store that `out` holds, and with it config, tokenizer and the other files that a store
            has beside it, which are replaced or removed. Files of other names stay; no other folder is ever written to.
        progress: as for `Engine`; a function is called with (bytes of the store written, bytes in all).

    Raises:
        CheckpointError: as for `Engine`.
        StorageError: `out` holds something else, another process packs into it, it cannot be written to, or is full.
        InvalidArgumentError: an option of a wrong type or outside its range, a model that is a packed store already,
            or an `out` inside the model's folder.
    """
    from .checkpoint import open_model
    from .companions import companions_of, place_companions

    options = EngineOptions(
        dtype=dtype, quantization=quantization, smoothing=smoothing, quantize_head=quantize_head, threads=threads
    )
    check_flag("force", force)
    check_progress(progress)
    started = time.perf_counter()
    folder = _folder_named(out)
    checkpoint = open_model(model)
    weights = checkpoint.weights
    if not isinstance(weights, TensorWeights):
        raise InvalidArgumentError(
            f"{checkpoint.path} is a packed store already: copy it, or pack the model that it was made from"
        )
    _refuse_inside(folder, checkpoint)
    store = folder / _core.store_file_name
    _refuse_occupied(folder, store, force)
    resolved = weights.resolved_dtype(options.dtype)
    choices = weights.choose_formats(options.format_options(resolved))
    files = companions_of(checkpoint)
    made = made_folders(folder)
    try:
        with told_of_bytes(progress, "packing") as told:
            report = _core.pack_store(
                weights.spec,
                weights.recipe,
                weights.tensors,
                [choice.format for choice in choices],
                resolved,
                _source(checkpoint, weights, options),
                store,
                force,
                options.threads or 0,
                told,
                _log.warning,
                lambda: place_companions(files, folder, store),
            )
    except BaseException:
        with contextlib.suppress(OSError):  # those that hold something stay
            for path in reversed(made):
                path.rmdir()
        raise
    return Packed(
        path=folder,
        digest=report.digest,
        bytes=report.file_bytes,
        dtype=resolved,
        formats=choices,
        files=sorted(files),
        seconds=time.perf_counter() - started,
        resumed_bytes=report.kept_bytes,
    )


def _folder_named(out: object) -> Path:
    name = os.fspath(out) if isinstance(out, str | os.PathLike) else None
    if not isinstance(name, str) or not name:  # Path("") would be the working folder
        raise InvalidArgumentError(f"out is {shown(out)}; expected the path of a folder")
    try:
        return Path(os.path.realpath(hub_cache.expanded(name)))  # a link to a folder on another drive is a folder
    except ValueError as error:  # a NUL in it
        raise InvalidArgumentError(f"out is {shown(out)}, which is no path: {error}") from None


def _refuse_inside(folder: Path, checkpoint: Checkpoint) -> None:
    if checkpoint.folder is None:
        return
    inside = Path(os.path.realpath(checkpoint.folder.path))
    if folder.is_relative_to(inside):
        raise InvalidArgumentError(f"out is {folder}, inside the model's own folder {inside}; choose one outside it")


def _refuse_occupied(folder: Path, store: Path, force: bool) -> None:
    """Looks at what is there before anything is done; the core looks again once it has the folder for itself."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  names are all that is needed
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read as a folder: {error.strerror}") from None
    if _core.journal_path(store).name in names:  # of a packing that was cut short
        return
    if store.name in names:
        if not force:
            raise StorageError(
                f"{folder}: holds a packed store already; choose another folder, or replace it: force=True, --force"
            )
    elif names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise StorageError(f"{folder}: is not empty: it holds {listed}; give the store a folder of its own")


def _source(checkpoint: Checkpoint, weights: TensorWeights, options: EngineOptions) -> dict[str, str]:
    """What the store says that it was packed from: in words that hold no path of this machine."""
    path = Path(os.path.realpath(checkpoint.path))
    texts = {
        "model": hub_cache.id_of(path) or path.name,
        "stored": weights.stored_dtype,
        "quantization": options.quantization or "none",
        **({} if options.smoothing else {"smoothing": "False"}),
        **({"quantize_head": "True"} if options.quantize_head else {}),
        "packed by": f"lamella {_core.version}",
    }
    return {name: text.encode("utf-8", "backslashreplace").decode() for name, text in texts.items()}
