"""A set of servers, their health, and the choice of one or several of them.

Media servers and database replicas both use it. Nothing here knows what a
server does, opens a connection or reads a clock of its own.

The laws:

1. Health is two verbs, `ok` and `failed`. Probes and real traffic feed the same
   two, so there is one opinion about a server, not two.
2. A server that failed is left alone for `downtime`, or for as long as it asked for,
   with jitter, so that processes do not return to it in step. Then it is *due*: one caller is given
   the right to probe it with a small request. Only `ok` makes it up again.
3. `ranked` is lazy. It skips what is down at the moment it is asked for the next
   server, and so what its caller has just reported.
4. When nothing is left the caller decides: an error, a last resort, the primary.
"""

from __future__ import annotations

import hashlib
import math
import random as random_module
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

#: Seconds for which a failed server is left alone. django_replicated's
#: REPLICATED_DATABASE_DOWNTIME, kept as the default here.
DOWNTIME = 60.0

#: A server's downtime is drawn from [1, 1 + JITTER) times the option.
JITTER = 0.25


@dataclass(frozen=True, slots=True)
class Server:
    """One server: a stable name, and the address under which it is reached now.

    `address` is a URL for a media server and a database alias for a replica. The
    name is what journals keep, so that an address may change. `weight` is the
    server's share of the load, relative to the others'; 0 takes no load that is
    spread, and is still chosen when nothing else is left.
    """

    name: str
    address: str
    zone: str = ""
    weight: int = 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Condition:
    """What is believed of one server: up or not, since when, and why.

    `since` and `retry_at` are readings of the `Health`'s clock, in seconds.
    `writes` is false for a server that is up but refuses writes (a full disk).
    """

    up: bool = True
    writes: bool = True
    since: float = 0.0
    retry_at: float = 0.0
    reason: str = ""


class Health:
    """What is believed of each server. Thread-safe; each process has its own.

    Arguments: `clock` gives seconds and never goes back; `random` gives numbers
    in [0, 1); `downtime` is in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        downtime: float = DOWNTIME,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._clock = clock
        self._random = random
        self._downtime = downtime
        self._conditions: dict[str, Condition] = {}
        self._lock = threading.Lock()
        self._start = clock()

    def forked(self) -> None:
        """In a forked child: a thread that it does not have may have held the lock."""
        self._lock = threading.Lock()

    def condition(self, server: Server) -> Condition:
        """What is believed of `server` now."""
        return self._conditions.get(server.name) or Condition(since=self._start)

    def ok(self, server: Server, *, writes: bool = True) -> None:
        """The server did what it was asked: it is up.

        With `writes` false it served a read beside the probes: that says nothing of a
        full disk, and a server that refuses writes goes on being spared them.
        """
        known = self._conditions.get(server.name)
        # The steady state takes no lock: health is asked on every save.
        if known is not None and known.up and (known.writes or not writes):
            return
        with self._lock:
            self._conditions[server.name] = Condition(since=self._clock())

    def failed(
        self,
        server: Server,
        reason: str = "",
        *,
        writes_only: bool = False,
        pause: float | None = None,
    ) -> None:
        """The server did not answer, or answered 5xx: leave it alone for a while.

        With `writes_only` it goes on serving reads (507: its disk is full). `pause` is how
        long in seconds, where the server has said so; else `downtime` is taken.
        """
        with self._lock:
            now = self._clock()
            known = self.condition(server)
            up = known.up if writes_only else False
            changed = known.up != up or known.writes
            self._conditions[server.name] = Condition(
                up=up,
                writes=False,
                since=now if changed else known.since,
                retry_at=now + self._spread(self._downtime if pause is None else pause),
                reason=reason,
            )

    def is_up(self, server: Server, *, writes: bool = False) -> bool:
        """Whether the server is to be asked; with `writes`, to be asked to write."""
        known = self._conditions.get(server.name)
        if known is None:
            return True
        return known.up and (known.writes or not writes)

    def due(self, server: Server) -> bool:
        """Whether the caller shall probe this server now.

        True for one caller after each downtime; the others go on leaving the
        server alone until that caller has reported.
        """
        known = self._conditions.get(server.name)
        if known is None or (known.up and known.writes) or self._clock() < known.retry_at:
            return False
        with self._lock:
            known = self._conditions[server.name]
            now = self._clock()
            if (known.up and known.writes) or now < known.retry_at:
                return False
            retry_at = now + self._spread(self._downtime)
            self._conditions[server.name] = Condition(
                known.up, known.writes, known.since, retry_at, known.reason
            )
            return True

    def _spread(self, seconds: float) -> float:
        return seconds * (1 + JITTER * self._random())


class ServerSet:
    """Several servers and the order in which to ask them."""

    def __init__(
        self,
        servers: Iterable[Server],
        health: Health,
        *,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.servers = tuple(servers)
        self.health = health
        self._random = random

    def __iter__(self) -> Iterator[Server]:
        return iter(self.servers)

    def __len__(self) -> int:
        return len(self.servers)

    def ranked(
        self, key: str | None = None, where: Callable[[Server], bool] | None = None
    ) -> Iterator[Server]:
        """The servers that are up, best first, lazily.

        With `key` the order is stable for that key (rendezvous hashing: when a
        server joins or leaves, only its own keys move). Without it the load is
        spread by weight. `where` filters, and is asked as late as health is.
        """
        score = self._spread if key is None else _rendezvous(key)
        for server in sorted(self.servers, key=score, reverse=True):
            if self.health.is_up(server) and (where is None or where(server)):
                yield server

    def _spread(self, server: Server) -> float:
        # Efraimidis and Spirakis, "Weighted random sampling with a reservoir"
        # (2006): sorting by u^(1/w) draws without replacement, by weight.
        return _weighted(1.0 - self._random(), server.weight)


def _rendezvous(key: str) -> Callable[[Server], float]:
    # Thaler and Ravishankar, "A name-based mapping scheme for rendezvous" (1996).
    def score(server: Server) -> float:
        digest = hashlib.blake2b(f"{server.name}\0{key}".encode(), digest_size=8).digest()
        return _weighted((int.from_bytes(digest) + 1) / (2**64 + 1), server.weight)

    return score


def _weighted(uniform: float, weight: int) -> float:
    """A uniform number in (0, 1] as a score that prefers heavier servers."""
    if weight <= 0:
        return -math.inf
    return math.log(uniform) / weight
