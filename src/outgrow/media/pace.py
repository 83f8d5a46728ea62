"""Slower than one could: so many bytes a second, for work that must not get in the way."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """At most `rate` bytes a second; 0 is no limit. `sleep` waits."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    def spend(self, size: int) -> None:
        """Wait until the bytes before these have had their time."""
        if not self.rate:
            return
        now = self._clock()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        self._free_at = max(self._free_at, now) + size / self.rate
