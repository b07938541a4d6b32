"""Makes one file or folder of a model, and what it is made from: python -m peers.make MODEL ARTIFACT FOLDER.

Runs in the environment of the peers. Artifacts:
  hf           a Hugging Face folder: bf16, or what the package has; random weights for a shape; tokenizer beside it
  TYPE.gguf    for llama.cpp and OpenVINO
  ct2-TYPE     for CTranslate2: ct2-int8, ct2-float32
  fp32.onnx, int8.onnx   for onnxruntime; encoders
  openvino     for OpenVINO; encoders
Each is written under another name and renamed, so what is there is whole.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .models import MODELS, Model


def make(model: Model, artifact: str, folder: Path) -> Path:
    """The path of the artifact in the model's folder, made if it is not there."""
    path = folder / artifact
    if path.exists():
        return path
    from . import make_encoders, make_gguf, make_hf

    folder.mkdir(parents=True, exist_ok=True)
    growing = path.with_name("growing-" + path.name)
    if growing.is_dir():
        shutil.rmtree(growing)
    print(f"making {path}", file=sys.stderr, flush=True)
    if artifact == "hf":
        make_hf.write(model, growing)
    elif artifact == "bf16.gguf" and model.config:
        make_gguf.write(model, make(model, "hf", folder), growing)
    elif artifact.endswith(".gguf"):
        source = make(model, "bf16.gguf", folder) if model.config else make_gguf.packaged(model)
        make_gguf.quantise(source, growing, artifact.removesuffix(".gguf"))
    elif artifact.startswith("ct2-"):
        make_hf.convert_for_ctranslate2(make(model, "hf", folder), growing, artifact.removeprefix("ct2-"))
    elif artifact == "fp32.onnx":
        make_encoders.export_onnx(make(model, "hf", folder), growing)
    elif artifact == "int8.onnx":
        make_encoders.quantise_onnx(make(model, "fp32.onnx", folder), growing)
    elif artifact == "openvino":
        make_encoders.convert_for_openvino(make(model, "hf", folder), growing)
    else:
        raise ValueError(f"artifact {artifact!r} is not one that this module makes")
    growing.rename(path)
    return path


if __name__ == "__main__":
    make(MODELS[sys.argv[1]], sys.argv[2], Path(sys.argv[3]))
