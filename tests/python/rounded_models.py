"""transformers' models with their own numbers rounded: how much of an error is the format's, on this very model.

A drawn model may be sharper than most, above all with a hidden size of 8. A bound that holds for every draw would show
nothing on the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
import transformers
from compare import relative_error

SHARE = 3.0  # of the draws that came near a bound, one was 2.1 times as far off as transformers, the others less


def bound_of(bound: float, error: float, exact: Callable[[], np.ndarray], rounded: Callable[[], np.ndarray]) -> float:
    """`bound`; for an `error` above it, SHARE of what transformers' rows from `rounded` are off, if that is more.

    Never above SHARE of `bound`: an error in the rounding here must not let everything pass.
    """
    return bound if error <= bound else min(SHARE * bound, max(bound, SHARE * relative_error(rounded(), exact())))


def in_float64(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """A copy that computes in float64, but for what transformers itself keeps in fp32."""
    return copy.deepcopy(model).double()


def in_bfloat16(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """A copy that keeps and computes everything in bf16."""
    return copy.deepcopy(model).to(torch.bfloat16)


def in_int8(model: transformers.PreTrainedModel, inputs: bool) -> transformers.PreTrainedModel:
    """A copy whose layers' matrices are rounded to int8 with a scale a row, and with `inputs` what they multiply too.

    A scale is that of the largest value, an input's that of its token. Head and embeddings stay as they are.
    """
    rounded = copy.deepcopy(model)
    for name, module in rounded.named_modules():
        if "head" in name or "embed_out" in name:
            continue
        if isinstance(module, torch.nn.Linear):
            module.weight.data = _rounded(module.weight.data, 1)
        elif isinstance(module, transformers.pytorch_utils.Conv1D):
            module.weight.data = _rounded(module.weight.data, 0)
        elif hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"):  # experts; their inputs are left alone
            for matrices in (module.gate_up_proj, module.down_proj):
                matrices.data = _rounded(matrices.data, 2)
            continue
        else:
            continue
        if inputs:
            module.register_forward_pre_hook(lambda _, given: (_rounded(given[0], -1),))
    return rounded


def _rounded(values: torch.Tensor, axis: int) -> torch.Tensor:
    scale = values.abs().amax(dim=axis, keepdim=True) / 127
    return torch.where(scale > 0, torch.round(values / scale) * scale, values)
