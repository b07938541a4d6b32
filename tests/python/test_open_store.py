"""A packed store opens as the engine of its model: the same tokens and the same bits, or an error that names what is
wrong.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import lamella
import numpy as np
import pytest
import random_models
import tiny_tokenizers
from gguf import GGMLQuantizationType as Quant
from lamella import _core
from lamella.checkpoint import open_model
from lamella.cli import main
from lamella.engine_options import QUANTIZATIONS

PRESETS = (None, *QUANTIZATIONS)
DTYPES = ("auto", "float32", "float16", "bfloat16")
FAMILIES = (
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "llama",
    "mistral",
    "mixtral",
    "olmoe",
    "qwen2",
    "qwen2_moe",
    "qwen3_moe",
    "bert",
)
TEXTS = ("the quick brown fox", "hello 1234 caf\N{LATIN SMALL LETTER E WITH ACUTE}", "")


def outputs(model: Path, seed: int, **options: Any) -> list[bytes]:
    """What an engine answers to a few random inputs, to the last bit: rows, and for decoders tokens."""
    rng = random.Random(seed)
    # Drawn models with dynamic RoPE have 48 positions; the prompts and what is generated fit.
    with lamella.Engine(model, max_num_seqs=4, max_model_len=48, **options) as engine:
        core = engine.core
        prompts = [[rng.randrange(core.spec.vocab) for _ in range(rng.randint(1, 30))] for _ in range(5)]
        if core.spec.head.kind == _core.HeadKind.hidden:
            return [
                np.asarray(engine.encode(prompts, pooling=pooling)).tobytes() for pooling in ("auto", "mean", "cls")
            ]
        greedy = engine.generate(prompts, max_tokens=12, temperature=0.0)
        drawn = engine.generate(prompts, max_tokens=12, temperature=1.0, seed=seed)
        tokens = [completion.token_ids for completion in (*greedy, *drawn)]
        return [
            str(core.config.dtype).encode(),
            *(row.tobytes() for row in engine.logits(prompts)),
            repr(tokens).encode(),
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A small model with all files for text."""
    path = tmp_path_factory.mktemp("model") / "tiny-llama"
    tokenizer = tiny_tokenizers.byte_level()
    random_models.draw(
        "llama", seed, path, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=128, rope_parameters=None
    )
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2], "max_new_tokens": 7}))
    return path


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its packed store, for reading only."""
    out = tmp_path_factory.mktemp("store") / "packed"
    lamella.pack(folder, out, quantization="int8")
    return out


# ---- the same engine -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FAMILIES)
def drawn(request: pytest.FixtureRequest, seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of each family."""
    path = tmp_path_factory.mktemp("drawn") / str(request.param)
    random_models.draw(str(request.param), seed, path)
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_a_store_is_its_model_in_every_preset(drawn: Path, preset: str | None, seed: int, tmp_path: Path) -> None:
    model, rng = drawn, random.Random(f"{drawn.name}-{preset}-{seed}")
    for dtype in ("auto", rng.choice(DTYPES[1:])):
        out = tmp_path / dtype
        lamella.pack(model, out, dtype=dtype, quantization=preset, threads=rng.randint(1, 3))
        threads = rng.randint(1, 3)
        expected = outputs(model, seed, dtype=dtype, quantization=preset, threads=2)
        assert outputs(out, seed, threads=threads) == expected
        assert outputs(out / "model.lamella", seed) == expected


@pytest.mark.parametrize(
    "quant",
    [Quant.F32, Quant.F16, Quant.BF16, Quant.Q4_0, Quant.Q4_1, Quant.Q8_0, Quant.Q5_1, Quant.MXFP4],
    ids=lambda quant: quant.name,
)
def test_a_store_is_the_gguf_file_it_was_packed_from(quant: Quant, seed: int, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    model = random_models.draw(
        "llama",
        seed,
        tmp_path / "hf",
        **sizes,
        intermediate_size=96,
        hidden_act="silu",
        attention_bias=False,
        mlp_bias=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    path = tmp_path / "model.gguf"
    random_models.write_gguf(model, path, quant)
    for preset in (None, random.Random(seed).choice(QUANTIZATIONS)):
        out = tmp_path / str(preset)
        lamella.pack(path, out, quantization=preset)
        assert outputs(out, seed) == outputs(path, seed, quantization=preset)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_another_dtype_leaves_the_weights_as_they_are(store: Path, dtype: str) -> None:
    with lamella.Engine(store) as engine, lamella.Engine(store, dtype=dtype) as other:
        assert other.core.config.dtype == getattr(_core.DataType, dtype)
        assert other.core.config.weight_formats == engine.core.config.weight_formats
        assert np.isfinite(other.logits([[5, 6, 7]])[0]).all()  # how exact: tests/cpp/runtime/test_store_engine.cpp


def test_smollm2_from_its_store(smollm2_path: Path, tmp_path: Path, seed: int) -> None:
    lamella.pack(smollm2_path, tmp_path / "store")
    prompt = "The capital of France is"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}]
    answers = []
    for model in (smollm2_path, tmp_path / "store"):
        with lamella.Engine(model, max_model_len=256, max_num_seqs=2) as engine:
            chat = engine.chat(messages, max_tokens=12)
            text = engine.generate(prompt, max_tokens=12)
            drawn = engine.generate(prompt, max_tokens=12, temperature=0.9, seed=seed)
            logits = engine.logits(prompt)[0].tobytes()
            answers.append((chat.text, chat.prompt_tokens, text.text, drawn.token_ids, logits))
    assert answers[0] == answers[1]


