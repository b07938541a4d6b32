"""What vLLM and transformers call the things that a request may ask for, and what cannot be asked for here, and why.

Every field of vLLM's `SamplingParams` and of transformers' `GenerationConfig` is a field of `lamella.SamplingParams` or
stands in one of these tables; a test holds them against both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Other names of fields of `SamplingParams`. What their values mean is the same.
ALIASES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "num_return_sequences": "n",
    "bad_words_ids": "bad_words",
    "stop_strings": "stop",
}

# Parameters that `SamplingParams.override` turns into others.
CONVERTED = ("do_sample", "eos_token_id", "sequence_bias")

# Accepted with any value: nothing here could depend on them.
WITHOUT_EFFECT = {
    "pad_token_id": "sequences are not padded",
    "transformers_version": "it tells who wrote the file",
    "_from_model_config": "it tells where transformers found the values",
}


@dataclass(frozen=True)
class Refused:
    """A parameter that is not supported. `neutral` values ask for nothing and pass, as None always does."""

    reason: str
    neutral: tuple[Any, ...] = ()
    changes_tokens: bool = True  # so that a generation_config.json that asks for it is worth a warning

    def is_neutral(self, value: Any) -> bool:
        """Whether `value` asks for nothing."""
        return value is None or (isinstance(value, bool | int | float | str | list | dict) and value in self.neutral)


def _told(reason: str, *neutral: Any) -> Refused:
    return Refused(reason, neutral, changes_tokens=False)


_BEAMS = "there is no beam search; ask for n samples"
_ASSISTANT = "there is no assistant model; tokens would be the same with one"
_ENCODER = "there are no encoder-decoder models"
_CACHE = "the engine keeps its own KV cache; memory_budget and max_model_len set its size"
_INTERNAL = "it is internal to vLLM"
_CODE = "no code from outside runs in the sampler"
_CHOSEN_LOGPROBS = "logprobs and prompt_logprobs tell of the best tokens and those that are there; logits() gives all"
_TENSORS = "a Completion holds tokens and their logprobs; logits() gives logits"
_WARPERS = "the tokens to choose from are limited by top_k, top_p and min_p"
_GONE = "transformers itself has moved it out of its library"

REFUSED = {
    # vLLM
    "best_of": Refused("samples are not ranked; ask for n and choose"),
    "use_beam_search": Refused(_BEAMS, (False,)),
    "prompt_logprob_token_ids": _told(_CHOSEN_LOGPROBS),
    "prompt_logprob_start": _told(_CHOSEN_LOGPROBS),
    "logprob_token_ids": _told(_CHOSEN_LOGPROBS),
    "flat_logprobs": _told("logprobs come in one form", False),
    "detokenize": _told("text costs next to nothing; leave it unread", True),
    "spaces_between_special_tokens": _told("special tokens are joined as the model's own decoder joins them", True),
    "output_kind": _told("generate() gives the whole and stream() the pieces"),
    "stream_interval": _told("a stream yields whenever new text is certain", 1),
    "skip_clone": _told(_INTERNAL, False),
    "output_text_buffer_length": _told(_INTERNAL, 0),
    "_eos_token_id": _told(_INTERNAL),
    "_all_stop_token_ids": _told(_INTERNAL),
    "_bad_words_token_ids": _told(_INTERNAL),
    "structured_outputs": Refused("there are no grammars; allowed_token_ids limits single tokens"),
    "guided_decoding": Refused("there are no grammars; allowed_token_ids limits single tokens"),
    "extra_args": _told(_CODE, {}),
    "logits_processors": Refused(_CODE, ([],)),
    "skip_reading_prefix_cache": _told("what is reused from the KV cache changes no result", False),
    "thinking_token_budget": Refused("thinking is not told from answering; max_tokens limits both", (-1,)),
    "repetition_detection": Refused("repetition_penalty and no_repeat_ngram_size avoid what it would detect"),
    "routed_experts_prompt_start": _told("the routing of experts is not reported", 0),
    "trace_decode_token_ids": Refused("to look at given tokens, use logits()"),
    "truncate_prompt_tokens": Refused("a prompt is never cut silently; shorten it"),
    # transformers: length
    "max_length": _told("it counts the prompt too; give max_new_tokens"),
    "min_length": Refused("it counts the prompt too; give min_new_tokens", (0,)),
    "early_stopping": Refused(_BEAMS, (False,)),
    "max_time": Refused("requests have no deadline; cancel them, or limit max_new_tokens"),
    # transformers: strategy
    "num_beams": Refused(_BEAMS, (1,)),
    "num_beam_groups": Refused(_BEAMS, (1,)),
    "diversity_penalty": Refused(_BEAMS, (0, 0.0)),
    "length_penalty": Refused(_BEAMS, (1, 1.0)),
    "constraints": Refused(_BEAMS, ([],)),
    "force_words_ids": Refused(_BEAMS, ([],)),
    "penalty_alpha": Refused(_GONE, (0, 0.0)),
    "dola_layers": Refused(_GONE),
    "low_memory": _told(_GONE, False),
    "use_mtp": _told(_ASSISTANT, False),
    # transformers: logits
    "top_h": Refused(_WARPERS),
    "typical_p": Refused(_WARPERS, (1, 1.0)),
    "epsilon_cutoff": Refused(_WARPERS, (0, 0.0)),
    "eta_cutoff": Refused(_WARPERS, (0, 0.0)),
    "encoder_repetition_penalty": Refused(_ENCODER, (1, 1.0)),
    "encoder_no_repeat_ngram_size": Refused(_ENCODER, (0,)),
    "decoder_start_token_id": _told(_ENCODER),
    "forced_bos_token_id": Refused(_ENCODER),
    "forced_eos_token_id": Refused("the token at max_new_tokens is the model's own choice"),
    "begin_suppress_tokens": Refused("suppress_tokens bans tokens everywhere, and min_new_tokens an early end", ([],)),
    "exponential_decay_length_penalty": Refused("lengths are limited by min_new_tokens and max_new_tokens"),
    "renormalize_logits": _told("probabilities always add up to 1", False),
    "remove_invalid_values": _told("NaN and infinity are errors of the request that meets them", False),
    "token_healing": Refused("the prompt's last token is never taken back", (False,)),
    "guidance_scale": Refused("a request runs one prompt, not a second one against it", (1, 1.0)),
    "watermarking_config": Refused("results are not watermarked"),
    "bos_token_id": _told("a prompt of text begins as the model's tokenizer lets it; ids are taken as they are"),
    # transformers: what is returned
    "output_attentions": _told(_TENSORS, False),
    "output_hidden_states": _told(_TENSORS, False),
    "output_scores": _told(_TENSORS, False),
    "output_logits": _told(_TENSORS, False),
    "return_dict_in_generate": _told("a Completion is what is always returned", False),
    # transformers: assistants
    "is_assistant": _told(_ASSISTANT, False),
    "num_assistant_tokens": _told(_ASSISTANT),
    "num_assistant_tokens_schedule": _told(_ASSISTANT),
    "assistant_confidence_threshold": _told(_ASSISTANT),
    "assistant_early_exit": _told(_ASSISTANT),
    "assistant_lookbehind": _told(_ASSISTANT),
    "target_lookbehind": _told(_ASSISTANT),
    "assistant_ensemble_weight": _told(_ASSISTANT),
    "speculation_type": _told(_ASSISTANT),
    "prompt_lookup_num_tokens": _told(_ASSISTANT),
    "max_matching_ngram_size": _told(_ASSISTANT),
    # transformers: how it is run
    "use_cache": _told(_CACHE, True),
    "cache_implementation": _told(_CACHE),
    "cache_config": _told(_CACHE),
    "max_cache_len": _told(_CACHE),
    "compile_config": _told("nothing is compiled when a model runs"),
    "disable_compile": _told("nothing is compiled when a model runs", False, True),
    "continuous_batching_config": _told("Engine's own options say how requests are batched"),
    "prefill_chunk_size": _told("max_num_batched_tokens is Engine's option for it"),
}
