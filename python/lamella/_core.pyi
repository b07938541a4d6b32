"""
The compiled core of lamella. Use the package's own functions; this module's surface may change.
"""

from collections.abc import Callable, Mapping, Sequence
import enum
import os
import pathlib
from typing import Annotated

import numpy
import numpy.typing
from numpy.typing import NDArray


version: str = '0.1.0'

class TensorTable:
    """
    The tensors of an open checkpoint: names, types, shapes and where their bytes lie.
    """

    @staticmethod
    def open(path: str | os.PathLike[str]) -> TensorTable:
        """
        Open a model folder, a .safetensors, index or .gguf file; reads headers only.
        """

    def names(self) -> list[str]:
        """Names of all tensors, sorted by their UTF-8 bytes."""

    def entry(self, name: str) -> tuple[str, tuple[int, ...], str, int, int]:
        """
        (storage type, shape outermost first, file path, offset in the file, bytes) of a tensor.
        """

    def read_f32(self, name: str) -> NDArray[numpy.float32]:
        """
        The tensor as a new float32 array of its shape; quantised blocks are expanded.
        """

    @property
    def metadata(self) -> dict[str, object]:
        """The container's key-values, converted anew at each call."""

    def __len__(self) -> int: ...

    def __contains__(self, arg: str, /) -> bool: ...

def open_checkpoint(path: str | os.PathLike[str]) -> TensorTable:
    """As TensorTable.open."""

def check_model_file(folder: str | os.PathLike[str], name: str) -> pathlib.Path:
    """
    The real path of a file of a model folder; raises CheckpointError when it is missing, its name is not plain, or a link leads out.
    """

def parse_safetensors_header(head: bytes, file_size: int, file: str = 'memory') -> TensorTable:
    """Parse a safetensors header from the first bytes of a file."""

def parse_safetensors_index(text: bytes, file: str = 'memory') -> dict[str, str]:
    """Parse model.safetensors.index.json: the shard of each tensor."""

def parse_gguf(head: bytes, file_size: int, file: str = 'memory') -> TensorTable:
    """
    Parse the head of a GGUF file; InvalidArgumentError when `head` is too short a piece of it.
    """

class NormKind(enum.Enum):
    none = 0

    layer_norm = 1

    rms_norm = 2

class RopeScaling(enum.Enum):
    none = 0

    linear = 1

    dynamic_ntk = 2

    yarn = 3

    longrope = 4

    llama3 = 5

class PositionKind(enum.Enum):
    none = 0

    learned = 1

    rotary = 2

class Activation(enum.Enum):
    none = 0

    gelu = 1

    gelu_tanh = 2

    relu = 3

    silu = 4

    tanh = 5

    quick_gelu = 6

class RouterKind(enum.Enum):
    softmax_top_k = 0

    softmax_top_k_renormalised = 1

    sigmoid_with_bias = 2

    top_1 = 3

class Residual(enum.Enum):
    sequential = 0

    parallel = 1

    post_norm = 2

class HeadKind(enum.Enum):
    logits = 0

    hidden = 1

class NormSpec:
    """LayerNorm or RMSNorm over the last dimension."""

    def __init__(self, *, kind: NormKind = NormKind.none, eps: float = 9.999999747378752e-06, bias: bool = False) -> None: ...

    @property
    def kind(self) -> NormKind: ...

    @kind.setter
    def kind(self, arg: NormKind, /) -> None: ...

    @property
    def eps(self) -> float: ...

    @eps.setter
    def eps(self, arg: float, /) -> None: ...

    @property
    def bias(self) -> bool: ...

    @bias.setter
    def bias(self, arg: bool, /) -> None: ...

    def __repr__(self) -> str: ...

    def __eq__(self, other: object, /) -> bool: ...

