"""Opening a model: from whatever a user names to a ModelSpec, its weights, and the files around them.

`open_model` reads headers and configs only. When it returns, the config is valid, every weight exists at its right
shape, and not one weight byte has been read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import hub_cache
from ._core import (
    ModelSpec,
    TensorTable,
    is_store,
    open_checkpoint,
    open_store,
    partial_path,
    store_file_name,
    validate,
)
from .chat_template import read_chat_template
from .checks import shown
from .errors import CheckpointError, InvalidArgumentError, unsupported
from .families import Config, Family, Weights, family_of_config, family_of_gguf
from .families.recipe import Recipe, build_recipe
from .generation_defaults import default_params
from .gguf_metadata import GgufMetadata, config_of
from .model_folder import ModelFolder
from .model_weights import ModelWeights, StoreWeights, TensorWeights
from .params import SamplingParams
from .sentence_transformers import SentenceEmbedding, read_sentence_embedding

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

_log = logging.getLogger("lamella")

_STORED_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
_GGUF_POOLINGS = {None: None, 0: None, 1: "mean", 2: "cls"}  # 0: the file leaves it to whoever asks


@dataclass(frozen=True)
class SpecialIds:
    """Token ids with a meaning, all inside the vocabulary; generation stops at any of `eos`."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """An opened model. `weights` keeps their files open for as long as someone holds it. `defaults` is what the model's
    generation_config asks of every request.
    """

    name: str
    path: Path
    spec: ModelSpec
    weights: ModelWeights
    special: SpecialIds
    chat_template: str | None = None
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    defaults: SamplingParams = field(default_factory=SamplingParams)
    sentence: SentenceEmbedding | None = None
    folder: ModelFolder | None = None
    gguf: GgufMetadata | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, built when first asked for; None where the model brings none.

        Errors: `CheckpointError` when its files are damaged or it can produce ids outside the model's vocabulary.
        """
        from .tokenizer_files import tokenizer_from_folder
        from .tokenizer_gguf import tokenizer_from_gguf

        if self.gguf is not None:
            tokenizer = tokenizer_from_gguf(self.gguf)
        else:
            tokenizer = tokenizer_from_folder(self.folder) if self.folder is not None else None
        if tokenizer is not None:
            tokenizer.check_fits(self.spec.vocab, str(self.path))
        return tokenizer


def open_model(model: str | os.PathLike[str]) -> Checkpoint:
    """Opens a Hugging Face folder, a packed store or its folder, a GGUF file, or an id in the local Hugging Face cache.

    Errors: `CheckpointError` (missing, damaged, contradictory or unsupported files), `StorageError`,
    `InvalidArgumentError` for what names no model at all: an empty text, None, bytes.
    """
    path = _located(model)
    if is_store(path):
        return _open_store(os.fspath(model), path)
    folder = ModelFolder(path)
    if folder.has((unfinished := partial_path(path / store_file_name)).name):
        raise CheckpointError(f"{unfinished}: packing was cut short; run the same `lamella pack` again")
    if path.is_dir() and folder.has("config.json"):
        return _open_folder(os.fspath(model), folder)
    tensors = open_checkpoint(path)
    if "general.architecture" in (values := tensors.metadata):
        return _open_gguf(os.fspath(model), path, tensors, GgufMetadata(values, str(path)))
    raise CheckpointError(f"{path}: no config.json beside the weights; name the model's whole folder")


def _located(model: object) -> Path:
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else None
    if not isinstance(name, str) or not name:  # Path("") would be the working folder
        raise InvalidArgumentError(f"model is {shown(model)}; expected a path or the id of a model")
    path = hub_cache.expanded(name)
    if os.path.lexists(path):
        return path
    if isinstance(model, str) and (cached := hub_cache.find(model)) is not None:
        return cached
    raise CheckpointError(
        f"{str(model)[:256]!r}: no such folder or file, nor a model in {hub_cache.cache_folder()}; "
        "Lamella does not download: fetch the model first, for example with `hf download`"
    )


def _open_folder(name: str, folder: ModelFolder) -> Checkpoint:
    source = str(folder.path / "config.json")
    fields = folder.json("config.json")
    family = family_of_config(fields, source)
    generation, generation_source = folder.json("generation_config.json"), str(folder.path / "generation_config.json")
    defaults = default_params(generation, generation_source)
    tensors = open_checkpoint(folder.path)
    weights = Weights(family.weights, tensors.names(), family.prefix, family.renamed)
    config = Config(fields, source)
    config.ignore_bookkeeping()
    spec, recipe = _specified(family, config, weights, tensors, family.ignored, str(folder.path))
    return Checkpoint(
        name=name,
        path=folder.path,
        spec=spec,
        weights=_tensor_weights(spec, recipe, tensors),
        special=special_ids([(generation, generation_source), (fields, source)], spec.vocab),
        chat_template=read_chat_template(folder),
        generation_config=generation,
        defaults=defaults,
        sentence=read_sentence_embedding(folder),
        folder=folder,
    )


