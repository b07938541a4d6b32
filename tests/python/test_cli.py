"""`lamella generate` and `lamella chat`, and what all commands share: options, errors, exit codes."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamella
import pytest
from lamella import _core
from lamella.cli import COMMANDS, generate, main
from lamella.cli.options import ENGINE, SAMPLING
from random_models import draw
from tiny_tokenizers import byte_level

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def ids_only(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A random model without tokenizer files."""
    folder = tmp_path_factory.mktemp("cli") / "ids"
    draw("gpt2", seed, folder, vocab_size=320, n_positions=150)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A random model with a tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("cli") / "tiny"
    draw("llama", seed, folder, vocab_size=330, max_position_embeddings=400, rope_parameters=None)
    byte_level().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def one_object(out: str) -> dict[str, Any]:
    """Standard output, which must be one line with one JSON object."""
    assert out.endswith("\n")
    assert out.count("\n") == 1
    value = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert isinstance(value, dict)
    return value


def check_generated(value: dict[str, Any], prompts: int) -> None:
    assert len(value["completions"]) == prompts
    for completion in value["completions"]:
        assert list(completion) == ["text", "token_ids", "finish_reason", "prompt_tokens"]
    timing = value["timing"]
    assert list(timing) == ["load_s", "ttft_s", "decode_step_s", "total_s"]
    assert 0 < timing["ttft_s"] <= timing["total_s"]
    assert 0 < timing["decode_step_s"] < timing["total_s"]
    assert timing["load_s"] > 0


# ---- generate ------------------------------------------------------------------------------------------------------


def test_generate_gives_what_the_engine_gives(run: Run, tiny: Path) -> None:
    code, out, err = run("generate", tiny, "--prompt", "hello", "--max-tokens", 9, "--ignore-eos", "--json")
    assert code == 0
    value = one_object(out)
    check_generated(value, 1)
    with lamella.Engine(tiny) as engine:
        expected = engine.generate("hello", max_tokens=9, ignore_eos=True)
    (completion,) = value["completions"]
    assert completion["token_ids"] == expected.token_ids
    assert completion["text"] == expected.text
    assert completion["finish_reason"] == "length"
    assert completion["prompt_tokens"] == expected.prompt_tokens
    assert "first token" in err


def test_generate_streams_the_text(run: Run, tiny: Path) -> None:
    arguments = ("generate", tiny, "--prompt", "the dog", "--max-tokens", 12)
    _, out, _ = run(*arguments, "--json")
    code, streamed, _ = run(*arguments)
    assert code == 0
    # What standard output cannot encode is escaped, so only ASCII can be compared.
    expected = one_object(out)["completions"][0]["text"] + "\n"
    assert streamed.encode("ascii", "ignore") == expected.encode("ascii", "ignore")


def test_generate_keeps_the_order_of_mixed_prompts(run: Run, tiny: Path) -> None:
    prompts = ("--prompt", "hello", "--prompt-ids", "5,6,7", "--prompt", "café")
    code, out, _ = run("generate", tiny, *prompts, "--max-tokens", 4, "--ignore-eos", "--json")
    assert code == 0
    value = one_object(out)
    check_generated(value, 3)
    with lamella.Engine(tiny) as engine:
        expected = engine.generate(["hello", [5, 6, 7], "café"], max_tokens=4, ignore_eos=True)
    assert isinstance(expected, list)
    assert [completion["token_ids"] for completion in value["completions"]] == [one.token_ids for one in expected]


def test_generate_shows_several_completions_with_numbers(run: Run, ids_only: Path) -> None:
    options = ("--max-tokens", 3, "--ignore-eos")
    code, out, _ = run("generate", ids_only, "--prompt-ids", "1,2", "--prompt-ids", "3", *options)
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("[1] ")
    assert second.startswith("[2] ")
    assert all(len(line[4:].split(",")) == 3 for line in (first, second))


def test_generate_shows_ids_where_there_is_no_tokenizer(run: Run, ids_only: Path) -> None:
    arguments = ("generate", ids_only, "--prompt-ids", "1,2,3", "--max-tokens", 5)
    _, out, _ = run(*arguments, "--json")
    completion = one_object(out)["completions"][0]
    assert completion["text"] == ""
    code, shown, _ = run(*arguments)
    assert code == 0
    assert [int(word) for word in shown.split(",")] == completion["token_ids"]


