"""The text is streamed where there is one prompt. A model without a tokenizer takes and gives token ids.

--json prints {"completions": [{"text", "token_ids", "finish_reason", "prompt_tokens"}], "timing": {...}}, in seconds:
  load_s         opening the model and reading its weights
  ttft_s         from the start of generation to a prompt's first token (median over the prompts)
  decode_step_s  between two tokens of a completion (median over the prompts)
  total_s        all of the generation, loading not included"""

from __future__ import annotations

import argparse
import sys
import time

from lamella.completion import Completion
from lamella.engine import Engine

from .answers import completion_json, stream_answer, timing_json
from .opening import open_engine
from .options import (
    add_engine_options,
    add_model,
    add_prompts,
    add_sampling_options,
    check_model,
    prompts_of,
    sampling_keywords,
)
from .output import print_json, print_piece, seconds_text
from .parser import Parser


def add_arguments(parser: Parser) -> None:
    """MODEL, prompts, sampling and engine options."""
    add_model(parser, shape=False)
    add_prompts(parser)
    add_sampling_options(parser)
    add_engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Continues the prompts. 1 where a completion of several failed while the others went on."""
    check_model(args, "lamella generate")
    prompts = prompts_of(args, "lamella generate")
    with open_engine(args, max_num_seqs=len(prompts)) as engine:
        started = time.perf_counter()
        completions = _completions(args, engine, prompts)
        timing = timing_json(engine, completions, time.perf_counter() - started)
        with_text = engine.tokenizer is not None
    if args.json:
        print_json({"completions": [completion_json(completion) for completion in completions], "timing": timing})
    elif len(prompts) > 1:
        _print_all(completions, with_text)
    made = sum(len(completion.token_ids) for completion in completions)
    print(
        f"load {seconds_text(timing['load_s'])}, first token {seconds_text(timing['ttft_s'])}, "
        f"{made} tokens in {seconds_text(timing['total_s'])}",
        file=sys.stderr,
    )
    failures = [completion.error for completion in completions if completion.error is not None]
    for failure in failures:
        print(f"lamella: error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _completions(args: argparse.Namespace, engine: Engine, prompts: list[str | list[int]]) -> list[Completion]:
    sampling = sampling_keywords(args)
    if len(prompts) > 1:
        completions = engine.generate(prompts, **sampling)
        assert isinstance(completions, list)
        return completions
    ids = engine.encode_prompt(prompts[0])
    if args.json:
        return [stream_answer(engine, ids, sampling, lambda text: None)]
    completion = stream_answer(engine, ids, sampling, print_piece)
    print_piece("\n")
    return [completion]


def _print_all(completions: list[Completion], with_text: bool) -> None:
    for i, completion in enumerate(completions):
        text = completion.text if with_text else ",".join(map(str, completion.token_ids))
        print_piece(f"[{i + 1}] {text}\n")
