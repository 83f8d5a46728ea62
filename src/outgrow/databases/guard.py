"""What every query of a cluster passes: Django's execute wrappers, one for each kind of server.

The laws:

1. On a primary a write is noted *before* it is sent: one that fails, or is never answered,
   may have been carried out. It pins what its request reads from then on.
2. On a replica no write is sent. The session is read-only besides, and the server of
   a hot standby too; this is the one that names the line of the site's code.
3. A read that a replica did not answer is read from another one, or from the primary: nothing of
   it was used yet. Not within a transaction, whose snapshot the others don't have.
4. What is not seen here: `callproc()`, psycopg's `copy()`, and functions that write.

A wrapper holds no state of a query and serves all connections of its alias.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, connections

from outgrow.databases import route as routes
from outgrow.databases.cluster import Cluster, in_transaction, known_clusters
from outgrow.databases.route import REPLICA, Route
from outgrow.databases.statements import Failure, is_read, kind_of
from outgrow.databases.watchdog import watchdog
from outgrow.errors import WriteInReadRequest, WriteOnReplica

logger: Final = logging.getLogger("outgrow.databases")

#: The failures of one server that another one may not have.
_ELSEWHERE: Final = frozenset({Failure.LOST, Failure.REFUSED, Failure.CONFLICT, Failure.SCHEMA})

#: What a standby cancels a query with, to go on replaying (PostgreSQL's documentation, "Handling
#: Query Conflicts"). Nothing else has these codes there, for nobody writes.
_CONFLICTS: Final = frozenset({"40001", "40P01"})

#: Modules whose frames are not the site's own code.
_FOREIGN: Final = (
    "django.",
    "outgrow.databases.",
    "outgrow.testing.",
    "asgiref.",
    "contextlib",
    "functools",
)

Execute = Callable[[Any, Any, bool, Mapping[str, Any]], Any]


class PrimaryGuard:
    """Notes the first write of each route to a primary, or refuses it."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __call__(
        self, execute: Execute, sql: Any, params: Any, many: bool, context: Mapping[str, Any]
    ) -> Any:
        """Django's protocol of an execute wrapper."""
        route = routes.current()
        if route is None:
            return execute(sql, params, many, context)
        cluster = known_clusters().get(self.alias)
        if cluster is not None:
            text = as_text(sql, context)
            if is_read(text):
                cluster.count(self.alias)
            else:
                _note(cluster, route, text)
        return execute(sql, params, many, context)


def _note(cluster: Cluster, route: Route, sql: str) -> None:
    leg = route.leg(cluster.primary)
    if leg.wrote:
        return
    if route.wait is None and cluster.mode(route) == REPLICA:
        _judge(cluster, route, sql)
    leg.wrote = True


def _judge(cluster: Cluster, route: Route, sql: str) -> None:
    """A write in a request that was to read: by the options."""
    alias, how = cluster.primary, cluster.options.write_on_read
    promised = alias in route.atomic and not in_transaction(connections[alias])
    expected = _table(sql) in cluster.options.write_on_read_except
    if promised or (how == "refuse" and not expected):
        raise WriteInReadRequest(alias, sql, site_line())
    if how == "log" and not expected:
        logger.warning("A request that was to read writes: %s: %s", site_line(), sql[:200])


#: What a statement of an ORM's writes to, without its schema.
_TARGET: Final = re.compile(
    r"""\s*(?:INSERT\s+(?:OR\s+\w+\s+|IGNORE\s+)?INTO|REPLACE\s+INTO|UPDATE|DELETE\s+FROM)\s+
    (?:["`]?\w+["`]?\.)?["`]?(\w+)""",
    re.IGNORECASE | re.VERBOSE,
)


def _table(sql: str) -> str:
    found = _TARGET.match(sql)
    return found[1] if found else ""


