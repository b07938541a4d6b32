"""Every field of vLLM's SamplingParams and of transformers' GenerationConfig: taken, or refused by name and reason."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import lamella
import pytest
import transformers
from lamella.core_params import core_params
from lamella.param_tables import ALIASES, CONVERTED, REFUSED, WITHOUT_EFFECT
from lamella.params import FIELDS
from lamella.tokenizer import Tokenizer
from tiny_tokenizers import byte_level, sentence_piece

# The fields of vllm/sampling_params.py at commit 00388f65, and those that earlier versions had.
_VLLM = (
    "n presence_penalty frequency_penalty repetition_penalty temperature top_p top_k min_p seed stop "
    "stop_token_ids ignore_eos max_tokens min_tokens logprobs prompt_logprobs prompt_logprob_token_ids "
    "prompt_logprob_start logprob_token_ids flat_logprobs detokenize skip_special_tokens "
    "spaces_between_special_tokens include_stop_str_in_output output_kind stream_interval skip_clone "
    "output_text_buffer_length _eos_token_id _all_stop_token_ids structured_outputs logit_bias "
    "allowed_token_ids extra_args bad_words _bad_words_token_ids skip_reading_prefix_cache "
    "thinking_token_budget repetition_detection routed_experts_prompt_start trace_decode_token_ids best_of "
    "use_beam_search length_penalty early_stopping guided_decoding logits_processors truncate_prompt_tokens "
)
VLLM = _VLLM.split()
TRANSFORMERS = sorted({*transformers.GenerationConfig().to_dict(), *vars(transformers.GenerationConfig())})

# A value of each supported parameter, and what it makes of the defaults.
SUPPORTED: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_tokens": (7, {"max_tokens": 7}),
    "max_new_tokens": (7, {"max_tokens": 7}),
    "min_tokens": (3, {"min_tokens": 3}),
    "min_new_tokens": (3, {"min_tokens": 3}),
    "temperature": (0.5, {"temperature": 0.5}),
    "top_k": (4, {"top_k": 4}),
    "top_p": (0.5, {"top_p": 0.5}),
    "min_p": (0.1, {"min_p": 0.1}),
    "repetition_penalty": (1.5, {"repetition_penalty": 1.5}),
    "presence_penalty": (1, {"presence_penalty": 1.0}),
    "frequency_penalty": (-1, {"frequency_penalty": -1.0}),
    "no_repeat_ngram_size": (2, {"no_repeat_ngram_size": 2}),
    "logit_bias": ({5: 1, 6: -2.5}, {"logit_bias": ((5, 1.0), (6, -2.5))}),
    "sequence_bias": ([[[5], 1.0]], {"logit_bias": ((5, 1.0),)}),
    "allowed_token_ids": ([5, 6], {"allowed_token_ids": (5, 6)}),
    "bad_words": (["fox", [5, 6]], {"bad_words": ("fox", (5, 6))}),
    "bad_words_ids": ([[5], [6, 7]], {"bad_words": ((5,), (6, 7))}),
    "suppress_tokens": ([5], {"suppress_tokens": (5,)}),
    "stop": ("end", {"stop": ("end",)}),
    "stop_strings": (["a", "b"], {"stop": ("a", "b")}),
    "include_stop_str_in_output": (True, {"include_stop_str_in_output": True}),
    "skip_special_tokens": (False, {"skip_special_tokens": False}),
    "seed": (3, {"seed": 3}),
    "n": (2, {"n": 2}),
    "num_return_sequences": (2, {"n": 2}),
    "logprobs": (2, {"logprobs": 2}),
    "prompt_logprobs": (0, {"prompt_logprobs": 0}),
    "ignore_eos": (True, {"ignore_eos": True}),
    "stop_token_ids": ([5], {"stop_token_ids": (5,)}),
    "eos_token_id": (5, {"ignore_eos": True, "stop_token_ids": (5,)}),
    "do_sample": (True, {"temperature": 1.0}),
}
OF_THE_TEXT = ("stop", "stop_strings", "include_stop_str_in_output", "skip_special_tokens")  # the core has only ids


def core(params: lamella.SamplingParams, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """What the core is told, field by field."""
    told = core_params(params, room=100, default_max_tokens=50, seed=1, eos=[2], tokenizer=tokenizer)
    return {name: getattr(told, name) for name in dir(told) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted({*VLLM, *TRANSFORMERS}))
def test_every_field_of_vllm_and_transformers_is_taken_or_refused_with_a_reason(name: str) -> None:
    defaults = lamella.SamplingParams()
    assert (name in SUPPORTED) + (name in WITHOUT_EFFECT) + (name in REFUSED) == 1, f"{name} is in no table, or in two"
    assert defaults.override({name: None}) == defaults, "None asks for nothing"
    if name in SUPPORTED:
        value, means = SUPPORTED[name]
        changed = defaults.override({name: value})
        assert changed == dataclasses.replace(defaults, **means) != defaults
        tokenizer = Tokenizer(byte_level(), "test")
        assert core(changed, tokenizer) != core(defaults) or name in OF_THE_TEXT
    elif name in WITHOUT_EFFECT:
        assert defaults.override({name: 5}) == defaults
    else:
        for neutral in REFUSED[name].neutral:
            assert defaults.override({name: neutral}) == defaults
        for value in ("something", object(), [[1, 2]], 10**9):
            with pytest.raises(lamella.InvalidArgumentError) as error:
                defaults.override({name: value})
            assert str(error.value) == f"{name} is not supported: {REFUSED[name].reason}"
            assert error.value.code == "INVALID_ARGUMENT"


def test_the_tables_hold_nothing_else() -> None:
    assert set(FIELDS) | set(ALIASES) | set(CONVERTED) == set(SUPPORTED)
    assert set(ALIASES.values()) <= set(FIELDS)
    assert not set(FIELDS) & {*ALIASES, *CONVERTED, *REFUSED, *WITHOUT_EFFECT}
    assert {*WITHOUT_EFFECT, *REFUSED} <= {*VLLM, *TRANSFORMERS}
    assert all(row.reason for row in REFUSED.values())


def test_what_nobody_knows_names_what_is_near() -> None:
    with pytest.raises(
        lamella.InvalidArgumentError, match=r"unknown parameter 'temprature'; did you mean temperature\?"
    ):
        lamella.SamplingParams().override({"temprature": None})
    with pytest.raises(lamella.InvalidArgumentError, match=r"did you mean repetition_penalty\?"):
        lamella.SamplingParams().override({"repetitionpenalty": 2.0})
    with pytest.raises(lamella.InvalidArgumentError, match="unknown parameter 'xyzzy'; known are allowed_token_ids"):
        lamella.SamplingParams().override({"xyzzy": 1})


def test_names_that_are_no_fields_are_refused_by_the_constructor_too() -> None:
    for arguments, message in (
        ({"best_of": 2}, f"best_of is not supported: {REFUSED['best_of'].reason}"),
        ({"max_new_tokens": 3}, "max_new_tokens is max_tokens here; generate() takes it under both names"),
        ({"do_sample": True}, "do_sample is no field of SamplingParams; give it to generate()"),
        ({"temprature": 1.0}, "unknown parameter 'temprature'; did you mean temperature?"),
    ):
        with pytest.raises(lamella.InvalidArgumentError) as error:
            lamella.SamplingParams(**arguments)  # type: ignore[arg-type]
        assert str(error.value) == message
    params = lamella.SamplingParams(5, top_k=3)
    assert copy.deepcopy(params) == pickle.loads(pickle.dumps(params)) == params


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_tokens": 3, "max_new_tokens": 3}, "max_new_tokens and its alias are both given"),
        ({"eos_token_id": 3, "ignore_eos": True}, "eos_token_id and ignore_eos are both given"),
        ({"sequence_bias": {(1,): 2.0}, "logit_bias": {1: 2.0}}, "sequence_bias and logit_bias are both given"),
        ({"sequence_bias": {(1, 2): 2.0}}, "sequence_bias[0] is of 2 tokens; supported are biases of one token"),
        ({"sequence_bias": [[1, 2.0]]}, "sequence_bias[0] is of type int; expected token ids"),
        ({"logit_bias": [1, 2]}, "logit_bias[0] is 1; expected an id and a number"),
        ({"logit_bias": {"a": 1.0}}, "logit_bias id is 'a'; expected a whole number"),
        ({"logit_bias": {5: "x"}}, "logit_bias[5] is 'x'; expected a number"),
        ({"logit_bias": 5}, "logit_bias is 5; expected a list of (id, number) pairs"),
        ({"allowed_token_ids": []}, "allowed_token_ids is empty; expected ids, or None for all"),
        ({"allowed_token_ids": ["a"]}, "allowed_token_ids[0] is 'a'; expected a whole number"),
        ({"bad_words": "word"}, "bad_words is 'word'; expected a list of texts or of sequences of ids"),
        ({"bad_words": [""]}, "bad_words[0] is empty; expected a text or ids"),
        ({"bad_words": [[5], []]}, "bad_words[1] is empty; expected a text or ids"),
        ({"bad_words": [5]}, "bad_words[0] is of type int; expected token ids"),
        ({"bad_words": ["\ud800"]}, "bad_words[0]: character 0 is a lone surrogate"),
        ({"suppress_tokens": [1.5]}, "suppress_tokens[0] is 1.5; expected a whole number"),
        ({"stop": [""]}, "stop[0] is ''; expected a text of 1 to 256 bytes"),
        ({"stop": ["a", "é" * 129]}, "stop[1] is "),
        ({"stop": ["x"] * 17}, "stop has 17 texts; expected at most 16"),
        ({"stop": [5]}, "stop[0] is 5; expected a text"),
        ({"stop": b"x"}, "stop is b'x'; expected a list of texts"),
        ({"stop": ["a\udfff"]}, "stop[0]: character 1 is a lone surrogate"),
        ({"n": 1.5}, "n is 1.5; expected a whole number"),
        ({"logprobs": "5"}, "logprobs is '5'; expected a whole number"),
        ({"min_tokens": "5"}, "min_tokens is '5'; expected a whole number"),
        ({"no_repeat_ngram_size": 2.0}, "no_repeat_ngram_size is 2.0; expected a whole number"),
        ({"min_p": "x"}, "min_p is 'x'; expected a number"),
        ({"repetition_penalty": [1.0]}, "repetition_penalty is [1.0]; expected a number"),
        ({"include_stop_str_in_output": 1}, "include_stop_str_in_output is 1; expected True or False"),
        ({"skip_special_tokens": "yes"}, "skip_special_tokens is 'yes'; expected True or False"),
    ],
)
def test_values_of_a_wrong_kind_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(lamella.InvalidArgumentError) as error:
        lamella.SamplingParams().override(overrides)
    assert str(error.value).startswith(message)


def test_parameters_stay_hashable_and_equal_whatever_they_were_given_as() -> None:
    given: dict[str, Any] = {"logit_bias": {5: 1}, "bad_words": [[1, 2], "x"], "stop": ["a"], "allowed_token_ids": [1]}
    again = {"logit_bias": [(5, 1.0)], "bad_words": ((1, 2), "x"), "stop": "a", "allowed_token_ids": iter([1])}
    first, second = lamella.SamplingParams(**given), lamella.SamplingParams(**again)
    assert first == second and hash(first) == hash(second)


def test_a_minimum_that_was_not_asked_for_gives_way_to_a_maximum_that_was() -> None:
    of_the_file = lamella.SamplingParams(min_tokens=10)
    assert of_the_file.override({"max_tokens": 4}).min_tokens == 4
    assert of_the_file.override({"max_tokens": 40}).min_tokens == 10
    assert of_the_file.override({"max_tokens": 4, "min_tokens": 6}).min_tokens == 6  # for the core to refuse


def test_the_default_number_of_tokens_is_at_least_the_minimum() -> None:
    assert core(lamella.SamplingParams(min_tokens=70))["max_tokens"] == 70
    assert core(lamella.SamplingParams(min_tokens=170)) == core(lamella.SamplingParams(min_tokens=100))
    assert core(lamella.SamplingParams())["max_tokens"] == 50


def test_stop_tokens_are_the_requests_and_the_models() -> None:
    assert core(lamella.SamplingParams(stop_token_ids=[7]))["stop_token_ids"] == [7, 2]
    assert core(lamella.SamplingParams(stop_token_ids=[7], ignore_eos=True))["stop_token_ids"] == [7]
    assert core(lamella.SamplingParams().override({"eos_token_id": [8, 9]}))["stop_token_ids"] == [8, 9]


# ---- words that must not come ----------------------------------------------------------------------------------------


def test_bad_words_of_text_are_meant_with_a_space_before_and_without() -> None:
    tokenizer = Tokenizer(byte_level(), "test")
    told = core(lamella.SamplingParams(bad_words=["hello", " hello", "fox"]), tokenizer)["bad_words"]
    plain, spaced = (tokenizer.encode(text, add_special_tokens=False) for text in ("hello", " hello"))
    for text in ("hello", "fox"):
        assert tokenizer.encode(text, add_special_tokens=False) in told
    assert (spaced in told) == (len(spaced) == len(plain) and spaced[0] != plain[0])
    assert [tokenizer.decode(ids).strip() for ids in told] == ["hello"] * (2 + 2 * (spaced in told)) + ["fox"] * (
        len(told) - 2 - 2 * (spaced in told)
    )
    pieces = Tokenizer(sentence_piece(), "test")
    assert core(lamella.SamplingParams(bad_words=["hello"]), pieces)["bad_words"] == [
        pieces.encode("hello", add_special_tokens=False)
    ]


def test_bad_words_of_text_need_a_tokenizer_and_tokens() -> None:
    with pytest.raises(lamella.InvalidArgumentError, match="bad_words holds a text and the model has no tokenizer"):
        core(lamella.SamplingParams(bad_words=["fox"]))
    with pytest.raises(lamella.InvalidArgumentError, match="bad_words: '  ' has no tokens"):
        core(lamella.SamplingParams(bad_words=["  "]), Tokenizer(byte_level(), "test"))


def test_a_lone_end_of_sequence_token_is_no_bad_word_but_can_be_suppressed() -> None:
    """As transformers' NoBadWordsLogitsProcessor and SuppressTokensLogitsProcessor have it."""
    assert core(lamella.SamplingParams(bad_words=[[2], [3], [2, 3]]))["bad_words"] == [[3], [2, 3]]
    assert core(lamella.SamplingParams(suppress_tokens=[2, 3]))["bad_words"] == [[2], [3]]
    assert core(lamella.SamplingParams(bad_words=[[2]], ignore_eos=True))["bad_words"] == [[2]]
