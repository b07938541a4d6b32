"""What a reading of the machine is, and when two readings tell of the same machine."""

from __future__ import annotations

from dataclasses import dataclass

#: Beyond these two readings do not tell of the same machine: other programs ran, or its cores were moved.
MOST_READ_DIFFERENCE = 0.15  # of the larger
MOST_LATENCY_RATIO = 1.6  # two dies are three to four times as far as one


@dataclass(frozen=True)
class Reading:
    """The bandwidth at which an engine's threads read, bytes/s, and the time from core to core, s, if there are two."""

    read_bytes_s: float | None
    latency_s: float | None = None

    def is_like(self, other: Reading) -> bool:
        """Whether both can be of one state of the machine. What could not be measured is like anything."""
        if self.read_bytes_s and other.read_bytes_s:
            least, most = sorted((self.read_bytes_s, other.read_bytes_s))
            if most - least > MOST_READ_DIFFERENCE * most:
                return False
        if self.latency_s and other.latency_s:
            least, most = sorted((self.latency_s, other.latency_s))
            if most > MOST_LATENCY_RATIO * least:
                return False
        return True
