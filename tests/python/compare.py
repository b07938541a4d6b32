"""Comparing Lamella with another implementation: one error metric, and the tie rule of the design for greedy tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import transformers

TIE_FACTOR = 20.0


def relative_error(out: np.ndarray, reference: np.ndarray) -> float:
    """||out - reference|| / ||reference|| over all elements, in float64."""
    out64, reference64 = out.astype(np.float64), reference.astype(np.float64)
    assert out64.shape == reference64.shape, (out64.shape, reference64.shape)
    return float(np.linalg.norm(out64 - reference64) / np.linalg.norm(reference64))


def reference_logits(model: transformers.PreTrainedModel, ids: Sequence[int]) -> np.ndarray:
    """transformers' logits (tokens, vocabulary) in fp32 for one sequence."""
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0].float().numpy()


def reference_greedy(
    model: transformers.PreTrainedModel, prompt: Sequence[int], tokens: int
) -> tuple[list[int], np.ndarray]:
    """transformers' greedy continuation without any stop token, and the logits (tokens, vocabulary) behind it.

    The loop is ours, so that no generation default interferes; the cache is transformers' own.
    """
    ids, rows = torch.tensor([list(prompt)]), []
    chosen: list[int] = []
    cache = None
    with torch.no_grad():
        for _ in range(tokens):
            result = model(ids, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            row = result.logits[0, -1].float()
            rows.append(row.numpy())
            chosen.append(int(row.argmax()))
            ids = torch.tensor([[chosen[-1]]])
    return chosen, np.stack(rows)


def routing_margin(model: transformers.PreTrainedModel, ids: Sequence[int]) -> float:
    """How far apart the scores of the last expert that is chosen and of the first that is not are, at the least, in any
    layer for any token of `ids`; infinite without such a choice. An error of that size may send a token elsewhere.
    """
    margins = [float("inf")]

    def look(router: torch.nn.Module, _: object, found: tuple[torch.Tensor, ...]) -> None:
        ordered = found[0].float().sort(dim=-1, descending=True).values
        top_k = int(router.top_k)  # type: ignore[arg-type]
        if top_k < ordered.shape[-1]:
            margins.append(float((ordered[:, top_k - 1] - ordered[:, top_k]).min()))

    routers = [module for module in model.modules() if type(module).__name__.endswith("TopKRouter")]
    hooks = [router.register_forward_hook(look) for router in routers]
    if routers:
        reference_logits(model, ids)
    for hook in hooks:
        hook.remove()
    return min(margins)


def reference_greedy_given(
    model: transformers.PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int]
) -> tuple[list[int], np.ndarray]:
    """As reference_greedy where `tokens` is what we generated: transformers' choice after each of our tokens.

    One forward pass instead of one a token. Up to the first difference, the end of every comparison, both agree.
    """
    rows = reference_logits(model, [*prompt, *tokens])[len(prompt) - 1 : -1]
    return rows.argmax(axis=1).tolist(), rows


@dataclass(frozen=True)
class Agreement:
    """How far two greedy continuations agree. `tie_at`: the first difference, a tie by the tie rule; None: none."""

    equal: int
    tie_at: int | None


def assert_greedy_equal(
    tokens: Sequence[int], reference: Sequence[int], rows: np.ndarray, logit_error: float
) -> Agreement:
    """Tokens are equal up to the first position where the reference's two best logits are a tie.

    A tie is a margin below 20 times the measured logit error (`logit_error`, the largest absolute difference). Returns
    where they part, for the caller to count and print.
    """
    for position, (ours, theirs) in enumerate(zip(tokens, reference, strict=True)):
        if ours == theirs:
            continue
        second, best = np.sort(rows[position].astype(np.float64))[-2:]
        margin = best - second
        assert margin < TIE_FACTOR * logit_error, (
            f"token {position} is {ours}, transformers has {theirs}: margin {margin:.3g}, logit error {logit_error:.3g}"
        )
        return Agreement(position, position)
    return Agreement(len(tokens), None)
