"""What is measured: cells, each one workload that every engine gets alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .models import Model


@dataclass(frozen=True)
class Cell:
    """One workload. Prompts are random ids, results greedy, of fixed length.

    decode: `batch` sequences after their prompts; tokens/s of all of them over the model's number of steps.
    prompt: tokens/s until the first token. encode: `batch` whole inputs; ms.
    `kept`: the same prompt every time, so that an engine that keeps the KV cache of prompts need not compute it again.
    """

    name: str
    kind: Literal["decode", "prompt", "encode"]
    batch: int
    prompt_tokens: int
    kept: bool = False

    @property
    def title(self) -> str:
        """What heads its column."""
        if self.kind == "decode":
            return f"{self.prompt_tokens} of KV" if self.kept else f"batch {self.batch}"
        return f"{self.kind} {self.prompt_tokens}" + (", ms" if self.kind == "encode" else "")

    def steps(self, model: Model) -> int:
        """Decode steps after the first token."""
        return model.steps if self.kind == "decode" else 0

    def suits(self, model: Model) -> bool:
        """Whether it is for models of its kind, and the model's context holds it."""
        tokens = self.prompt_tokens + (0 if model.is_encoder else 1 + self.steps(model))
        return model.is_encoder == (self.kind == "encode") and tokens <= model.context

    def rate(self, model: Model, seconds: float) -> float:
        """The figure of the table: tokens/s, or milliseconds for an encoder."""
        if self.kind == "encode":
            return 1e3 * seconds
        return self.batch * (self.steps(model) or self.prompt_tokens) / seconds

    def as_message(self, model: Model) -> dict[str, Any]:
        """What a worker is told."""
        return {**asdict(self), "steps": self.steps(model)}


def decode_cell(batch: int) -> Cell:
    """Decoding so many sequences, up to `MOST_BATCH`, at the start of their contexts.

    Prompts of 16 tokens before: their KV cache is nothing beside the weights, and 32 of them make 512 tokens, which
    every engine takes in one step.
    """
    return Cell(f"b{batch}", "decode", batch, 16)


CELLS = {
    cell.name: cell
    for cell in (
        decode_cell(1),
        decode_cell(8),
        decode_cell(32),
        Cell("p128", "prompt", 1, 128),
        Cell("p512", "prompt", 1, 512),
        Cell("kv4096", "decode", 1, 4096, kept=True),
        Cell("e128", "encode", 1, 128),
    )
}
#: Those that a picture over the batch size shows.
BATCHED = [cell for cell in CELLS.values() if cell.kind == "decode" and not cell.kept]
MOST_BATCH = max(cell.batch for cell in CELLS.values())
MOST_TOKENS = max(cell.prompt_tokens for cell in CELLS.values())


def cell_named(name: str) -> Cell:
    """The cell of a result: one of `CELLS`, or decoding at another batch size."""
    return CELLS[name] if name in CELLS else decode_cell(int(name.removeprefix("b")))
