"""With --prompt the model answers and the command ends; several --prompt are the turns of one conversation. Without,
each line of standard input is a turn: /reset forgets the conversation, /quit or Ctrl-D ends, Ctrl-C stops an answer.

After each answer a line on standard error has the load time, the time to the first token, tokens/s, and the share of
this machine's memory bandwidth (measured once): weight bytes of a step x steps/s / bytes/s that as many threads read.

--json prints one object when the conversation ends: "completions" and "timing" as `lamella generate` does, and
"bandwidth": {"weight_bytes_per_step", "read_GBps", "bandwidth_fraction"}."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from lamella import _core
from lamella.chatting import Message
from lamella.completion import Completion
from lamella.engine import Engine
from lamella.errors import ChatTemplateError, ContextLengthError, InvalidArgumentError, NumericError

from .answers import completion_json, decode_step_s, stream_answer, timing_json
from .opening import measured_bandwidth, open_engine
from .options import (
    add_engine_options,
    add_model,
    add_sampling_options,
    check_model,
    decoded,
    sampling_keywords,
    stdin_is_terminal,
)
from .output import print_json, print_piece, seconds_text
from .parser import Parser
from .process import show_error


def add_arguments(parser: Parser) -> None:
    """MODEL, the turns, sampling and engine options."""
    add_model(parser, shape=False)
    parser.add_argument("--prompt", action="append", dest="prompts", metavar="TEXT", help="what to say; repeatable")
    parser.add_argument("--system", metavar="TEXT", help="the system message in front of the conversation")
    add_sampling_options(parser)
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Holds the conversation."""
    from lamella.chat_template import start_worker

    check_model(args, "lamella chat")
    start_worker()  # it starts while the weights load
    with open_engine(args, max_num_seqs=1) as engine:
        conversation = Conversation(engine, args.system, sampling_keywords(args), show=not args.json)
        by_hand = not args.prompts and stdin_is_terminal()
        for line in _typed_lines(sys.stdout.isatty()) if by_hand else args.prompts or _piped_lines():
            if line.strip() in ("/quit", "/exit") and not args.prompts:
                break
            if line.strip() == "/reset" and not args.prompts:
                conversation.reset()
            elif line.strip() or args.prompts:
                _answer(conversation, line, by_hand)
        if args.json:
            print_json(conversation.json())
    return 0


def _answer(conversation: Conversation, line: str, by_hand: bool) -> None:
    """One turn. By hand, a message that fails does not end the conversation, and Ctrl-C only stops the answer."""
    if not by_hand:
        conversation.say(line)
        return
    try:
        conversation.say(line)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
    except (ChatTemplateError, ContextLengthError, InvalidArgumentError, NumericError) as error:
        show_error(error)


def _typed_lines(prompting: bool) -> Iterator[str]:
    """Lines from a terminal, with editing and history where standard output is one too."""
    import readline  # noqa: F401  gives input() its line editing

    while True:
        try:
            yield input("> " if prompting else "")
        except EOFError:
            print(file=sys.stderr)
            return


def _piped_lines() -> Iterator[str]:
    for line in sys.stdin.buffer:
        yield decoded(line).removesuffix("\n")


class Conversation:
    """Messages so far, answers with their timings, and the machine's bandwidth to compare them with."""

    def __init__(self, engine: Engine, system: str | None, sampling: dict[str, Any], show: bool) -> None:
        self._engine = engine
        self._start: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._start)
        self._sampling = sampling
        self._show = print_piece if show else lambda text: None
        self._answers: list[Completion] = []
        self._total_s = 0.0

    def say(self, text: str) -> None:
        """Shows the answer to `text`, then its figures. A message that fails is not part of the conversation."""
        asked: list[Message] = [*self._messages, {"role": "user", "content": text}]
        ids = self._engine.chat_ids(asked)
        started = time.perf_counter()
        try:
            answer = stream_answer(self._engine, ids, self._sampling, self._show)
        finally:
            self._total_s += time.perf_counter() - started
            self._show("\n")
        self._messages = [*asked, {"role": "assistant", "content": answer.text}]
        self._answers.append(answer)
        self._print_figures(answer)

    def reset(self) -> None:
        """Forgets all but the system message."""
        self._messages = list(self._start)

    @cached_property
    def _read_bytes_per_s(self) -> float | None:
        return measured_bandwidth(self._engine.core.threads)

    def _weight_bytes(self) -> int:
        core = self._engine.core
        step = _core.StepShape.uniform(1, 1, 1)
        return int(_core.weight_bytes_per_step(core.spec, core.config.dtype, core.config.weight_formats, step))

    def _share(self, step_s: float | None) -> float | None:
        """The share of the measured bandwidth that reading the weights once a step takes."""
        if step_s is None or self._read_bytes_per_s is None:
            return None
        return self._weight_bytes() / step_s / self._read_bytes_per_s

    def _print_figures(self, answer: Completion) -> None:
        step_s = decode_step_s(answer)
        figures = [
            f"load {seconds_text(self._engine.load_s)}",
            f"first token {seconds_text(answer.timing.first_token_s)}",
        ]
        if step_s is not None:
            figures.append(f"{1 / step_s:.1f} tokens/s")
        share = self._share(step_s)
        if share is not None and self._read_bytes_per_s is not None:
            figures.append(
                f"{share:.0%} of this machine's measured memory bandwidth ({self._read_bytes_per_s / 1e9:.1f} GB/s)"
            )
        print(f"[{', '.join(figures)}]", file=sys.stderr, flush=True)

    def json(self) -> dict[str, Any]:
        """The whole conversation's answers and figures."""
        timing = timing_json(self._engine, self._answers, self._total_s)
        read = self._read_bytes_per_s
        return {
            "completions": [completion_json(answer) for answer in self._answers],
            "timing": timing,
            "bandwidth": {
                "weight_bytes_per_step": self._weight_bytes(),
                "read_GBps": None if read is None else read / 1e9,
                "bandwidth_fraction": self._share(timing["decode_step_s"]),
            },
        }
