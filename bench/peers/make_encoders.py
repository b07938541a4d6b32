"""Encoders for onnxruntime and OpenVINO, by the exporters that their users have."""

from __future__ import annotations

from pathlib import Path

import onnxruntime.quantization
import openvino
import torch
import transformers


class _LastHidden(torch.nn.Module):
    """An encoder as a function of ids alone: one sequence without padding needs no mask."""

    def __init__(self, source: Path) -> None:
        super().__init__()
        self.model = transformers.AutoModel.from_pretrained(
            source, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids).last_hidden_state  # type: ignore[no-any-return]


def _example() -> torch.Tensor:
    return torch.arange(1000, 1128)[None]


def export_onnx(source: Path, path: Path) -> None:
    """The encoder in fp32, as a function of (1, tokens) ids."""
    torch.onnx.export(
        _LastHidden(source),
        (_example(),),
        path,
        input_names=["input_ids"],
        output_names=["hidden"],
        dynamic_axes={"input_ids": {1: "tokens"}, "hidden": {1: "tokens"}},
        dynamo=False,
    )


def quantise_onnx(source: Path, path: Path) -> None:
    """Its matrices in int8, inputs of linears rounded to int8 as they come: onnxruntime's own dynamic quantisation."""
    onnxruntime.quantization.quantize_dynamic(source, path)


def convert_for_openvino(source: Path, folder: Path) -> None:
    """The encoder in OpenVINO's form, its weights in fp32: what they are computed in is chosen when it is opened."""
    converted = openvino.convert_model(
        _LastHidden(source), example_input=_example(), input=[openvino.PartialShape([1, -1])]
    )
    folder.mkdir()
    openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)
