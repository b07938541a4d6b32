"""Where requests without a seed of their own get one."""

from __future__ import annotations


def drawn_seed(seed: int, number: int) -> int:
    """The seed, 64 bits, of request `number` of an engine with `seed`.

    Each step is a bijection, so that two requests of an engine never share a seed, nor do equal numbers of two engines;
    and the small seeds that people choose do not come up.
    """
    return _splitmix64(_splitmix64(seed) + number)


def _splitmix64(state: int) -> int:
    """One step of Steele, Lea and Flood's SplitMix64 (2014)."""
    mixed = (state + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    return mixed ^ mixed >> 31
