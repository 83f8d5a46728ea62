"""The guard: kills what this process started and left, when this process ends.

`family` is what it runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import IO, Final

from outgrow.errors import ProcessFailed
from outgrow.topology import family

#: Seconds to wait for a killed group's files and ports to be closed.
KILL_LIMIT: Final = 5.0


class Guard:
    """Kills what this process started and left, when this process ends.

    `inherit` are file descriptors that the guard holds open as long as it lives.
    Thread-safe. Children of this process that neither exec nor close what they
    inherited keep the guard waiting.
    """

    def __init__(self, inherit: tuple[int, ...] = ()) -> None:
        self._inherit = inherit
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the guard, in a session of its own."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", family.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=self._inherit,
        )

    @property
    def pipe(self) -> int:
        """The writing end of the guard's pipe; a child gets it as standard input."""
        if self._process is not None and self._process.poll() is not None:
            raise ProcessFailed("The guard of the processes was killed. Start the site again.")
        return self._stdin().fileno()

    def forget(self, group: int) -> None:
        """This group has ended and its id is about to be free."""
        if self._process is None:  # closed: it has killed the group
            return
        with suppress(BrokenPipeError):  # it was killed; the next start says so
            os.write(self._stdin().fileno(), f"-{group}\n".encode())

    def close(self) -> None:
        """Let the guard kill what is left, and wait for its end."""
        if self._process is None:
            return
        self._stdin().close()
        self._process.wait(KILL_LIMIT)
        self._process = None

    def _stdin(self) -> IO[bytes]:
        if self._process is None or self._process.stdin is None:
            raise ProcessFailed("The guard of the processes was not started.")
        return self._process.stdin