def test_minilm_from_its_store(minilm_path: Path, tmp_path: Path) -> None:
    lamella.pack(minilm_path, tmp_path / "store")
    texts = ["A man is eating food.", "word " * 400, ""]
    rows = []
    for model in (minilm_path, tmp_path / "store"):
        with lamella.Engine(model) as engine:
            rows.append([np.asarray(engine.encode(texts)), np.asarray(engine.encode(texts, pooling="cls"))])
    assert np.array_equal(rows[0][0], rows[1][0])
    assert np.array_equal(rows[0][1], rows[1][1])
    assert np.allclose(np.linalg.norm(rows[1][0], axis=-1), 1.0), "the model's files ask for it"


# ---- text ----------------------------------------------------------------------------------------------------------


def test_text_comes_from_the_files_beside_the_store(folder: Path, store: Path) -> None:
    messages = [{"role": "user", "content": "hello"}]
    with lamella.Engine(folder, quantization="int8") as model, lamella.Engine(store) as packed:
        for text in TEXTS[:2]:
            assert packed.encode_prompt(text) == model.encode_prompt(text)
            assert packed.generate(text).text == model.generate(text).text
        tokens = packed.generate(TEXTS[0], ignore_eos=True).token_ids
        assert tokens == model.generate(TEXTS[0], ignore_eos=True).token_ids
        assert len(tokens) == 7, "generation_config.json says so"
        assert packed.chat(messages).text == model.chat(messages).text
        for engine in (model, packed):
            assert engine.checkpoint is not None and engine.checkpoint.special.eos == (0, 2)


def byte_level_of_smollm() -> tuple[Any, str, str | None]:
    return tiny_tokenizers.byte_level(digits=True), "gpt2", "smollm"


def byte_level_of_gpt2() -> tuple[Any, str, str | None]:
    return tiny_tokenizers.byte_level(), "gpt2", "gpt-2"


def sentence_piece() -> tuple[Any, str, str | None]:
    return tiny_tokenizers.sentence_piece(), "llama", None