def test_sampling_options_reach_the_sampler(run: Run, tiny: Path) -> None:
    def tokens(*options: object) -> list[int]:
        code, out, err = run("generate", tiny, "--prompt-ids", "5,6", "--max-tokens", 24, "--json", *options)
        assert code == 0, err
        ids: list[int] = one_object(out)["completions"][0]["token_ids"]
        return ids

    greedy = tokens("--ignore-eos")
    hot = ("--temperature", 5, "--ignore-eos")
    assert tokens(*hot, "--seed", 1) == tokens(*hot, "--seed", 1)
    assert tokens(*hot, "--seed", 1) != tokens(*hot, "--seed", 2)
    assert tokens(*hot, "--top-k", 1) == greedy
    assert tokens(*hot, "--top-p", 1e-9) == greedy
    assert tokens("--ignore-eos", "--stop-token-ids", f"{greedy[3]},{greedy[3]}") == greedy[: greedy.index(greedy[3])]
    assert tokens(*hot, "--min-p", 1) == greedy
    assert set(tokens(*hot, "--allowed-token-ids", "7,8")) <= {7, 8}
    assert set(tokens("--ignore-eos", "--logit-bias", "9:1000,10:-inf")) == {9}
    banned = ",".join(map(str, set(greedy)))
    assert not set(tokens("--ignore-eos", "--suppress-tokens", banned)) & set(greedy)
    without_repeats = tokens("--ignore-eos", "--no-repeat-ngram-size", 1)
    assert len(set(without_repeats)) == 24
    assert len(tokens("--stop-token-ids", greedy[0], "--min-tokens", 24)) == 24
    with lamella.Engine(tiny) as engine:
        penalties = {"repetition_penalty": 3.0, "presence_penalty": -1.5, "frequency_penalty": 1.5}
        expected = engine.generate([5, 6], max_tokens=24, ignore_eos=True, **penalties)
    options = [(f"--{name.replace('_', '-')}", value) for name, value in penalties.items()]
    assert tokens("--ignore-eos", *(word for option in options for word in option)) == expected.token_ids


def test_engine_options_reach_the_engine(run: Run, tiny: Path) -> None:
    base = ("generate", tiny, "--prompt-ids", "5,6", "--max-tokens", 2, "--json")
    options = (
        "--dtype",
        "fp32",
        "--memory-budget",
        "64MiB",
        "--max-num-seqs",
        2,
        "--max-model-len",
        64,
        "--threads",
        1,
    )
    more = ("--max-num-batched-tokens", 8, "--no-deep-fusion", "--device", "cpu", "--quantization", "dequantize")
    assert run(*base, *options, *more)[0] == 0
    assert run(*base, "--quantization", "int8", "--no-smoothing", "--quantize-head")[0] == 0
    for wrong in (
        ("--dtype", "int7"),
        ("--memory-budget", "much"),
        ("--max-num-seqs", 10**6),
        ("--max-model-len", 10**6),
        ("--device", "abacus"),
        ("--quantization", "int1"),
        ("--quantize-head",),
        ("--quantization", "int4_a8", "--no-smoothing"),
    ):
        code, out, _ = run(*base, *wrong)
        assert code == 2, wrong
        assert one_object(out)["error"]["code"] == "INVALID_ARGUMENT"


def test_each_option_is_a_keyword_of_what_it_configures() -> None:
    """Defaults and meaning live in Engine and SamplingParams; the command line only names them."""
    assert {option.keyword for option in ENGINE} <= set(inspect.signature(lamella.Engine).parameters)
    assert {option.keyword for option in SAMPLING} <= {
        field.name for field in dataclasses.fields(lamella.SamplingParams)
    }


# ---- chat ----------------------------------------------------------------------------------------------------------


