"""One primary and its replicas: which of them serves a request.

The laws:

1. A request is served by one replica, drawn by weight from those that are up, fresh enough, and
   have what its client wrote before. It is connected to when it is chosen, so that one
   that can't be reached is found then, and another is taken.
2. That is asked for each connection, not for each request: another thread of the request, or
   a connection that was opened anew, may lead to a server that has less.
3. That nobody can serve is no error. `when_behind` says who does: the primary, a
   replica after a short wait, or one that is behind; and if the primary is known to be
   away, the least old replica that has what the client wrote.
4. Nothing here runs on an event loop: there the primary is named, and nothing is chosen.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from django.core.signals import setting_changed
from django.db import DatabaseError, InterfaceError, connections

from outgrow.conf import ClusterOptions, replication
from outgrow.databases import probe
from outgrow.databases.knowledge import PROMOTED, Knowledge
from outgrow.databases.route import PRIMARY, Leg, Route, Wanted, mode, override
from outgrow.databases.watchdog import watchdog
from outgrow.errors import ConfigurationError
from outgrow.servers import Health, Server, ServerSet

logger: Final = logging.getLogger("outgrow.databases")

#: Who may serve: replicas that the watch has seen to be fresh; all of them, for they are one file
#: with the primary; the primary alone, in the tests of a site whose replicas share nothing
#: with its transaction.
WATCHED, MIRRORED, ALONE = "watched", "mirrored", "alone"

#: Seconds to wait for one replica before the next one is asked: at first, and at most.
TURN: Final = 0.02
LONGEST_TURN: Final = 0.5


def in_test() -> bool:
    """Whether Django's test runner, or pytest-django, has prepared this process for tests."""
    from django.test import utils

    return hasattr(utils._TestState, "saved_data")  # noqa: SLF001 - there is no public way


