"""The engine's surface: what it takes, what it gives, how requests live beside one another, and how they end."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import random
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import lamella
import numpy as np
import pytest
from lamella import _core
from lamella.checkpoint import open_model
from lamella.model_weights import TensorWeights
from random_models import draw
from tiny_tokenizers import byte_level, word_piece

CONTEXT = 300
FIELDS = (
    *("op", "layer", "region", "inputs", "outputs", "shape", "dtype", "kernel"),
    *("bytes_read", "bytes_written", "flops", "roofline_s", "measured_s"),
)
OUTCOMES = ("running", "finished", "cancelled", "rejected", "failed")


def write_text_model(seed: int, folder: Path, **config: Any) -> int:
    """A GPT-2 with a byte-level tokenizer: most sampled tokens are pieces of UTF-8. Returns its vocabulary's size."""
    tokenizer = byte_level()
    vocab = tokenizer.get_vocab_size()
    draw("gpt2", seed, folder, vocab_size=vocab, n_positions=CONTEXT, **config)
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocab


@pytest.fixture(scope="module")
def folder(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2")
    write_text_model(seed, path)
    return path


@pytest.fixture
def engine(folder: Path) -> Iterator[lamella.Engine]:
    """A fresh engine, which must end without a request or a KV block left over."""
    with lamella.Engine(folder) as engine:
        yield engine
        if engine._core is not None:
            assert_idle(engine)


@pytest.fixture(scope="module")
def busy_spec(folder: Path) -> _core.ModelSpec:
    """A shape whose decode step takes about a millisecond, so that there is time to disturb it."""
    layer = open_model(folder).spec.layers[0]
    layer.attention = _core.AttentionSpec(heads=8, kv_heads=8, head_dim=32, scale=0.1, qkv_bias=True, output_bias=True)
    layer.mlp = _core.MlpSpec(intermediate=1024, activation=_core.Activation.relu, up_bias=True, down_bias=True)
    return _core.ModelSpec(
        family="gpt2",
        vocab=2000,
        hidden=256,
        max_positions=4096,
        embedding=_core.EmbeddingSpec(positions=_core.PositionKind.learned, position_rows=4096),
        layers=[layer] * 6,
        head=_core.HeadSpec(norm=layer.mlp_norm, tied=True),
    )


def assert_idle(engine: lamella.Engine) -> None:
    stats = engine.stats()
    assert stats["kv_blocks_used"] == 0
    assert stats["running"] == 0
    assert_counted(stats)


def assert_counted(stats: dict[str, int | str]) -> None:
    assert stats["received"] == sum(int(stats[name]) for name in OUTCOMES), stats


# ---- prompts and results ---------------------------------------------------------------------------------------------


def test_a_prompt_is_text_or_ids_and_a_list_gives_a_list(engine: lamella.Engine) -> None:
    tokenizer = engine.tokenizer_or_raise()
    text = "hello world"
    ids = tokenizer.encode(text)
    one = engine.generate(text, max_tokens=9)
    assert isinstance(one, lamella.Completion)
    assert one.text == tokenizer.decode(one.token_ids)
    assert (len(one.token_ids), one.finish_reason, one.prompt_tokens, one.error) == (9, "length", len(ids), None)
    assert 0 < one.timing.first_token_s <= one.timing.total_s
    assert engine.generate(ids, max_tokens=9).token_ids == one.token_ids
    assert engine.generate(np.array(ids), max_tokens=9).token_ids == one.token_ids
    for prompts in ([text], [ids], [text, ids], (ids, text), np.array([ids, ids])):
        many = engine.generate(prompts, max_tokens=9)
        assert isinstance(many, list) and len(many) == len(prompts)
        assert all(completion.token_ids == one.token_ids for completion in many)
    assert engine.generate([], max_tokens=9) == []


def test_results_stand_in_the_order_of_the_prompts(engine: lamella.Engine) -> None:
    prompts = [[7] * (50 - i) for i in range(40)]  # more than run at once, the longest first
    completions = engine.generate(prompts, max_tokens=3)
    assert [completion.prompt_tokens for completion in completions] == [len(prompt) for prompt in prompts]
    assert [done.token_ids for done in completions] == [engine.generate(one, max_tokens=3).token_ids for one in prompts]


def test_streamed_chunks_joined_are_the_completion(engine: lamella.Engine, seed: int) -> None:
    for i in range(12):
        options: dict[str, Any] = {"max_tokens": 60, "temperature": 1.5, "seed": seed + i}
        completion = engine.generate("café 你好", **options)
        chunks = list(engine.stream("café 你好", **options))
        assert "".join(chunk.text for chunk in chunks) == completion.text
        assert [token for chunk in chunks for token in chunk.token_ids] == completion.token_ids
        assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + [completion.finish_reason]


def test_the_default_of_256_tokens_is_clipped_to_the_context(engine: lamella.Engine) -> None:
    for length in (1, CONTEXT - 256, CONTEXT - 255, CONTEXT - 1):
        completion = engine.generate([7] * length)
        assert len(completion.token_ids) == min(256, CONTEXT - length)
        assert completion.finish_reason == "length"


def test_max_model_len_shortens_the_context(folder: Path) -> None:
    with lamella.Engine(folder, max_model_len=20) as engine:
        assert len(engine.generate([7, 8]).token_ids) == 18
        with pytest.raises(lamella.ContextLengthError):
            engine.generate([7] * 21)


def test_generation_stops_at_stop_tokens_and_at_the_configs_end_of_sequence(
    folder: Path, engine: lamella.Engine, seed: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"max_tokens": 40, "temperature": 1.5, "seed": seed}
    tokens = engine.generate([7, 8], **options).token_ids
    at = next(i for i in range(5, 40) if tokens[i] not in tokens[:i])
    stopped = engine.generate([7, 8], stop_token_ids=[tokens[at]], **options)
    assert (stopped.token_ids, stopped.finish_reason) == (tokens[:at], "stop")
    chunks = list(engine.stream([7, 8], stop_token_ids=(tokens[at],), **options))
    assert [token for chunk in chunks for token in chunk.token_ids] == tokens[:at]
    assert chunks[-1].finish_reason == "stop"

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokens[at], 3]}))
    with lamella.Engine(tmp_path) as ending:
        assert ending.generate([7, 8], **options).token_ids == tokens[:at]
        assert ending.generate([7, 8], **options).finish_reason == "stop"
        assert ending.generate([7, 8], ignore_eos=True, **options).token_ids == tokens
        first = tokens.index(tokens[2])
        assert (
            ending.generate([7, 8], ignore_eos=True, stop_token_ids=[tokens[2]], **options).token_ids == tokens[:first]
        )