@pytest.mark.parametrize("made", [byte_level_of_smollm, byte_level_of_gpt2, sentence_piece])
def test_a_gguf_files_tokenizer_comes_along(
    made: Callable[[], tuple[Any, str, str | None]], seed: int, tmp_path: Path
) -> None:
    tokenizer, kind, pre = made()
    vocab = tokenizer.get_vocab_size()
    model = random_models.draw(
        "llama",
        seed,
        tmp_path / "hf",
        vocab_size=vocab,
        hidden_act="silu",
        attention_bias=False,
        mlp_bias=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    weights, path = tmp_path / "weights.gguf", tmp_path / "model.gguf"
    random_models.write_gguf(model, weights)
    tiny_tokenizers.write_metadata(tokenizer, tmp_path / "words.gguf", kind, pre)
    join_gguf(weights, tmp_path / "words.gguf", path)
    lamella.pack(path, tmp_path / "store")
    with lamella.Engine(path) as engine, lamella.Engine(tmp_path / "store") as packed:
        assert packed.checkpoint is not None and engine.checkpoint is not None
        assert packed.checkpoint.special == engine.checkpoint.special
        ours, theirs = packed.tokenizer, engine.tokenizer
        assert ours is not None and theirs is not None and ours.vocab_size == theirs.vocab_size == vocab
        assert ours.special_ids == theirs.special_ids
        for text in (*TEXTS, *tiny_tokenizers.TEXT, "<|im_start|>x<s>", "\n\t \N{SNOWMAN}"):
            ids = theirs.encode(text)
            assert ours.encode(text) == ids
            assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
            assert ours.decode(ids) == theirs.decode(ids)
        assert packed.generate("hello", max_tokens=9).text == engine.generate("hello", max_tokens=9).text


def join_gguf(weights: Path, words: Path, out: Path) -> None:
    """The tensors and keys of one file with the tokenizer of another."""
    writer = gguf.GGUFWriter(out, "llama")
    for source, wanted in ((weights, False), (words, True)):
        reader = gguf.GGUFReader(source)
        for name, field in reader.fields.items():
            if name.startswith(("GGUF.", "general.architecture")) or name.startswith("tokenizer.") != wanted:
                continue
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    for tensor in gguf.GGUFReader(weights).tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_store_alone_works_on_ids(store: Path, tmp_path: Path) -> None:
    shutil.copy(store / "model.lamella", tmp_path / "any-name")
    with lamella.Engine(tmp_path / "any-name") as engine, lamella.Engine(store) as whole:
        assert engine.tokenizer is None
        completion = engine.generate([5, 6, 7], max_tokens=5)
        assert completion.token_ids == whole.generate([5, 6, 7], max_tokens=5, ignore_eos=True).token_ids
        with pytest.raises(lamella.InvalidArgumentError, match="no tokenizer files"):
            engine.generate("hello")


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", QUANTIZATIONS)
def test_quantization_is_refused_with_what_the_store_holds(store: Path, preset: str) -> None:
    with pytest.raises(lamella.InvalidArgumentError) as caught:
        lamella.Engine(store, quantization=preset)
    message = str(caught.value)
    for part in (
        "model.lamella",
        "float32, int8 and int8, rotated int8 inputs",
        "tiny-llama",
        f"--quantization {preset}",
    ):
        assert part in message


def damaged(store: Path, out: Path, at: int, bit: int = 3) -> Path:
    """A copy of the store's folder with one bit of the file turned."""
    shutil.copytree(store, out, dirs_exist_ok=True)
    data = bytearray((out / "model.lamella").read_bytes())
    data[at] ^= 1 << bit
    (out / "model.lamella").write_bytes(data)
    return out


def test_damage_names_its_segment(store: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(seed)
    for name, offset, size, _ in open_store(store).segments():
        bad = damaged(store, tmp_path / "bad", offset + rng.randrange(size), rng.randrange(8))
        with pytest.raises(lamella.CheckpointError, match=f"segment {name} \\(bytes .*copy the file again") as caught:
            lamella.Engine(bad)
        assert caught.value.code == "INVALID_CHECKPOINT"
        assert main(["info", str(bad), "--verify"]) == 3
        captured = capsys.readouterr()
        assert not captured.out
        assert f"segment {name} " in captured.err
        shutil.rmtree(bad)


def open_store(path: Path) -> _core.PackedStore:
    return _core.open_store(path)


def test_every_damaged_bit_is_found(store: Path, tmp_path: Path, seed: int) -> None:
    """A thousand of them by opening and verifying; all of them: tests/cpp/io/store_damage_test.cpp."""
    rng, whole = random.Random(seed), (store / "model.lamella").read_bytes()
    path = tmp_path / "model.lamella"
    for _ in range(1000):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        with pytest.raises(lamella.CheckpointError):
            open_store(path).verify()
    path.write_bytes(whole)
    open_store(path).verify()


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda data: data[:0], "has only 0"),
        (lambda data: data[:40], "has only 40"),
        (lambda data: data[:-1], "copy or download incomplete"),
        (lambda data: data + b"\0", "trailing bytes"),
        (lambda data: b"GGUF" + data[4:], "not a packed store"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n", "git lfs pull"),
    ],
    ids=["empty", "short", "cut", "longer", "other", "git-lfs"],
)
def test_files_that_are_no_store(store: Path, tmp_path: Path, make: Callable[[bytes], bytes], part: str) -> None:
    (tmp_path / "model.lamella").write_bytes(make((store / "model.lamella").read_bytes()))
    for named in (tmp_path, tmp_path / "model.lamella"):
        with pytest.raises(lamella.CheckpointError, match=part):
            open_model(named)


def test_A10_a_link_out_of_the_folder(store: Path, tmp_path: Path) -> None:
    (tmp_path / "model.lamella").symlink_to(store / "model.lamella")
    with pytest.raises(lamella.CheckpointError):
        open_model(tmp_path)
    open_model(tmp_path / "model.lamella")  # the user named the file itself


