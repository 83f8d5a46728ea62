"""When to start again what has crashed, and when to give up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

#: So many starts within WINDOW seconds; the next crash is the last.
LIMIT: Final = 5
WINDOW: Final = 60.0

#: Seconds before the first new start; each further one within WINDOW waits twice as long.
FIRST_PAUSE: Final = 0.25


class Restarts:
    """The memory of one process's crashes. `clock` gives seconds. Not thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._crashes: deque[float] = deque()

    def crashed(self) -> float | None:
        """It has just crashed: the seconds until the next start, or None to give up."""
        now = self._clock()
        while self._crashes and self._crashes[0] <= now - WINDOW:
            self._crashes.popleft()
        if len(self._crashes) == LIMIT:
            return None
        self._crashes.append(now)
        pause: float = FIRST_PAUSE * 2.0 ** (len(self._crashes) - 1)
        return pause
