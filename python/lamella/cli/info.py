"""Without MODEL: the processor, the cores that this process may use, the kernel sets it can run, free memory, and the
measured read bandwidth and fp32 peak. With MODEL or --shape also what the model is and what it would take in memory;
only the headers of its files are read. With --tensor-parallel-size or --pipeline-parallel-size also the ranks, each
with its part and its stage. Of a packed store also what it was packed from, for which dtype, and its digest;
--verify reads every byte of it and ends with exit code 3 where one is damaged, naming the segment.

--json prints {"version", "machine": {...}} and "model": {...} where one is named, with "store": {...} for a store, and
"ranks": [{"rank", "tensor", "pipeline"}] where there are several."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from lamella import __version__, _core
from lamella.errors import InvalidArgumentError
from lamella.progress import bytes_text, told_of_bytes

from .conversions import conversion_lines, conversions
from .opening import Named, measured_bandwidth, named
from .options import ENGINE, add_engine_options, add_model, check_model
from .output import one_line, print_json, quantity_text
from .parser import Parser, UsageError

if TYPE_CHECKING:
    from lamella.checkpoint import Checkpoint

_KV_BLOCK = 16  # tokens
_MEANINGFUL = (
    *("dtype", "kv_cache_dtype", "quantization", "smoothing", "quantize_head"),
    *("max_num_seqs", "max_model_len", "threads", "tensor_parallel_size", "pipeline_parallel_size"),
)


def add_arguments(parser: Parser) -> None:
    """MODEL or --shape, and the options that change what is shown."""
    add_model(parser, shape=True)
    parser.add_argument("--verify", action="store_true", help="read and check every byte of a packed store")
    add_engine_options(parser, without=tuple(option.keyword for option in ENGINE if option.keyword not in _MEANINGFUL))


def run(args: argparse.Namespace) -> int:
    """Prints what there is."""
    check_model(args, "lamella info", needed=False)
    if args.verify and args.model is None:
        raise UsageError("--verify checks a packed store: name one", "lamella info")
    # Damage is told before the machine is measured.
    model = _model(args) if args.model is not None or args.shape is not None else None
    facts: dict[str, Any] = {"version": __version__, "machine": _machine(args.threads)}
    if model is not None:
        facts["model"] = model
    sizes = (args.tensor_parallel_size or 1, args.pipeline_parallel_size or 1)
    if sizes != (1, 1):
        facts["ranks"] = [
            {"rank": rank, "tensor": part, "pipeline": stage}
            for rank, (part, stage) in enumerate(_core.rank_groups(*sizes))
        ]
    if args.json:
        print_json(facts)
    else:
        print(_as_text(facts))
        if "ranks" in facts:
            print("\n" + _core.topology_table(*sizes).rstrip())
    return 0


def _machine(threads: int | None) -> dict[str, Any]:
    cores = _core.usable_cores()
    read = measured_bandwidth(threads or cores)
    return {
        "processor": _core.processor_name(),
        "usable_cores": cores,
        "threads": threads or cores,
        "kernel_sets": _core.kernel_sets(),
        "memory_available_bytes": _core.available_memory(),
        "read_GBps": None if read is None else read / 1e9,
        "peak_GFLOPs": _core.measure_peak("f32", threads or cores) / 1e9,
    }


def _model(args: argparse.Namespace) -> dict[str, Any]:
    model = named(args)
    _core.require_layout(model.spec, args.tensor_parallel_size or 1, args.pipeline_parallel_size or 1)
    layer = model.spec.layers[0]
    facts: dict[str, Any] = {
        "name": model.name,
        "family": model.spec.family,
        "kind": "encoder" if model.is_encoder else "decoder",
        "parameters": _core.parameter_count(model.spec),
        "layers": len(model.spec.layers),
        "hidden": model.spec.hidden,
        "heads": layer.attention.heads,
        "kv_heads": layer.attention.kv_heads,
        "head_dim": layer.attention.head_dim,
        "intermediate": layer.mlp.intermediate,
        "vocab": model.spec.vocab,
        "context": model.spec.max_positions,
    }
    if model.checkpoint is not None:
        facts |= _files(model.checkpoint)
        facts["weights"] = conversions(model.choices)
        if (store := _store(model.checkpoint, args.verify)) is not None:
            facts["store"] = store
    return facts | {"memory": _memory(model, args.max_model_len, args.max_num_seqs or 1)}


def _files(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the files hold: tensors and bytes by stored type, tokenizer, template."""
    tokenizer = checkpoint.tokenizer
    return {
        "files": [str(file) for file in checkpoint.weights.files],
        "stored": {
            kind: {"tensors": tensors, "bytes": size} for kind, (tensors, size) in checkpoint.weights.stored().items()
        },
        "tokenizer": None if tokenizer is None else {"tokens": tokenizer.vocab_size},
        "chat_template": checkpoint.chat_template is not None,
    }


