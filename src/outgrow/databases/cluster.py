"""One primary and its replicas: which of them serves a request.

The laws:

1. A request is served by one replica, drawn by weight from those that are up, fresh enough, and
   have what its client wrote before. It is connected to when it is chosen, so that one
   that can't be reached is found then, and another is taken.
2. That nobody can serve is no error. `when_behind` says who does: the primary, a
   replica after a short wait, or one that is behind; and if the primary is known to be
   away, the replica that is behind least.
3. Nothing here runs on an event loop: there the primary is named, and nothing is chosen.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from django.core.signals import setting_changed
from django.db import DatabaseError, InterfaceError, connections

from outgrow.conf import ClusterOptions, replication
from outgrow.databases import probe
from outgrow.databases.knowledge import Knowledge
from outgrow.databases.route import PRIMARY, Leg, Route, Wanted, mode, override
from outgrow.databases.watchdog import watchdog
from outgrow.errors import ConfigurationError
from outgrow.servers import Health, Server, ServerSet

logger: Final = logging.getLogger("outgrow.databases")

#: What a Django connection keeps of the server behind it: the driver's connection, and the
#: incarnation that it leads to.
_BEHIND: Final = "_outgrow_behind"

#: Seconds to wait for one replica before the next one is asked: at first, and at most.
TURN: Final = 0.02
LONGEST_TURN: Final = 0.5


def in_test() -> bool:
    """Whether Django's test runner, or pytest-django, has prepared this process for tests.

    Then replicas are mirrors of the primary's test database, and nobody watches them.
    """
    from django.test import utils

    return hasattr(utils._TestState, "saved_data")  # noqa: SLF001 - there is no public way


class Cluster:
    """The state of one cluster in this process. Thread-safe; `clock` is monotonic, in seconds.

    Constructing it opens nothing. `reads` counts the queries that each alias has served.
    """

    def __init__(
        self, options: ClusterOptions, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.options = options
        self.primary = options.primary
        self.clock = clock
        self.health = Health(clock, downtime=options.downtime)
        self.servers = ServerSet(options.replicas, self.health)
        self.knowledge = Knowledge(check_every=options.check_every, max_lag=options.max_lag)
        self.by_alias: Mapping[str, Server] = {one.address: one for one in options.replicas}
        self._reads = {alias: itertools.count(1) for alias in (*self.by_alias, self.primary)}
        self.reads = dict.fromkeys(self._reads, 0)
        self.behind = itertools.count(1)
        #: Called before a choice: sees to it that somebody watches the servers.
        self.watch: Callable[[], None] = lambda: None
        #: Whether every replica counts as fresh: in tests, and where all is one file.
        self.is_mirrored = False

    # --- where to read

    def server_for(self, route: Route) -> str:
        """The alias that serves what this route reads now. Fast when it was asked before."""
        primary = self.primary
        leg = route.legs.get(primary) or route.leg(primary)
        block = override(primary)
        here = route.defaults.get(primary, route.default) if block is None else block.mode
        if here == PRIMARY:
            return primary
        if leg.wrote and not (block is not None and block.stale):
            return primary
        connection = leg.ready.get(threading.get_ident())
        if connection is None:
            return primary if in_transaction(connections[primary]) else self.choose(leg)
        return primary if in_transaction(connection) else leg.server or self.choose(leg)

    def choose(self, leg: Leg, *, without: Iterable[str] = ()) -> str:
        """Choose a server and connect this thread to it. Raises nothing for a replica's sake."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the quick form of the public one
            return leg.server or self.primary
        self.watch()
        left_out = set(without)
        if leg.server == self.primary:
            return leg.serve(self.primary, connections[self.primary])
        if leg.server and leg.server not in left_out:
            # Chosen in another thread of this request.
            if self._connect(self.by_alias[leg.server]):
                return leg.serve(leg.server, connections[self.primary])
            left_out.add(leg.server)
        return leg.serve(self._chosen(leg, left_out), connections[self.primary])

    def _chosen(self, leg: Leg, left_out: set[str]) -> str:
        if leg.wanted.pin and not self.knowledge.primary_failure:
            return self.primary
        behind = []
        for server in self.servers.ranked(where=lambda one: self._is_usable(one, left_out)):
            if not self._connect(server):
                continue
            if not leg.wanted or self.has(server.address, leg.wanted):
                return server.address
            behind.append(server.address)
        return self._last_resort(leg, behind, left_out)

    def _is_usable(self, server: Server, left_out: set[str]) -> bool:
        if server.address in left_out:
            return False
        return self.is_mirrored or self.knowledge.is_fresh(server.address, self.clock())

    def _last_resort(self, leg: Leg, behind: list[str], left_out: set[str]) -> str:
        """Who serves when no replica is fit (law 2)."""
        self._count_behind()
        when_behind = self.options.when_behind if leg.wait is None else "wait"
        if when_behind == "wait" and not leg.wanted.pin:
            seconds = self.options.wait if leg.wait is None else leg.wait
            if alias := self._first_to_have(leg, behind, left_out, seconds):
                return alias
        if when_behind == "stale" or self.knowledge.primary_failure:
            if self.knowledge.primary_failure and leg.wanted and when_behind != "stale":
                # It may not miss what it wrote: then it must fail, as the primary does.
                return self.primary
            for alias in (*behind, *self._least_bad(left_out, behind)):
                if self._connect(self.by_alias[alias]):
                    leg.stale = bool(leg.wanted)
                    return alias
        return self.primary

    def _least_bad(self, left_out: set[str], tried: Iterable[str]) -> list[str]:
        """The replicas that are up, in the order of their age; at the end those that are not."""
        now = self.clock()
        rest = [one for one in self.servers if one.address not in {*left_out, *tried}]
        rest.sort(key=lambda one: self.knowledge.age(one.address, now))
        return [one.address for one in rest if self.health.is_up(one)]

    def _count_behind(self) -> None:
        if next(self.behind) == 1:
            logger.warning(
                "No replica of %r can serve: %s", self.primary, "; ".join(self._why()) or "none"
            )

    def _why(self) -> Iterator[str]:
        now = self.clock()
        for server in self.servers:
            condition = self.health.condition(server)
            if not condition.up:
                yield f"{server} is down ({condition.reason})"
            elif not self.knowledge.is_fresh(server.address, now):
                yield f"{server} is behind"
            else:
                yield f"{server} has not replayed what its client wrote"

    # --- connections

    def _connect(self, server: Server) -> bool:
        """Connect this thread to a replica, if it is not; whether that went well."""
        connection = connections[server.address]
        try:
            connection.close_if_health_check_failed()
            connection.ensure_connection()
        except (DatabaseError, InterfaceError) as error:
            self.failed(server.address, error)
            return False
        self.health.ok(server)
        return True

    def failed(self, alias: str, error: Exception) -> None:
        """A replica did not answer, or broke off: leave it alone for a while."""
        server = self.by_alias[alias]
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if self.health.is_up(server):
            logger.warning("The replica %r is left alone for a while: %s", alias, reason)
        self.health.failed(server, reason)
        self.knowledge.forget_replica(alias)

    # --- positions

    def has(self, alias: str, wanted: Wanted) -> bool:
        """Whether a replica, to which this thread is connected, has all that is wanted.

        Asks it only if that is not known of the incarnation that this connection leads to.
        """
        if wanted.pin:
            return False
        connection = connections[alias]
        raw, incarnation = connection.__dict__.get(_BEHIND, (None, ""))
        known = raw is not None and raw is connection.connection
        if known and self.knowledge.has_replayed(alias, incarnation, wanted):
            return True
        sighting = self.look(alias, connection)
        return sighting is not None and wanted.reached_by(sighting.position)

    def look(self, alias: str, connection: Any) -> probe.Sighting | None:
        """Ask a server over this connection, and note what it says; None if it fails."""
        try:
            with watchdog.limit(connection, self.options.read_timeout):
                sighting = probe.look(connection)
        except Exception as error:  # noqa: BLE001 - the driver's own errors have no common base
            if not is_database_error(connection, error):
                raise
            self.failed(alias, error)
            connection.close()
            return None
        setattr(connection, _BEHIND, (connection.connection, sighting.incarnation))
        self.knowledge.note_replica(alias, sighting, self.clock())
        return sighting

    def _first_to_have(
        self, leg: Leg, behind: Iterable[str], left_out: Iterable[str], seconds: float
    ) -> str:
        """Wait for the first replica that has what is wanted; "" if none does in time.

        A task also waits for those of which nothing is known yet: its process may be young.
        """
        until, turn = self.clock() + seconds, TURN
        waiting, out = list(behind), set(left_out)
        while (left := until - self.clock()) > 0:
            may_come = leg.wait is not None and self._may_come({*out, *waiting})
            if may_come:
                waiting += self._come(out, waiting)
            elif not waiting:
                break
            # By turns: who is behind by hours must not hide who is by milliseconds.
            share, turn = min(left, turn), min(turn * 2, LONGEST_TURN)
            if not waiting:
                time.sleep(share)
            for alias in waiting.copy():
                end = self.clock() + share
                if self._wait(alias, leg.wanted, share):
                    return alias
                if self.clock() < end:  # it failed, or will never have it
                    waiting.remove(alias)
                    out.add(alias)
        return ""

    def _may_come(self, without: Iterable[str]) -> bool:
        """Whether there is a replica beside these that may turn out to be fresh."""
        self.watch()
        now = self.clock()
        return any(
            self.health.is_up(one) and not self.knowledge.is_behind(one.address, now)
            for one in self.servers
            if one.address not in without
        )

    def _come(self, out: set[str], waiting: Iterable[str]) -> list[str]:
        """Those that are known to be fresh by now, connected to; who can't be is `out`."""
        found = []
        for server in self.servers.ranked(where=lambda one: self._is_usable(one, {*out, *waiting})):
            if self._connect(server):
                found.append(server.address)
            else:
                out.add(server.address)
        return found

    def _wait(self, alias: str, wanted: Wanted, seconds: float) -> bool:
        """Wait a little for a replica to replay what is wanted."""
        connection = connections[alias]
        until = self.clock() + seconds
        try:
            with watchdog.limit(connection, seconds + self.options.read_timeout):
                for position in wanted.positions:
                    left = max(0.0, until - self.clock())
                    if not probe.wait(connection, position, left):
                        return False
        except Exception as error:  # noqa: BLE001 - the driver's own errors have no common base
            if not is_database_error(connection, error):
                raise
            self.failed(alias, error)
            connection.close()
            return False
        return True

    # --- writes

    def mode(self, route: Route) -> str:
        """Where a route reads from this cluster now, if nothing pins it."""
        return mode(route, self.primary)

    def count(self, alias: str) -> None:
        """One query was served by this alias."""
        self.reads[alias] = next(self._reads[alias])