def test_params_and_keywords_say_the_same(engine: lamella.Engine, seed: int) -> None:
    params = lamella.SamplingParams(max_tokens=12, temperature=0.9, top_k=40, top_p=0.9, seed=seed)
    expected = engine.generate([7, 8], max_new_tokens=12, temperature=0.9, top_k=40, top_p=0.9, seed=seed).token_ids
    assert engine.generate([7, 8], params).token_ids == expected
    assert engine.generate([7, 8], params, max_tokens=5).token_ids == expected[:5]
    assert params.max_tokens == 12


# ---- several at once -------------------------------------------------------------------------------------------------


def test_leaving_a_stream_cancels_it_and_frees_its_blocks(engine: lamella.Engine) -> None:
    free = engine.stats()
    for leave in ("break", "close", "throw", "delete"):
        stream = engine.stream([7] * 40, max_tokens=200)
        next(stream)
        assert engine.stats()["kv_blocks_used"] == 15, "40 + 200 tokens in blocks of 16"
        assert engine.stats()["running"] == 1
        if leave == "break":
            for _ in stream:
                break
        if leave == "throw":
            with pytest.raises(ZeroDivisionError):
                stream.throw(ZeroDivisionError)  # type: ignore[attr-defined]
        elif leave != "delete":
            stream.close()  # type: ignore[attr-defined]
        del stream
        assert_idle(engine)
    stats = engine.stats()
    assert stats["cancelled"] == 4
    assert {**free, "received": 4, "cancelled": 4} == stats


def test_a_stream_that_nobody_starts_costs_nothing(engine: lamella.Engine) -> None:
    engine.stream([7], max_tokens=5)
    assert engine.stats()["received"] == 0


