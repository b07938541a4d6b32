"""Prompts in, completions out: whole, streamed, and for asyncio."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, overload

from . import _core
from .answers import Answers, Asked, in_thread
from .completion import Chunk, Completion
from .core_params import core_params
from .errors import InvalidArgumentError
from .opened_engine import OpenedEngine
from .params import SamplingParams
from .progress import Progress, told_of_batch
from .prompts import Prompt, as_list, each, is_one_prompt
from .seeds import drawn_seed
from .streamers import Streamer, check_streamer, feed


class Generating(OpenedEngine):
    """The part of `Engine` that continues prompts."""

    @overload
    def generate(
        self,
        prompts: str,
        params: SamplingParams | None = None,
        *,
        streamer: Streamer | None = None,
        progress: bool | None = None,
        **overrides: Any,
    ) -> Completion: ...
    @overload
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        streamer: Streamer | None = None,
        progress: bool | None = None,
        **overrides: Any,
    ) -> Completion | list[Completion]: ...
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        streamer: Streamer | None = None,
        progress: bool | None = None,
        **overrides: Any,
    ) -> Completion | list[Completion]:
        """Continues one prompt (a text or a list of ids) or a list of prompts.

        All prompts are checked before the first starts. A failure at run time raises for a single prompt; in a list it
        ends that completion alone, with `finish_reason` "error". Fields of `SamplingParams` may be given as keywords.

        `streamer`, for a single prompt with n = 1, is an object with transformers' `put` and `end`: it is given the
        prompt's ids, int64 (1, tokens), then each new id, int64 (1,), as it comes.

        `progress`: what takes over a second has a line on standard error with the requests that have ended and tokens a
        second. None shows it for lists, where standard error is a terminal or a notebook's; True always, False never.
        """
        if is_one_prompt(prompts):
            asked = self._asked(prompts, params, overrides)
            check_streamer(streamer, asked)
            with told_of_batch(progress, "generating", 1, "requests") as told, self._submit([asked], told) as answers:
                if streamer is not None:
                    feed(streamer, asked, answers.chunks())
                return answers.run_one()
        if streamer is not None:
            raise InvalidArgumentError("streamer goes with a single prompt, and this is a list")
        listed = self._each_asked(prompts, params, overrides)
        with (
            told_of_batch(progress, "generating", len(listed), "requests") as told,
            self._submit(listed, told) as answers,
        ):
            return answers.run()

    @overload
    async def agenerate(self, prompts: str, params: SamplingParams | None = None, **overrides: Any) -> Completion: ...
    @overload
    async def agenerate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | None = None, **overrides: Any
    ) -> Completion | list[Completion]: ...
    async def agenerate(
        self, prompts: Prompt | Sequence[Prompt], params: SamplingParams | None = None, **overrides: Any
    ) -> Completion | list[Completion]:
        """As `generate`, for asyncio: other tasks run meanwhile, texts become ids in another thread.

        Cancelling the task cancels the requests.
        """
        if is_one_prompt(prompts):
            asked = await in_thread(lambda: self._asked(prompts, params, overrides))
            with self._submit([asked]) as answers:
                return await answers.arun_one()
        listed = await in_thread(lambda: self._each_asked(prompts, params, overrides))
        with self._submit(listed) as answers:
            return await answers.arun()

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **overrides: Any) -> Iterator[Chunk]:
        """Yields a `Chunk` whenever new text is certain; leaving the loop, or dropping it, cancels the request.

        The prompt is checked at the call, before the first chunk is asked for.
        """
        asked = self._asked(prompt, params, overrides)
        self.core.validate_requests([asked.request])
        return self._chunks(asked)

    async def astream(
        self, prompt: Prompt, params: SamplingParams | None = None, **overrides: Any
    ) -> AsyncGenerator[Chunk, None]:
        """As `stream`, for asyncio. The prompt is checked when the first chunk is asked for.

        Cancelling the task, or dropping the iterator, cancels the request.
        """
        asked = await in_thread(lambda: self._asked(prompt, params, overrides))
        async with contextlib.aclosing(self._achunks(asked)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _asked(self, prompt: Prompt, params: SamplingParams | None, overrides: dict[str, Any]) -> Asked:
        if params is not None and not isinstance(params, SamplingParams):
            raise InvalidArgumentError(f"params is of type {type(params).__name__}; expected SamplingParams")
        resolved = (params or self._defaults).override(overrides)
        checkpoint = self.checkpoint
        tokenizer = checkpoint.tokenizer if checkpoint is not None else None
        if resolved.stop and tokenizer is None:
            raise InvalidArgumentError("stop is text and the model has no tokenizer files: give stop_token_ids")
        ids = self.encode_prompt(prompt)
        sampling = core_params(
            resolved,
            room=self.core.config.max_model_len - len(ids),
            default_max_tokens=self._default_max_tokens,
            seed=resolved.seed if resolved.seed is not None else drawn_seed(self._seed, next(self._numbers)),
            eos=checkpoint.special.eos if checkpoint is not None else (),
            tokenizer=tokenizer,
        )
        return Asked(_core.Request(ids, sampling), resolved)

    def _each_asked(
        self, prompts: Sequence[Prompt] | Prompt, params: SamplingParams | None, overrides: dict[str, Any]
    ) -> list[Asked]:
        return each(as_list(prompts), lambda prompt: self._asked(prompt, params, overrides))

    def _chunks(self, asked: Asked) -> Iterator[Chunk]:
        with self._submit([asked]) as answers:
            yield from answers.chunks()

    async def _achunks(self, asked: Asked) -> AsyncGenerator[Chunk, None]:
        with self._submit([asked]) as answers:
            async with contextlib.aclosing(answers.achunks()) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _submit(self, asked: Sequence[Asked], told: Progress | None = None) -> Answers:
        return Answers(self.core, asked, self.tokenizer, told)
