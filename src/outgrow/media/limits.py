"""What one connection may cost the embedded media server, as plain values.

Nothing here does I/O or reads a clock. `connections` keeps what can be seen of a
connection alone, and `handler` what belongs to one body.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Connections above the limit that are still told why they are closed.
SPARE = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and bytes. Each limit is far above what an honest client needs.

    `max_head`: bytes of a request's head, and of whatever is neither a head nor a
    body. `head_timeout`: from the first byte of a head to its last. `body_timeout`:
    a body may stand still for so long, in either direction. `min_rate`: bytes a
    second that a body must make over any `body_timeout`, 0 for no such limit.
    Outgrow's own client gives a server up below 65536. `keep_alive`: a connection
    may be idle for so long. That client closes after 3 s, so that no request meets
    a connection that is just being closed. `max_head` and `max_connections` may be 0,
    for no limit.
    """

    max_head: int = 16 * 1024
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    min_rate: int = 1024
    max_connections: int = 1000
    keep_alive: int = 60

    @property
    def max_files(self) -> int:
        """Descriptors that the process may need: a socket and a file for each connection."""
        # 65536: for any number of them, as many as a system usually lets a process have.
        return 2 * (self.max_connections + SPARE) + 128 if self.max_connections else 65536


class Pace:
    """How fast the other side takes or gives one body.

    Only the time that is spent waiting for it counts: our own slow disk is not
    its fault.
    """

    def __init__(self, limits: Limits) -> None:
        self._floor = limits.min_rate
        self._window = limits.body_timeout
        self._moved = 0
        self._waited = 0.0

    def keeps_up(self, moved: int, waited: float) -> bool:
        """Note that `moved` bytes took `waited` seconds; False when that is too slow.

        It is judged over whole windows, so that a pause is no offence. Without a
        floor something must move in each.
        """
        self._moved += moved
        self._waited += waited
        if self._waited < self._window:
            return True
        fast = self._moved >= max(1.0, self._floor * self._waited)
        self._moved, self._waited = 0, 0.0
        return fast