class RopeSpec:
    """
    Rotary positions of the first `rotary_dim` elements of each head, with their scaling.
    """

    def __init__(self, *, rotary_dim: int = 0, theta: float = 10000.0, scaling: RopeScaling = RopeScaling.none, factor: float = 1.0, original_max_positions: int = 0, beta_fast: float = 32.0, beta_slow: float = 1.0, truncate: bool = True, low_freq_factor: float = 1.0, high_freq_factor: float = 4.0, short_factor: Sequence[float] = [], long_factor: Sequence[float] = [], attention_factor: float | None = None, mscale: float = 0.0, mscale_all_dim: float = 0.0) -> None: ...

    @property
    def rotary_dim(self) -> int: ...

    @rotary_dim.setter
    def rotary_dim(self, arg: int, /) -> None: ...

    @property
    def theta(self) -> float: ...

    @theta.setter
    def theta(self, arg: float, /) -> None: ...

    @property
    def scaling(self) -> RopeScaling: ...

    @scaling.setter
    def scaling(self, arg: RopeScaling, /) -> None: ...

    @property
    def factor(self) -> float: ...

    @factor.setter
    def factor(self, arg: float, /) -> None: ...

    @property
    def original_max_positions(self) -> int: ...

    @original_max_positions.setter
    def original_max_positions(self, arg: int, /) -> None: ...

    @property
    def beta_fast(self) -> float: ...

    @beta_fast.setter
    def beta_fast(self, arg: float, /) -> None: ...

    @property
    def beta_slow(self) -> float: ...

    @beta_slow.setter
    def beta_slow(self, arg: float, /) -> None: ...

    @property
    def truncate(self) -> bool: ...

    @truncate.setter
    def truncate(self, arg: bool, /) -> None: ...

    @property
    def low_freq_factor(self) -> float: ...

    @low_freq_factor.setter
    def low_freq_factor(self, arg: float, /) -> None: ...

    @property
    def high_freq_factor(self) -> float: ...

    @high_freq_factor.setter
    def high_freq_factor(self, arg: float, /) -> None: ...

    @property
    def short_factor(self) -> list[float]: ...

    @short_factor.setter
    def short_factor(self, arg: Sequence[float], /) -> None: ...

    @property
    def long_factor(self) -> list[float]: ...

    @long_factor.setter
    def long_factor(self, arg: Sequence[float], /) -> None: ...

    @property
    def attention_factor(self) -> float | None: ...

    @attention_factor.setter
    def attention_factor(self, arg: float | None, /) -> None: ...

    @property
    def mscale(self) -> float: ...

    @mscale.setter
    def mscale(self, arg: float, /) -> None: ...

    @property
    def mscale_all_dim(self) -> float: ...

    @mscale_all_dim.setter
    def mscale_all_dim(self, arg: float, /) -> None: ...

    def __repr__(self) -> str: ...

    def __eq__(self, other: object, /) -> bool: ...

class AttentionSpec:
    """Multi-head attention with grouped key and value heads."""

    def __init__(self, *, heads: int = 0, kv_heads: int = 0, head_dim: int = 0, scale: float = 0.0, causal: bool = True, qkv_bias: bool = False, output_bias: bool = False, rope: RopeSpec | None = None, query_norm: NormSpec = ..., key_norm: NormSpec = ..., window: int = 0, logit_softcap: float = 0.0, norm_across_heads: bool = False) -> None: ...

    @property
    def heads(self) -> int: ...

    @heads.setter
    def heads(self, arg: int, /) -> None: ...

    @property
    def kv_heads(self) -> int: ...

    @kv_heads.setter
    def kv_heads(self, arg: int, /) -> None: ...

    @property
    def head_dim(self) -> int: ...

    @head_dim.setter
    def head_dim(self, arg: int, /) -> None: ...

    @property
    def scale(self) -> float: ...

    @scale.setter
    def scale(self, arg: float, /) -> None: ...

    @property
    def causal(self) -> bool: ...

    @causal.setter
    def causal(self, arg: bool, /) -> None: ...

    @property
    def qkv_bias(self) -> bool: ...

    @qkv_bias.setter
    def qkv_bias(self, arg: bool, /) -> None: ...

    @property
    def output_bias(self) -> bool: ...

    @output_bias.setter
    def output_bias(self, arg: bool, /) -> None: ...

    @property
    def rope(self) -> RopeSpec | None: ...

    @rope.setter
    def rope(self, arg: RopeSpec | None, /) -> None: ...

    @property
    def query_norm(self) -> NormSpec: ...

    @query_norm.setter
    def query_norm(self, arg: NormSpec, /) -> None: ...

    @property
    def key_norm(self) -> NormSpec: ...

    @key_norm.setter
    def key_norm(self, arg: NormSpec, /) -> None: ...

    @property
    def window(self) -> int: ...

    @window.setter
    def window(self, arg: int, /) -> None: ...

    @property
    def logit_softcap(self) -> float: ...

    @logit_softcap.setter
    def logit_softcap(self, arg: float, /) -> None: ...

    @property
    def norm_across_heads(self) -> bool: ...

    @norm_across_heads.setter
    def norm_across_heads(self, arg: bool, /) -> None: ...

    def __repr__(self) -> str: ...

class ExpertsSpec:
    """
    Mixture of experts in place of a layer's MLP, of whose kind each expert is.
    """

    def __init__(self, *, count: int = 0, top_k: int = 0, intermediate: int = 0, router: RouterKind = RouterKind.softmax_top_k, scale: float = 1.0, shared_intermediate: int = 0, shared_gate: bool = False) -> None: ...

    @property
    def count(self) -> int: ...

    @count.setter
    def count(self, arg: int, /) -> None: ...

    @property
    def top_k(self) -> int: ...

    @top_k.setter
    def top_k(self, arg: int, /) -> None: ...

    @property
    def intermediate(self) -> int: ...

    @intermediate.setter
    def intermediate(self, arg: int, /) -> None: ...

    @property
    def router(self) -> RouterKind: ...

    @router.setter
    def router(self, arg: RouterKind, /) -> None: ...

    @property
    def scale(self) -> float: ...

    @scale.setter
    def scale(self, arg: float, /) -> None: ...

    @property
    def shared_intermediate(self) -> int: ...

    @shared_intermediate.setter
    def shared_intermediate(self, arg: int, /) -> None: ...

    @property
    def shared_gate(self) -> bool: ...

    @shared_gate.setter
    def shared_gate(self, arg: bool, /) -> None: ...

    def __repr__(self) -> str: ...

