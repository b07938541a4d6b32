"""Keeping others off the machine while something is measured, by a command that the user names."""

from __future__ import annotations

import shlex
import subprocess
import time

_LONGEST_S = 30  # after which others get a turn before the next measurement


class Guard:
    """A command that runs while measurements do: they begin when it has printed a line, and closing its input ends it.

    Without a command it does nothing. For example `flock /tmp/bench.lock sh -c "echo go; cat"` takes turns with other
    programs that lock the same file.
    """

    def __init__(self, command: str | None) -> None:
        self._command = shlex.split(command) if command else []
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0

    def take(self) -> bool:
        """Waits for the command's line, unless it was taken less than half a minute ago; whether it was taken anew."""
        if self._process is not None and time.monotonic() - self._since < _LONGEST_S:
            return False
        self.release()
        if self._command:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            if not self._process.stdout.readline():
                status = self._process.wait()
                raise RuntimeError(f"--guard {shlex.join(self._command)!r} ended with status {status}, without a line")
            self._since = time.monotonic()
        return True

    def release(self) -> None:
        """Ends the command."""
        if self._process is not None:
            self._process.communicate()
            self._process = None
