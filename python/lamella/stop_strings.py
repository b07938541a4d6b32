"""Finds the texts that end a result, wherever the borders of tokens and pieces fall."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Text in, piece by piece; out comes what cannot belong to a stop string any more, up to the first one found.

    Of several that end at the same character, the one that begins first counts.
    """

    def __init__(self, stops: Sequence[str], include: bool) -> None:
        self._stops = stops
        self._include = include
        self._held = ""  # the longest end of the text that could become a stop string
        self.found: str | None = None

    def push(self, piece: str) -> str:
        """The text that `piece` makes certain. Nothing once a stop string was found."""
        if self.found is not None:
            return ""
        text = self._held + piece
        if (end := self._end_of_first(text)) is not None:
            self._held = ""
            return text[:end]
        keep = self._longest_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What is left at the end."""
        text, self._held = self._held, ""
        return text

    def _end_of_first(self, text: str) -> int | None:
        """Where the text ends for the caller, if a stop string is in it."""
        hits = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if not hits:
            return None
        end, start, self.found = min(hits)
        return end if self._include else start

    def _longest_beginning(self, text: str) -> int:
        """The length of the longest end of `text` with which a stop string begins."""
        most = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(most, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