class MlpSpec:
    """down(act(up(x))), or down(act(gate(x)) * up(x)) when gated."""

    def __init__(self, *, intermediate: int = 0, activation: Activation = Activation.gelu, gated: bool = False, up_bias: bool = False, down_bias: bool = False, experts: ExpertsSpec | None = None) -> None: ...

    @property
    def intermediate(self) -> int: ...

    @intermediate.setter
    def intermediate(self, arg: int, /) -> None: ...

    @property
    def activation(self) -> Activation: ...

    @activation.setter
    def activation(self, arg: Activation, /) -> None: ...

    @property
    def gated(self) -> bool: ...

    @gated.setter
    def gated(self, arg: bool, /) -> None: ...

    @property
    def up_bias(self) -> bool: ...

    @up_bias.setter
    def up_bias(self, arg: bool, /) -> None: ...

    @property
    def down_bias(self) -> bool: ...

    @down_bias.setter
    def down_bias(self, arg: bool, /) -> None: ...

    @property
    def experts(self) -> ExpertsSpec | None: ...

    @experts.setter
    def experts(self, arg: ExpertsSpec | None, /) -> None: ...

    def __repr__(self) -> str: ...

class LayerSpec:
    """One transformer layer."""

    def __init__(self, *, residual: Residual = Residual.sequential, attention_norm: NormSpec = ..., attention: AttentionSpec = ..., mlp_norm: NormSpec = ..., mlp: MlpSpec = ...) -> None: ...

    @property
    def residual(self) -> Residual: ...

    @residual.setter
    def residual(self, arg: Residual, /) -> None: ...

    @property
    def attention_norm(self) -> NormSpec: ...

    @attention_norm.setter
    def attention_norm(self, arg: NormSpec, /) -> None: ...

    @property
    def attention(self) -> AttentionSpec: ...

    @attention.setter
    def attention(self, arg: AttentionSpec, /) -> None: ...

    @property
    def mlp_norm(self) -> NormSpec: ...

    @mlp_norm.setter
    def mlp_norm(self, arg: NormSpec, /) -> None: ...

    @property
    def mlp(self) -> MlpSpec: ...

    @mlp.setter
    def mlp(self, arg: MlpSpec, /) -> None: ...

    def __repr__(self) -> str: ...

class EmbeddingSpec:
    """What turns token ids into the first layer's input."""

    def __init__(self, *, positions: PositionKind = PositionKind.none, position_rows: int = 0, position_offset: int = 0, token_types: int = 0, norm: NormSpec = ..., scale: float = 1.0) -> None: ...

    @property
    def positions(self) -> PositionKind: ...

    @positions.setter
    def positions(self, arg: PositionKind, /) -> None: ...

    @property
    def position_rows(self) -> int: ...

    @position_rows.setter
    def position_rows(self, arg: int, /) -> None: ...

    @property
    def position_offset(self) -> int: ...

    @position_offset.setter
    def position_offset(self, arg: int, /) -> None: ...

    @property
    def token_types(self) -> int: ...

    @token_types.setter
    def token_types(self, arg: int, /) -> None: ...

    @property
    def norm(self) -> NormSpec: ...

    @norm.setter
    def norm(self, arg: NormSpec, /) -> None: ...

    @property
    def scale(self) -> float: ...

    @scale.setter
    def scale(self, arg: float, /) -> None: ...

    def __repr__(self) -> str: ...

class HeadSpec:
    """What the last layer's output turns into."""

    def __init__(self, *, kind: HeadKind = HeadKind.logits, norm: NormSpec = ..., tied: bool = False, bias: bool = False, pooler: bool = False) -> None: ...

    @property
    def kind(self) -> HeadKind: ...

    @kind.setter
    def kind(self, arg: HeadKind, /) -> None: ...

    @property
    def norm(self) -> NormSpec: ...

    @norm.setter
    def norm(self, arg: NormSpec, /) -> None: ...

    @property
    def tied(self) -> bool: ...

    @tied.setter
    def tied(self, arg: bool, /) -> None: ...

    @property
    def bias(self) -> bool: ...

    @bias.setter
    def bias(self, arg: bool, /) -> None: ...

    @property
    def pooler(self) -> bool: ...

    @pooler.setter
    def pooler(self, arg: bool, /) -> None: ...

    def __repr__(self) -> str: ...

