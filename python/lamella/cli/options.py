"""The options that commands share, each declared once: Engine's keyword arguments, sampling, and prompts.

An option that is not given is not passed on, so that every default lives where it is documented: in `Engine`, in
`SamplingParams` and in the model's own generation_config.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lamella.errors import InvalidArgumentError

from .parser import Parser, UsageError, count, natural, token_ids, token_numbers


@dataclass(frozen=True)
class Option:
    """A command-line option that becomes the keyword argument `keyword`."""

    keyword: str
    help: str
    kind: Callable[[str], Any] = str
    metavar: str = ""
    switch: bool | None = None  # an option without a value, and the value that it stands for
    repeatable: bool = False  # given several times, a list

    @property
    def flag(self) -> str:
        """The option as it is typed; one that switches off what is on by itself starts with --no-."""
        return ("--no-" if self.switch is False else "--") + self.keyword.replace("_", "-")

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Adds the option to a parser or a group of one."""
        if self.switch is None:
            parser.add_argument(
                self.flag,
                dest=self.keyword,
                type=self.kind,
                metavar=self.metavar,
                help=self.help,
                action="append" if self.repeatable else "store",
            )
        else:
            parser.add_argument(
                self.flag, dest=self.keyword, action="store_const", const=self.switch, default=None, help=self.help
            )


ENGINE = (
    Option("device", "auto or cpu", metavar="NAME"),
    Option(
        "dtype",
        "activations, KV cache, unquantised weights: auto, float32/fp32, float16/fp16, bfloat16/bf16",
        metavar="TYPE",
    ),
    Option(
        "kv_cache_dtype",
        "in which the KV cache holds K and V: auto (the dtype), float32/fp32, float16/fp16, bfloat16/bf16 or int8",
        metavar="TYPE",
    ),
    Option(
        "quantization",
        "int8_weight_only, int8, int4, int4_a8 or dequantize (to the dtype); default: what the files store",
        metavar="NAME",
    ),
    Option("smoothing", "int8: round inputs as they are, without the rotation that makes that easier", switch=False),
    Option("quantize_head", "int8, int4, int4_a8: the head as well; default: it stays int8_weight_only", switch=True),
    Option(
        "memory_budget", "for weights, KV cache and activations, such as 2GiB; default: what is free", metavar="SIZE"
    ),
    Option("kv_cache_memory", "of the KV cache; default: what full contexts need, in reason", metavar="SIZE"),
    Option("prefix_caching", "compute every prompt anew, also what an earlier one began with", switch=False),
    Option("max_num_seqs", "sequences that run at once; default: what the command needs", count, "N"),
    Option("max_model_len", "context in tokens, prompt and result together", count, "N"),
    Option("max_num_batched_tokens", "tokens of one step; longer prompts are cut into chunks", count, "N"),
    Option("threads", "default: every core that affinity and cgroup limits leave", count, "N"),
    Option("tensor_parallel_size", "ranks that share every layer", count, "N"),
    Option("pipeline_parallel_size", "stages that share the layers", count, "N"),
    Option("pipeline_schedule", "hybrid, or to compare with it single or training", metavar="NAME"),
    Option("prompt_micro_batches", "that share a pipeline's prompts; default: chosen", count, "N"),
    Option("generation_micro_batches", "that share its generating sequences; default: chosen", count, "N"),
    Option("seed", "what random choices are drawn from; default: 0", natural, "N"),
    Option("deep_fusion", "run the plain plan, op by op", switch=False),
    Option("sbi_gemm", "multiply few tokens by the blocked GeMM, as many are", switch=False),
)
SAMPLING = (
    Option("max_tokens", "generated tokens at most", count, "N"),
    Option("temperature", "0 is greedy", float, "X"),
    Option("top_k", "choose among the N best tokens; 0 is all", natural, "N"),
    Option("top_p", "choose among the best tokens whose probability reaches X", float, "X"),
    Option("min_p", "choose among tokens at least X times as probable as the best", float, "X"),
    Option(
        "repetition_penalty", "divides the logits of tokens in prompt and result; above 1 against repeats", float, "X"
    ),
    Option("presence_penalty", "subtracted from the logits of generated tokens, from -2 to 2", float, "X"),
    Option("frequency_penalty", "subtracted as often as the token was generated, from -2 to 2", float, "X"),
    Option("no_repeat_ngram_size", "no run of N tokens occurs twice; 0 is no limit", natural, "N"),
    Option("logit_bias", "added to the logits of tokens", token_numbers, "ID:X,ID:X"),
    Option("allowed_token_ids", "choose none but these tokens", token_ids, "IDS"),
    Option("suppress_tokens", "choose none of these tokens", token_ids, "IDS"),
    Option("min_tokens", "no end before N generated tokens", natural, "N"),
    Option("ignore_eos", "go on past the end-of-sequence tokens", switch=True),
    Option("stop", "end where the result says TEXT, which is left out; repeatable", metavar="TEXT", repeatable=True),
    Option("stop_token_ids", "end at any of these tokens too", token_ids, "IDS"),
)


