"""What a comparison found, as the JSON file holds it, and what is concluded from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cells import BATCHED, Cell, cell_named
from .entries import LAMELLA
from .machine import Reading
from .models import MODELS


@dataclass(frozen=True)
class Sample:
    """One measurement: seconds, and the machine's readings before and after. Samples of a round stand side by side."""

    model: str
    entry: str
    cell: str
    round: int
    first_s: float
    decode_s: float
    before: Reading
    after: Reading

    @property
    def is_steady(self) -> bool:
        """Whether the machine was the same before and after."""
        return self.before.is_like(self.after)

    @property
    def rate(self) -> float:
        """See `Cell.rate`."""
        return cell_named(self.cell).rate(MODELS[self.model], self.seconds)

    @property
    def seconds(self) -> float:
        """Of what the cell times."""
        return self.decode_s if cell_named(self.cell).kind == "decode" else self.first_s

    @property
    def read_bytes_s(self) -> float | None:
        """The bandwidth around it, where it was measured."""
        both = (self.before.read_bytes_s, self.after.read_bytes_s)
        known = [each for each in both if each]
        return statistics.mean(known) if known else None

    def compares_with(self, other: Sample) -> bool:
        """Whether it and a sample of the same round saw one state of the machine."""
        return self.is_steady and other.is_steady and self.after.is_like(other.after)


@dataclass(frozen=True)
class Line:
    """One entry of one model: how it was loaded, and of Lamella's what a step of a cell reads and computes (`work`).

    By cell: bytes of weights and KV cache, flops, and ops: the same of each kind of op, with its arithmetic.
    """

    model: str
    entry: str
    engine: str
    bits: str
    version: str
    load_s: float
    peak_bytes: int
    arithmetic: str = ""
    work: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    error: float | None = None  # of an encoder's last hidden state, against transformers in fp32


@dataclass(frozen=True)
class Results:
    """All of a run. `about`: where and when; `peaks`: operations/s by arithmetic; `notes`: what is missing."""

    about: Mapping[str, Any]
    peaks: Mapping[str, float]
    lines: Sequence[Line]
    samples: Sequence[Sample]
    notes: Sequence[str]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Results:
        """The inverse of `dataclasses.asdict`."""
        samples = [
            Sample(**{**each, "before": Reading(**each["before"]), "after": Reading(**each["after"])})
            for each in found["samples"]
        ]
        lines = [Line(**line) for line in found["lines"]]
        return cls(found["about"], found["peaks"], lines, samples, found["notes"])

    @property
    def drawn(self) -> list[str]:
        """The models of which there is something to draw over the batch size."""
        return list(dict.fromkeys(sample.model for sample in self.samples if cell_named(sample.cell) in BATCHED))

    def of(self, line: Line, cell: Cell) -> list[Sample]:
        """The steady samples of a line in a cell."""
        return [
            sample
            for sample in self.samples
            if (sample.model, sample.entry, sample.cell) == (line.model, line.entry, cell.name) and sample.is_steady
        ]

    def rates(self, line: Line, cell: Cell) -> list[float]:
        """Their rates."""
        return [sample.rate for sample in self.of(line, cell)]

    def ratio(self, ours: Line, peer: Line, cell: Cell) -> float | None:
        """How many times as fast `ours` is, the median over the rounds where both saw one state of the machine."""
        theirs = {sample.round: sample for sample in self.of(peer, cell)}
        found = [
            theirs[own.round].seconds / own.seconds
            for own in self.of(ours, cell)
            if own.round in theirs and own.compares_with(theirs[own.round])
        ]
        return statistics.median(found) if found else None

    def best_peer(self, ours: Line, cell: Cell) -> tuple[Line, float] | None:
        """The peer of the same class against which `ours` does worst, with the ratio.

        None where the peer with the least median time was in no round that compares: another would stand for it.
        """
        peers = [
            peer
            for peer in self.lines
            if (peer.model, peer.bits) == (ours.model, ours.bits) and peer.engine != LAMELLA and self.of(peer, cell)
        ]
        if not peers:
            return None
        fastest = min(peers, key=lambda peer: statistics.median(sample.seconds for sample in self.of(peer, cell)))
        if self.ratio(ours, fastest, cell) is None:
            return None
        found = [(peer, ratio) for peer in peers if (ratio := self.ratio(ours, peer, cell)) is not None]
        return min(found, key=lambda each: each[1])

    def share_of_read(self, ours: Line, cell: Cell) -> float | None:
        """Bytes/s that it read in a cell over the read bandwidth around it; the median. Decoding only."""
        if cell.kind != "decode" or cell.name not in ours.work:
            return None
        total = ours.work[cell.name]["bytes"] * _steps(ours, cell)
        found = [total / s.seconds / s.read_bytes_s for s in self.of(ours, cell) if s.read_bytes_s]
        return statistics.median(found) if found else None

    def share_of_peak(self, ours: Line, cell: Cell) -> float | None:
        """Operations/s in a cell over the peak of the arithmetic that bounds it; the median."""
        if cell.name not in ours.work or not self.peaks.get(ours.arithmetic):
            return None
        total = ours.work[cell.name]["flops"] * _steps(ours, cell)
        found = [total / sample.seconds / self.peaks[ours.arithmetic] for sample in self.of(ours, cell)]
        return statistics.median(found) if found else None

    def share_of_roof(self, ours: Line, cell: Cell) -> float | None:
        """The least time of a cell's steps over the time that they took; the median.

        An op takes at least as long as its weights and KV cache at the read bandwidth around the measurement, and as
        its operations at the peak of its own arithmetic; a step takes its ops one after the other. The int8 peak is
        that of 8-bit weights, which sets without VNNI exceed with 4-bit codes.
        """
        found = [
            least_s / sample.seconds
            for sample in self.of(ours, cell)
            if (least_s := self._least_of_cell_s(ours, cell, sample)) is not None
        ]
        return statistics.median(found) if found else None

    def roof_beside(self, ours: Line, peer: Line, cell: Cell) -> float | None:
        """How many times as fast as `peer` that least time would be; the median over the rounds that `ratio` takes."""
        theirs = {sample.round: sample for sample in self.of(peer, cell)}
        found = [
            theirs[own.round].seconds / least_s
            for own in self.of(ours, cell)
            if own.round in theirs and own.compares_with(theirs[own.round])
            if (least_s := self._least_of_cell_s(ours, cell, own)) is not None
        ]
        return statistics.median(found) if found else None

    def _least_of_cell_s(self, ours: Line, cell: Cell, sample: Sample) -> float | None:
        if sample.read_bytes_s is None or cell.name not in ours.work:
            return None
        step_s = self.least_s(ours, cell, sample.read_bytes_s)
        return None if step_s is None else _steps(ours, cell) * step_s

    def least_s(self, ours: Line, cell: Cell, read_bytes_s: float, tokens: float = 1.0) -> float | None:
        """The least time of a step, see `share_of_roof`.

        `tokens`: with so many times the cell's operations, and the cell's bytes: of a batch whose KV cache is nothing
        beside the weights. None where a peak was not measured, or the file is from before ops were written.
        """
        ops = ours.work[cell.name].get("ops", ())
        peaks = [self.peaks.get(op["arithmetic"]) for op in ops]
        if not ops or not all(peaks):
            return None
        pairs = zip(ops, peaks, strict=True)
        return sum(max(op["bytes"] / read_bytes_s, tokens * op["flops"] / peak) for op, peak in pairs)


def _steps(line: Line, cell: Cell) -> int:
    return cell.steps(MODELS[line.model]) or 1
