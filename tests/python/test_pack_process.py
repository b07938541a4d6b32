"""`lamella pack` as a process: what it prints, signals, kill -9 at random moments, drives that are full or closed."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lamella import _core
from random_models import draw
from stores import names_in
from tiny_tokenizers import byte_level

LAMELLA = (sys.executable, "-m", "lamella")
DEADLINE_S = 300
WORK_FILES = {"model.lamella.partial", "model.lamella.journal"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Path:
    """A random model with a tokenizer."""
    folder = tmp_path_factory.mktemp("pack") / "tiny"
    heads = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    draw("llama", seed, folder, vocab_size=330, intermediate_size=128, rope_parameters=None, **heads)
    byte_level().save(str(folder / "tokenizer.json"))
    return folder


def lamella(*arguments: object, **keywords: Any) -> subprocess.CompletedProcess[str]:
    command = [*LAMELLA, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **keywords)


def start(*arguments: object) -> subprocess.Popen[str]:
    """A running command that takes SIGINT even where the tests themselves run in the background."""
    return subprocess.Popen(
        [*LAMELLA, *map(str, arguments)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# ---- what it prints --------------------------------------------------------------------------------------------------


def test_the_summary_says_what_was_written(tiny: Path, tmp_path: Path) -> None:
    shown = lamella("pack", tiny, tmp_path / "store", "--quantization", "int4", "--dtype", "bf16", "--threads", 2)
    assert (shown.returncode, shown.stderr) == (0, "")
    digest = _core.open_store(tmp_path / "store").digest
    for said in (str(tmp_path / "store"), digest, "int4/32:f16", "for bfloat16", "config.json, ", "tokenizer.json"):
        assert said in shown.stdout, shown.stdout
    assert "cut short" not in shown.stdout


def test_json_is_one_object(tiny: Path, tmp_path: Path) -> None:
    shown = lamella("pack", tiny, tmp_path / "store", "--json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("\n") == 1
    facts = json.loads(shown.stdout)
    store = _core.open_store(tmp_path / "store")
    assert list(facts) == [
        *("store", "bytes", "digest", "dtype", "weights", "files", "seconds", "resumed", "resumed_bytes")
    ]
    assert (facts["store"], facts["bytes"], facts["digest"]) == (
        str(tmp_path / "store"),
        store.file_bytes,
        store.digest,
    )
    assert (facts["resumed"], facts["resumed_bytes"], facts["dtype"]) == (False, 0, "float32")
    assert facts["files"] == sorted(names_in(tmp_path / "store") - {"model.lamella"})
    assert sum(kind["weights"] for kind in facts["weights"]) == len(store.formats())


def test_command_lines_that_cannot_be_understood(tiny: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for arguments, said in (
        (("pack",), "no MODEL given"),
        (("pack", tiny), "no OUT given"),
        (("pack", tiny, store, "more"), "unexpected argument 'more'"),
        (("pack", tiny, store, "--quantisation", "int4"), "did you mean --quantization"),
        (("pack", tiny, store, "--max-num-seqs", "4"), "unknown option --max-num-seqs"),
        (("pack", tiny, store, "--threads", "0"), "expected a whole number from 1"),
        (("pack", tiny, store, "--quantization", "int5"), "int8_weight_only"),
        (("pack", tiny, tiny / "store"), "inside the model's own folder"),
    ):
        shown = lamella(*arguments)
        assert (shown.returncode, shown.stdout) == (2, ""), shown.stderr
        assert said in shown.stderr
    assert not store.exists()


def test_the_store_serves_the_other_commands(tiny: Path, tmp_path: Path) -> None:
    assert lamella("pack", tiny, tmp_path / "store", "--quantization", "int8").returncode == 0
    options = ("--prompt", "hello", "--max-tokens", 9, "--ignore-eos", "--json")
    ours = lamella("generate", tmp_path / "store", *options)
    theirs = lamella("generate", tiny, "--quantization", "int8", *options)
    assert json.loads(ours.stdout)["completions"] == json.loads(theirs.stdout)["completions"]
    assert lamella("info", tmp_path / "store", "--verify", "--json").returncode == 0


def wait_for_journal(process: subprocess.Popen[str], store: Path) -> None:
    """Returns when there is something to go on with."""
    journal = store / "model.lamella.journal"
    while not (journal.exists() and journal.stat().st_size > 0):
        time.sleep(0.01)
        assert process.poll() is None


# ---- kill -9, Ctrl-C -------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(
    smollm2_path: Path, tmp_path: Path, seed: int, full_stage: bool
) -> None:
    """The store is half a gigabyte, so that there are eight notes in its journal."""
    options = ("--quantization", "dequantize", "--dtype", "float32", "--json")
    started = time.monotonic()
    assert lamella("pack", smollm2_path, tmp_path / "whole", *options).returncode == 0
    seconds = time.monotonic() - started
    rng = random.Random(seed)
    kills = resumed = 0
    while kills < (20 if full_stage else 5):
        with start("pack", smollm2_path, tmp_path / "store", *options, "--threads", rng.choice([1, 2, 3])) as process:
            try:
                process.wait(rng.uniform(0.15, 1.0) * seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                continue
            assert process.stdout is not None and process.stderr is not None
            if process.returncode == 0:
                resumed += json.load(process.stdout)["resumed"]
            else:  # the kill came when all was done
                assert "holds a packed store already" in process.stderr.read()
        assert same_files(tmp_path / "whole", tmp_path / "store")
        shutil.rmtree(tmp_path / "store")
    last = lamella("pack", smollm2_path, tmp_path / "store", *options)
    if last.returncode == 0:
        resumed += json.loads(last.stdout)["resumed"]
    else:
        assert "holds a packed store already" in last.stderr
    assert same_files(tmp_path / "whole", tmp_path / "store")
    _core.open_store(tmp_path / "store").verify()
    print(f"{kills} kills, {resumed} packings that ended had something to go on with")


def same_files(ours: Path, theirs: Path) -> bool:
    names = names_in(ours)
    return names == names_in(theirs) and all((ours / n).read_bytes() == (theirs / n).read_bytes() for n in names)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_within_a_step_and_it_goes_on(
    smollm2_path: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    options = ("--quantization", "int4", "--threads", 1)  # the search for clips takes seconds
    # Where the machine is slow, or sanitizers are, nothing is finished so soon that could be gone on with.
    for pause in (0.5, 4.0, 30.0):
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        if signalled_pack_resumes(smollm2_path, tmp_path / "store", options, number, code, pause):
            return
    pytest.fail("what was finished was not noted on the way out")


def signalled_pack_resumes(
    model: Path, store: Path, options: tuple[object, ...], number: signal.Signals, code: int, pause: float
) -> bool:
    """Sends the signal so long after packing began to write, packs again, and says whether that went on."""
    with start("pack", model, store, *options, "--json") as process:
        wait_for_journal(process, store)
        time.sleep(pause)
        process.send_signal(number)
        sent = time.monotonic()
        assert process.wait(DEADLINE_S) == code
        print(f"ended after {time.monotonic() - sent:.3f} s")
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.read())["error"]["code"] == "CANCELLED"
        error = process.stderr.read()
    assert "interrupted" in error
    assert "Traceback" not in error
    assert names_in(store) == WORK_FILES
    again = lamella("pack", model, store, *options, "--json")
    assert again.returncode == 0, again.stderr
    return bool(json.loads(again.stdout)["resumed"])


def test_a_packing_of_other_options_is_told_on_standard_error(smollm2_path: Path, tmp_path: Path) -> None:
    with start("pack", smollm2_path, tmp_path / "store", "--quantization", "int4") as process:
        wait_for_journal(process, tmp_path / "store")
        process.kill()
    shown = lamella("pack", smollm2_path, tmp_path / "store", "--json")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["resumed"] is False
    assert "lamella: warning: " in shown.stderr
    assert "starting afresh" in shown.stderr


# ---- drives ----------------------------------------------------------------------------------------------------------


def on_drive(options: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a command with a drive of its own mounted on `folder`; lists what it left there."""
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o {options} none "$0" || exit 77; "$@"; code=$?; ls -A "$0" >&2; exit $code'
    command = ["unshare", "-Urm", "sh", "-c", script, str(folder), *LAMELLA, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip(f"this machine does not let the tests mount a drive: {result.stderr.strip()}")
    return result


def test_C9_a_full_drive_is_an_error_that_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    shown = on_drive("size=64k", tmp_path / "drive", "pack", tiny, tmp_path / "drive" / "store", "--json")
    assert shown.returncode == 4
    error = json.loads(shown.stdout)["error"]
    assert error["code"] == "IO_ERROR"
    for said in ("model.lamella.partial", "No space left on device", "bytes are free there", "make room"):
        assert said in error["message"]
    assert shown.stderr.count("\n") == 1, shown.stderr  # the message; the drive is empty again


def test_C9_no_room_for_the_files_beside_is_an_error_to_go_on_from(tiny: Path, tmp_path: Path) -> None:
    assert lamella("pack", tiny, tmp_path / "whole").returncode == 0
    pages = (tmp_path / "whole" / "model.lamella").stat().st_size // 1024 + 12  # the tokenizer needs more than that
    shown = on_drive(f"size={pages}k", tmp_path / "drive", "pack", tiny, tmp_path / "drive" / "store")
    assert shown.returncode == 4, shown.stderr
    assert "tokenizer.json: cannot write: No space left on device" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_C9_a_drive_for_reading_only_is_an_error(tiny: Path, tmp_path: Path) -> None:
    shown = on_drive("ro", tmp_path / "drive", "pack", tiny, tmp_path / "drive" / "store")
    assert shown.returncode == 4
    assert "drive/store: cannot make the folder: Read-only file system" in shown.stderr
    shown = on_drive("ro", tmp_path / "drive", "pack", tiny, tmp_path / "drive")
    assert shown.returncode == 4
    assert "Read-only file system" in shown.stderr
    assert "choose a folder that this process may write to" in shown.stderr


def test_a_folder_without_permission_is_an_error(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    # root may write anywhere, but not from a user namespace of its own
    prefix = ["unshare", "-U"] if os.geteuid() == 0 else []
    command = [*prefix, *LAMELLA, "pack", str(tiny), str(tmp_path / "closed")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    if "unshare" in shown.stderr:
        pytest.skip(f"root cannot give up its rights here: {shown.stderr.strip()}")
    assert shown.returncode == 4, shown.stderr
    assert "closed/model.lamella.journal: cannot open for writing: Permission denied" in shown.stderr


def test_C9_a_limit_on_files_is_an_error_not_a_signal(tiny: Path, tmp_path: Path) -> None:
    shown = lamella(
        *("pack", tiny, tmp_path / "store"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert shown.returncode == 4
    assert "raise `ulimit -f`" in shown.stderr
    assert not (tmp_path / "store").exists()