def test_streams_and_generate_take_turns_in_one_thread(engine: lamella.Engine) -> None:
    prompts = [[7 + i, 8, 9] for i in range(5)]
    expected = [engine.generate(prompt, max_tokens=50).token_ids for prompt in prompts]
    streams = [engine.stream(prompt, max_tokens=50) for prompt in prompts]
    tokens: list[list[int]] = [[] for _ in prompts]
    rng = random.Random(4)
    alive = list(range(5))
    while alive:
        i = rng.choice(alive)
        chunk = next(streams[i], None)
        if chunk is None:
            alive.remove(i)
            continue
        tokens[i] += chunk.token_ids
        if rng.random() < 0.2:
            assert engine.generate(prompts[i], max_tokens=3).token_ids == expected[i][:3]
        assert_counted(engine.stats())
    assert tokens == expected


def test_threads_share_one_engine(engine: lamella.Engine, seed: int, full_stage: bool) -> None:
    prompts = [[7 + i] * (1 + 7 * i) for i in range(6)]
    options: dict[str, Any] = {"max_tokens": 25, "temperature": 1.0, "seed": seed}
    expected = [engine.generate(prompt, **options).token_ids for prompt in prompts]
    stop, failures = threading.Event(), []

    def client(number: int) -> None:
        try:
            for round in range(60 if full_stage else 6):
                i = (number + round) % len(prompts)
                if number % 3 == 0:
                    for chunk in engine.stream(prompts[i], **options):
                        assert chunk.token_ids[0] == expected[i][0]
                        break
                elif number % 3 == 1:
                    assert engine.generate(prompts[i], **options).token_ids == expected[i]
                else:
                    assert [done.token_ids for done in engine.generate(prompts, **options)] == expected
        except BaseException as error:
            failures.append(error)

    def watch() -> None:
        while not stop.is_set():
            try:
                assert_counted(engine.stats())
            except BaseException as error:
                failures.append(error)
                return

    watcher = threading.Thread(target=watch)
    clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in [watcher, *clients]:
        thread.start()
    for thread in clients:
        thread.join()
    stop.set()
    watcher.join()
    assert not failures, failures


def test_two_engines_live_side_by_side(folder: Path, seed: int, tmp_path: Path) -> None:
    write_text_model(seed + 1, tmp_path)
    with lamella.Engine(folder) as a, lamella.Engine(tmp_path, dtype="bfloat16", threads=1) as b:
        alone = a.generate([7, 8], max_tokens=20).token_ids, b.generate([7, 8], max_tokens=20).token_ids
        assert alone[0] != alone[1]
        mixed: tuple[list[int], list[int]] = ([], [])
        for chunks in zip(a.stream([7, 8], max_tokens=20), b.stream([7, 8], max_tokens=20), strict=True):
            for tokens, chunk in zip(mixed, chunks, strict=True):
                tokens += chunk.token_ids
        assert mixed == alone
        a.close()
        assert b.generate([7, 8], max_tokens=20).token_ids == alone[1]


def test_stats_count_each_outcome_once(engine: lamella.Engine) -> None:
    engine.generate([[7], [8], [9]], max_tokens=4)
    next(engine.stream([7], max_tokens=100))  # started, then dropped
    gc.collect()
    stats = engine.stats()
    assert (stats["received"], stats["finished"], stats["cancelled"], stats["failed"]) == (4, 3, 1, 0)
    assert stats["io_backend"] == "pread"
    assert int(stats["kv_blocks_total"]) >= CONTEXT // 16
    assert all(int(stats[f"bytes_{what}"]) > 0 for what in ("weights", "kv", "activations"))


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_a_closed_engine_refuses_everything_but_close(folder: Path) -> None:
    with lamella.Engine(folder) as engine:
        whole = engine.generate([7], max_tokens=9)
        never_started, started = engine.stream([7], max_tokens=9), engine.stream([7], max_tokens=9)
        chunks = [next(started)]
    for call in (
        lambda: engine.generate([7]),
        lambda: engine.generate([]),
        lambda: engine.stream([7]),
        lambda: engine.logits([7]),
        lambda: engine.encode([7]),
        lambda: engine.plan(),
        lambda: engine.stats(),
        lambda: engine.generate("hello"),
        lambda: engine.encode_prompt(""),
        lambda: engine.chat([]),
        lambda: engine.tokenizer,
        lambda: engine.checkpoint,
        lambda: next(never_started),
    ):
        with pytest.raises(lamella.InvalidArgumentError, match="the engine is closed"):
            call()
    chunks += started
    assert chunks[-1].finish_reason == "length", "a stream that runs keeps its engine alive"
    assert "".join(chunk.text for chunk in chunks) == whole.text, "and its tokenizer"
    engine.close()


