"""Reading an untrusted config field by field: range-checked, and nothing left over that might have meant something."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from lamella.errors import CheckpointError, unsupported

_log = logging.getLogger("lamella")

LARGEST_SIZE = 2**31 - 1
MOST_LAYERS = 4096

# Bookkeeping, training, generation and labels: fields that no forward pass depends on.
_BOOKKEEPING = frozenset(
    """
    _name_or_path _commit_hash _attn_implementation _attn_implementation_autoset _attn_implementation_internal
    _experts_implementation_internal _from_model_config _num_labels architectures attn_implementation auto_map dtype
    finetuning_task gradient_checkpointing id2label initializer_range label2id model_type name_or_path num_labels
    output_attentions output_hidden_states output_past prefix problem_type return_dict task_specific_params
    tf_legacy_loss tokenizer_class torch_dtype torchscript transformers_version transformers.js_config unsloth_fixed
    unsloth_version unsloth_optimized use_bfloat16 use_cache use_return_dict is_composition chunk_size_feed_forward
    attention_dropout attention_probs_dropout_prob attn_pdrop classifier_dropout embd_pdrop hidden_dropout
    hidden_dropout_prob resid_pdrop summary_activation summary_first_dropout summary_proj_to_labels summary_type
    summary_use_proj tie_encoder_decoder bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id
    diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length min_length
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores pad_token_id
    remove_invalid_values repetition_penalty return_dict_in_generate sep_token_id suppress_tokens temperature top_k
    top_p typical_p
    """.split()  # noqa: SIM905
)

_REQUIRED: Any = object()
_Choice = TypeVar("_Choice")


class Config:
    """A config's fields. Every getter range-checks, remembers that the field was read, and treats null as absent.

    Values of the wrong type or outside their range raise `CheckpointError` (INVALID_CHECKPOINT), values that Lamella
    does not have UNSUPPORTED_MODEL; both name the file and the field.
    """

    def __init__(
        self, fields: Mapping[str, Any], source: str, path: str = "", called: Mapping[str, str] | None = None
    ) -> None:
        """`path` goes before the fields' names in errors; `called` has the names that the file itself uses."""
        self._fields = fields
        self._read: set[str] = set()
        self.source = source
        self._path = path
        self._called = called or {}

    def integer(self, name: str, default: int = _REQUIRED, low: int = 1, high: int = LARGEST_SIZE) -> int:
        """A whole number from `low` to `high`."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float = _REQUIRED) -> float:
        """A finite number."""
        value = self._get(name, default)
        if not _is_finite(value):
            raise self.wrong(name, "a finite number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A finite number, or None where the field is absent."""
        return self.number(name) if self._get(name, None) is not None else None

    def numbers(self, name: str, length: int) -> list[float]:
        """A list of exactly `length` finite numbers."""
        value = self._get(name, _REQUIRED)
        if not isinstance(value, list) or len(value) != length:
            raise self.wrong(name, f"a list of {length} numbers")
        if not all(map(_is_finite, value)):
            raise self.wrong(name, "finite numbers only")
        return [float(x) for x in value]

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        """true or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def choice(self, name: str, choices: Mapping[str, _Choice], default: str = _REQUIRED) -> _Choice:
        """One of the names in `choices`; another name is UNSUPPORTED_MODEL."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a name")
        if value not in choices:
            raise self.refused(name, f"one of {', '.join(choices)}")
        return choices[value]

    def group(self, name: str) -> Config | None:
        """A nested object, or None where it is absent, null or empty."""
        value = self._get(name, {})
        if not isinstance(value, Mapping):
            raise self.wrong(name, "an object")
        return Config(value, self.source, f"{self._path}{name}.") if value else None

    def layers(self, name: str) -> int:
        """A number of layers, bounded before anything is built from it."""
        return self.integer(name, high=MOST_LAYERS)

    def take(self, name: str) -> Any:
        """The value as it is, for a field that is checked elsewhere."""
        return self._get(name, None)

    def expect(self, name: str, value: Any) -> None:
        """Reads a field that says again what is known already, or is absent."""
        if self._get(name, value) != value:
            raise self.wrong(name, f"{value}, which follows from the rest of the file")

    def only(self, name: str, *supported: Any) -> None:
        """Reads a field whose other values Lamella does not have; absent is fine."""
        value = self._get(name, None)
        if value is not None and value not in supported:
            raise self.refused(name, " or ".join(map(repr, supported)) or "no such field")

    def names(self, name: str, length: int, known: Collection[str]) -> list[str] | None:
        """A list of exactly `length` of the `known` names, or None where the field is absent."""
        value = self._get(name, None)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length:
            raise self.wrong(name, f"a list of {length} names")
        if not all(isinstance(one, str) and one in known for one in value):
            raise self.refused(name, f"a list of {' and '.join(known)}")
        return value

    def indices(self, name: str, below: int) -> frozenset[int]:
        """A list of different whole numbers from 0 to `below` - 1; none where the field is absent."""
        value = self._get(name, [])
        sound = isinstance(value, list) and all(
            isinstance(one, int) and not isinstance(one, bool) and 0 <= one < below for one in value
        )
        if not sound or len(set(value)) != len(value):
            raise self.wrong(name, f"a list of different whole numbers below {below}")
        return frozenset(value)

    def mentions(self, name: str) -> bool:
        """Whether the field is there, null or not: some say by null what they do not say by being absent."""
        return name in self._fields

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._fields.get(name) is not None

    def ignore(self, *names: str) -> None:
        """Declares fields whose value cannot change a result."""
        self._read.update(names)

    def ignore_bookkeeping(self) -> None:
        """Declares the fields that any transformers config may carry and no forward pass depends on."""
        if self.has("auto_map"):
            _log.warning("%s: auto_map is ignored: Lamella never runs code from a model folder", self.source)
        self.only("quantization_config")
        self.only("is_encoder_decoder", False)
        self.only("add_cross_attention", False)
        self.only("cross_attention_hidden_size")
        self.only("pruned_heads", {})
        self.ignore(*_BOOKKEEPING)

    def refuse_unread(self) -> None:
        """Refuses the first field that nothing has read: it might change the result, and Lamella does not guess."""
        for name in self._unread():
            raise self.refused(name, "no such field; remove it if it does not change the model's results")

    def _unread(self) -> Iterator[str]:
        return (name for name, value in self._fields.items() if name not in self._read and value is not None)

    def _get(self, name: str, default: Any) -> Any:
        self._read.add(name)
        value = self._fields.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise CheckpointError(f"{self.source}: {self._name(name)} is missing")
        return default

    def wrong(self, name: str, expected: str) -> CheckpointError:
        """The error for a field whose value no model can have."""
        return CheckpointError(f"{self._found(name)}, expected {expected}")

    def refused(self, name: str, supported: str) -> CheckpointError:
        """The error for a field whose value Lamella does not have."""
        return unsupported(f"{self._found(name)}, Lamella supports {supported}")

    def _found(self, name: str) -> str:
        return f"{self.source}: {self._name(name)} is {_shown(self._fields.get(name))}"

    def _name(self, name: str) -> str:
        return self._called.get(name, self._path + name)


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _shown(value: Any) -> str:
    try:
        return repr(value)[:200]
    except ValueError:  # Python writes out no integer of thousands of digits
        return "a very large number"
