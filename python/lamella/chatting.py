"""Conversations in the model's own chat template."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Literal, cast, overload

from .answers import in_thread
from .completion import Chunk, Completion
from .generating import Generating
from .params import SamplingParams

Message = dict[str, Any]


class Chatting(Generating):
    """The part of `Engine` that answers messages."""

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        **overrides: Any,
    ) -> Completion: ...
    @overload
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[True],
        **overrides: Any,
    ) -> Iterator[Chunk]: ...
    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: bool = False,
        **overrides: Any,
    ) -> Completion | Iterator[Chunk]:
        """Answers a conversation of {"role": ..., "content": ...} messages, put into the model's own chat template.

        Errors: `ChatTemplateError` where the model has no template or the template refuses the messages.
        """
        ids = self.chat_ids(messages)
        if stream:
            return self.stream(ids, params, **overrides)
        return cast(Completion, self.generate(ids, params, **overrides))

    @overload
    async def achat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[False] = False,
        **overrides: Any,
    ) -> Completion: ...
    @overload
    async def achat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: Literal[True],
        **overrides: Any,
    ) -> AsyncGenerator[Chunk, None]: ...
    async def achat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        stream: bool = False,
        **overrides: Any,
    ) -> Completion | AsyncGenerator[Chunk, None]:
        """As `chat`, for asyncio: the template is rendered in another thread, as texts become ids.

        With `stream`, awaiting gives the iterator: `async for chunk in await engine.achat(messages, stream=True)`; what
        is wrong with messages or parameters is raised by the await. Cancelling the task, or dropping the iterator,
        cancels the request.
        """
        asked = await in_thread(lambda: self._asked(self.chat_ids(messages), params, overrides))
        if stream:
            self.core.validate_requests([asked.request])
            return self._achunks(asked)
        with self._submit([asked]) as answers:
            return await answers.arun_one()

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids of a conversation in the model's chat template, up to where the answer begins."""
        from .chat_template import render_chat

        template = checkpoint.chat_template if (checkpoint := self.checkpoint) else None
        text = render_chat(template, messages, special_tokens=self._special_tokens())
        return self.tokenizer_or_raise().encode(text, add_special_tokens=False)

    def _special_tokens(self) -> dict[str, str]:
        """The names under which chat templates know the special tokens."""
        checkpoint = self.checkpoint
        if checkpoint is None or (tokenizer := checkpoint.tokenizer) is None:
            return {}
        special = checkpoint.special
        ids = {"bos_token": special.bos, "eos_token": special.eos[0] if special.eos else None, "pad_token": special.pad}
        tokens = {name: tokenizer.id_to_token(id) for name, id in ids.items() if id is not None}
        return {name: token for name, token in tokens.items() if token is not None}
