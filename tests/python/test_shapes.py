"""The paper's shapes: their sizes, and a small one of each kind that runs."""

from __future__ import annotations

import lamella
import pytest
from lamella import _core
from lamella.families import Config, Weights, gpt_moe
from lamella.shapes import SHAPES, spec_for_shape


# Table II's "size (billions)". The 24B model's other dimensions give 2 % less than what stands there.
@pytest.mark.parametrize(
    ("name", "layers", "billions", "off"),
    [
        ("moe-1.3b-128", 24, 52, 0.01),
        ("moe-2.4b-128", 16, 107.7, 0.01),
        ("moe-8b-128", 40, 349.0, 0.001),
        ("moe-24b-128", 30, 1064.9, 0.02),
        ("moe-47b-128", 58, 2024.0, 0.001),
    ],
)
def test_mixtures_have_the_sizes_of_table_ii(name: str, layers: int, billions: float, off: float) -> None:
    spec = spec_for_shape(name)
    assert len(spec.layers) == layers
    assert _core.parameter_count(spec) / 1e9 == pytest.approx(billions, rel=off)
    for index, layer in enumerate(spec.layers):
        experts = layer.mlp.experts
        assert (experts is not None) == (index % 2 == 1), "experts in every other layer"
        if experts is not None:
            assert (experts.count, experts.top_k, experts.router) == (128, 1, _core.RouterKind.top_1)
            assert experts.intermediate == 4 * spec.hidden


def test_a_small_mixture_of_that_kind_runs_on_random_weights() -> None:
    small = {**SHAPES["moe-1.3b-128"].config, "n_layer": 4, "n_embd": 48, "n_head": 3, "num_experts": 8}
    config = Config(small, "small")
    spec = gpt_moe.FAMILY.spec(config, Weights({}, (), "", {}))
    config.refuse_unread()
    _core.validate(spec)
    prompts = [[1, 2, 3], [4], list(range(40))]
    answers = []
    for threads, batch in ((1, 1), (2, 3)):
        with lamella.Engine.random(
            spec, threads=threads, max_num_seqs=batch, max_model_len=64, dtype="float32"
        ) as engine:
            answers.append([row.tobytes() for row in engine.logits(prompts)])
            assert engine.generate([5, 6], max_tokens=3).finish_reason == "length"
    assert answers[0] == answers[1]