class ReplicaGuard:
    """Refuses writes on a replica, and reads elsewhere what it does not answer."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def __call__(
        self, execute: Execute, sql: Any, params: Any, many: bool, context: Mapping[str, Any]
    ) -> Any:
        """Django's protocol of an execute wrapper."""
        cluster = known_clusters().get(self.alias)
        if cluster is None:
            return execute(sql, params, many, context)
        text = as_text(sql, context)
        if not is_read(text):
            raise WriteOnReplica(self.alias, text, site_line())
        cluster.count(self.alias)
        limit, pulse = cluster.options.read_timeout, cluster.pulses[self.alias]
        slot = watchdog.begin(context["connection"], limit, pulse)
        try:
            result = execute(sql, params, many, context)
        except (DatabaseError, InterfaceError) as error:
            failure = error
        else:
            held = context["cursor"]
            if getattr(held.cursor, "name", None):
                # A cursor of the server does its work when it is fetched from.
                reading = _Reading(cluster, self.alias, sql, params, context, text, many=many)
                held.cursor = _Fetched(held.cursor, reading)
            return result
        finally:
            watchdog.end(slot)
        reading = _Reading(cluster, self.alias, sql, params, context, text, many=many)
        return reading.elsewhere(failure, is_late=slot.fired)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One statement that is read from a replica."""

    cluster: Cluster
    alias: str
    sql: Any
    params: Any
    context: Mapping[str, Any]
    text: str
    many: bool

    def elsewhere(self, error: Exception, *, is_late: bool) -> Any:
        """It failed. Read it from another server, into the cursor that its reader holds.

        Raises the error where no other server could do better.
        """
        cluster, connection = self.cluster, self.context["connection"]
        failure = failure_of(connection, error)
        route = routes.current()
        if failure is Failure.READ_ONLY:
            return self._written(route, error)
        if failure not in _ELSEWHERE or route is None or connection.in_atomic_block or self.many:
            if failure is Failure.LOST:
                cluster.failed(self.alias, error)
            raise error
        other = self._other(route, failure, error, is_late=is_late)
        held = self.context["cursor"]
        return _read_again(held, connections[other], self.sql, self.params)

    def _written(self, route: Route | None, error: Exception) -> Any:
        """It calls a function that writes, which could not be seen: that is the primary's."""
        leg = None if route is None else route.leg(self.cluster.primary)
        if route is None or leg is None or leg.server != self.alias:
            raise WriteOnReplica(self.alias, self.text, site_line()) from error
        _note(self.cluster, route, self.text)
        primary = connections[self.cluster.primary]
        return _read_again(self.context["cursor"], primary, self.sql, self.params)

    def _other(self, route: Route, failure: Failure, error: Exception, *, is_late: bool) -> str:
        cluster, connection = self.cluster, self.context["connection"]
        leg = route.leg(cluster.primary)
        if leg.wrote or failure is Failure.SCHEMA:
            # A migration that the replica has not replayed: no other is better for sure.
            return cluster.primary
        leg.server = ""
        if failure is Failure.CONFLICT:
            leg.tried.add(self.alias)
            return cluster.choose(leg)
        connection.close()
        if is_late or _AGAIN + self.alias in leg.tried:
            leg.tried.add(self.alias)
            cluster.failed(self.alias, error)
        else:
            # A connection that was kept for long may be lost while its server is well: once
            # it is tried anew, and if that fails, it is the server's fault.
            leg.tried.add(_AGAIN + self.alias)
        return cluster.choose(leg)


#: Before an alias in `Leg.tried`: it was connected to anew. No alias begins with this.
_AGAIN: Final = "\0"


class _Fetched:
    """A cursor of the server: its fetches are limited, and the first may come from elsewhere."""

    def __init__(self, cursor: Any, reading: _Reading) -> None:
        self._cursor = cursor
        self._reading = reading
        self._is_used = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def fetchone(self) -> Any:
        """DB-API."""
        return self._fetch("fetchone")

    def fetchmany(self, *size: int) -> Any:
        """DB-API."""
        return self._fetch("fetchmany", *size)

    def fetchall(self) -> Any:
        """DB-API."""
        return self._fetch("fetchall")

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """DB-API. It tells the server, too."""
        with self._limit():
            self._cursor.close()

    def _limit(self) -> Any:
        reading = self._reading
        if reading.context["connection"].connection is None:
            return nullcontext()
        limit, pulse = reading.cluster.options.read_timeout, reading.cluster.pulses[reading.alias]
        return watchdog.limit(reading.context["connection"], limit, pulse)

    def _fetch(self, method: str, *arguments: Any) -> Any:
        database = self._reading.context["connection"].Database
        with self._limit() as slot:
            try:
                rows = getattr(self._cursor, method)(*arguments)
            except database.Error as error:
                if self._is_used:
                    raise
                failure = error
            else:
                self._is_used = True
                return rows
        self._is_used = True
        self._reading.elsewhere(failure, is_late=slot is not None and slot.fired)
        return getattr(self._reading.context["cursor"].cursor, method)(*arguments)


def _read_again(held: Any, connection: Any, sql: Any, params: Any) -> Any:
    """Execute on another connection, and give its cursor to who holds the one that failed."""
    named = getattr(held.cursor, "name", None)
    fresh = connection.chunked_cursor() if named else connection.cursor()
    result = fresh.execute(sql, params)
    failed, database = held.cursor, held.db.Database
    held.cursor, held.db = fresh.cursor, fresh.db
    with suppress(database.Error):
        failed.close()
    return result


def as_text(sql: Any, context: Mapping[str, Any]) -> str:
    """The statement as text: psycopg also takes bytes and composed ones."""
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        return sql.decode("utf-8", "replace")
    composed: str = sql.as_string(context["connection"].connection)
    return composed


def failure_of(connection: Any, error: BaseException) -> Failure:
    """What an error of a driver means."""
    cause = error.__cause__ or error
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if code is None and connection.vendor == "mysql" and cause.args:
        code = cause.args[0]
    if connection.vendor == "postgresql" and code in _CONFLICTS:
        return Failure.CONFLICT  # whatever the language of the server's messages
    found = kind_of(connection.vendor, code, str(cause))
    if found is Failure.OTHER and connection.vendor == "postgresql" and code is None:
        # No state came from the server: libpq itself has lost it.
        raw = connection.connection
        if raw is None or raw.closed:
            return Failure.LOST
    return found


def site_line() -> str:
    """The innermost line of the site's own code, as in ``shop/views.py:12 in pay``."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads every file
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if not f"{module}.".startswith(_FOREIGN):
            path = "/".join(frame.f_code.co_filename.split("/")[-2:])
            return f"{path}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def install(connection: Any) -> None:
    """Put the guard of its alias on a Django connection, once."""
    cluster = known_clusters().get(connection.alias)
    if cluster is None:
        return
    wrappers = connection.execute_wrappers
    if any(isinstance(one, (PrimaryGuard, ReplicaGuard)) for one in wrappers):
        return
    guard = PrimaryGuard if connection.alias == cluster.primary else ReplicaGuard
    # The first: what others of the site's wrappers see is what is sent.
    wrappers.insert(0, guard(connection.alias))
