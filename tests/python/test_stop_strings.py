"""Stop strings: found wherever the borders of tokens fall, never shown and taken back, and ends like any other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lamella
import pytest
from engines import (
    until_idle,
)
from lamella import _core
from lamella.stop_strings import StopStrings


@pytest.mark.parametrize("include", [False, True])
def test_pieces_give_what_a_look_at_the_whole_text_gives(seed: int, include: bool) -> None:
    """Random texts of few letters, so that stops overlap, begin alike and lie inside one another."""
    rng = random.Random(f"{seed}-{include}")
    found = 0
    for round in range(3000):
        letters = rng.choice(["ab", "abc", "aé你"])
        text = "".join(rng.choices(letters, k=rng.randint(0, 24)))
        stops = ["".join(rng.choices(letters, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 4))]
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 12)))
        pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
        finder, shown = StopStrings(stops, include), ""
        for piece in pieces:
            shown += finder.push(piece)
            assert text.startswith(shown), "nothing shown is taken back"
        shown += finder.flush()
        expected, stop = cut_at_first_stop(text, stops, include)
        assert (shown, finder.found) == (expected, stop), (seed, round, pieces, stops)
        found += stop is not None
    assert 300 < found < 2900, "both cases are common"


def cut_at_first_stop(text: str, stops: Sequence[str], include: bool) -> tuple[str, str | None]:
    """Character by character: the first end at which some stop string is complete, the longest that ends there."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


