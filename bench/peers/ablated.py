"""What bench/ablation.py compares: one model in one format, with the paper's steps from the plain plan to SBI-GeMM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .entries import LAMELLA, Entry

TORCH = "transformers"
#: A shape with random weights: every engine draws its own.
ARTIFACT = "config.json"


@dataclass(frozen=True)
class Format:
    """A format of weights: Lamella's options for it, the peak that bounds it, and torch's nearest type."""

    name: str
    dtype: str
    quantization: str | None
    arithmetic: str
    size: float  # beside bf16

    @property
    def torch_size(self) -> float:
        """Of the weights in the dtype, beside bf16."""
        return 2.0 if self.dtype == "float32" else 1.0


FORMATS = {
    each.name: each
    for each in (
        Format("bf16", "bfloat16", None, "bf16", 1.0),
        Format("int8", "bfloat16", "int8", "int8", 0.52),
        Format("int4", "bfloat16", "int4", "bf16", 0.35),
        Format("int4_a8", "bfloat16", "int4_a8", "int8", 0.35),
        Format("fp32", "float32", None, "f32", 2.0),
    )
}
#: Lamella's steps, and what each leaves out.
STEPS: Mapping[str, Mapping[str, Any]] = {
    "unfused, blocked GeMM": {"deep_fusion": False, "sbi_gemm": False},
    "Deep-Fusion, blocked GeMM": {"sbi_gemm": False},
    "Deep-Fusion, SBI-GeMM": {},
}


def lamella_entries(chosen: Format) -> list[Entry]:
    """Lamella's steps, in order; `bits` is the format's name."""
    options = {"dtype": chosen.dtype, "quantization": chosen.quantization}
    return [
        Entry(
            LAMELLA,
            _label(step, chosen),
            chosen.name,
            ARTIFACT,
            {**options, **left_out},
            memory=1.1 * chosen.size,
            arithmetic=chosen.arithmetic,
        )
        for step, left_out in STEPS.items()
    ]


def torch_entry(chosen: Format) -> Entry:
    """The paper's baseline: unfused PyTorch. It has no format below 16 bits without further packages."""
    label = _label(f"eager {chosen.dtype}", chosen)
    return Entry(TORCH, label, chosen.name, ARTIFACT, {"dtype": chosen.dtype}, memory=1.4 * chosen.torch_size)


def _label(text: str, chosen: Format) -> str:
    """Entries of one model have one name each."""
    return f"{chosen.name}: {text}"