class _Here(NamedTuple):
    """What this thread has last connected to, for a leg, and over which connection.

    `raw` is the driver's connection. One that was opened anew is asked anew (law 2).
    """

    leg: Leg
    alias: str
    connection: Any
    raw: Any
    primary: Any


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
        #: For each replica, what tells when it has last given a sign of life.
        self.pulses = {
            alias: functools.partial(self.knowledge.last_seen, alias) for alias in self.by_alias
        }
        self._reads = {alias: itertools.count(1) for alias in (*self.by_alias, self.primary)}
        self.reads = dict.fromkeys(self._reads, 0)
        #: Called before a choice: sees to it that somebody watches the servers.
        self.watch: Callable[[], None] = lambda: None
        self.routing = WATCHED
        #: The question to a server. `outgrow.testing` puts another in its place.
        self.ask: Callable[[Any], probe.Sighting] = probe.look
        self._here = threading.local()
        #: Driver's connection -> the incarnation of the server that it leads to.
        self._behind: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._is_short = False

    # --- where to read

    def server_for(self, route: Route) -> str:
        """The alias that serves what this route reads now. Fast when it was asked before."""
        primary = self.primary
        leg = route.legs.get(primary) or route.leg(primary)
        block = override(primary)
        if block is None:
            if route.defaults.get(primary, route.default) == PRIMARY or leg.wrote:
                return primary
        elif block.mode == PRIMARY or (leg.wrote and not block.stale):
            return primary
        elif block.stale:
            leg = leg.report()
        here: _Here | None = getattr(self._here, "last", None)
        if (
            here is not None
            and here.leg is leg
            and here.alias == leg.server
            and here.connection.connection is here.raw
        ):
            return primary if in_transaction(here.primary) else here.alias
        return primary if in_transaction(connections[primary]) else self.choose(leg)

    def choose(self, leg: Leg) -> str:
        """Choose a server and connect this thread to it. Raises nothing for a replica's sake."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the quick form of the public one
            return leg.server or self.primary
        if self.routing == ALONE:
            return self.primary
        self.watch()
        if leg.server == self.primary:
            return self.primary
        if leg.server and leg.server not in leg.tried and self._fits(leg.server, leg.wanted):
            # It was chosen in another thread, or over another connection.
            return self._serve(leg, leg.server)
        return self._serve(leg, self._chosen(leg))

    def _serve(self, leg: Leg, alias: str) -> str:
        leg.server = alias
        if alias != self.primary:
            connection = connections[alias]
            primary = connections[self.primary]
            self._here.last = _Here(leg, alias, connection, connection.connection, primary)
        return alias

    def _chosen(self, leg: Leg) -> str:
        if leg.wanted.pin and not self.knowledge.primary_is_away(self.clock()):
            return self.primary
        behind = []
        for server in self.servers.ranked(where=lambda one: self._is_usable(one, leg)):
            if not self.connect(server.address):
                continue
            if self.has(server.address, leg.wanted):
                self._is_short = False
                return server.address
            behind.append(server.address)
        return self._last_resort(leg, behind)

    def _is_usable(self, server: Server, leg: Leg) -> bool:
        if server.address in leg.tried:
            return False
        return self.is_fresh(server.address)

    def is_fresh(self, alias: str) -> bool:
        """Whether what a replica has is new enough for who wants nothing more."""
        return self.routing == MIRRORED or self.knowledge.is_fresh(alias, self.clock())

    def _fits(self, alias: str, wanted: Wanted) -> bool:
        return self.connect(alias) and self.has(alias, wanted)

    def _last_resort(self, leg: Leg, behind: list[str]) -> str:
        """Who serves when no replica is fit (law 3)."""
        self._tell_short()
        when_behind = self.options.when_behind if leg.wait is None else "wait"
        if when_behind == "wait" and not leg.wanted.pin:
            seconds = self.options.wait if leg.wait is None else leg.wait
            if alias := self._first_to_have(leg, behind, seconds):
                return alias
        if self.knowledge.primary_is_away(self.clock()):
            for alias in self._least_old(leg):
                if self._fits(alias, leg.wanted):
                    return alias
        if when_behind == "stale":
            for alias in (*behind, *self._least_old(leg)):
                if self.connect(alias):
                    leg.stale = bool(leg.wanted)
                    return alias
        return self.primary

    def _first_to_have(self, leg: Leg, behind: Iterable[str], seconds: float) -> str:
        """Wait for the first replica that has what is wanted; "" if none does in time.

        A task also waits for those of which nothing is known yet: its process may be young.
        """
        until, turn = self.clock() + seconds, TURN
        waiting, out = list(behind), set(leg.tried)
        while (left := until - self.clock()) > 0:
            if leg.wait is not None and self._may_come({*out, *waiting}):
                waiting += self._come(leg, out, waiting)
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

    def _come(self, leg: Leg, out: set[str], waiting: Iterable[str]) -> list[str]:
        """Those that are known to be fresh by now, connected to; who can't be is `out`."""
        found, asked = [], {*out, *waiting}
        for server in self.servers.ranked(where=lambda one: self._is_usable(one, leg)):
            if server.address in asked:
                continue
            if self.connect(server.address):
                found.append(server.address)
            else:
                out.add(server.address)
        return found

    def _least_old(self, leg: Leg) -> list[str]:
        """The replicas that are up, those first that are behind least."""
        now = self.clock()
        rest = [one for one in self.servers if one.address not in leg.tried]
        rest.sort(key=lambda one: self.knowledge.age(one.address, now))
        return [one.address for one in rest if self.health.is_up(one)]

    def _tell_short(self) -> None:
        """One line when no replica can serve, until one does again.

        That none has what this client has just written is no news: they will, in a moment.
        """
        if any(self.health.is_up(one) and self.is_fresh(one.address) for one in self.servers):
            return
        if not self._is_short:
            self._is_short = True
            logger.warning("No replica of %r serves: %s.", self.primary, "; ".join(self._why()))

    def _why(self) -> Iterator[str]:
        for server in self.servers:
            condition = self.health.condition(server)
            if not condition.up:
                yield f"{server} is down ({condition.reason})"
            elif self.knowledge.is_promoted(server.address):
                yield f"{server} {PROMOTED}"
            else:
                yield f"{server} is behind, or was not seen yet"

    # --- connections

    def connect(self, alias: str) -> bool:
        """Connect this thread to a replica, if it is not; whether that went well."""
        connection = connections[alias]
        if connection.connection is not None:
            return True
        try:
            connection.ensure_connection()
        except (DatabaseError, InterfaceError) as error:
            self.failed(alias, error)
            return False
        self.health.ok(self.by_alias[alias])
        return True

    def failed(self, alias: str, error: BaseException) -> None:
        """A replica did not answer, or broke off: leave it alone for a while."""
        server = self.by_alias[alias]
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if type(error.__cause__).__name__ in {"PoolTimeout", "TooManyRequests"}:
            # It is this process that has no connection to spare.
            logger.warning("There is no connection to %r left in the pool: %s", alias, reason)
            return
        if self.health.is_up(server):
            logger.warning("The replica %r is left alone for a while: %s", alias, reason)
        self.health.failed(server, reason)
        self.knowledge.forget_replica(alias)

    # --- positions

    def has(self, alias: str, wanted: Wanted) -> bool:
        """Whether a replica, to which this thread is connected, has all that is wanted.

        Asks it only if that is not known of the incarnation that this connection leads to.
        """
        if not wanted:
            return True
        if wanted.pin:
            return False
        connection = connections[alias]
        if self.knowledge.has_replayed(alias, self._incarnation(connection), wanted):
            return True
        sighting = self.look(alias, connection)
        if sighting is None or (sighting.writable and self.routing != MIRRORED):
            return False  # one that was promoted has another history
        return wanted.reached_by(sighting.position)

    def look(self, alias: str, connection: Any) -> probe.Sighting | None:
        """Ask a server over this connection, and note what it says; None if it fails."""
        if connection.in_atomic_block:
            return None  # a question that fails would break it
        try:
            with watchdog.limit(connection, self.options.read_timeout):
                sighting = self.ask(connection)
        except Exception as error:  # noqa: BLE001 - the drivers' errors have no common base
            self._broken(alias, connection, error)
            return None
        with suppress(TypeError):
            self._behind[connection.connection] = sighting.incarnation
        self.knowledge.note_replica(alias, sighting, self.clock())
        return sighting

    def _incarnation(self, connection: Any) -> str:
        """What a connection leads to; empty if that was not asked yet.

        Behind a pooler that lends a session for a transaction it may be another one each time, and
        outlive the server: then nothing that was seen before holds.
        """
        if connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
            return ""
        try:
            return self._behind.get(connection.connection, "")
        except TypeError:  # sqlite3's can't be remembered; a question to it costs no round trip
            return ""

    def _broken(self, alias: str, connection: Any, error: Exception) -> None:
        """A question failed: note it, or raise it when it is no error of the server."""
        if not is_database_error(connection, error):
            raise error
        self.failed(alias, error)
        connection.close()

    def _wait(self, alias: str, wanted: Wanted, seconds: float) -> bool:
        """Wait a little for a replica to replay what is wanted."""
        connection = connections[alias]
        until = self.clock() + seconds
        try:
            with watchdog.limit(connection, seconds + self.options.read_timeout):
                return all(
                    probe.wait(connection, position, max(0.0, until - self.clock()))
                    for position in wanted.positions
                )
        except Exception as error:  # noqa: BLE001 - the drivers' errors have no common base
            self._broken(alias, connection, error)
            return False

    # --- writes

    def mode(self, route: Route) -> str:
        """Where a route reads from this cluster now, if nothing pins it."""
        return mode(route, self.primary)

    def count(self, alias: str) -> None:
        """One query was served by this alias."""
        self.reads[alias] = next(self._reads[alias])


