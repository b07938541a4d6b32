"""Requests on their way: what the core's news add up to, choice by choice."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast

from . import _core
from .completion import Choice, Chunk, Completion, FinishReason, PositionLogprobs, Timing, TokenLogprob
from .errors import DeadlineError, Error, InvalidArgumentError, class_for_code
from .params import SamplingParams
from .progress import Progress
from .stop_strings import StopStrings

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

#: Seconds after which a waiting call looks for signals.
_LOOK_S = 0.1
#: Seconds that a text may take to become token ids in an asyncio program.
_TOKENIZE_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A request for the core, and the parameters that it came from."""

    request: _core.Request
    params: SamplingParams


class Answer:
    """One choice of a request as it grows."""

    def __init__(self, params: SamplingParams, tokenizer: Tokenizer | None) -> None:
        self._params = params
        self._tokenizer = tokenizer
        self._decoder = tokenizer.stream(params.skip_special_tokens) if tokenizer else None
        self._stops = StopStrings(params.stop, params.include_stop_str_in_output) if params.stop else None
        self.text = ""
        self.token_ids: list[int] = []
        self.logprobs: list[PositionLogprobs] | None = None if params.logprobs is None else []
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None
        self.error_code = ""
        self.first_token_s = 0.0

    def has_ended(self) -> bool:
        """Whether the choice is over for its caller."""
        return self.finish_reason is not None

    def take(self, progress: _core.Progress) -> Chunk | None:
        """What the news add, or None where that is nothing to tell of. A stop string ends the choice."""
        self.first_token_s = progress.first_token_s or self.first_token_s
        before, shown = len(self.token_ids), len(self.text)
        for i, token in enumerate(progress.new_tokens):
            self.token_ids.append(token)
            if self.logprobs is not None:
                self.logprobs.append(position_logprobs(progress.logprobs[i], self._tokenizer))
            if self._push(token):
                self.finish_reason = "stop"
                break
        if self.finish_reason is None and progress.finished:
            self.finish_reason = cast(FinishReason, progress.reason)  # the core's names are these
            self.error, self.error_code = progress.error, progress.error_code or ""
            if self._flush():
                self.finish_reason = "stop"
        tokens, text = self.token_ids[before:], self.text[shown:]
        done = self.finish_reason if self.error is None else None  # an error is raised, after the tokens before it
        if not tokens and not text and done is None:
            return None
        return Chunk(text, tokens, done, progress.choice, None if self.logprobs is None else self.logprobs[before:])

    def choice(self) -> Choice:
        """The choice at its end."""
        assert self.finish_reason is not None
        return Choice(self.text, self.token_ids, self.finish_reason, self.logprobs, self.error)

    def _push(self, token: int) -> bool:
        """Adds the text of a token; whether a stop string is now complete."""
        if self._decoder is None:
            return False
        return self._add(self._decoder.push(token), len(self.token_ids) > self._params.min_tokens)

    def _flush(self) -> bool:
        if self._decoder is None:
            return False
        found = self._add(self._decoder.flush(), True)
        if self._stops is not None:
            self.text += self._stops.flush()
        return found

    def _add(self, piece: str, may_stop: bool) -> bool:
        if self._stops is None or not may_stop:  # as in vLLM, no stop string begins in the first min_tokens tokens
            self.text += piece
            return False
        self.text += self._stops.push(piece)
        return self._stops.found is not None


