"""What a sentence-transformers folder says about turning token rows into one embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .config_json import parse
from .errors import CheckpointError, unsupported
from .model_folder import ModelFolder

_POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


@dataclass(frozen=True)
class SentenceEmbedding:
    """`pooling` is "mean" or "cls"; texts are cut to `max_tokens` tokens, special tokens included."""

    pooling: str = "mean"
    normalize: bool = False
    max_tokens: int | None = None
    lower_case: bool = False


def read_sentence_embedding(folder: ModelFolder) -> SentenceEmbedding | None:
    """What modules.json and the files that it names say, or None where there is no modules.json.

    Errors: `CheckpointError`, UNSUPPORTED_MODEL for modules and poolings that Lamella does not have.
    """
    if not folder.has("modules.json"):
        return None
    pooling, normalize = "mean", False
    for kind, path in _modules(folder):
        if kind == "Pooling":
            pooling = _pooling(folder, path)
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer" or path:
            raise unsupported(
                f"{folder.path}/modules.json: module type {kind[:80]!r}; Lamella has Transformer, Pooling, Normalize"
            )
    if folder.json("config_sentence_transformers.json").get("default_prompt_name") is not None:
        raise unsupported(
            f"{folder.path}/config_sentence_transformers.json: default_prompt_name; Lamella adds no prompts"
        )
    limits = folder.json("sentence_bert_config.json")
    return SentenceEmbedding(pooling, normalize, _limit(limits, folder), limits.get("do_lower_case") is True)


def pooling_files(folder: ModelFolder) -> list[str]:
    """The names of the files in which modules.json says how to pool; none where there is no modules.json."""
    if not folder.has("modules.json"):
        return []
    return [_pooling_file(folder, path) for kind, path in _modules(folder) if kind == "Pooling"]


def _modules(folder: ModelFolder) -> list[tuple[str, str]]:
    """The kind of each module, the last word of its type, and its path."""
    source = str(folder.path / "modules.json")
    modules = parse(folder.read("modules.json"), source)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{source}: expected a list of objects")
    return [(str(module.get("type", "")).rpartition(".")[2], str(module.get("path") or "")) for module in modules]


def _pooling_file(folder: ModelFolder, path: str) -> str:
    if not path or "/" in path or path.startswith("."):
        raise CheckpointError(f"{folder.path / 'modules.json'}: path {path[:80]!r} is not the name of a folder")
    return f"{path}/config.json"


def _pooling(folder: ModelFolder, path: str) -> str:
    name = _pooling_file(folder, path)
    config = folder.json(name)
    modes = [key for key, value in config.items() if key.startswith("pooling_mode") and value is True]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise unsupported(
            f"{folder.path / name}: pooling {', '.join(modes) or 'none'}; Lamella has one of {', '.join(_POOLINGS)}"
        )
    return _POOLINGS[modes[0]]


def _limit(config: dict[str, Any], folder: ModelFolder) -> int | None:
    limit = config.get("max_seq_length")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CheckpointError(
            f"{folder.path}/sentence_bert_config.json: max_seq_length is {repr(limit)[:64]}, expected 1 or more"
        )
    return limit
