"""GGUF files: a shape's random weights in bf16, and llama.cpp's own quantiser for every other type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt
import safetensors
import torch

from .make_hf import packaged_path
from .models import Model
from .vocabulary import byte_pairs

#: By the name of the file, llama.cpp's "file type": what most matrices become; it chooses finer types for a few.
_FILE_TYPES = {
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
    "f16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1,
    "q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}


def packaged(model: Model) -> Path:
    """The GGUF file that a model's package ships."""
    return packaged_path(model)


def quantise(source: Path, path: Path, name: str) -> None:
    """`source` with its matrices as llama.cpp's type `name`."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = _FILE_TYPES[name], 2, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), params) != 0:
        raise RuntimeError(f"llama.cpp could not make {path} from {source}")


def write(model: Model, source: Path, path: Path) -> None:
    """The Hugging Face folder `source`, of a shape, as a bf16 GGUF file."""
    architecture = str(model.config["model_type"])
    out = gguf.GGUFWriter(path, architecture)
    _write_sizes(model, out)
    tokens, merges = byte_pairs(model.vocab)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types([gguf.TokenType.NORMAL] * (model.vocab - 1) + [gguf.TokenType.CONTROL])
    out.add_token_merges(merges)
    out.add_bos_token_id(model.vocab - 1)
    out.add_eos_token_id(model.vocab - 1)
    for name, tensor in _tensors(architecture, source):
        if tensor.ndim == 1 or name.startswith("position_embd"):  # which llama.cpp wants in fp32
            out.add_tensor(name, tensor.float().numpy())
        else:
            words: npt.NDArray[np.uint8] = tensor.contiguous().view(torch.uint8).numpy()
            out.add_tensor(name, words, raw_dtype=gguf.GGMLQuantizationType.BF16)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def _write_sizes(model: Model, out: gguf.GGUFWriter) -> None:
    config = model.config
    out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    out.add_context_length(model.context)
    if config["model_type"] == "llama":
        out.add_block_count(config["num_hidden_layers"])
        out.add_embedding_length(config["hidden_size"])
        out.add_feed_forward_length(config["intermediate_size"])
        out.add_head_count(config["num_attention_heads"])
        out.add_head_count_kv(config["num_key_value_heads"])
        out.add_rope_dimension_count(config["head_dim"])
        out.add_rope_freq_base(10000.0)
        out.add_layer_norm_rms_eps(config["rms_norm_eps"])
        out.add_vocab_size(model.vocab)
    else:
        out.add_block_count(config["n_layer"])
        out.add_embedding_length(config["n_embd"])
        out.add_feed_forward_length(4 * config["n_embd"])
        out.add_head_count(config["n_head"])
        out.add_layer_norm_eps(1e-5)


def _tensors(architecture: str, source: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a Hugging Face folder under GGUF's names; GPT-2's matrices turned to (outputs, inputs).

    Queries and keys are not reordered for llama.cpp's RoPE: random weights are as good in any order.
    """
    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "gpt2": gguf.MODEL_ARCH.GPT2}[architecture]
    names = gguf.get_tensor_name_map(kind, 64)
    for file in sorted(source.glob("*.safetensors")):
        with safetensors.safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                tensor = opened.get_tensor(name)
                stem, _, last = name.rpartition(".")
                target = names.get_name(stem, try_suffixes=())
                if target is None:
                    raise ValueError(f"{file}: tensor {name} has no name in a GGUF file of a {architecture}")
                by_inputs = architecture == "gpt2" and tensor.ndim == 2 and ".c_" in name
                yield f"{target}.{last}", tensor.T if by_inputs else tensor