class ModelSpec:
    """
    A model as data: everything that its forward pass depends on but the weights.
    """

    def __init__(self, *, family: str = '', vocab: int = 0, hidden: int = 0, max_positions: int = 0, embedding: EmbeddingSpec = ..., layers: Sequence[LayerSpec] = [], head: HeadSpec = ...) -> None: ...

    @property
    def family(self) -> str: ...

    @family.setter
    def family(self, arg: str, /) -> None: ...

    @property
    def vocab(self) -> int: ...

    @vocab.setter
    def vocab(self, arg: int, /) -> None: ...

    @property
    def hidden(self) -> int: ...

    @hidden.setter
    def hidden(self, arg: int, /) -> None: ...

    @property
    def max_positions(self) -> int: ...

    @max_positions.setter
    def max_positions(self, arg: int, /) -> None: ...

    @property
    def embedding(self) -> EmbeddingSpec: ...

    @embedding.setter
    def embedding(self, arg: EmbeddingSpec, /) -> None: ...

    @property
    def layers(self) -> list[LayerSpec]: ...

    @layers.setter
    def layers(self, arg: Sequence[LayerSpec], /) -> None: ...

    @property
    def head(self) -> HeadSpec: ...

    @head.setter
    def head(self, arg: HeadSpec, /) -> None: ...

    def __repr__(self) -> str: ...

class WeightSource:
    """Where one canonical weight comes from in a checkpoint (load_recipe.h)."""

    def __init__(self, *, weight: str = '', tensor: str = '', transposed: bool = False, groups: int = 1, parts: int = 1, part: int = 0, rotary_pair_heads: int = 0) -> None: ...

    @property
    def weight(self) -> str: ...

    @weight.setter
    def weight(self, arg: str, /) -> None: ...

    @property
    def tensor(self) -> str: ...

    @tensor.setter
    def tensor(self, arg: str, /) -> None: ...

    @property
    def transposed(self) -> bool: ...

    @transposed.setter
    def transposed(self, arg: bool, /) -> None: ...

    @property
    def groups(self) -> int: ...

    @groups.setter
    def groups(self, arg: int, /) -> None: ...

    @property
    def parts(self) -> int: ...

    @parts.setter
    def parts(self, arg: int, /) -> None: ...

    @property
    def part(self) -> int: ...

    @part.setter
    def part(self, arg: int, /) -> None: ...

    @property
    def rotary_pair_heads(self) -> int: ...

    @rotary_pair_heads.setter
    def rotary_pair_heads(self, arg: int, /) -> None: ...

    def __repr__(self) -> str: ...

class WeightDeclaration:
    """One weight that a model needs: [rows, columns], vectors one row."""

    @property
    def name(self) -> str:
        """Canonical name, as recipes use it."""

    @property
    def slot(self) -> str: ...

    @property
    def layer(self) -> int:
        """-1 outside the layers."""

    @property
    def expert(self) -> int:
        """-1 outside a mixture's experts."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    @property
    def segment(self) -> str: ...

def declare_weights(spec: ModelSpec) -> list[WeightDeclaration]:
    """Every weight that the model needs, in execution order."""

def parameter_count(spec: ModelSpec) -> int:
    """Number of parameters, tied weights once."""

def validate(spec: ModelSpec) -> None:
    """
    Raises CheckpointError when a field is out of range or contradicts another.
    """

def rope_frequencies(spec: RopeSpec, sequence_length: int) -> tuple[list[float], float]:
    """
    (inverse frequencies in radians per token, factor of cos and sin) for a sequence of that many tokens.
    """

class WeightFormat:
    """How a weight matrix's numbers are written down (weight_format.h)."""

    def __str__(self) -> str: ...

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self) -> int: ...

class FormatOptions:
    """What formats are chosen by (store/choose_formats.h)."""

    def __init__(self, *, quantization: str, dtype: DataType, smoothing: bool = True, quantize_head: bool = False) -> None:
        """`quantization` is a preset's name; "none" keeps what is stored."""

    @property
    def quantization(self) -> str: ...

    @property
    def dtype(self) -> DataType: ...

    @property
    def smoothing(self) -> bool: ...

    @property
    def quantize_head(self) -> bool: ...

class FormatChoice:
    """What becomes of one weight of a checkpoint."""

    @property
    def weight(self) -> str:
        """Canonical name."""

    @property
    def stored(self) -> str:
        """The type in the file, by the container's name."""

    @property
    def format(self) -> WeightFormat: ...

    @property
    def conversion(self) -> str:
        """kept, rounded, converted, quantised or expanded."""

    @property
    def bytes(self) -> int:
        """Bytes that it takes in memory."""

def choose_formats(spec: ModelSpec, recipe: Sequence[WeightSource], tensors: TensorTable, options: FormatOptions) -> list[FormatChoice]:
    """One choice a declared weight, in their order."""