def test_what_is_held_back_is_the_longest_end_with_which_a_stop_string_begins(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(2000):
        stops = ["".join(rng.choices("ab", k=rng.randint(1, 6))) for _ in range(rng.randint(1, 3))]
        finder, text, shown = StopStrings(stops, False), "", ""
        for _ in range(12):
            piece = "".join(rng.choices("abc", k=rng.randint(0, 3)))
            text, shown = text + piece, shown + finder.push(piece)
            if finder.found is not None:
                break
            held = text[len(shown) :]
            beginnings = [end for end in ends_of(text) if any(stop.startswith(end) for stop in stops)]
            assert held == max(beginnings, key=len, default=""), (stops, text)


def ends_of(text: str) -> list[str]:
    return [text[i:] for i in range(len(text))]


@pytest.fixture(scope="module")
def sampled(seed: int) -> dict[str, Any]:
    print(f"seed {seed}")
    return {"max_tokens": 120, "temperature": 8.0, "seed": seed}


def stop_inside(text: str, rng: random.Random) -> str:
    """A piece of the text that is not at its very beginning, of printable characters and several tokens."""
    for _ in range(1000):
        start = rng.randrange(8, len(text) - 6)
        stop = text[start : start + rng.randint(2, 6)]
        if text.find(stop) >= 3:
            return stop
    raise AssertionError(text)


@pytest.mark.parametrize("include", [False, True])
def test_a_completion_ends_where_its_text_meets_a_stop_string(
    engine: lamella.Engine, sampled: dict[str, Any], seed: int, include: bool
) -> None:
    tokenizer, rng = engine.tokenizer_or_raise(), random.Random(seed)
    for i in range(8):
        options = {**sampled, "seed": seed + i}
        whole = engine.generate("hello", **options)
        stops = [stop_inside(whole.text, rng), "never to be found"]
        expected, stop = cut_at_first_stop(whole.text, stops, include)
        done = engine.generate("hello", stop=stops, include_stop_str_in_output=include, **options)
        assert stop is not None and (done.text, done.finish_reason) == (expected, "stop")
        # The ids end with the token that completed it: with that one the stop is in the text, without it is not yet.
        assert done.token_ids == whole.token_ids[: len(done.token_ids)]
        assert stop in text_of(tokenizer, done.token_ids) and stop not in text_of(tokenizer, done.token_ids[:-1])

        chunks = list(engine.stream("hello", stop=stops, include_stop_str_in_output=include, **options))
        assert "".join(chunk.text for chunk in chunks) == expected
        assert [token for chunk in chunks for token in chunk.token_ids] == done.token_ids
        assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    until_idle(engine)
    stats = engine.stats()
    assert (stats["received"], stats["finished"], stats["cancelled"]) == (24, 24, 0)


def text_of(tokenizer: Any, ids: list[int]) -> str:
    """The text that is certain after `ids`: without the bytes of a character that is not whole yet."""
    stream = tokenizer.stream()
    return "".join(map(stream.push, ids))


def test_a_stop_string_that_is_not_completed_is_shown_at_the_end(
    engine: lamella.Engine, sampled: dict[str, Any]
) -> None:
    whole = engine.generate("hello", **sampled)
    stop = whole.text[-3:] + "x"  # held back to the last
    if whole.text.find(stop) < 0:
        done = engine.generate("hello", stop=stop, **sampled)
        assert (done.text, done.finish_reason, done.token_ids) == (whole.text, "length", whole.token_ids)
        assert "".join(chunk.text for chunk in engine.stream("hello", stop=stop, **sampled)) == whole.text


def test_no_stop_string_counts_in_the_first_min_tokens(
    engine: lamella.Engine, sampled: dict[str, Any], seed: int
) -> None:
    tokenizer, rng = engine.tokenizer_or_raise(), random.Random(seed)
    whole = engine.generate("hello", **sampled)
    stop = stop_inside(whole.text, rng)
    first = engine.generate("hello", stop=stop, **sampled)
    for least in (len(first.token_ids) - 1, len(first.token_ids), min(len(first.token_ids) + 20, 120)):
        done = engine.generate("hello", stop=stop, min_tokens=least, **sampled)
        assert done.token_ids == whole.token_ids[: len(done.token_ids)]
        shown = text_of(tokenizer, whole.token_ids[:least])
        expected, found = cut_at_first_stop(tokenizer.decode(whole.token_ids)[len(shown) :], [stop], False)
        assert done.text == shown + expected
        assert done.finish_reason == ("stop" if found else "length")
    until_idle(engine)


def test_choices_stop_at_places_of_their_own(engine: lamella.Engine, sampled: dict[str, Any], seed: int) -> None:
    rng = random.Random(seed)
    whole = engine.generate("hello", n=5, **sampled)
    stops = [stop_inside(choice.text, rng) for choice in whole.choices[:4]]
    done = engine.generate("hello", n=5, stop=stops, **sampled)
    lengths = set()
    for choice, long in zip(done.choices, whole.choices, strict=True):
        expected, stop = cut_at_first_stop(long.text, stops, False)
        assert choice.text == expected
        assert choice.finish_reason == (long.finish_reason if stop is None else "stop")
        assert choice.token_ids == long.token_ids[: len(choice.token_ids)]
        lengths.add(len(choice.token_ids))
    assert len(lengths) > 1
    texts = [""] * 5
    for chunk in engine.stream("hello", n=5, stop=stops, **sampled):
        texts[chunk.index] += chunk.text
    assert texts == [choice.text for choice in done.choices]
    until_idle(engine)
    stats = engine.stats()
    assert (stats["received"], stats["finished"]) == (3, 3)


def test_a_stopped_request_ends_within_a_step_and_counts_as_finished(
    slow_folder: Path, sampled: dict[str, Any]
) -> None:
    """Of 4,000 tokens that it might have had, with nothing else that ends it."""
    with lamella.Engine(slow_folder) as engine:
        text = engine.generate("hello", **{**sampled, "max_tokens": 40}).text
        stop = stop_inside(text, random.Random(1))
        done = engine.generate("hello", stop=stop, **{**sampled, "max_tokens": 4000})
        assert done.finish_reason == "stop" and len(done.token_ids) <= 40
        until_idle(engine, steps=3)
        stats = engine.stats()
        assert (stats["finished"], stats["cancelled"]) == (2, 0)


def test_stop_strings_need_a_tokenizer(busy_spec: _core.ModelSpec) -> None:
    with (
        lamella.Engine.random(busy_spec, dtype="float32") as engine,
        pytest.raises(lamella.InvalidArgumentError, match="stop is text and the model has no tokenizer files"),
    ):
        engine.generate([7], stop="x")
