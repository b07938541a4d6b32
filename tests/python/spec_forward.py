"""A forward pass straight from a ModelSpec and its load recipe, in numpy and float64: short and slow.

It is how the tests know that a family file says the right thing before any kernel is involved.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from lamella import _core
from lamella.checkpoint import Checkpoint
from lamella.model_weights import TensorWeights

Array = np.ndarray[Any, np.dtype[np.float64]]


def load_weight(tensors: _core.TensorTable, source: _core.WeightSource) -> Array:
    """One canonical weight as load_recipe.h defines it."""
    stored = tensors.read_f32(source.tensor).astype(np.float64)
    rows = stored.T if source.transposed else stored
    rest = rows.shape[1:]
    cut = rows.reshape(source.groups, source.parts, -1, *rest)[:, source.part].reshape(-1, *rest)
    if source.rotary_pair_heads:
        cut = cut.reshape(source.rotary_pair_heads, -1, 2, *rest).swapaxes(1, 2).reshape(cut.shape)
    return cut


def load_weights(checkpoint: Checkpoint) -> dict[str, Array]:
    """All canonical weights by name."""
    weights = checkpoint.weights
    assert isinstance(weights, TensorWeights)
    return {source.weight: load_weight(weights.tensors, source) for source in weights.recipe}


def forward(checkpoint: Checkpoint, ids: list[int], weights: dict[str, Array] | None = None) -> Array:
    """(tokens, vocab) logits, or (tokens, hidden) for an encoder, of one sequence given at once."""
    spec, w = checkpoint.spec, weights or load_weights(checkpoint)
    count = len(ids)
    x = w["token_embedding"][ids]
    if "position_embedding" in w:
        x = x + w["position_embedding"][np.arange(count) + spec.embedding.position_offset]
    if "type_embedding" in w:
        x = x + w["type_embedding"][0]
    x = norm(x, spec.embedding.norm, w, "embedding_norm")
    for i, layer in enumerate(spec.layers):
        at = f"layers.{i}."
        if layer.residual == _core.Residual.post_norm:
            x = norm(x + attention(x, layer.attention, w, at), layer.attention_norm, w, at + "attention_norm")
            x = norm(x + mlp(x, layer.mlp, w, at), layer.mlp_norm, w, at + "mlp_norm")
            continue
        attended = attention(norm(x, layer.attention_norm, w, at + "attention_norm"), layer.attention, w, at)
        middle = x if layer.residual == _core.Residual.parallel else x + attended
        fed = mlp(norm(middle, layer.mlp_norm, w, at + "mlp_norm"), layer.mlp, w, at)
        x = x + attended + fed
    x = norm(x, spec.head.norm, w, "final_norm")
    if spec.head.kind == _core.HeadKind.hidden:
        return x
    return x @ w["token_embedding" if spec.head.tied else "head"].T


def norm(x: Array, spec: _core.NormSpec, w: dict[str, Array], name: str) -> Array:
    if spec.kind == _core.NormKind.none:
        return x
    if spec.kind == _core.NormKind.layer_norm:
        x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + spec.eps) * w[name]
    return y + w[name + "_bias"] if spec.bias else y


def linear(x: Array, w: dict[str, Array], name: str) -> Array:
    return x @ w[name].T + w.get(name + "_bias", 0.0)


def attention(x: Array, spec: _core.AttentionSpec, w: dict[str, Array], at: str) -> Array:
    count = len(x)
    q, k = linear(x, w, at + "query"), linear(x, w, at + "key")
    if spec.norm_across_heads:
        q, k = norm(q, spec.query_norm, w, at + "query_norm"), norm(k, spec.key_norm, w, at + "key_norm")
    q, k = q.reshape(count, spec.heads, spec.head_dim), k.reshape(count, spec.kv_heads, spec.head_dim)
    if not spec.norm_across_heads:
        q, k = norm(q, spec.query_norm, w, at + "query_norm"), norm(k, spec.key_norm, w, at + "key_norm")
    v = linear(x, w, at + "value").reshape(count, spec.kv_heads, spec.head_dim)
    if spec.rope is not None:
        q, k = rotate(q, spec.rope), rotate(k, spec.rope)
    group = spec.heads // spec.kv_heads
    k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) * spec.scale
    if spec.causal:
        seen = np.tri(count, dtype=bool)
        if spec.window:
            seen &= ~np.tri(count, k=-spec.window, dtype=bool)
        scores = np.where(seen, scores, -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
    return linear(mixed.reshape(count, -1), w, at + "attention_output")


def rotate(x: Array, rope: _core.RopeSpec) -> Array:
    inverse, factor = _core.rope_frequencies(rope, len(x))
    angles = np.arange(len(x), dtype=np.float32)[:, None, None] * np.asarray(inverse, np.float32)
    cos, sin = np.cos(angles.astype(np.float64)) * factor, np.sin(angles.astype(np.float64)) * factor
    half = rope.rotary_dim // 2
    a, b, rest = x[..., :half], x[..., half : rope.rotary_dim], x[..., rope.rotary_dim :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


_erf = np.vectorize(math.erf)
ACTIVATIONS = {
    _core.Activation.none: lambda x: x,
    _core.Activation.gelu: lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    _core.Activation.gelu_tanh: lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    _core.Activation.relu: lambda x: np.maximum(x, 0),
    _core.Activation.silu: lambda x: x / (1 + np.exp(-x)),
    _core.Activation.tanh: np.tanh,
    _core.Activation.quick_gelu: lambda x: x / (1 + np.exp(-1.702 * x)),
}


def mlp(x: Array, spec: _core.MlpSpec, w: dict[str, Array], at: str, kind: str = "mlp") -> Array:
    if spec.experts is not None and kind == "mlp" and at + "router" in w:
        return experts(x, spec, spec.experts, w, at)
    act = ACTIVATIONS[spec.activation]
    up = linear(x, w, at + kind + "_up")
    inner = act(linear(x, w, at + kind + "_gate")) * up if spec.gated else act(up)
    return linear(inner, w, at + kind + "_down")


def experts(x: Array, spec: _core.MlpSpec, mixture: _core.ExpertsSpec, w: dict[str, Array], at: str) -> Array:
    """Softmax routers, which are those of the families here."""
    scores = np.exp(linear(x, w, at + "router"))
    scores /= scores.sum(-1, keepdims=True)
    chosen = np.argsort(-scores, axis=-1, kind="stable")[:, : mixture.top_k]
    weights = np.take_along_axis(scores, chosen, axis=-1)
    if mixture.router == _core.RouterKind.softmax_top_k_renormalised:
        weights /= weights.sum(-1, keepdims=True)
    each = np.stack([mlp(x, spec, w, f"{at}experts.{e}.") for e in range(mixture.count)], axis=1)
    y = (np.take_along_axis(each, chosen[..., None], axis=1) * weights[..., None]).sum(axis=1)
    if mixture.shared_intermediate:
        gate = 1 / (1 + np.exp(-linear(x, w, at + "shared_router"))) if mixture.shared_gate else 1.0
        y = y + gate * mlp(x, spec, w, at, "shared")
    return y
