"""Parts of a ModelSpec that several families read from their configs in the same way."""

from __future__ import annotations

from lamella._core import Activation, RopeScaling, RopeSpec
from lamella.errors import CheckpointError

from .config import LARGEST_SIZE, Config
from .family import Weights

ACTIVATIONS = {
    "gelu": Activation.gelu,
    "gelu_python": Activation.gelu,
    "gelu_new": Activation.gelu_tanh,  # one formula, five names
    "gelu_fast": Activation.gelu_tanh,
    "gelu_pytorch_tanh": Activation.gelu_tanh,
    "gelu_python_tanh": Activation.gelu_tanh,
    "gelu_accurate": Activation.gelu_tanh,
    "relu": Activation.relu,
    "silu": Activation.silu,
    "swish": Activation.silu,
    "tanh": Activation.tanh,
    "quick_gelu": Activation.quick_gelu,
    "linear": Activation.none,
}

_SCALINGS = {
    "default": RopeScaling.none,
    "linear": RopeScaling.linear,
    "dynamic": RopeScaling.dynamic_ntk,
    "yarn": RopeScaling.yarn,
    "longrope": RopeScaling.longrope,
    "llama3": RopeScaling.llama3,
}


def divided(config: Config, whole: str, parts: str) -> int:
    """config[whole] / config[parts], which must divide: the width of a head."""
    size, count = config.integer(whole), config.integer(parts)
    if size % count:
        raise CheckpointError(f"{config.source}: {whole} ({size}) is not a multiple of {parts} ({count})")
    return size // count


def tied_head(config: Config, weights: Weights, default: bool) -> bool:
    """Whether the head's weight is the token embedding: the config says so and the checkpoint does not hold both."""
    return config.flag("tie_word_embeddings", default) and not (weights.has("head") and weights.has("token_embedding"))


def sliding_window(config: Config) -> int:
    """`sliding_window` in tokens, 0 for none: null says that there is none, no field at all 4096."""
    if config.has("sliding_window"):
        return config.integer("sliding_window")
    return 0 if config.mentions("sliding_window") else 4096


def experts_per_token(config: Config, experts: int) -> int:
    """`num_experts_per_tok`: how many of the experts take a token."""
    top_k = config.integer("num_experts_per_tok")
    if top_k > experts:
        raise config.wrong("num_experts_per_tok", f"at most the number of experts, {experts}")
    return top_k


def rope(config: Config, head_dim: int, theta: float, rotary_fraction: float | None = None) -> RopeSpec:
    """Rotary positions from `rope_parameters` (transformers 5) or `rope_scaling` (before), read as transformers does.

    `theta` and `rotary_fraction` are what older configs say outside that object, and give way to what is in it.
    Families that always rotate the whole head have no `rotary_fraction`.
    """
    parameters, scaling = config.group("rope_parameters"), config.group("rope_scaling")
    fields = scaling or parameters or Config({}, config.source)
    spec = RopeSpec(
        rotary_dim=_rotary_dim(fields, head_dim, rotary_fraction),
        theta=fields.number("rope_theta", theta),
        scaling=fields.choice("rope_type" if fields.has("rope_type") else "type", _SCALINGS, "default"),
    )
    fields.ignore("type")
    _read_scaling(config, fields, spec)
    fields.refuse_unread()
    return spec


def context_length(config: Config, rope: RopeSpec) -> int:
    """The longest context in tokens. Dynamic scaling begins at `max_position_embeddings`, for `factor` times that."""
    positions = config.integer("max_position_embeddings")
    if rope.scaling != RopeScaling.dynamic_ntk:
        return positions
    return min(int(positions * rope.factor), LARGEST_SIZE)


def _rotary_dim(fields: Config, head_dim: int, fraction: float | None) -> int:
    if fraction is None:
        fields.only("partial_rotary_factor", 1, 1.0)
        return head_dim
    fraction = fields.number("partial_rotary_factor", fraction)
    if not 0.0 < fraction <= 1.0:
        raise fields.wrong("partial_rotary_factor", "a number above 0 and at most 1")
    rotary_dim = int(head_dim * fraction)
    if rotary_dim == 0 or rotary_dim % 2:
        raise fields.refused("partial_rotary_factor", f"an even number of rotary dimensions, not {rotary_dim}")
    return rotary_dim


def _read_scaling(config: Config, fields: Config, spec: RopeSpec) -> None:
    """Fills in what the kind of scaling needs; a field of another kind stays unread, and so is refused."""
    positions = config.integer("max_position_embeddings")
    match spec.scaling:
        case RopeScaling.none:
            fields.only("factor", 1, 1.0)
            return
        case RopeScaling.linear:
            spec.factor = fields.number("factor")
            return
        case RopeScaling.dynamic_ntk:
            spec.factor = fields.number("factor")
            spec.original_max_positions = positions
            fields.ignore("original_max_position_embeddings")  # transformers goes by max_position_embeddings
            return
    trained = fields.integer("original_max_position_embeddings", positions)
    spec.original_max_positions = config.integer("original_max_position_embeddings", trained)
    match spec.scaling:
        case RopeScaling.llama3:
            spec.factor = fields.number("factor")
            spec.low_freq_factor = fields.number("low_freq_factor")
            spec.high_freq_factor = fields.number("high_freq_factor")
        case RopeScaling.yarn:
            spec.factor = fields.number("factor", positions / spec.original_max_positions)
            spec.attention_factor = fields.optional_number("attention_factor")
            spec.beta_fast = fields.number("beta_fast", 32.0) or 32.0
            spec.beta_slow = fields.number("beta_slow", 1.0) or 1.0
            spec.mscale = fields.number("mscale", 0.0)
            spec.mscale_all_dim = fields.number("mscale_all_dim", 0.0)
            spec.truncate = fields.flag("truncate", True)
        case RopeScaling.longrope:
            spec.factor = fields.number("factor", positions / spec.original_max_positions)
            spec.attention_factor = fields.optional_number("attention_factor")
            spec.short_factor = fields.numbers("short_factor", spec.rotary_dim // 2)
            spec.long_factor = fields.numbers("long_factor", spec.rotary_dim // 2)