def test_a_closed_engine_leaves_no_file_open(folder: Path) -> None:
    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    engine = lamella.Engine(folder)
    stream = engine.stream([7], max_tokens=9)
    next(stream)
    engine.close()
    assert descriptors() == before, "a stream that runs needs no file"
    assert list(stream)[-1].finish_reason == "length"
    with lamella.Engine(folder) as engine:
        kept = engine.checkpoint
    assert kept is not None and isinstance(kept.weights, TensorWeights)
    tensors = kept.weights.tensors
    assert tensors.read_f32(tensors.names()[0]).size, "a caller's checkpoint stays open"
    del kept, tensors
    assert descriptors() == before


def test_closing_in_another_thread_is_seen_at_once_or_not_at_all(folder: Path) -> None:
    class Closing(lamella.Engine):
        """Every look at the native engine is the last one before another thread closes it."""

        @property
        def _core(self) -> _core.Engine | None:  # type: ignore[override]
            core, self._kept = self._kept, None
            return core

        @_core.setter
        def _core(self, core: _core.Engine | None) -> None:
            self._kept = core

    engine = Closing(folder)
    assert isinstance(engine.core, _core.Engine)
    with pytest.raises(lamella.InvalidArgumentError, match="the engine is closed"):
        engine.core  # noqa: B018


def test_an_engine_frees_its_memory_when_closed_or_forgotten(busy_spec: _core.ModelSpec) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    vocab = busy_spec.vocab
    busy_spec.vocab = 100_000  # 100 MB of embedding in float32
    try:
        before = resident()
        for forget in (True, False):
            engine = lamella.Engine.random(busy_spec, dtype="float32")
            assert int(engine.stats()["bytes_weights"]) > 100_000_000
            engine.generate([7], max_tokens=3)
            assert resident() > before + 90_000_000
            reference = weakref.ref(engine)
            if forget:
                del engine  # no cycle: freed at once, without the collector
                assert reference() is None
            else:
                engine.close()
            assert resident() < before + 30_000_000
    finally:
        busy_spec.vocab = vocab


def test_an_interrupt_ends_generate_and_leaves_the_engine_as_it_was(busy_spec: _core.ModelSpec) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        expected = engine.generate([[7], [8, 9]], max_tokens=10)
        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            for call in (
                lambda: engine.generate([7] * 300, max_tokens=3000),
                lambda: engine.generate([[7 + i] * 100 for i in range(9)], max_tokens=3000),
                lambda: list(engine.stream([7], max_tokens=3000)),
            ):
                started = time.perf_counter()
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(KeyboardInterrupt):
                    call()
                assert time.perf_counter() - started < 2.0
                assert_idle(engine)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert engine.stats()["cancelled"] == 11
        again = engine.generate([[7], [8, 9]], max_tokens=10)
        assert [done.token_ids for done in again] == [done.token_ids for done in expected]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_what_is_raised_while_decoding_comes_out_and_no_request_is_left(
    folder: Path, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> str:
        raise kind

    with lamella.Engine(folder, max_num_seqs=3) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("lamella.tokenizer.Tokenizer.decode", interrupted)
            patch.setattr("lamella.tokenizer.DecodeStream.flush", interrupted)
            for call in (
                lambda: engine.generate([[7 + i] for i in range(8)], max_tokens=20),  # three end at once, five wait
                lambda: engine.generate([7], max_tokens=20),
                lambda: list(engine.stream([7], max_tokens=20)),
            ):
                with pytest.raises(kind):
                    call()
                assert_idle(engine)
        stats = engine.stats()
        assert (stats["received"], stats["finished"], stats["cancelled"]) == (10, 5, 5)
        assert engine.generate([7], max_tokens=5).finish_reason == "length"


def test_a_request_that_cannot_be_cancelled_does_not_keep_the_others(folder: Path) -> None:
    class Failing:
        """The native engine, where poll fails once and cancel fails for the first request."""

        def __init__(self, core: Any) -> None:
            self.core, self.cancelled, self.polls = core, [], 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.core, name)

        def poll(self, request: int) -> Any:
            self.polls += 1
            if self.polls == 7:
                raise ZeroDivisionError("the first failure")
            return self.core.poll(request)

        def cancel(self, request: int) -> None:
            self.cancelled.append(request)
            if len(self.cancelled) == 1:
                raise MemoryError
            self.core.cancel(request)

    with lamella.Engine(folder) as engine:
        native = engine.core
        failing = Failing(native)
        engine._core = failing  # type: ignore[assignment]
        with pytest.raises(ZeroDivisionError, match="the first failure"):
            engine.generate([[7 + i] for i in range(5)], max_tokens=200)
        assert len(failing.cancelled) == 5
        engine._core = native
        assert engine.stats()["cancelled"] == 4 and engine.stats()["running"] == 1
        engine.core.cancel(failing.cancelled[0])
        assert_idle(engine)