def is_database_error(connection: Any, error: Exception) -> bool:
    """Whether this is an error of the driver, or Django's of the same, or the system's."""
    return isinstance(error, (DatabaseError, InterfaceError, OSError)) or isinstance(
        error, connection.Database.Error
    )


def in_transaction(connection: Any) -> bool:
    """Whether a transaction is open on this connection of Django's."""
    # Before it is connected for the first time `autocommit` is False, and means nothing.
    return connection.in_atomic_block or (
        not connection.autocommit and connection.connection is not None
    )


@functools.cache
def clusters() -> Mapping[str, Cluster]:
    """The clusters of the site, by the alias of each server of theirs.

    Raises `ConfigurationError` for a mistake in the settings.
    """
    from outgrow.databases.watch import Watch

    found: dict[str, Cluster] = {}
    for options in replication():
        cluster = Cluster(options)
        cluster.is_mirrored = in_test()
        if not cluster.is_mirrored:
            cluster.watch = Watch(cluster).ensure
        for alias in (options.primary, *options.aliases):
            found[alias] = cluster
    return found


def known_clusters() -> Mapping[str, Cluster]:
    """The same, and none while there is a mistake in the settings, which the checks tell."""
    try:
        return clusters()
    except ConfigurationError:
        return {}


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"OUTGROW", "DATABASES"}:
        clusters.cache_clear()


setting_changed.connect(_forget, dispatch_uid="outgrow.databases")
