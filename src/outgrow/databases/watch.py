"""Threads that look at each server of a cluster every few seconds, beside the requests.

A request asks no server how it is: it looks at what these threads have seen. There is one for
each server, so that one that hangs delays the news of no other. They begin with the first
request that is to read a replica, have connections of their own, and end with the process.
A forked child knows what its parent knew, and begins its own when that is too old.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import random
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.db import connections
from django.db.utils import load_backend

from outgrow.databases import probe
from outgrow.databases.setup import CONNECT_TIMEOUT
from outgrow.databases.watchdog import watchdog

if TYPE_CHECKING:
    from outgrow.databases.cluster import Cluster

logger: Final = logging.getLogger("outgrow.databases")

#: Times of looks are spread by so much of `check_every`, so that processes don't look in step.
JITTER: Final = 0.25

#: Seconds that the first request waits for the first looks; then the primary serves it.
FIRST: Final = 0.5

#: Seconds from the first look at a replica to the second, if that tells nothing yet.
HURRY: Final = 0.02

#: Times of `read_timeout` from one look at a replica to the next, at most: with the spread, two
#: of them fall into the time for which a server may give no sign of life.
SIGNS: Final = 0.4

#: Connections that a parent had open. A child must not close them: some drivers would tell the
#: server, over the socket that both share.
_inherited: Final[list[Any]] = []


class Watch:
    """Looks at the servers of one cluster. Thread-safe; begins nothing until `ensure`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._pid = 0
        self._first: list[threading.Event] = []
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[Any] = []
        if hasattr(os, "register_at_fork"):
            forked = weakref.WeakMethod(self._forked)
            os.register_at_fork(after_in_child=partial(_call, forked))

    def _forked(self) -> None:
        """In a child: no thread of ours is there, and one of them may have held the lock."""
        self._lock = threading.Lock()
        self._cluster.health.forked()

    def ensure(self) -> None:
        """See to it that the servers are watched. The first call waits for the first looks."""
        if self._pid == os.getpid() or self._inherits():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._begin()
            self._pid = os.getpid()
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the quick form of the public one
            return
        until = self._cluster.clock() + FIRST
        for first in self._first:
            first.wait(max(0.0, until - self._cluster.clock()))

    def _inherits(self) -> bool:
        """Whether a parent has seen enough a moment ago: many a child ends sooner than that is old.

        So the process that a worker forks for one task opens no connections to look at servers.
        """
        if not self._pid:
            return False
        now, knowledge = self._cluster.clock(), self._cluster.knowledge
        return any(knowledge.is_fresh(alias, now) for alias in self._cluster.by_alias)

    def stop(self) -> None:
        """End the threads and close their connections: for tests and drills."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        with self._lock:
            self._threads = []
            self._pid = 0

    def _begin(self) -> None:
        _inherited.extend(self._connections)
        aliases = [self._cluster.primary, *self._cluster.by_alias]
        self._connections = []
        self._first = [threading.Event() for _ in aliases]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._look_after,
                args=(alias, first, self._first[0], self._stopping),
                name=f"outgrow watch {alias}",
                daemon=True,
            )
            for alias, first in zip(aliases, self._first, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def _look_after(
        self,
        alias: str,
        first: threading.Event,
        primary: threading.Event,
        stopping: threading.Event,
    ) -> None:
        connection = own_connection(alias)
        self._connections.append(connection)
        if alias != self._cluster.primary:
            # What a replica lacks is told by what was seen of the primary before.
            primary.wait(FIRST)
        pause = HURRY
        try:
            while not stopping.is_set():
                try:
                    self._look(alias, connection)
                except Exception:
                    # Nobody hears of what ends a thread; what is wrong must not end the watch.
                    logger.exception("The watch over %r has met something unforeseen.", alias)
                first.set()
                pause = self._pause(alias, pause)
                stopping.wait(pause * (1 + JITTER * random.random()))  # noqa: S311 - no secret
        finally:
            connection.close()

    def _pause(self, alias: str, last: float) -> float:
        """Seconds until the next look.

        A replica of a busy primary has never replayed the position that was seen a moment
        ago. At the beginning there is no older one, so it is looked at again soon.
        """
        options = self._cluster.options
        every, knowledge = options.check_every, self._cluster.knowledge
        if alias != self._cluster.primary:
            # A slow query is told from a frozen server by what is seen of it meanwhile.
            every = min(every, options.read_timeout * SIGNS)
        if (
            alias == self._cluster.primary
            or last >= every
            or knowledge.is_fresh(alias, self._cluster.clock())
        ):
            return every
        return min(every, last * 2)

    def _limit(self, alias: str) -> float:
        """Seconds for one look.

        A primary that is frozen must be known before the replicas count as behind, or all
        reads would go to it and wait.
        """
        options = self._cluster.options
        if alias != self._cluster.primary:
            return options.read_timeout
        return min(options.read_timeout, max(1.0, options.check_every))

    def _look(self, alias: str, connection: Any) -> None:
        cluster = self._cluster
        server = cluster.by_alias.get(alias)
        health = cluster.health
        if server is not None and not health.is_up(server) and not health.due(server):
            return
        kept = connection.connection is not None
        failure = self._ask(alias, connection)
        if failure is not None and kept and not isinstance(failure, TimeoutError):
            # A connection that was kept may be lost while its server is well, as in a request.
            failure = self._ask(alias, connection)
        if failure is None:
            return
        if server is None:
            cluster.knowledge.note_primary_failed(" ".join(str(failure).split())[:300])
        else:
            cluster.failed(alias, failure)

    def _ask(self, alias: str, connection: Any) -> Exception | None:
        """Ask a server, and note its answer; the error of the database if there is none.

        The connection is closed then. A `TimeoutError` stands for an answer that was too late.
        """
        from outgrow.databases.cluster import is_database_error

        cluster, limit = self._cluster, self._limit(alias)
        server, slot = cluster.by_alias.get(alias), None
        try:
            connection.ensure_connection()
            # What was committed before the question was sent is in the answer.
            asked = cluster.clock()
            if server is None:
                cluster.knowledge.note_primary_asked(asked)
            with watchdog.limit(connection, limit) as slot:
                sighting = probe.look(connection)
        except Exception as error:
            if not is_database_error(connection, error):
                raise
            connection.close()
            is_late = slot is not None and slot.fired
            return TimeoutError(f"no answer within {limit:g} s") if is_late else error
        if server is None:
            cluster.knowledge.note_primary(sighting, asked)
        else:
            cluster.knowledge.note_replica(alias, sighting, cluster.clock())
            cluster.health.ok(server)
        return None


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    """Call a method if its object is still there."""
    found = method()
    if found is not None:
        found()


def own_connection(alias: str, name: str = "outgrow watch") -> Any:
    """A connection that no request uses, with a limit for connecting and outside of any pool.

    `name` is what PostgreSQL lists it under, unless the settings give another.
    """
    settings = copy.deepcopy(connections.settings[alias])
    options = settings.setdefault("OPTIONS", {})
    options.pop("pool", None)
    if "sqlite" not in settings["ENGINE"]:
        options.setdefault("connect_timeout", CONNECT_TIMEOUT)
    if "postg" in settings["ENGINE"]:
        options.setdefault("application_name", name)
    settings["ATOMIC_REQUESTS"] = False
    return load_backend(settings["ENGINE"]).DatabaseWrapper(settings, alias)