def _store(checkpoint: Checkpoint, verify: bool) -> dict[str, Any] | None:
    """What a packed store says about itself, and with `verify` that it is sound; None for other models.

    Errors: `CheckpointError` naming the first damaged segment; `InvalidArgumentError` where there is nothing to verify.
    """
    from lamella.model_weights import StoreWeights

    if not isinstance(checkpoint.weights, StoreWeights):
        if verify:
            raise InvalidArgumentError(
                f"--verify: {checkpoint.path} is no packed store, and only those carry checksums of all their bytes; "
                "`lamella pack` writes one"
            )
        return None
    store = checkpoint.weights.store
    if verify:
        with told_of_bytes(None, "verifying") as told:
            store.verify(told)
    return {
        "bytes": store.file_bytes,
        "layout": store.layout,
        "dtype": store.dtype.name,
        "digest": store.digest,
        "source": store.source,
        "segments": len(store.segments()),
        "verified": verify,
    }


def _memory(model: Named, max_model_len: int | None, sequences: int) -> dict[str, Any]:
    """Bytes that an engine of this dtype and context would hold; activations come on top."""
    spec = model.spec
    context = max_model_len or spec.max_positions
    if context > spec.max_positions:
        raise InvalidArgumentError(f"max_model_len is {context}; expected 1 to {spec.max_positions}")
    kv_token = 0 if model.is_encoder else _core.kv_bytes_per_token(spec, model.dtype, model.kv_cache_dtype)
    return {
        "dtype": model.dtype.name,
        "weights_bytes": _core.resident_bytes(spec, model.formats),
        "kv_bytes_per_token": kv_token,
        "max_model_len": context,
        "max_num_seqs": sequences,
        "kv_bytes": sequences * math.ceil(context / _KV_BLOCK) * _KV_BLOCK * kv_token,
    }


def _as_text(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    read = machine["read_GBps"]
    lines = [
        ("lamella", facts["version"]),
        ("processor", machine["processor"]),
        ("usable cores", str(machine["usable_cores"])),
        ("kernel sets", ", ".join(machine["kernel_sets"])),
        ("free memory", bytes_text(machine["memory_available_bytes"])),
        (
            "reads memory at",
            "not measured: 1 GiB is not free" if read is None else f"{read:.1f} GB/s ({machine['threads']} threads)",
        ),
        ("computes at", f"{machine['peak_GFLOPs']:.0f} GFLOP/s in fp32 ({machine['threads']} threads)"),
    ]
    if "model" in facts:
        lines += [("", ""), *_model_lines(facts["model"])]
    return "\n".join(f"{name:18}{value}".rstrip() for name, value in lines)


def _store_lines(store: dict[str, Any]) -> list[tuple[str, str]]:
    checked = ", every byte checked" if store["verified"] else ""
    return [
        ("packed store", f"{bytes_text(store['bytes'])} in {store['segments']} segments{checked}"),
        ("packed for", f"{store['dtype']}, layout {store['layout']}"),
        *(("packed from", one_line(f"{name}: {text}")) for name, text in sorted(store["source"].items())),
        ("digest", store["digest"]),
    ]


def _model_lines(model: dict[str, Any]) -> list[tuple[str, str]]:
    memory = model["memory"]
    lines = [
        ("model", model["name"]),
        ("family", f"{model['family']} ({model['kind']})"),
        ("parameters", f"{quantity_text(model['parameters'])} ({model['parameters']})"),
        ("layers", f"{model['layers']} of hidden {model['hidden']}, intermediate {model['intermediate']}"),
        ("heads", f"{model['heads']}, {model['kv_heads']} for K and V, of {model['head_dim']}"),
        ("vocabulary", str(model["vocab"])),
        ("context", f"{model['context']} tokens"),
    ]
    held = [
        (kind, f"{tensors['tensors']} tensors, {bytes_text(tensors['bytes'])}")
        for kind, tensors in model.get("stored", {}).items()
    ]
    if "store" in model:  # whose weights are kept
        lines += _store_lines(model["store"])
        lines += [("holds", f"{kind}: {size}") for kind, size in held]
    else:
        lines += [(f"stored as {kind}", size) for kind, size in held]
        lines += conversion_lines(model.get("weights", []))
    if "tokenizer" in model:
        tokenizer = model["tokenizer"]
        template = "with" if model["chat_template"] else "without"
        lines.append(
            ("tokenizer", "none" if tokenizer is None else f"{tokenizer['tokens']} tokens, {template} chat template")
        )
    lines.append(("weights in memory", f"{bytes_text(memory['weights_bytes'])}, computing in {memory['dtype']}"))
    if memory["kv_bytes_per_token"]:
        whole = f"{memory['max_num_seqs']} x {memory['max_model_len']} tokens"
        lines.append(
            (
                "KV cache",
                f"{bytes_text(memory['kv_bytes_per_token'])} a token, {bytes_text(memory['kv_bytes'])} for {whole}",
            )
        )
    return lines
