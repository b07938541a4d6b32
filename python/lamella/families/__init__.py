"""The model families that Lamella knows, one declarative file each. To add one, write its file and list it here."""

from __future__ import annotations

from lamella.errors import CheckpointError, unsupported

from . import bert, gpt2, gpt_neo, gpt_neox, llama, mistral, mixtral, olmoe, qwen2, qwen2_moe, qwen3_moe
from .config import Config
from .family import Cut, Family, Gguf, Weights

__all__ = ["FAMILIES", "Config", "Cut", "Family", "Gguf", "Weights", "family_of_config", "family_of_gguf"]

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    mistral.FAMILY,
    mixtral.FAMILY,
    olmoe.FAMILY,
    qwen2.FAMILY,
    qwen2_moe.FAMILY,
    qwen3_moe.FAMILY,
    gpt2.FAMILY,
    gpt_neo.FAMILY,
    gpt_neox.FAMILY,
    bert.FAMILY,
)


def family_of_config(fields: dict[str, object], source: str) -> Family:
    """The family of a config.json, by `architectures`, or by `model_type` where that is absent. Never a guess."""
    architectures, model_type = fields.get("architectures"), fields.get("model_type")
    if architectures and not (isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)):
        raise CheckpointError(f"{source}: architectures is {repr(architectures)[:200]}, expected a list of names")
    for family in FAMILIES:
        if architectures and not set(architectures) <= set(family.architectures):  # type: ignore[call-overload]
            continue
        if model_type is not None and model_type != family.name:
            continue
        if architectures or model_type is not None:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.architectures)
    raise unsupported(
        f"{source}: architectures is {repr(architectures)[:200]} and model_type {repr(model_type)[:60]}; "
        f"Lamella has {known}"
    )


def family_of_gguf(architecture: str, source: str) -> tuple[Family, Gguf]:
    """The family of a GGUF file, by `general.architecture`, and how the format has it."""
    named = [(family, family.gguf) for family in FAMILIES if family.gguf is not None]
    for family, gguf in named:
        if gguf.architecture == architecture:
            return family, gguf
    known = ", ".join(gguf.architecture for _, gguf in named)
    raise unsupported(f"{source}: general.architecture is {architecture[:60]!r}; Lamella has {known}")