def test_a_store_in_the_hugging_face_cache(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, revision = tmp_path / "models--some--store", "0123456789" * 4
    snapshot, blobs = repository / "snapshots" / revision, repository / "blobs"
    for path in (snapshot, blobs, repository / "refs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    for i, file in enumerate(sorted(store.iterdir())):
        shutil.copy(file, blobs / str(i))
        (snapshot / file.name).symlink_to(blobs / str(i))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with lamella.Engine("some/store") as engine:
        assert engine.tokenizer is not None
        assert engine.generate("hello", max_tokens=3).token_ids


def test_B4_another_models_tokenizer(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    tokenizer = tiny_tokenizers.byte_level()
    tokenizer.add_tokens([f"more{i}" for i in range(50)])
    tokenizer.save(str(tmp_path / "store" / "tokenizer.json"))
    with pytest.raises(lamella.CheckpointError, match="belongs to another model"):
        lamella.Engine(tmp_path / "store")


def test_progress_reaches_the_whole_and_may_end_the_load(store: Path) -> None:
    seen: list[tuple[int, int]] = []
    with lamella.Engine(store, progress=lambda done, total: seen.append((done, total))) as engine:
        assert engine.load_s > 0
    assert seen[-1][0] == seen[-1][1] == sum(size for _, _, size, _ in open_store(store).segments())

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lamella.Engine(store, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        open_store(store).verify(stop)


def test_a_closed_engine_leaves_no_file_open(store: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    engine = lamella.Engine(store)
    engine.close()
    del engine
    assert descriptors() == before


# ---- lamella info --------------------------------------------------------------------------------------------------


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that need not be measured."""
    monkeypatch.setattr(_core, "measure_read_bandwidth", lambda threads: 1e10)
    monkeypatch.setattr(_core, "measure_peak", lambda arithmetic, threads: 1e11)


def info(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["info", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_info_says_what_a_store_holds(store: Path, capsys: pytest.CaptureFixture[str], steady: None) -> None:
    opened = open_store(store)
    for options, verified in (((), False), (("--verify",), True)):
        code, out, err = info(capsys, store, "--json", *options)
        assert code == 0, err
        model = json.loads(out)["model"]
        assert model["store"] == {
            "bytes": (store / "model.lamella").stat().st_size,
            "layout": "cpu-panels-1",
            "dtype": "float32",
            "digest": opened.digest,
            "source": opened.source,
            "segments": len(opened.segments()),
            "verified": verified,
        }
        assert set(model["stored"]) == {"float32", "int8", "int8, rotated int8 inputs"}
        assert {kind["conversion"] for kind in model["weights"]} == {"kept"}
        assert model["files"] == [str(store / "model.lamella")]
        assert model["tokenizer"] == {"tokens": 320}
        with lamella.Engine(store) as engine:
            assert model["memory"]["weights_bytes"] == engine.stats()["bytes_weights"]
    code, out, _ = info(capsys, store / "model.lamella", "--verify")
    assert code == 0
    for part in (
        "every byte checked",
        opened.digest,
        "model: tiny-llama",
        "quantization: int8",
        "int8, rotated int8 inputs: ",
    ):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("MODEL", "--verify"), "is no packed store, and only those carry checksums"),
        (("--verify",), "name one"),
        (("--shape", "bert-base", "--verify"), "name one"),
        (("STORE", "--quantization", "int4"), "is a packed store, whose weights stay"),
    ],
)
def test_info_refuses(
    folder: Path, store: Path, capsys: pytest.CaptureFixture[str], steady: None, arguments: tuple[str, ...], part: str
) -> None:
    named = {"MODEL": str(folder), "STORE": str(store)}
    code, out, err = info(capsys, *(named.get(argument, argument) for argument in arguments))
    assert code == 2
    assert not out
    assert part in err


def test_info_of_a_damaged_store_as_json(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, offset, _, _ = open_store(store).segments()[2]
    bad = damaged(store, tmp_path / "bad", offset)
    code, out, _ = info(capsys, bad, "--verify", "--json")
    assert code == 3
    error = json.loads(out)["error"]
    assert error["code"] == "INVALID_CHECKPOINT"
    assert f"segment {name} " in error["message"]


def test_words_of_a_store_steer_no_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], steady: None
) -> None:
    model = tmp_path / "a\x1b[31m\nb"
    shutil.copytree(folder, model)
    lamella.pack(model, tmp_path / "store")
    code, out, _ = info(capsys, tmp_path / "store")
    assert code == 0
    assert "\x1b" not in out
    assert "\nb" not in out