def test_chat_answers_each_turn_of_one_conversation(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[int] = []
    monkeypatch.setattr(_core, "measure_read_bandwidth", lambda threads: readings.append(threads) or 1e10)
    turns = ("--prompt", "hello", "--prompt", "/quit", "--system", "be kind")
    code, out, err = run("chat", tiny, *turns, "--max-tokens", 5, "--ignore-eos", "--threads", 1, "--json")
    assert code == 0, err
    value = one_object(out)
    check_generated(value, 2)
    assert list(value) == ["completions", "timing", "bandwidth"]
    assert list(value["bandwidth"]) == ["weight_bytes_per_step", "read_GBps", "bandwidth_fraction"]
    assert value["bandwidth"]["read_GBps"] == 10
    assert readings == [1]  # measured once

    with lamella.Engine(tiny) as engine:
        messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
        first = engine.chat(messages, max_tokens=5, ignore_eos=True)
        assert isinstance(first, lamella.Completion)
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "/quit"}]
        second = engine.chat(messages, max_tokens=5, ignore_eos=True)
        assert isinstance(second, lamella.Completion)
    assert [completion["token_ids"] for completion in value["completions"]] == [first.token_ids, second.token_ids]

    figures = [line for line in err.splitlines() if line.startswith("[load ")]
    assert len(figures) == 2
    for line in figures:
        for part in ("first token", "tokens/s", "% of this machine's measured memory bandwidth (10.0 GB/s)"):
            assert part in line


def test_chat_works_where_the_bandwidth_cannot_be_measured(
    run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "measure_read_bandwidth", lambda threads: None)
    code, out, err = run("chat", tiny, "--prompt", "hello", "--max-tokens", 5, "--max-model-len", 64)
    assert code == 0
    assert out
    assert "tokens/s" in err
    assert "bandwidth" not in err


def test_chat_without_a_template_is_an_error(run: Run, ids_only: Path) -> None:
    code, out, _ = run("chat", ids_only, "--prompt", "hello", "--json")
    assert code == 1
    assert one_object(out)["error"]["code"] == "CHAT_TEMPLATE"


# ---- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command"),
        (["genrate"], "did you mean generate?"),
        (["sing"], "expected generate, chat"),
        (["--versoin"], "did you mean --version?"),
        (["generate"], "no MODEL"),
        (["bench"], "nor --shape"),
        (["bench", "model", "--shape", "bert-base"], "both MODEL"),
        (["generate", "model", "extra"], "unexpected argument 'extra'"),
        (["generate", "model", "--max-token", "5"], "did you mean --max-tokens?"),
        (["generate", "--temprature=0.5", "model"], "did you mean --temperature?"),
        (["generate", "model", "--max-tokens", "many"], "whole number"),
        (["generate", "model", "--max-tokens", "0"], "from 1 to"),
        (["generate", "model", "--max-tokens", "-3"], "from 1 to"),
        (["generate", "model", "--top-k", "99999999999999999999"], "from 0 to"),
        (["generate", "model", "--temperature", "warm"], "invalid float"),
        (["generate", "model", "--prompt-ids", "1,two"], "token ids such as 5,6,7"),
        (["generate", "model", "--logit-bias", "1:2,3"], "ids and numbers such as 5:1.5,6:-2"),
        (["generate", "model", "--max-tokens"], "expected one argument"),
        (["bench", "--shape", "gpt5"], "did you mean 'gpt"),
        (["explain", "--shape", "bert-base", "--tokens", "9", "--context", "3"], "less than --tokens"),
        (["bench", "--shape", "gpt2-xl", "--prompt-tokens", "2000"], "exceed the context of 1024"),
        (["bench", "--shape", "bert-base", "--repeat", "0"], "from 1 to"),
        (["info", "--shape", "bert-base", "--seed", "1"], "unknown option --seed"),
    ],
)
def test_usage_errors_exit_with_2_and_one_message(run: Run, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("lamella: error: ")
    assert said in err
    assert "Traceback" not in err

    code, out, err = run(*arguments, "--json")
    assert code == 2
    if arguments:
        error = one_object(out)["error"]
        assert error["code"] == "INVALID_ARGUMENT"
        assert said in error["message"]


def test_context_errors_exit_with_2(run: Run, tiny: Path) -> None:
    code, out, _ = run("generate", tiny, "--prompt-ids", "1,2", "--max-tokens", 10**6, "--json")
    assert code == 2
    assert one_object(out)["error"]["code"] == "CONTEXT_TOO_LONG"
    assert run("generate", tiny, "--prompt-ids", ",".join(["1"] * 401))[0] == 2
    assert run("generate", tiny, "--prompt-ids", ",".join(["1"] * 101), "--max-model-len", 100)[0] == 2


@pytest.mark.parametrize("ids", ["", "-1", "330", "99999999999"])
def test_prompt_ids_outside_the_vocabulary_exit_with_2(run: Run, tiny: Path, ids: str) -> None:
    code, out, err = run("generate", tiny, f"--prompt-ids={ids}")
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_checkpoint_errors_exit_with_3(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    for model in (tmp_path / "missing", tmp_path):
        for command in (
            ("generate", model, "--prompt-ids", "1"),
            ("explain", model),
            ("bench", model),
            ("info", model),
        ):
            code, out, err = run(*command, "--json")
            assert code == 3, command
            error = one_object(out)["error"]
            assert error["code"] == "INVALID_CHECKPOINT"
            assert err == f"lamella: error: {error['message']}\n"


def test_memory_errors_exit_with_4(run: Run, tiny: Path) -> None:
    code, out, _ = run("generate", tiny, "--prompt-ids", "1", "--memory-budget", "10KiB", "--json")
    assert code == 4
    assert one_object(out)["error"]["code"] == "OUT_OF_MEMORY"


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (lamella.InvalidArgumentError("x"), 2, "INVALID_ARGUMENT"),
        (lamella.ContextLengthError("x"), 2, "CONTEXT_TOO_LONG"),
        (lamella.CheckpointError("x", "UNSUPPORTED_MODEL"), 3, "UNSUPPORTED_MODEL"),
        (lamella.OutOfMemoryError("x"), 4, "OUT_OF_MEMORY"),
        (lamella.StorageError("x"), 4, "IO_ERROR"),
        (MemoryError(), 4, "OUT_OF_MEMORY"),
        (OSError(28, "No space left on device"), 4, "IO_ERROR"),
        (lamella.NumericError("x"), 1, "NUMERIC"),
        (lamella.InternalError("x"), 1, "INTERNAL"),
        (ZeroDivisionError("x"), 1, "INTERNAL"),
        (KeyboardInterrupt(), 130, "CANCELLED"),
    ],
)
def test_every_error_has_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, name: str
) -> None:
    def fail(args: object) -> int:
        raise error

    monkeypatch.setattr(generate, "run", fail)
    monkeypatch.delenv("LAMELLA_DEBUG", raising=False)
    found, out, err = run("generate", "--json")
    assert found == code
    assert one_object(out)["error"]["code"] == name
    assert "Traceback" not in err
    assert run("generate")[:2] == (code, "")

    monkeypatch.setenv("LAMELLA_DEBUG", "1")
    assert ("Traceback" in run("generate")[2]) == (not isinstance(error, KeyboardInterrupt))