class Answers:
    """Requests that were submitted together, until all have ended. A context manager: who leaves it cancels the rest.

    `told` hears of requests ended and tokens generated so far, ten times a second at least while someone waits.
    Errors: those of the core's `Client.submit`; nothing is queued then.
    """

    def __init__(
        self, core: _core.Engine, asked: Sequence[Asked], tokenizer: Tokenizer | None, told: Progress | None = None
    ) -> None:
        self._process = os.getpid()
        self._started = time.perf_counter()
        self._tokenizer = tokenizer
        self._asked = asked
        self._prompt_logprobs: list[list[PositionLogprobs] | None] = [None] * len(asked)
        self._total_s = [0.0] * len(asked)
        self._told = told
        self._requests_ended = self._tokens = 0
        self._client = core.client()
        self._first_id = 0
        ids = self._client.submit([one.request for one in asked])
        self._first_id = ids[0] if ids else 0  # they ascend one by one
        # After the core's checks: `n` has a bound there.
        self._answers = [[Answer(one.params, tokenizer) for _ in range(one.params.n)] for one in asked]
        self._choices_left = [one.params.n for one in asked]

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Cancels what has not ended. In a forked process nothing: requests and locks are the parent's."""
        if os.getpid() == self._process:
            self._client.leave()

    def chunks(self) -> Iterator[Chunk]:
        """What is new, in order, to the end of all requests. An error of a choice is raised after its last tokens."""
        while self._is_open():
            yield from self._take(self._client.wait(_LOOK_S))

    async def achunks(self) -> AsyncGenerator[Chunk, None]:
        """As `chunks`, without holding up the event loop."""
        async with contextlib.aclosing(self._anews()) as all_news:
            async for news in all_news:
                for chunk in self._take(news):
                    yield chunk

    def run(self) -> list[Completion]:
        """All completions, in the order of the requests. Errors stay in them."""
        # To be woken for every token would take a core from the steps; only stop strings must be seen at once.
        at_ends = not any(one.params.stop for one in self._asked)
        while self._is_open():
            self._listen(self._client.wait(_LOOK_S, at_ends))
        return self.completions()

    def run_one(self) -> Completion:
        """The completion of a single request. Errors: what went wrong with it."""
        (completion,) = self.run()
        self.raise_error_of(0)
        return completion

    async def arun_one(self) -> Completion:
        """As `run_one`, without holding up the event loop."""
        (completion,) = await self.arun()
        self.raise_error_of(0)
        return completion

    async def arun(self) -> list[Completion]:
        """As `run`, without holding up the event loop."""
        async with contextlib.aclosing(self._anews()) as all_news:
            async for news in all_news:
                self._listen(news)
        return self.completions()

    def completions(self) -> list[Completion]:
        """The completions, once all requests have ended."""
        return [self._completion(i) for i in range(len(self._asked))]

    def raise_error_of(self, index: int) -> None:
        """Raises what went wrong with the request, if anything did."""
        for answer in self._answers[index]:
            if answer.error is not None:
                raise _error(answer)

    def _completion(self, i: int) -> Completion:
        choices = [answer.choice() for answer in self._answers[i]]
        first = choices[0]
        return Completion(
            text=first.text,
            token_ids=first.token_ids,
            finish_reason=first.finish_reason,
            prompt_tokens=len(self._asked[i].request.prompt),
            timing=Timing(self._answers[i][0].first_token_s, self._total_s[i]),
            error=first.error,
            logprobs=first.logprobs,
            prompt_logprobs=self._prompt_logprobs[i],
            choices=choices,
        )

    def _is_open(self) -> bool:
        """Whether there is more to hear. Errors: `InvalidArgumentError` in a forked process, where every lock of the
        core's may be held for ever."""
        if os.getpid() != self._process:
            raise InvalidArgumentError("the engine's threads stayed in the process that forked")
        return self._client.open > 0

    async def _anews(self) -> AsyncGenerator[list[_core.Progress], None]:
        import asyncio

        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        descriptor = self._client.event_fd()
        loop.add_reader(descriptor, ready.set)
        try:
            while self._is_open():
                await ready.wait()
                ready.clear()
                yield self._client.wait(0.0)
        finally:
            loop.remove_reader(descriptor)

    def _listen(self, news: Sequence[_core.Progress]) -> list[tuple[Answer, Chunk | None]]:
        heard = []
        for progress in news:
            i = progress.id - self._first_id
            answer = self._answers[i][progress.choice]
            if progress.prompt_logprobs:
                self._prompt_logprobs[i] = [
                    position_logprobs(position, self._tokenizer) for position in progress.prompt_logprobs
                ]
            if answer.has_ended():  # by a stop string, before the core knew
                continue
            chunk = answer.take(progress)
            self._tokens += len(progress.new_tokens)
            if answer.has_ended():
                self._total_s[i] = time.perf_counter() - self._started
                self._choices_left[i] -= 1
                self._requests_ended += self._choices_left[i] == 0
                if not progress.finished:
                    self._client.stop(progress.id, progress.choice)
            heard.append((answer, chunk))
        if self._told is not None:
            self._told(self._requests_ended, self._tokens)
        return heard

    def _take(self, news: Sequence[_core.Progress]) -> Iterator[Chunk]:
        for answer, chunk in self._listen(news):
            if chunk is not None:
                yield chunk
            if answer.error is not None:
                raise _error(answer)


def position_logprobs(entries: Sequence[_core.TokenLogprob], tokenizer: Tokenizer | None) -> PositionLogprobs:
    """The core's figures of one position with the tokens' texts."""
    return [
        TokenLogprob(entry.token, entry.logprob, entry.rank, tokenizer.id_to_token(entry.token) if tokenizer else None)
        for entry in entries
    ]


async def in_thread(work: Callable[[], T]) -> T:
    """Runs what may take long, turning text into ids for one, outside the event loop's thread.

    Errors: `DeadlineError` after a minute; the thread then ends in its own time.
    """
    import asyncio

    try:
        async with asyncio.timeout(_TOKENIZE_S):  # wait_for of Python 3.11 can swallow a cancellation
            return await asyncio.to_thread(work)
    except TimeoutError:
        raise DeadlineError(f"the prompt did not become token ids within {_TOKENIZE_S:g} s") from None


def _error(answer: Answer) -> Error:
    code = answer.error_code or Error.code
    return class_for_code(code)(answer.error or "", code)