def is_database_error(connection: Any, error: Exception) -> bool:
    """Whether this is an error of the driver, or Django's of the same, or the system's."""
    kinds = (DatabaseError, InterfaceError, OSError, connection.Database.Error)
    return isinstance(error, kinds)


def in_transaction(connection: Any) -> bool:
    """Whether a transaction of the site is open on this connection of Django's."""
    blocks = connection.atomic_blocks
    if blocks and blocks[-1]._from_testcase:  # noqa: SLF001 - as Django asks for `durable`
        return False  # the one that `TestCase` has put around the test
    # Before it is connected for the first time `autocommit` is False, and means nothing.
    return connection.in_atomic_block or (
        not connection.autocommit and connection.connection is not None
    )


def _alone(cluster: Cluster) -> None:
    cluster.routing = ALONE


_made: Mapping[str, Cluster] | None = None
_making: Final = threading.Lock()
#: How often the settings have changed since the process began.
_changes = 0
#: What is done to each new cluster, if that is not for `_make` to say.
_prepare: Callable[[Cluster], None] | None = None


def clusters() -> Mapping[str, Cluster]:
    """The clusters of the site, by the alias of each server of theirs.

    Raises `ConfigurationError` for a mistake in the settings.
    """
    global _made  # noqa: PLW0603 - the one state of this process
    if _made is None:
        with _making:
            if _made is None:
                _made = _make()
    return _made


def _make() -> Mapping[str, Cluster]:
    from outgrow.databases.watch import Watch

    found: dict[str, Cluster] = {}
    for options in replication():
        cluster = Cluster(options)
        prepare = _prepare or (_alone if in_test() else None)
        if prepare is not None:
            prepare(cluster)
        elif "sqlite" in str(connections.settings[options.primary].get("ENGINE", "")):
            cluster.routing = MIRRORED
        else:
            cluster.watch = Watch(cluster).ensure
        for alias in (options.primary, *options.aliases):
            found[alias] = cluster
    return found


def distinct(known: Mapping[str, Cluster]) -> list[Cluster]:
    """Each cluster once, of a mapping that has it under each of its aliases."""
    return list({id(one): one for one in known.values()}.values())


def known_clusters() -> Mapping[str, Cluster]:
    """The same, and none while there is a mistake in the settings, which the checks tell."""
    try:
        return clusters()
    except ConfigurationError:
        return {}


def _forget(*, setting: str, **_: object) -> None:
    if setting in {"OUTGROW", "DATABASES"}:
        global _made, _changes  # noqa: PLW0603
        _made = None
        _changes += 1


@contextmanager
def remade(prepare: Callable[[Cluster], None]) -> Iterator[None]:
    """For `outgrow.testing`: a block with clusters that know nothing yet, prepared by this.

    Those that were there before are there again behind it, unless the settings have changed.
    """
    global _made, _prepare
    before = _made, _prepare, _changes
    _made, _prepare = None, prepare
    try:
        yield
    finally:
        _made, _prepare = (before[0] if _changes == before[2] else None), before[1]


setting_changed.connect(_forget, dispatch_uid="outgrow.databases")