def choose_formats_for_shape(spec: ModelSpec, options: FormatOptions) -> list[WeightFormat]:
    """Formats for a shape without a checkpoint, one a declared weight."""

def resident_bytes(spec: ModelSpec, weight_formats: Sequence[WeightFormat]) -> int:
    """Bytes that the weights take in memory."""

class PackedStore:
    """An open packed store: its header, and the file with the weights."""

    @property
    def path(self) -> pathlib.Path: ...

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def dtype(self) -> DataType:
        """What "auto" stood for when the model was packed."""

    @property
    def source(self) -> dict[str, str]:
        """What the store was packed from, in words."""

    @property
    def digest(self) -> str:
        """
        "sha256:..." over model, formats and checksums: equal for equal models.
        """

    @property
    def layout(self) -> str: ...

    @property
    def file_bytes(self) -> int: ...

    def formats(self) -> list[FormatChoice]:
        """One choice a declared weight, in their order; all of them are kept."""

    def segments(self) -> list[tuple[str, int, int, str]]:
        """
        (name, offset in the file, bytes, XXH64) of each segment, in the file's order.
        """

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """
        Reads every byte, on all cores, and checks it; CheckpointError names the first damaged segment. `progress` is called with (bytes read, bytes in all).
        """

def open_store(path: str | os.PathLike[str]) -> PackedStore:
    """
    Opens a packed store, or the one that a folder holds; reads its header only.
    """

def is_store(path: str | os.PathLike[str]) -> bool:
    """
    Whether `open_store` is what opens the path. False for what cannot be opened.
    """

class PackReport:
    """What was written, and what was there already."""

    @property
    def digest(self) -> str: ...

    @property
    def file_bytes(self) -> int: ...

    @property
    def segments(self) -> int: ...

    @property
    def kept_segments(self) -> int:
        """Segments found written by a packing that was cut short."""

    @property
    def kept_bytes(self) -> int: ...

def pack_store(spec: ModelSpec, recipe: Sequence[WeightSource], tensors: TensorTable, weight_formats: Sequence[WeightFormat], dtype: DataType, source: Mapping[str, str], file: str | os.PathLike[str], replace: bool, threads: int = 0, progress: Callable[[int, int], None] | None = None, notice: Callable[[str], None] | None = None, before_publishing: Callable[[], None] | None = None) -> PackReport:
    """
    Writes a packed store; see cpp/store/pack_store.h. lamella.pack wraps it.
    """

def partial_path(store: str | os.PathLike[str]) -> pathlib.Path:
    """Where a store is until it is whole."""

def journal_path(store: str | os.PathLike[str]) -> pathlib.Path:
    """What stands beside it meanwhile."""

store_file_name: str = 'model.lamella'

class DataType(enum.Enum):
    float32 = 0

    float16 = 1

    bfloat16 = 2

    int32 = 3

    int8 = 4

class StepShape:
    """
    The sizes of one step: tokens, sequences, rows, KV blocks and attended positions.
    """

    @staticmethod
    def uniform(sequences: int, new_tokens: int, context: int) -> StepShape:
        """
        `sequences` equal sequences that bring `new_tokens` each and end with `context` tokens in the cache.
        """

    @property
    def tokens(self) -> int: ...

    @property
    def sequences(self) -> int: ...

    @property
    def rows(self) -> int: ...

    @property
    def kv_blocks(self) -> int: ...

class Roofline:
    """
    Measured roofs of a device: bytes/s that it reads, and multiply-adds/s, counted as two.
    """

    def __init__(self, bytes_per_s: float = 0.0, f32_flops_per_s: float = 0.0, bf16_flops_per_s: float = 0.0, int8_ops_per_s: float = 0.0) -> None:
        """Roofs of 0 leave roofline times out."""

    @property
    def bytes_per_s(self) -> float: ...

    @property
    def f32_flops_per_s(self) -> float: ...

    @property
    def bf16_flops_per_s(self) -> float: ...

    @property
    def int8_ops_per_s(self) -> float: ...