def test_interrupts_at_any_moment_leave_no_request(folder: Path, seed: int, full_stage: bool) -> None:
    """The alarm comes while requests are checked, submitted, run, polled, decoded or already ended."""
    armed: list[bool] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    rng, interrupted = random.Random(seed), 0
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        with lamella.Engine(folder, max_num_seqs=4, threads=1) as engine:
            prompts = [[7 + i] * (1 + i) for i in range(12)]
            started = time.perf_counter()
            engine.generate(prompts, max_tokens=6)
            longest = time.perf_counter() - started
            for i in range(1000 if full_stage else 150):
                try:
                    armed.append(True)
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, longest))
                    engine.generate(prompts, max_tokens=6) if i % 2 else list(engine.stream([7], max_tokens=40))
                    armed.clear()
                except KeyboardInterrupt:
                    interrupted += 1
                assert_idle(engine)
            stats = engine.stats()
            print(f"{interrupted} interrupted; {stats['finished']} finished, {stats['cancelled']} cancelled")
            assert interrupted > 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_cancelling_a_request_that_waits_ends_it_during_anothers_step(busy_spec: _core.ModelSpec) -> None:
    """A place in the queue is given up at once; only a sequence whose blocks a step may be using waits for its end."""
    with lamella.Engine.random(busy_spec, dtype="float32", max_num_seqs=1) as engine:
        sampling = _core.SamplingParams(max_tokens=2000)
        running, waiting = (engine.core.submit(_core.Request([7], sampling)) for _ in range(2))
        stop = threading.Event()

        def step() -> None:
            while not stop.is_set():
                engine.core.step()

        stepper = threading.Thread(target=step)
        stepper.start()
        try:
            for _ in range(20):  # at any moment of the step
                time.sleep(0.003)
                engine.core.cancel(waiting)
                assert engine.core.poll(waiting).reason == "cancelled"
                waiting = engine.core.submit(_core.Request([7], sampling))
        finally:
            stop.set()
            stepper.join()
        for request in (running, waiting):
            engine.core.cancel(request)
        assert_idle(engine)


def test_an_engine_cannot_be_pickled_or_copied(engine: lamella.Engine) -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(lamella.InvalidArgumentError, match="cannot be pickled or copied: open the model again"):
            attempt(engine)
    assert engine.generate([7], max_tokens=2).finish_reason == "length"


