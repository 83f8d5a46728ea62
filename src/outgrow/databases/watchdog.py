"""A limit for how long a replica may be silent: the socket of a late answer is shut.

A server that freezes, or whose network is cut, ends no query: `statement_timeout` is its own
clock's, and TCP waits for many minutes. So a thread looks at the connections in use and shuts
the socket of one that is over its time; its reader then gets the driver's error for a lost
connection. One thread for a process, begun when it is needed; a forked child has its own.

A server that has given a sign of life elsewhere meanwhile is not frozen: its query is slow,
and is waited for. The time then counts from that sign. A path that is dead for this one
connection alone is for the kernel to notice, which is told to look after it.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

#: Seconds between two looks, at most; a limit that is short is looked at more often.
LOOK: Final = 0.5

#: What a Django connection has its slot under.
_SLOT: Final = "_outgrow_slot"


class Slot:
    """One connection of a driver. `limit` is in seconds; one thread uses it at a time."""

    __slots__ = (
        "__weakref__",
        "around",
        "fired",
        "home",
        "limit",
        "lock",
        "pulse",
        "raw",
        "until",
    )

    def __init__(self, raw: Any, home: object) -> None:
        self.raw = raw
        #: The set that it is looked after in: a forked child has another one.
        self.home = home
        #: When the blocks around the present one are over, the outermost first.
        self.around: list[float] = []
        self.lock = threading.Lock()
        self.until = math.inf
        self.limit = LOOK
        self.fired = False
        #: When the server has last given a sign of life, on whatever connection.
        self.pulse: Callable[[], float] = _never

    def shut_if_late(self, now: float) -> None:
        """End the wait of its reader if it is over its time.

        Under the lock that the reader takes before it may close the connection: so the
        descriptor can't be another file's meanwhile.
        """
        with self.lock:
            if now < self.until:
                return
            alive_until = self.pulse() + self.limit
            if alive_until > now and not self.around:
                self.until = alive_until
                return
            self.until = math.inf
            self.fired = True
            # A driver's connection that is closed already raises what it likes.
            with suppress(Exception):
                _shut(self.raw)


def _never() -> float:
    return -math.inf


def _shut(raw: Any) -> None:
    interrupt = getattr(raw, "interrupt", None)  # sqlite3's, which has no socket
    if interrupt is not None:
        interrupt()
        return
    with _socket(raw) as again:
        again.shutdown(socket.SHUT_RDWR)


def _socket(raw: Any) -> socket.socket:
    """The socket of a driver's connection, once more: to close it does not close the driver's."""
    own = getattr(raw, "_sock", None)  # PyMySQL's
    descriptor = own.fileno() if own is not None else raw.fileno()
    return socket.socket(fileno=os.dup(descriptor))


def _keep_alive(raw: Any, seconds: float) -> None:
    """Let the kernel end a connection whose other side takes nothing for so long (tcp(7))."""
    if hasattr(raw, "interrupt"):
        return
    silence = max(1, math.ceil(seconds))
    wanted = {
        "TCP_KEEPIDLE": max(1, silence // 2),
        "TCP_KEEPINTVL": max(1, silence // 6),
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": silence * 1000,  # milliseconds
    }
    # A driver without a descriptor, or whose connection is closed already and raises what it
    # likes; a socket that is none of TCP; a system without these.
    with suppress(Exception), _socket(raw) as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in wanted.items():
            if hasattr(socket, name):
                again.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Watchdog:
    """Looks after all slots of this process. Thread-safe; `clock` is in seconds."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._slots: weakref.WeakSet[Slot] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, connection: Any, seconds: float, pulse: Callable[[], float] = _never) -> Slot:
        """From now on a Django connection, which is open, waits no longer than this.

        But for `seconds` from the last sign of life that `pulse` tells, by the monotonic clock.
        `end` is called in any case. Each query of a replica passes here, so it is short.
        """
        slot: Slot | None = connection.__dict__.get(_SLOT)
        if slot is None or slot.raw is not connection.connection or slot.home is not self._slots:
            slot = self._slot(connection, seconds)
        until = time.monotonic() + seconds
        if slot.until != math.inf:  # within another block that one's limit holds, too
            slot.around.append(slot.until)
            until = min(until, slot.until)
        slot.pulse, slot.limit, slot.fired, slot.until = pulse, seconds, False, until
        if not self._busy.is_set():
            self._busy.set()
        return slot

    @staticmethod
    def end(slot: Slot) -> None:
        """The wait is over, however it ended; `slot.fired` says whether it was too long."""
        with slot.lock:
            around = slot.around.pop() if slot.around else math.inf
            slot.until = math.inf if slot.fired else around

    @contextmanager
    def limit(
        self, connection: Any, seconds: float, pulse: Callable[[], float] = _never
    ) -> Iterator[Slot]:
        """A block in which an open connection of Django's waits no longer than `begin` says."""
        slot = self.begin(connection, seconds, pulse)
        try:
            yield slot
        finally:
            self.end(slot)

    def _slot(self, connection: Any, seconds: float) -> Slot:
        """A slot for what the connection is now; looked after from its first use on."""
        slot = Slot(connection.connection, self._slots)
        _keep_alive(connection.connection, seconds)
        setattr(connection, _SLOT, slot)
        with self._lock:
            self._slots.add(slot)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._look_after, name="outgrow watchdog", daemon=True
                )
                self._thread.start()
        return slot

    def _look_after(self) -> None:
        while True:
            self._busy.wait()
            with self._lock:
                slots = list(self._slots)
            active = [slot for slot in slots if slot.until != math.inf]
            now = time.monotonic()
            for slot in active:
                if slot.until <= now:
                    slot.shut_if_late(now)
            if not active:
                self._rest()
                continue
            time.sleep(min(LOOK, *(slot.limit / 4 for slot in active)))

    def _rest(self) -> None:
        """Nobody waits for anything: sleep until somebody does."""
        self._busy.clear()
        # One that began between the look and this line has found the flag set.
        with self._lock:
            slots = list(self._slots)
        if any(slot.until != math.inf for slot in slots):
            self._busy.set()


#: The one of this process.
watchdog: Final = Watchdog()
