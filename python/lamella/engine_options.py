"""The options of an engine: checked here, once, and turned into the core's terms."""

from __future__ import annotations

from dataclasses import dataclass

from . import _core
from .checks import check_flag, one_of, shown, whole_number
from .errors import InvalidArgumentError

_DTYPES = {
    "float32": _core.DataType.float32,
    "fp32": _core.DataType.float32,
    "float16": _core.DataType.float16,
    "fp16": _core.DataType.float16,
    "bfloat16": _core.DataType.bfloat16,
    "bf16": _core.DataType.bfloat16,
}
_KV_DTYPES = {**_DTYPES, "int8": _core.DataType.int8}
#: Presets that have formats of their own for the head, if asked.
_WITH_HEAD = ("int8", "int4", "int4_a8")
QUANTIZATIONS = ("dequantize", "int8_weight_only", "int8", "int4", "int4_a8")
PIPELINE_SCHEDULES = ("hybrid", "single", "training")
_BYTE_UNITS = {
    "": 1,
    "B": 1,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


@dataclass(frozen=True)
class EngineOptions:
    """The options of `Engine`, checked. This is the one place for their defaults, which `Engine` documents."""

    device: str = "auto"
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    smoothing: bool = True
    quantize_head: bool = False
    memory_budget: int | str | None = None
    kv_cache_memory: int | str | None = None
    prefix_caching: bool = True
    max_num_seqs: int = 32
    max_model_len: int | None = None
    max_num_batched_tokens: int = 512
    threads: int | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    pipeline_schedule: str = "hybrid"
    prompt_micro_batches: int | None = None
    generation_micro_batches: int | None = None
    seed: int = 0
    deep_fusion: bool = True
    sbi_gemm: bool = True
    kernels: str | None = None

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu"))
        one_of("dtype", self.dtype, ("auto", *_DTYPES))
        one_of("kv_cache_dtype", self.kv_cache_dtype, ("auto", *_KV_DTYPES))
        one_of("quantization", self.quantization, (None, *QUANTIZATIONS))
        one_of("pipeline_schedule", self.pipeline_schedule, PIPELINE_SCHEDULES)
        for name in ("max_num_seqs", "max_num_batched_tokens", "tensor_parallel_size", "pipeline_parallel_size"):
            self._keep(name, whole_number(name, getattr(self, name), -(2**31), 2**31 - 1))
        for name in ("max_model_len", "threads", "prompt_micro_batches", "generation_micro_batches"):
            if (value := getattr(self, name)) is not None:
                self._keep(name, whole_number(name, value, -(2**31), 2**31 - 1))
                if getattr(self, name) == 0:
                    raise InvalidArgumentError(f"{name} is 0; expected at least 1, or None")  # 0 is the core's None
        for name in ("memory_budget", "kv_cache_memory"):
            if (size := getattr(self, name)) is not None:
                self._keep(name, parse_bytes(size, name))
        self._keep("seed", whole_number("seed", self.seed, 0, 2**64 - 1))
        for name in ("smoothing", "quantize_head", "deep_fusion", "sbi_gemm", "prefix_caching"):
            check_flag(name, getattr(self, name))
        if not self.smoothing and self.quantization != "int8":
            raise InvalidArgumentError(
                f"smoothing=False goes with quantization 'int8'; quantization is {self.quantization!r}"
            )
        if self.quantize_head and self.quantization not in _WITH_HEAD:
            raise InvalidArgumentError(
                f"quantize_head goes with quantization {', '.join(_WITH_HEAD)}; quantization is {self.quantization!r}"
            )
        if not isinstance(self.kernels, str | None):
            raise InvalidArgumentError(f"kernels is {shown(self.kernels)}; expected the name of a kernel set")

    def _keep(self, name: str, value: object) -> None:
        """Stores what a check made of an option: a plain int of any kind of integer, bytes of a size."""
        object.__setattr__(self, name, value)

    def resolved_dtype(self, stored_dtype: str) -> _core.DataType:
        """The dtype; `stored_dtype` decides what "auto" means."""
        return resolve_dtype(self.dtype, stored_dtype)

    @property
    def resolved_kv_cache_dtype(self) -> _core.DataType | None:
        """The type in which the KV cache holds K and V; None is the dtype."""
        return None if self.kv_cache_dtype == "auto" else _KV_DTYPES[self.kv_cache_dtype]

    def format_options(self, dtype: _core.DataType) -> _core.FormatOptions:
        """What the weights' formats are chosen by."""
        return _core.FormatOptions(
            quantization=self.quantization or "none",
            dtype=dtype,
            smoothing=self.smoothing,
            quantize_head=self.quantize_head,
        )

    def config(self, dtype: _core.DataType, weight_formats: list[_core.WeightFormat]) -> _core.EngineConfig:
        """The core's configuration."""
        return _core.EngineConfig(
            dtype=dtype,
            kv_cache_dtype=self.resolved_kv_cache_dtype,
            weight_formats=weight_formats,
            deep_fusion=self.deep_fusion,
            sbi_gemm=self.sbi_gemm,
            max_num_seqs=self.max_num_seqs,
            max_model_len=self.max_model_len or 0,
            max_num_batched_tokens=self.max_num_batched_tokens,
            memory_budget=None if self.memory_budget is None else parse_bytes(self.memory_budget, "memory_budget"),
            kv_cache_memory=None
            if self.kv_cache_memory is None
            else parse_bytes(self.kv_cache_memory, "kv_cache_memory"),
            prefix_caching=self.prefix_caching,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            pipeline_schedule=self.pipeline_schedule,
            prompt_micro_batches=self.prompt_micro_batches or 0,
            generation_micro_batches=self.generation_micro_batches or 0,
        )


def resolve_dtype(dtype: str, stored_dtype: str) -> _core.DataType:
    """The dtype of activations and unquantised weights, and of the KV cache where that has none of its own.

    "auto": float32 for a float32 checkpoint, otherwise bfloat16.
    """
    one_of("dtype", dtype, ("auto", *_DTYPES))
    if dtype == "auto":
        return _core.DataType.float32 if stored_dtype in ("float32", "float64") else _core.DataType.bfloat16
    return _DTYPES[dtype]


def parse_bytes(size: int | str, name: str) -> int:
    """Bytes of a size such as 2147483648, "2GiB" or "1.5 GB". Errors: `InvalidArgumentError` naming `name`."""
    if not isinstance(size, str):
        return whole_number(name, size, 1, 2**63 - 1)
    text = size.strip()
    digits = len(text) - len(text.lstrip("0123456789."))
    unit = text[digits:].strip().upper()
    try:
        number = float(text[:digits])
    except ValueError:
        number = -1.0
    if unit not in _BYTE_UNITS or not 1 <= (amount := number * _BYTE_UNITS[unit]) < 2**63:
        raise InvalidArgumentError(f"{name} is {shown(size)}; expected bytes or a size such as 512MiB")
    return int(amount)
