"""What a request may ask for, under the names that vLLM and OpenAI use, with transformers' spellings as aliases."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checks import check_flag, real_number, token_ids, whole_number
from .errors import InvalidArgumentError
from .param_tables import ALIASES, CONVERTED, REFUSED, WITHOUT_EFFECT
from .param_values import allowed_ids, bad_words_of, bias_of_sequences, stop_texts, token_biases


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, when to end, and what is told about it.

    Attributes:
        max_tokens: generated tokens at most; None is the model's own default or else 256, at least min_tokens, clipped
            to what the context leaves. A number that the context cannot hold is refused (`ContextLengthError`).
        min_tokens: no end-of-sequence or stop token before so many tokens are generated.
        temperature: 0 is greedy; otherwise logits are divided by it. A number from 1e-6 up.
        top_k: the k best tokens and those equal to the k-th; 0 is all.
        top_p: the smallest set of best tokens whose probability reaches it, after top_k; above 0 and at most 1.
        min_p: tokens at least so probable relative to the best one, from 0 to 1. As in transformers top_p is done
            before; in vLLM after.
        repetition_penalty: above 0; logits of tokens in prompt or result are divided by it where positive and
            multiplied by it where negative.
        presence_penalty: from -2 to 2; subtracted from the logits of generated tokens.
        frequency_penalty: from -2 to 2; subtracted from logits as often as the token was generated.
        no_repeat_ngram_size: no run of so many tokens occurs twice, the prompt counted; 0 is no limit.
        logit_bias: token id to what is added to its logit; -infinity bans it. Stored as pairs.
        allowed_token_ids: the only tokens that may be chosen; None is all.
        bad_words: texts, or sequences of ids, that must not be completed. A text is meant with a space before it and
            without, as in vLLM; a sequence of nothing but an end-of-sequence token is left out, as in transformers.
        suppress_tokens: tokens that are never chosen.
        stop: texts, at most 16 of 256 bytes, that end the result; one text or several.
        include_stop_str_in_output: whether the text that ended the result is part of it.
        skip_special_tokens: whether control tokens are left out of the text.
        seed: randomness is a function of (seed, sample, position) alone; None draws the seed from the engine's.
        n: samples of the same prompt, 1 to 128.
        logprobs: 0 to 20: the log-probability of each generated token and of so many best ones, from the model's own
            logits; None is none.
        prompt_logprobs: the same of the prompt's tokens.
        ignore_eos: go on past the end-of-sequence tokens.
        stop_token_ids: end at any of these ids as well; the id itself is not part of the result.

    Types are checked here (`InvalidArgumentError`) and stored plain: an int for any kind of integer, a float for any
    real number, a tuple for any ids, an iterator's too. Ranges are checked where the request meets a model.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    stop_token_ids: Sequence[int] = ()
    min_tokens: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]] = ()
    allowed_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str | Sequence[int]] = ()
    suppress_tokens: Sequence[int] = ()
    stop: str | Sequence[str] = ()
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __new__(cls, *values: Any, **named: Any) -> SamplingParams:
        """Refuses names that are no fields here as `override` does, before Python does it with a TypeError."""
        for name in named:
            if name in REFUSED:
                raise _refused(name)
            if name in ALIASES:
                raise InvalidArgumentError(f"{name} is {ALIASES[name]} here; generate() takes it under both names")
            if name in CONVERTED or name in WITHOUT_EFFECT:
                raise InvalidArgumentError(f"{name} is no field of SamplingParams; give it to generate()")
            if name not in FIELDS:
                raise _unknown(name)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {}
        for name in ("top_k", "n", "logprobs", "prompt_logprobs"):
            plain[name] = _optional(whole_number, name, getattr(self, name), -(2**31), 2**31 - 1)
        for name in ("max_tokens", "min_tokens", "no_repeat_ngram_size"):
            plain[name] = _optional(whole_number, name, getattr(self, name), -(2**63), 2**63 - 1)
        plain["seed"] = _optional(whole_number, "seed", self.seed, 0, 2**64 - 1)
        for name in ("temperature", "top_p", "min_p", *PENALTIES):
            plain[name] = real_number(name, getattr(self, name))
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            check_flag(name, getattr(self, name))
        for name in ("stop_token_ids", "suppress_tokens"):
            plain[name] = tuple(token_ids(name, getattr(self, name)))
        plain["allowed_token_ids"] = allowed_ids(self.allowed_token_ids)
        plain["logit_bias"] = token_biases(self.logit_bias)
        plain["bad_words"] = bad_words_of(self.bad_words)
        plain["stop"] = stop_texts(self.stop)
        for name, value in plain.items():
            if value is None and name not in MAY_BE_NONE:
                raise InvalidArgumentError(f"{name} is None; expected a whole number")
            object.__setattr__(self, name, value)

    def override(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """These parameters with `overrides`, whose keys may be transformers' spellings. None leaves a field as it is.

        A min_tokens that is not given gives way to a max_tokens that is.

        Errors: `InvalidArgumentError` with the reason for what vLLM or transformers have and Lamella has not, and
        naming the nearest field for what nobody knows.
        """
        changes: dict[str, Any] = {}
        converted: dict[str, Any] = {}
        for name, value in overrides.items():
            field = ALIASES.get(name, name)
            if value is None or (name in REFUSED and REFUSED[name].is_neutral(value)) or name in WITHOUT_EFFECT:
                if field not in FIELDS and not is_known(name):
                    raise _unknown(name)
            elif name in REFUSED:
                raise _refused(name)
            elif name in CONVERTED:
                converted[name] = value
            elif field not in FIELDS:
                raise _unknown(name)
            elif field in changes:
                raise InvalidArgumentError(f"{name} and its alias are both given")
            else:
                changes[field] = value
        self._convert(converted, changes)
        if "max_tokens" in changes and "min_tokens" not in changes:
            most = whole_number("max_tokens", changes["max_tokens"], -(2**63), 2**63 - 1)
            changes["min_tokens"] = min(self.min_tokens, max(most, 0))
        return dataclasses.replace(self, **changes)

    def _convert(self, converted: Mapping[str, Any], changes: dict[str, Any]) -> None:
        if "do_sample" in converted:
            samples = check_flag("do_sample", converted["do_sample"])
            if not samples:
                changes["temperature"] = 0.0
            elif "temperature" not in changes and self.temperature == 0.0:
                changes["temperature"] = 1.0
        if "eos_token_id" in converted:  # in place of the model's own
            if "ignore_eos" in changes:
                raise InvalidArgumentError("eos_token_id and ignore_eos are both given")
            value = converted["eos_token_id"]
            ids = token_ids("eos_token_id", value if isinstance(value, Iterable) else [value])
            more = token_ids("stop_token_ids", changes.get("stop_token_ids", self.stop_token_ids))
            changes |= {"ignore_eos": True, "stop_token_ids": (*more, *ids)}
        if "sequence_bias" in converted:
            if "logit_bias" in changes:
                raise InvalidArgumentError("sequence_bias and logit_bias are both given")
            changes["logit_bias"] = bias_of_sequences(converted["sequence_bias"])


PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")
FIELDS = tuple(field.name for field in dataclasses.fields(SamplingParams))
MAY_BE_NONE = ("max_tokens", "seed", "logprobs", "prompt_logprobs", "allowed_token_ids")


def is_known(name: str) -> bool:
    """Whether `name` is a parameter here, in vLLM or in transformers."""
    return name in FIELDS or name in ALIASES or name in CONVERTED or name in WITHOUT_EFFECT or name in REFUSED


def _refused(name: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{name} is not supported: {REFUSED[name].reason}")


def _unknown(name: str) -> InvalidArgumentError:
    near = difflib.get_close_matches(name, [*FIELDS, *ALIASES, *CONVERTED], 1)
    hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(FIELDS))}"
    return InvalidArgumentError(f"unknown parameter {name[:64]!r}{hint}")


def _optional(check: Any, name: str, value: Any, *range: int) -> Any:
    return None if value is None else check(name, value, *range)
