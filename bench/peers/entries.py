"""Who runs what: every engine with every type of weights that it has, by the class in which it competes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .models import Model

LAMELLA = "lamella"
#: By the engine's name, the module of its adaptor.
MODULES = {
    LAMELLA: "engine_lamella",
    "llama.cpp": "engine_llama_cpp",
    "openvino": "engine_openvino",
    "ctranslate2": "engine_ctranslate2",
    "transformers": "engine_transformers",
    "onnxruntime": "engine_onnxruntime",
}
#: Bits a weight with its scales: what competes with what.
CLASSES = {"16": "16 bits", "8": "8.0 to 8.5 bits", "4": "4.0 to 5.0 bits", "32": "32 bits"}


@dataclass(frozen=True)
class Entry:
    """A line of the table. `memory` is the peak in sizes of the artifact, as seen with Llama-3.2-1B, rounded up."""

    engine: str
    label: str
    bits: str  # a key of CLASSES
    artifact: str  # see `make`
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    memory: float = 1.5
    arithmetic: str = ""  # of Lamella: the peak that bounds it

    @property
    def name(self) -> str:
        """How the table and the results call it."""
        return f"{self.engine} {self.label}"


def _lamella(label: str, bits: str, arithmetic: str, memory: float, **options: Any) -> Entry:
    return Entry(LAMELLA, label, bits, "hf", options, memory, arithmetic)


_LAMELLA = (
    _lamella("bf16", "16", "bf16", 1.3, dtype="bfloat16", quantization="dequantize"),
    _lamella("int8", "8", "int8", 1.3, dtype="bfloat16", quantization="int8"),
    _lamella("int4", "4", "bf16", 1.3, dtype="bfloat16", quantization="int4"),
    _lamella("int4_a8", "4", "int8", 1.3, dtype="bfloat16", quantization="int4_a8"),
    _lamella("fp32", "32", "f32", 2.3, dtype="float32", quantization="dequantize"),
)
#: Of decoders, with their heads in the format of the rest, as in many peers' files.
_LAMELLA_HEADS = (
    _lamella("int8, head too", "8", "int8", 1.3, dtype="bfloat16", quantization="int8", quantize_head=True),
    _lamella("int4_a8, head too", "4", "int8", 1.3, dtype="bfloat16", quantization="int4_a8", quantize_head=True),
)
_LLAMA_CPP = (("BF16", "16", 1.2), ("Q8_0", "8", 1.3), ("Q4_0", "4", 2.2), ("Q4_1", "4", 2.2), ("Q4_K_M", "4", 2.2))
_DECODER_PEERS = (
    *(Entry("llama.cpp", label, bits, f"{label.lower()}.gguf", {}, memory) for label, bits, memory in _LLAMA_CPP),
    Entry("llama.cpp", "F32", "32", "f32.gguf", {}, 1.2),
    Entry("openvino", "F16 as bf16", "16", "f16.gguf", {"INFERENCE_PRECISION_HINT": "bf16"}, 3.4),
    Entry("openvino", "Q8_0", "8", "q8_0.gguf", {}, 3.3),
    Entry("openvino", "Q4_0", "4", "q4_0.gguf", {}, 3.8),
    Entry("openvino", "Q4_1", "4", "q4_1.gguf", {}, 3.8),
    Entry("openvino", "F16 as fp32", "32", "f16.gguf", {"INFERENCE_PRECISION_HINT": "f32"}, 5.4),
    Entry("ctranslate2", "int8", "8", "ct2-int8", {"compute_type": "int8"}, 2.8),
    Entry("ctranslate2", "float32", "32", "ct2-float32", {"compute_type": "float32"}, 1.6),
    Entry("transformers", "bfloat16", "16", "hf", {"dtype": "bfloat16"}, 1.6),
    Entry("transformers", "float32", "32", "hf", {"dtype": "float32"}, 3.1),
)
_ENCODER_PEERS = (
    Entry("openvino", "bf16", "16", "openvino", {"INFERENCE_PRECISION_HINT": "bf16"}, 3),
    Entry("openvino", "fp32", "32", "openvino", {"INFERENCE_PRECISION_HINT": "f32"}, 3),
    Entry("onnxruntime", "int8", "8", "int8.onnx", {}, 4),
    Entry("onnxruntime", "fp32", "32", "fp32.onnx", {}, 3),
    Entry("ctranslate2", "int8", "8", "ct2-int8", {"compute_type": "int8"}, 4),
    Entry("ctranslate2", "float32", "32", "ct2-float32", {"compute_type": "float32"}, 3),
    Entry("transformers", "bfloat16", "16", "hf", {"dtype": "bfloat16"}, 4),
    Entry("transformers", "float32", "32", "hf", {"dtype": "float32"}, 5),
)
#: What an engine does not have, said once below the tables.
ABSENT = {
    "llama.cpp": "its library has encoders, but they are not compared here",
    "openvino": "of GGUF files it reads Llamas and Qwens, so not GPT-2; its encoders in int8 need a further package",
    "ctranslate2": "no bf16 and no 4 bits on CPUs",
    "transformers": "8 and 4 bits need further packages",
    "onnxruntime": "encoders only",
}


def entries(model: Model, engines: Collection[str], classes: Collection[str]) -> list[Entry]:
    """The entries of a model among the chosen engines and classes; in a class Lamella's own come first."""
    if model.is_encoder:
        own = [entry for entry in _LAMELLA if entry.bits != "4"]
        peers = list(_ENCODER_PEERS)
    else:
        own = [*_LAMELLA, *_LAMELLA_HEADS]
        peers = [entry for entry in _DECODER_PEERS if _runs(entry, model)]
    return [entry for entry in own + peers if entry.engine in engines and entry.bits in classes]


def _runs(entry: Entry, model: Model) -> bool:
    if entry.engine == "openvino" and not model.is_llama:
        return False
    kind, _, ending = entry.artifact.rpartition(".")
    return ending != "gguf" or kind in ("bf16", *model.formats)