def _open_store(name: str, path: Path) -> Checkpoint:
    """The model is in the store itself; what stands beside it are the files that a Hugging Face folder has."""
    store = open_store(path)
    folder = ModelFolder(path if path.is_dir() else path.parent)
    generation, generation_source = folder.json("generation_config.json"), str(folder.path / "generation_config.json")
    spec, source = store.spec, "config.json"
    return Checkpoint(
        name=name,
        path=path,
        spec=spec,
        weights=StoreWeights(store),
        special=special_ids(
            [(generation, generation_source), (folder.json(source), str(folder.path / source))], spec.vocab
        ),
        chat_template=read_chat_template(folder),
        generation_config=generation,
        defaults=default_params(generation, generation_source),
        sentence=read_sentence_embedding(folder),
        folder=folder,
    )


def _open_gguf(name: str, path: Path, tensors: TensorTable, metadata: GgufMetadata) -> Checkpoint:
    family, gguf = family_of_gguf(metadata.text("general.architecture") or "", str(path))
    names = tensors.names()
    if factors := [tensor for tensor in names if tensor.startswith("rope_factors_")]:
        raise unsupported(f"{path}: tensor {factors[0]}: LongRoPE in GGUF files; use the model's Hugging Face folder")
    weights = Weights(gguf.weights, names, "", {})
    config = config_of(metadata, gguf, weights, tensors)
    spec, recipe = _specified(family, config, weights, tensors, r"rope_freqs\.weight", str(path))
    ids = {f"{role}_token_id": metadata.integer(f"tokenizer.ggml.{key}_token_id") for role, key in _GGUF_ROLES.items()}
    key = f"{gguf.architecture}.pooling_type"
    if (kind := metadata.integer(key)) not in _GGUF_POOLINGS:
        raise unsupported(f"{path}: {key} is {kind}; Lamella has 1 (mean) and 2 (cls)")
    pooling = _GGUF_POOLINGS[kind]
    return Checkpoint(
        name=name,
        path=path,
        spec=spec,
        weights=_tensor_weights(spec, recipe, tensors),
        special=special_ids([({**ids, "eos_token_id": _gguf_eos(metadata)}, str(path))], spec.vocab),
        chat_template=metadata.text("tokenizer.chat_template"),
        sentence=SentenceEmbedding(pooling) if pooling else None,
        gguf=metadata,
    )


def _tensor_weights(spec: ModelSpec, recipe: Recipe, tensors: TensorTable) -> TensorWeights:
    stored = _STORED_NAMES.get(recipe.stored_type, recipe.stored_type.lower())
    return TensorWeights(spec, recipe.sources, tensors, stored)


_GGUF_ROLES = {"bos": "bos", "pad": "padding"}


def _gguf_eos(metadata: GgufMetadata) -> list[int]:
    """The end of the text, and the end of a turn where the file has one."""
    ids = (metadata.integer(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot"))
    return [token for token in ids if token is not None]


def _specified(
    family: Family, config: Config, weights: Weights, tensors: TensorTable, ignored: str, source: str
) -> tuple[ModelSpec, Recipe]:
    spec = family.spec(config, weights)
    config.refuse_unread()
    try:
        validate(spec)
    except CheckpointError as error:
        raise CheckpointError(f"{config.source}: {error}", error.code) from None
    return spec, build_recipe(spec, weights, tensors, ignored, source)


def special_ids(files: Sequence[tuple[Mapping[str, Any], str]], vocab: int) -> SpecialIds:
    """bos, eos and pad: of each, what the first of `files` (fields and name) says that says anything.

    Ids outside the vocabulary are dropped with one warning, which names the file of each.
    """
    dropped: list[str] = []

    def ids(name: str) -> list[int]:
        value, source = next(
            ((fields[name], source) for fields, source in files if fields.get(name) is not None), ([], "")
        )
        kept: list[int] = []
        for token in value if isinstance(value, list) else [value]:
            if type(token) is int and 0 <= token < vocab:
                kept.append(token)
            else:
                dropped.append(f"{name} {repr(token)[:32]} of {source}")
        return kept

    bos, eos, pad = ids("bos_token_id"), ids("eos_token_id"), ids("pad_token_id")
    if dropped:
        _log.warning("dropped, because the vocabulary has %d tokens: %s", vocab, ", ".join(dropped[:8]))
    return SpecialIds(bos[0] if bos else None, tuple(dict.fromkeys(eos)), pad[0] if pad else None)