class ExplainRow:
    """One op of a plan with its cost for one step shape."""

    @property
    def op(self) -> str: ...

    @property
    def layer(self) -> int: ...

    @property
    def region(self) -> str: ...

    @property
    def inputs(self) -> str: ...

    @property
    def outputs(self) -> str: ...

    @property
    def shape(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def kernel(self) -> str: ...

    @property
    def arithmetic(self) -> str: ...

    @property
    def bytes_read(self) -> int: ...

    @property
    def bytes_streamed(self) -> int:
        """Of bytes_read: weights and KV cache."""

    @property
    def bytes_written(self) -> int: ...

    @property
    def flops(self) -> int: ...

    @property
    def roofline_s(self) -> float | None: ...

    @property
    def measured_s(self) -> float | None: ...

def explain_plan(spec: ModelSpec, dtype: DataType, weight_formats: Sequence[WeightFormat], deep_fusion: bool, shape: StepShape, roofline: Roofline, kv_cache_dtype: DataType | None = None) -> list[ExplainRow]:
    """
    Rows of the plan for a model that is not loaded: costs and roofline, no kernels and no measured times.
    """

def kv_bytes_per_token(spec: ModelSpec, dtype: DataType, kv_cache_dtype: DataType | None) -> int:
    """Bytes of K and V that a token leaves in all layers' caches."""

def plan_table(spec: ModelSpec, dtype: DataType, deep_fusion: bool, shape: StepShape) -> str:
    """The plan, one op a line, with symbolic shapes."""

def memory_table(spec: ModelSpec, dtype: DataType, deep_fusion: bool, shape: StepShape) -> str:
    """Where each buffer of the plan lies in its one allocation."""

def weight_bytes_per_step(spec: ModelSpec, dtype: DataType, weight_formats: Sequence[WeightFormat], shape: StepShape) -> int:
    """Bytes of weights that one step reads."""

class SamplingParams:
    """How the next token is chosen; see lamella.SamplingParams."""

    def __init__(self, *, max_tokens: int = 256, min_tokens: int = 0, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, repetition_penalty: float = 1.0, presence_penalty: float = 0.0, frequency_penalty: float = 0.0, no_repeat_ngram_size: int = 0, logit_bias: Sequence[tuple[int, float]] = [], allowed_token_ids: Sequence[int] = [], bad_words: Sequence[Sequence[int]] = [], seed: int = 0, n: int = 1, logprobs: int | None = None, prompt_logprobs: int | None = None, stop_token_ids: Sequence[int] = []) -> None: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def min_tokens(self) -> int: ...

    @property
    def temperature(self) -> float: ...

    @property
    def top_k(self) -> int: ...

    @property
    def top_p(self) -> float: ...

    @property
    def min_p(self) -> float: ...

    @property
    def repetition_penalty(self) -> float: ...

    @property
    def presence_penalty(self) -> float: ...

    @property
    def frequency_penalty(self) -> float: ...

    @property
    def no_repeat_ngram_size(self) -> int: ...

    @property
    def logit_bias(self) -> list[tuple[int, float]]: ...

    @property
    def allowed_token_ids(self) -> list[int]: ...

    @property
    def bad_words(self) -> list[list[int]]: ...

    @property
    def seed(self) -> int: ...

    @property
    def n(self) -> int: ...

    @property
    def logprobs(self) -> int | None: ...

    @property
    def prompt_logprobs(self) -> int | None: ...

    @property
    def stop_token_ids(self) -> list[int]: ...

class TokenLogprob:
    """A token's log-probability, and its rank by it: 1 is the most probable."""

    @property
    def token(self) -> int: ...

    @property
    def logprob(self) -> float: ...

    @property
    def rank(self) -> int: ...

class Sampled:
    """
    A chosen token, and if asked for its log-probability and those of the best ones.
    """

    @property
    def token(self) -> int: ...

    @property
    def logprobs(self) -> list[TokenLogprob]: ...

class Sampler:
    """Chooses the tokens of one sequence from rows of logits; for checking."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], vocabulary: int, sample_index: int = 0) -> None: ...

    def accept(self, token: int) -> None:
        """Appends a token to the sequence."""

    def next(self, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Sampled:
        """The token that the engine would choose next."""

    def distribution(self, logits: numpy.typing.NDArray[numpy.float32]) -> numpy.typing.NDArray[numpy.float64]:
        """Of each token the probability with which `next` chooses it."""

    def processed(self, logits: numpy.typing.NDArray[numpy.float32]) -> numpy.typing.NDArray[numpy.float32]:
        """The logits after bias, penalties and masks."""

def sample(logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], params: SamplingParams, sample_index: int, position: int) -> int:
    """
    The token that the engine would choose from these logits at a position of a sequence of which nothing is known.
    """

class StageRun:
    """
    A step's time in a pipeline's stage, in seconds of the monotonic clock.
    """

    @property
    def stage(self) -> int: ...

    @property
    def step(self) -> int: ...

    @property
    def begin_s(self) -> float: ...

    @property
    def end_s(self) -> float: ...

    @property
    def sequences(self) -> int: ...

    @property
    def tokens(self) -> int: ...

class ScheduledRun:
    """A micro-batch in a stage; token 0 is the prompt's."""

    @property
    def stage(self) -> int: ...

    @property
    def micro_batch(self) -> int: ...

    @property
    def token(self) -> int: ...

    @property
    def begin_s(self) -> float: ...

    @property
    def end_s(self) -> float: ...

class ScheduleFigures:
    @property
    def prompt_s(self) -> float:
        """Until every sequence has its first token."""

    @property
    def total_s(self) -> float: ...

    @property
    def bubble_fraction(self) -> float:
        """
        Of the time of all stages until the end: how much they had nothing to do.
        """

class BatchSchedule:
    """What a pipeline does with a batch that begins together."""

    def __init__(self, *, stages: int, schedule: str = 'hybrid', prompt_micro_batches: int, generation_micro_batches: int, new_tokens: int, prompt_s: float = 1.0, generation_s: float = 1.0) -> None:
        """
        Seconds are those of a micro-batch in one stage; 1 and 1 are the ticks of the paper's figures.
        """

    @property
    def stages(self) -> int: ...

    @property
    def prompt_micro_batches(self) -> int: ...

    @property
    def generation_micro_batches(self) -> int: ...

    @property
    def new_tokens(self) -> int: ...

    @property
    def prompt_s(self) -> float: ...

    @property
    def generation_s(self) -> float: ...

    def runs(self) -> list[ScheduledRun]:
        """In order of stage, then time."""

    def figures(self) -> ScheduleFigures: ...

    def formula_s(self) -> float:
        """Seconds until the end by the schedule's formula."""

    def grid(self, columns: int = 120) -> str:
        """A line a stage, a column a tick."""

def topology_table(tensor_parallel_size: int, pipeline_parallel_size: int) -> str:
    """A rank a line, with its number in each group."""

def rank_groups(tensor_parallel_size: int, pipeline_parallel_size: int) -> list[tuple[int, int]]:
    """Of each rank its (tensor part, pipeline stage)."""

def require_layout(spec: ModelSpec, tensor_parallel_size: int, pipeline_parallel_size: int) -> None:
    """
    Refuses ranks that the model cannot be shared by, naming the nearest that can.
    """

class Request:
    """Token ids and how to go on from them."""

    def __init__(self, prompt: Sequence[int], sampling: SamplingParams) -> None: ...

    @property
    def prompt(self) -> list[int]: ...

    @property
    def sampling(self) -> SamplingParams: ...

class Progress:
    """What is new about one choice of a request."""

    @property
    def id(self) -> int: ...

    @property
    def choice(self) -> int: ...

    @property
    def new_tokens(self) -> list[int]: ...

    @property
    def times_s(self) -> list[float]:
        """Of each new token: seconds from submission to the end of its step."""

    @property
    def logprobs(self) -> list[list[TokenLogprob]]: ...

    @property
    def prompt_logprobs(self) -> list[list[TokenLogprob]]: ...

    @property
    def reason(self) -> str:
        """running, stop, length, cancelled or error"""

    @property
    def finished(self) -> bool: ...

    @property
    def error(self) -> str | None: ...

    @property
    def error_code(self) -> str | None: ...

    @property
    def first_token_s(self) -> float: ...

class Client:
    """
    A caller's end of the engine's queue. When it goes, its requests are cancelled.
    """

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """
        Checks all requests, then queues them; their ids. An error names the index of the first that does not pass.
        """

    def wait(self, timeout_s: float, for_ends: bool = False) -> list[Progress]:
        """
        What is new, after at most so many seconds; [] then, and where no request is open. `for_ends`: a choice's end ends the waiting, a token does not.
        """

    def cancel(self, id: int) -> None:
        """The request ends before its next step."""

    def stop(self, id: int, choice: int) -> None:
        """
        The choice ends as finished before its next step: what it has said is enough.
        """

    def leave(self) -> None:
        """Cancels all requests and forgets them."""

    @property
    def open(self) -> int:
        """Requests whose end was not told yet."""

    def event_fd(self) -> int:
        """A descriptor that polls as readable while there is news."""

class EngineConfig:
    """Limits and switches of an engine; see lamella.Engine."""

    def __init__(self, *, dtype: DataType, kv_cache_dtype: DataType | None, weight_formats: Sequence[WeightFormat], deep_fusion: bool, sbi_gemm: bool = True, max_num_seqs: int, max_model_len: int, max_num_batched_tokens: int, memory_budget: int | None = None, kv_cache_memory: int | None = None, prefix_caching: bool = True, tensor_parallel_size: int = 1, pipeline_parallel_size: int = 1, pipeline_schedule: str = 'hybrid', prompt_micro_batches: int = 0, generation_micro_batches: int = 0) -> None:
        """
        `weight_formats` has one entry a declared weight, in their order (choose_formats); empty: all as dtype.
        """

    @property
    def dtype(self) -> DataType: ...

    @property
    def kv_cache_dtype(self) -> DataType | None: ...

    @property
    def weight_formats(self) -> list[WeightFormat]: ...

    @property
    def deep_fusion(self) -> bool: ...

    @property
    def sbi_gemm(self) -> bool: ...

    @property
    def max_num_seqs(self) -> int: ...

    @property
    def max_model_len(self) -> int: ...

    @property
    def max_num_batched_tokens(self) -> int: ...

    @property
    def memory_budget(self) -> int | None: ...

    @property
    def kv_cache_memory(self) -> int | None: ...

    @property
    def prefix_caching(self) -> bool: ...

    @property
    def tensor_parallel_size(self) -> int: ...

    @property
    def pipeline_parallel_size(self) -> int: ...

class EngineStats:
    """Counters of an engine."""

    @property
    def kv_blocks_total(self) -> int: ...

    @property
    def received(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def finished(self) -> int: ...

    @property
    def cancelled(self) -> int: ...

    @property
    def rejected(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def kv_blocks_used(self) -> int: ...

    @property
    def kv_blocks_kept(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def step_s(self) -> float: ...

    @property
    def executor_s(self) -> float: ...

    @property
    def preemptions(self) -> int: ...

    @property
    def reused_tokens(self) -> int: ...

    @property
    def bytes_weights(self) -> int: ...

    @property
    def bytes_kv(self) -> int: ...

    @property
    def bytes_activations(self) -> int: ...

class Pooling(enum.Enum):
    none = 0

    mean = 1

    cls = 2

    pooler = 3

class Engine:
    """The native engine; lamella.Engine wraps it."""

    def client(self) -> Client:
        """Another client of the engine's queue."""

    def validate_requests(self, requests: Sequence[Request]) -> None:
        """
        What Client.submit checks, without submitting: requests that do not pass count as rejected, all of them.
        """

    def close(self) -> None:
        """Cancels every request, refuses new ones and ends the engine's thread."""

    def logits(self, tokens: Sequence[int]) -> NDArray[numpy.float32]:
        """Float32 array [tokens, vocabulary]."""

    def encode(self, inputs: Sequence[Sequence[int]], pooling: Pooling, progress: Callable[[int, int], None] | None = None) -> list[numpy.typing.NDArray[numpy.float32]]:
        """
        Float32 arrays, one an input. `progress` is called with (inputs done, inputs in all).
        """

    def explain(self, shape: StepShape) -> list[ExplainRow]: ...

    def roofline(self) -> Roofline: ...

    def plan_tables(self) -> list[str]:
        """The plan of each pipeline stage's first rank, as a table."""

    def record_stage_runs(self, record: bool) -> None:
        """
        Keeps from now on when each stage ran which step; what was kept before is forgotten.
        """

    def stage_runs(self) -> list[StageRun]:
        """What was kept, in order of the runs' ends."""

    def step_times(self) -> tuple[float, float]:
        """
        (seconds of a step of the first stage, and seconds more for each of its tokens), as learnt so far.
        """

    def stats(self) -> EngineStats: ...

    @property
    def config(self) -> EngineConfig: ...

    @property
    def spec(self) -> ModelSpec: ...

    def micro_batches(self, prompt_tokens: int, sequences: int) -> tuple[int, int]:
        """
        (of prompts, of generation): into how many micro-batches a pipeline would cut so much now.
        """

    @property
    def device_name(self) -> str: ...

    @property
    def threads(self) -> int:
        """Of all ranks together."""

def open_engine(spec: ModelSpec, recipe: Sequence[WeightSource], tensors: TensorTable, config: EngineConfig, threads: int = 0, kernels: str | None = None, progress: Callable[[int, int], None] | None = None) -> Engine:
    """An engine with a checkpoint's weights."""

def open_store_engine(store: PackedStore, config: EngineConfig, threads: int = 0, kernels: str | None = None, progress: Callable[[int, int], None] | None = None) -> Engine:
    """
    An engine with a packed store's weights; `config` has the store's formats.
    """

def random_engine(spec: ModelSpec, seed: int, config: EngineConfig, threads: int = 0, kernels: str | None = None) -> Engine:
    """An engine with random weights: for shapes without a checkpoint."""

def usable_cores() -> int:
    """Cores that affinity and cgroup limits leave to this process."""

def processor_name() -> str: ...

def available_memory() -> int:
    """Bytes of memory free for this process, cgroup limits included."""

def kernel_sets() -> list[str]:
    """Kernel sets that this machine runs, best last."""

def bandwidth_buffer() -> int:
    """
    Bytes that `measure_read_bandwidth` takes now: 1 GiB, or a quarter of the memory available; 0 for too little.
    """

def measure_read_bandwidth(threads: int) -> float | None:
    """
    Bytes/s that this many threads read from memory; None where too little of it is free.
    """

def measure_peak(arithmetic: str, threads: int) -> float:
    """
    Operations a second of this many threads, from registers: multiply-adds (two operations) of 'f32', of pairs of 'bf16', of quads of 'int8'.
    """

def measure_core_latency() -> float | None:
    """Seconds until a core sees another's store; None with one core."""

def measure_barrier(threads: int) -> float:
    """
    Seconds that this many threads take to meet at a barrier, with nothing to do in between.
    """