def in_a_fork(act: Callable[[], Any]) -> None:
    """Runs `act` in a forked process, raises here what Lamella raises there, and fails when it hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            code = 0
        except lamella.InvalidArgumentError as error:
            os.write(writing, str(error).encode())
            code = 2
        except BaseException:
            code = 3
        os._exit(code)
    os.close(writing)
    deadline = time.monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    with os.fdopen(reading, "rb") as pipe:
        message = pipe.read().decode()
    code = os.waitstatus_to_exitcode(ended[1])
    if code == 2:
        raise lamella.InvalidArgumentError(message)
    assert code == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_an_error_and_no_hang(engine: lamella.Engine) -> None:
    expected = engine.generate([7], max_tokens=5).token_ids
    with pytest.raises(lamella.InvalidArgumentError, match="forked"):
        in_a_fork(lambda: engine.generate([7], max_tokens=5))
    assert engine.generate([7], max_tokens=5).token_ids == expected


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_leave_a_stream_but_not_go_on_with_it(busy_spec: _core.ModelSpec) -> None:
    """While a thread of the parent is inside a step, whose locks the child inherits and nobody there gives back."""
    streams: list[Any] = []

    def forget() -> None:
        streams.clear()
        gc.collect()

    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        expected = [token for chunk in engine.stream([7], max_tokens=30) for token in chunk.token_ids]
        streams.append(engine.stream([7], max_tokens=30))
        tokens = list(next(streams[0]).token_ids)
        stop = threading.Event()

        def step() -> None:
            while not stop.is_set():
                for _ in engine.stream([8], max_tokens=1000):
                    if stop.is_set():
                        break

        stepper = threading.Thread(target=step)
        stepper.start()
        try:
            for _ in range(3):
                time.sleep(0.05)
                with pytest.raises(lamella.InvalidArgumentError, match="forked"):
                    in_a_fork(lambda: next(streams[0]))
                in_a_fork(streams[0].close)
                in_a_fork(forget)
        finally:
            stop.set()
            stepper.join()
        tokens += [token for chunk in streams[0] for token in chunk.token_ids]
        assert tokens == expected, "the parent's stream goes on"
        assert_idle(engine)


# ---- shapes, plans, encoders -----------------------------------------------------------------------------------------


def test_a_random_engine_works_on_ids_and_repeats_with_its_seed(folder: Path) -> None:
    spec = open_model(folder).spec

    def run(**options: Any) -> tuple[np.ndarray, list[int]]:
        with lamella.Engine.random(spec, **options) as engine:
            with pytest.raises(lamella.InvalidArgumentError, match="no tokenizer"):
                engine.generate("hello")
            assert engine.checkpoint is None and engine.generate([7], max_tokens=2).text == ""
            return engine.logits([5, 6, 7])[0], engine.generate([5], max_tokens=9, temperature=1.0).token_ids

    logits, tokens = run(seed=3)
    assert logits.shape == (3, spec.vocab) and np.isfinite(logits).all()
    again, tokens_again = run(seed=3, threads=3)
    assert np.array_equal(again, logits) and tokens_again == tokens
    assert not np.array_equal(run(seed=4)[0], logits)


def test_plan_rows_have_their_fields_and_their_flops_are_twice_the_parameters(busy_spec: _core.ModelSpec) -> None:
    parameters, layers = _core.parameter_count(busy_spec), len(busy_spec.layers)
    with lamella.Engine.random(busy_spec, dtype="float32") as engine:
        rows = engine.plan(batch_size=2, tokens=3, context=40)
        assert_idle(engine)
        for row in rows:
            assert tuple(row) == FIELDS
            assert row["bytes_written"] > 0 and row["measured_s"] > 0 and row["roofline_s"] > 0
            assert row["kernel"] and row["dtype"] == "float32"
        assert [row["layer"] for row in rows if row["layer"] >= 0] == sorted(
            row["layer"] for row in rows if row["layer"] >= 0
        )
        # Matrices take part once a token, the position table not at all, and the head (tied) for two rows of logits.
        head, table = busy_spec.vocab * busy_spec.hidden, 4096 * busy_spec.hidden
        products = 2 * 6 * (parameters - head - table) + 2 * 2 * head
        attention = 4 * 2 * 3 * 40 * 8 * 32 * layers  # at most
        flops = sum(row["flops"] for row in rows)
        assert 0.98 * products <= flops <= 1.05 * products + 1.3 * attention, (flops, products, attention)
        read = sum(row["bytes_read"] for row in engine.plan())
        assert read >= 0.99 * 4 * (parameters - table), "one token reads every weight"
        assert len(engine.plan(tokens=5)) == len(rows)
        for wrong in (
            {"batch_size": 0},
            {"tokens": 0},
            {"tokens": 9, "context": 8},
            {"batch_size": 33},
            {"context": 9999},
        ):
            with pytest.raises(lamella.InvalidArgumentError):
                engine.plan(**wrong)
    with lamella.Engine.random(busy_spec, dtype="float32", deep_fusion=False) as engine:
        plain = engine.plan(batch_size=2, tokens=3, context=40)
        assert len(plain) >= len(rows) + 4 * layers, "the four regions of a layer each stand for several ops"
        assert {row["region"] for row in plain} == {row["region"] for row in rows}
        assert sum(row["flops"] for row in plain) == pytest.approx(flops, rel=0.05)


def test_encode_pools_and_normalizes(seed: int, tmp_path: Path) -> None:
    tokenizer = word_piece()
    draw("bert", seed, tmp_path, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with lamella.Engine(tmp_path) as engine:
        hidden = engine.core.spec.hidden
        texts = ["hello world", "the quick brown fox", ""]
        ids = [engine.encode_prompt(text) for text in texts]
        assert [len(one) for one in ids][2] == 2, "an empty text is [CLS] [SEP]"
        rows = engine.encode(texts, pooling=None)
        assert isinstance(rows, list) and [row.shape for row in rows] == [(len(one), hidden) for one in ids]
        means, first = engine.encode(texts), engine.encode(texts, pooling="cls")
        assert isinstance(means, np.ndarray) and means.shape == (3, hidden) and means.dtype == np.float32
        assert np.array_equal(first, np.stack([row[0] for row in rows]))
        np.testing.assert_allclose(means, [row.astype(np.float64).mean(axis=0) for row in rows], rtol=1e-4, atol=1e-5)
        assert np.array_equal(engine.encode(ids), means)
        assert np.array_equal(engine.encode("hello world"), means[:1])
        assert np.array_equal(engine.encode(ids[0]), means[:1])
        unit = engine.encode(texts, normalize=True)
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(unit, means / np.linalg.norm(means, axis=1, keepdims=True), rtol=1e-5)
        assert np.array_equal(engine.encode(texts, normalize=False), means)
        assert engine.encode([]).shape == (0, hidden) and engine.encode([], pooling=None) == []
        many = [[5 + i % 40] * (1 + i % 60) for i in range(100)]  # several steps
        assert np.array_equal(engine.encode(many)[41], engine.encode(many[41])[0])
        assert_idle(engine)


def test_logits_are_one_array_an_input(engine: lamella.Engine) -> None:
    ids = engine.encode_prompt("hello world")
    arrays = engine.logits(["hello world", ids, [5]])
    vocab = engine.core.spec.vocab
    assert [array.shape for array in arrays] == [(len(ids), vocab), (len(ids), vocab), (1, vocab)]
    assert all(array.dtype == np.float32 for array in arrays)
    assert np.array_equal(arrays[0], arrays[1])
    assert engine.generate(ids, max_tokens=1).token_ids == [int(arrays[0][-1].argmax())]
    assert engine.logits([]) == []


def test_a_list_for_logits_is_checked_whole_before_it_starts(engine: lamella.Engine) -> None:
    class Counting:
        """The native engine, which counts the inputs that it runs."""

        def __init__(self, core: Any) -> None:
            self.core, self.runs = core, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.core, name)

        def logits(self, ids: list[int]) -> np.ndarray:
            self.runs += 1
            return self.core.logits(ids)

    native = engine.core
    counting = Counting(native)
    engine._core = counting  # type: ignore[assignment]
    for inputs, kind, message in (
        ([[1], [2, 9999]], lamella.InvalidArgumentError, "prompt 1 of 2: prompt token 1 is 9999; the vocabulary has"),
        ([[1], [-1]], lamella.InvalidArgumentError, "prompt 1 of 2: prompt token 0 is -1; the vocabulary has"),
        ([[1], []], lamella.InvalidArgumentError, "prompt 1 of 2: the prompt has no tokens"),
        ([[1], [1] * (CONTEXT + 1)], lamella.ContextLengthError, "prompt 1 of 2: the prompt has 301 tokens"),
        (["a", "\ud800"], lamella.InvalidArgumentError, "prompt 1 of 2: .*lone surrogate"),
    ):
        with pytest.raises(kind, match=message):
            engine.logits(inputs)
        assert counting.runs == 0
    assert len(engine.logits([[1], [2]])) == counting.runs == 2
    engine._core = native


def test_logits_say_so_while_others_hold_the_kv_cache(folder: Path) -> None:
    with lamella.Engine(folder, max_num_seqs=1) as engine:
        stream = engine.stream([7], max_tokens=CONTEXT - 1)
        first = next(stream).token_ids
        with pytest.raises(lamella.OverloadedError, match="blocks free"):
            engine.logits([7] * CONTEXT)
        rest = [token for chunk in stream for token in chunk.token_ids]
        assert len(first + rest) == CONTEXT - 1, "the refusal did not disturb it"
        assert engine.logits([7] * CONTEXT)[0].shape[0] == CONTEXT
