"""encode() pools as the model's own files say, unless it is told otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import lamella
import numpy as np
import pytest
import random_models
from lamella.checkpoint import open_model
from random_models import draw
from tiny_tokenizers import word_piece

TEXTS = ["hello world", "the quick brown fox", ""]
MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


@pytest.fixture
def folder(seed: int, tmp_path: Path) -> Path:
    tokenizer = word_piece()
    draw("bert", seed, tmp_path, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write_modules(folder: Path, modes: tuple[str, ...], normalize: bool = False) -> None:
    """What sentence-transformers saves beside a model."""
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    modules += [{"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}] * normalize
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags: dict[str, Any] = {f"pooling_mode_{mode}": mode in modes for mode in MODES}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8, **flags}))


def pooled(folder: Path) -> dict[str, np.ndarray]:
    """Embeddings by default, and by each pooling that is asked for by name."""
    with lamella.Engine(folder, dtype="float32", threads=1) as engine:
        named = {name: np.asarray(engine.encode(TEXTS, pooling=name)) for name in ("auto", "mean", "cls")}
        assert np.array_equal(np.asarray(engine.encode(TEXTS)), named["auto"])
        assert not np.allclose(named["mean"], named["cls"])
        return named


@pytest.mark.parametrize(
    ("modes", "own"), [(None, "mean"), (("mean_tokens",), "mean"), (("cls_token",), "cls")], ids=str
)
def test_the_default_is_the_models_own_pooling(folder: Path, modes: tuple[str, ...] | None, own: str) -> None:
    if modes is not None:
        write_modules(folder, modes)
    named = pooled(folder)
    assert np.array_equal(named["auto"], named[own])


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("cls_token", "mean_tokens")])
def test_a_model_of_another_pooling_is_refused_by_name(folder: Path, mode: str) -> None:
    for modes in ((mode,), (mode, "mean_tokens")):
        write_modules(folder, modes)
        with pytest.raises(
            lamella.CheckpointError, match=rf"1_Pooling/config\.json: pooling .*pooling_mode_{mode}"
        ) as error:
            lamella.Engine(folder)
        assert error.value.code == "UNSUPPORTED_MODEL"


@pytest.mark.parametrize(("kind", "own"), [(None, "mean"), (0, "mean"), (1, "mean"), (2, "cls"), (3, None), (4, None)])
def test_gguf_says_its_pooling_too(
    seed: int, tmp_path: Path, kind: int | None, own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: Callable[[Any, Any], None] = random_models._GGUF_FIELDS["bert"]

    def with_pooling(writer: gguf.GGUFWriter, config: Any) -> None:
        monkeypatch.setattr(writer, "add_pooling_type", lambda _: None)  # whatever the family's own fields say
        fields(writer, config)
        if kind is not None:
            writer.add_uint32("bert.pooling_type", kind)

    monkeypatch.setitem(random_models._GGUF_FIELDS, "bert", with_pooling)
    model = draw("bert", seed, tmp_path / "folder", hidden_act="gelu")
    random_models.write_gguf(model, tmp_path / "model.gguf")
    if own is None:
        with pytest.raises(lamella.CheckpointError, match=f"bert.pooling_type is {kind}; Lamella has 1") as error:
            open_model(tmp_path / "model.gguf")
        assert error.value.code == "UNSUPPORTED_MODEL"
        return
    with lamella.Engine(tmp_path / "model.gguf", threads=1) as engine:
        ids = [[5, 6, 7], [8]]
        assert np.array_equal(engine.encode(ids), engine.encode(ids, pooling=own))  # type: ignore[arg-type]


def test_normalize_is_obeyed_for_token_rows_and_not_assumed_for_them(folder: Path) -> None:
    write_modules(folder, ("mean_tokens",), normalize=True)
    with lamella.Engine(folder, dtype="float32", threads=1) as engine:
        np.testing.assert_allclose(np.linalg.norm(engine.encode(TEXTS), axis=1), 1.0, rtol=1e-6)
        plain = engine.encode(TEXTS, pooling=None)
        assert not np.allclose(np.linalg.norm(plain[0], axis=1), 1.0, rtol=1e-3)
        assert all(np.array_equal(a, b) for a, b in zip(plain, engine.encode(TEXTS, None, False), strict=True))
        unit = engine.encode(TEXTS, pooling=None, normalize=True)
        for a, b in zip(unit, plain, strict=True):
            assert a.dtype == np.float32 and a.shape == b.shape
            np.testing.assert_allclose(a, b / np.linalg.norm(b, axis=1, keepdims=True), rtol=1e-6)
        assert np.array_equal(engine.encode(TEXTS), engine.encode(TEXTS, "mean", True))
        assert not np.allclose(engine.encode(TEXTS), engine.encode(TEXTS, normalize=False))
