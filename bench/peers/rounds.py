"""The order of measurements: in a round each entry once, and as many rounds as give enough that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .results import Sample

#: Rounds go on, where the machine changed within some, up to so many times what was asked for.
MOST_ROUNDS_FACTOR = 2


def compared(rounds: Sequence[Sequence[Sample]], first: str) -> int:
    """In how many rounds every sample compares with that of the entry `first`."""
    count = 0
    for samples in rounds:
        own = next((sample for sample in samples if sample.entry == first), None)
        count += own is not None and all(own.compares_with(sample) for sample in samples)
    return count


def run_rounds(
    entries: Sequence[str], measure: Callable[[str, int], Sample | None], repeat: int, first_round: int = 0
) -> list[Sample]:
    """Samples of one cell: `repeat` rounds in which all compare with the first entry's, or twice as many rounds.

    `measure(entry, round)` gives None where the entry cannot; it is left out from then on. Rounds are numbered from
    `first_round`. A round begins with the entry after that with which the last began, so none always follows the same.
    """
    left, rounds = list(entries), list[list[Sample]]()
    while left and len(rounds) < MOST_ROUNDS_FACTOR * repeat and compared(rounds, entries[0]) < repeat:
        turn = len(rounds) % len(left)
        samples = []
        for entry in left[turn:] + left[:turn]:
            sample = measure(entry, first_round + len(rounds))
            if sample is None:
                left.remove(entry)
            else:
                samples.append(sample)
        rounds.append(samples)
    return [sample for samples in rounds for sample in samples]