def test_a_failed_completion_of_several_is_shown_and_exits_with_1(
    run: Run, ids_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results(*args: object, **keywords: object) -> list[lamella.Completion]:
        good, bad = (
            lamella.Completion("", [4], "length", 1),
            lamella.Completion("", [], "error", 1, error="NaN in layer 3"),
        )
        return [good, bad]

    monkeypatch.setattr(lamella.Engine, "generate", results)
    code, out, err = run("generate", ids_only, "--prompt-ids", "1", "--prompt-ids", "2", "--json")
    assert code == 1
    good, bad = one_object(out)["completions"]
    assert good["token_ids"] == [4]
    assert (bad["finish_reason"], bad["error"]) == ("error", "NaN in layer 3")
    assert "lamella: error: NaN in layer 3" in err


# ---- help ----------------------------------------------------------------------------------------------------------


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert run("--version") == (0, f"lamella {lamella.__version__}\n", "")
    for command in COMMANDS:
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "--json" in out


# ---- a real model --------------------------------------------------------------------------------------------------


def test_smollm2_answers(run: Run, smollm2_path: Path) -> None:
    question = ("--prompt", "What is the capital of France?", "--max-tokens", 30, "--temperature", 0)
    code, out, err = run("chat", smollm2_path, *question, "--max-model-len", 512)
    assert code == 0
    assert "Paris" in out
    assert "% of this machine's measured memory bandwidth" in err
    options = ("--max-tokens", 8, "--max-model-len", 512, "--json")
    code, out, _ = run("generate", smollm2_path, "--prompt", "The capital of France is", *options)
    assert code == 0
    check_generated(one_object(out), 1)
    assert "Paris" in one_object(out)["completions"][0]["text"]