def add_engine_options(parser: Parser, without: tuple[str, ...] = ()) -> None:
    """Adds Engine's options, but for those that mean nothing to the command."""
    group = parser.add_argument_group("engine")
    for option in ENGINE:
        if option.keyword not in without:
            option.add_to(group)


def add_sampling_options(parser: Parser) -> None:
    """Adds the options of `SamplingParams`; their defaults are the model's own."""
    group = parser.add_argument_group("sampling (defaults are the model's own)")
    for option in SAMPLING:
        option.add_to(group)


def engine_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `Engine` that were given."""
    return _given(args, ENGINE)


def sampling_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of `SamplingParams` that were given."""
    return _given(args, SAMPLING)


def _given(args: argparse.Namespace, options: tuple[Option, ...]) -> dict[str, Any]:
    values = {option.keyword: getattr(args, option.keyword, None) for option in options}
    return {keyword: value for keyword, value in values.items() if value is not None}


def add_model(parser: Parser, shape: bool) -> None:
    """Adds MODEL, and where random weights make sense `--shape`."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="Hugging Face folder or cached id, GGUF file, or packed store"
    )
    if shape:
        parser.add_argument(
            "--shape",
            metavar="NAME",
            help="in place of MODEL, random weights: llama-3.2-1b, gpt2-xl, ..., or a config.json",
        )


def check_model(args: argparse.Namespace, command: str, needed: bool = True) -> None:
    """Refuses a command line without a model where one is needed, or with both MODEL and `--shape`."""
    shape = getattr(args, "shape", None)
    if args.model is not None and shape is not None:
        raise UsageError(f"both MODEL {args.model[:64]!r} and --shape {shape[:64]!r} given", command)
    if needed and args.model is None and shape is None:
        raise UsageError("no MODEL given" + (", nor --shape NAME" if hasattr(args, "shape") else ""), command)


def add_prompts(parser: Parser) -> None:
    """Adds `--prompt` and `--prompt-ids`, which keep their order on the command line."""
    parser.add_argument(
        "--prompt", action="append", dest="prompts", metavar="TEXT", help="repeatable; default: standard input"
    )
    parser.add_argument(
        "--prompt-ids", action="append", dest="prompts", type=token_ids, metavar="IDS", help="5,6,7; repeatable"
    )


def prompts_of(args: argparse.Namespace, command: str) -> list[str | list[int]]:
    """The prompts of the command line, else all of standard input as one, without the line feed that ends it."""
    if args.prompts:
        return list(args.prompts)
    if stdin_is_terminal():
        raise UsageError("no prompt: give --prompt TEXT or --prompt-ids 5,6,7, or pipe a text in", command)
    text = decoded(sys.stdin.buffer.read()).removesuffix("\n")
    if not text:
        raise UsageError("no prompt: standard input is empty; give --prompt TEXT or --prompt-ids 5,6,7", command)
    return [text]


def stdin_is_terminal() -> bool:
    """Whether a person types; also when there is no standard input at all, and nothing to read from."""
    return sys.stdin is None or sys.stdin.isatty()


def decoded(data: bytes) -> str:
    """Standard input as text. Errors: `InvalidArgumentError` for what is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"standard input: byte {error.start} is not valid UTF-8") from None
