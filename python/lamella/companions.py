"""The files beside a packed store: what text, chats and embeddings need and the store itself does not hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .chat_template import TEMPLATE_BYTES
from .config_json import MAX_BYTES
from .errors import CheckpointError
from .sentence_transformers import pooling_files
from .storage import removed, stored
from .tokenizer_files import MAX_BYTES as TOKENIZER_BYTES

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

# Every file of a model folder that opening a store reads, and the most bytes that are read of it. Nothing else is
# copied: no weights, no code, nothing that a link names outside the folder.
NAMES = {
    "config.json": MAX_BYTES,  # for its special ids
    "generation_config.json": MAX_BYTES,
    "tokenizer.json": TOKENIZER_BYTES,
    "tokenizer_config.json": MAX_BYTES,
    "special_tokens_map.json": MAX_BYTES,
    "vocab.json": MAX_BYTES,
    "merges.txt": MAX_BYTES,
    "vocab.txt": MAX_BYTES,
    "chat_template.jinja": TEMPLATE_BYTES,
    "modules.json": MAX_BYTES,
    "config_sentence_transformers.json": MAX_BYTES,
    "sentence_bert_config.json": MAX_BYTES,
}


def companions_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Name and content of each file to stand beside the store of an opened model.

    Of a folder, those of its files that `NAMES` lists and the pooling modules that modules.json names; of a GGUF file,
    the same made from its metadata. Errors: `CheckpointError`, `StorageError`.
    """
    if checkpoint.gguf is not None:
        return _made(checkpoint)
    folder = checkpoint.folder
    if folder is None:
        return {}
    files = {name: folder.read(name, limit) for name, limit in NAMES.items() if folder.has(name)}
    return files | {name: folder.read(name) for name in pooling_files(folder)}


def _made(checkpoint: Checkpoint) -> dict[str, bytes]:
    """What a GGUF file's metadata say, in the files that a model folder says it with."""
    files: dict[str, bytes] = {}
    if (tokenizer := checkpoint.tokenizer) is not None:
        files["tokenizer.json"] = tokenizer.to_json().encode()
        if len(files["tokenizer.json"]) > TOKENIZER_BYTES:
            raise CheckpointError(f"{checkpoint.path}: the tokenizer takes more than {TOKENIZER_BYTES} bytes as JSON")
    if (template := checkpoint.chat_template) is not None:
        files["chat_template.jinja"] = template.encode()
        if len(files["chat_template.jinja"]) > TEMPLATE_BYTES:
            raise CheckpointError(f"{checkpoint.path}: the chat template takes more than {TEMPLATE_BYTES} bytes")
    special = checkpoint.special
    ids = {"bos_token_id": special.bos, "eos_token_id": list(special.eos) or None, "pad_token_id": special.pad}
    if said := {name: id for name, id in ids.items() if id is not None}:
        files["generation_config.json"] = _json(said)
    if (sentence := checkpoint.sentence) is not None:
        kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
        files["modules.json"] = _json(
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for i, (path, kind) in enumerate(kinds)
            ]
        )
        mode = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}[sentence.pooling]
        files["1_Pooling/config.json"] = _json({mode: True})
    return files


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def place_companions(files: Mapping[str, bytes], out: Path, store: Path) -> None:
    """Makes `files`, and no others of `NAMES`, stand in the folder `out`; on the drive when it returns.

    Where that changes anything, an old `store` goes first: nobody shall open its weights with another's tokenizer. It
    stays until the new files are known to fit on the drive. Errors: `StorageError`.
    """
    changed = {out / name: data for name, data in files.items() if not _holds(out / name, data)}
    stale = [path for name in NAMES if name not in files and _is_file_or_link(path := out / name)]

    def remove_old() -> None:
        if changed or stale:
            removed(store)

    stored(changed, remove_old)
    for path in stale:
        removed(path)


def _is_file_or_link(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _holds(path: Path, data: bytes) -> bool:
    try:
        # Of a link nobody knows what it will lead to when the store is opened.
        return not path.is_symlink() and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
