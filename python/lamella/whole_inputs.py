"""Inputs as a whole: logits, log-probabilities, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from . import _core
from .answers import Asked
from .checks import check_flag, one_of
from .errors import RequestCancelledError
from .generating import Generating
from .params import SamplingParams
from .progress import told_of_batch
from .prompts import Prompt, as_list, check_size, checked_ids, each
from .sentence_transformers import SentenceEmbedding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]

_POOLINGS: dict[str | None, _core.Pooling] = {
    "mean": _core.Pooling.mean,
    "cls": _core.Pooling.cls,
    "pooler": _core.Pooling.pooler,
    None: _core.Pooling.none,
}


class WholeInputs(Generating):
    """The part of `Engine` that looks at all of an input and generates nothing."""

    def logits(self, inputs: Prompt | Sequence[Prompt]) -> list[FloatArray]:
        """Logits of every position, for checking: one float32 array (tokens, vocabulary) for each input.

        All inputs are checked before the first is run.
        """
        core = self.core
        ids = each(as_list(inputs), lambda prompt: checked_ids(core, self.encode_prompt(prompt)))
        return each(ids, core.logits)

    def score(self, inputs: Prompt | Sequence[Prompt], *, progress: bool | None = None) -> list[FloatArray]:
        """Log-probabilities of the given tokens: for each input a float32 array (tokens - 1,).

        Entry i is that of token i + 1 given those before it; the first token has nothing before it. Their sum is the
        log-likelihood of the rest given the first. Natural logarithms. All inputs are checked before the first is run.
        `progress` as in `generate`.
        """
        import numpy as np

        core = self.core
        sampling = _core.SamplingParams(max_tokens=0, prompt_logprobs=0)
        asked = [
            Asked(_core.Request(ids, sampling), SamplingParams())
            for ids in each(as_list(inputs), lambda prompt: checked_ids(core, self.encode_prompt(prompt)))
        ]
        with told_of_batch(progress, "scoring", len(asked), "inputs") as told, self._submit(asked, told) as answers:
            completions = answers.run()
            for i, done in enumerate(completions):
                answers.raise_error_of(i)
                if done.finish_reason == "cancelled":
                    raise RequestCancelledError("the engine was closed while it scored these inputs")
        return [
            np.array([position[0].logprob for position in (done.prompt_logprobs or [])[1:]], np.float32)
            for done in completions
        ]

    def encode(
        self,
        inputs: Prompt | Sequence[Prompt],
        pooling: Literal["auto", "mean", "cls", "pooler"] | None = "auto",
        normalize: bool | None = None,
        *,
        progress: bool | None = None,
    ) -> FloatArray | list[FloatArray]:
        """Embeds inputs with an encoder: float32, (inputs, hidden); with pooling None a list of (tokens, hidden).

        `pooling` "auto" is the model's own: what its sentence-transformers files or its GGUF metadata say, and the mean
        where they say nothing. Models that ask for another pooling than mean and cls are refused when they are opened.

        `normalize` divides by the L2 norm; None does what those files say of embeddings, and leaves the rows of single
        tokens (pooling None) as they are, as sentence-transformers does; True divides each token's row by its own norm.

        Texts are cut where the model's sentence-transformers files say so; others must fit.
        `progress` as in `generate`.
        """
        import numpy as np

        one_of("pooling", pooling, ("auto", *_POOLINGS))
        if normalize is not None:
            check_flag("normalize", normalize)
        checkpoint = self.checkpoint
        sentence = (checkpoint.sentence if checkpoint else None) or SentenceEmbedding()
        ids = each(as_list(inputs), lambda prompt: self._sentence_ids(prompt, sentence.max_tokens))
        core = self.core
        tokens = [0, *accumulate(map(len, ids))]  # in the first inputs
        with told_of_batch(progress, "encoding", len(ids), "inputs") as told:
            news = None if told is None else (lambda done, total: told(done, tokens[done]))
            rows = core.encode(ids, _POOLINGS[sentence.pooling if pooling == "auto" else pooling], news)
            if told is not None:
                told(len(ids), tokens[-1])
        if pooling is None:
            return [_unit(row) for row in rows] if normalize else rows
        result = np.stack(rows) if rows else np.zeros((0, core.spec.hidden), np.float32)
        return _unit(result) if (sentence.normalize if normalize is None else normalize) else result

    def _sentence_ids(self, prompt: Prompt, limit: int | None) -> list[int]:
        if isinstance(prompt, str) and limit is not None:
            check_size(prompt, self.core.config.max_model_len)
            return self.tokenizer_or_raise().encode(prompt, max_tokens=limit)
        return self.encode_prompt(prompt)


def _unit(rows: FloatArray) -> FloatArray:
    """Rows divided by their L2 norm; a row of zeros stays one."""
    import numpy as np

    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: FloatArray = rows / np.maximum(norms, 1e-12).astype(np.float32)
    return unit
