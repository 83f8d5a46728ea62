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
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, connections

from outgrow.conf import databases
from outgrow.databases import route as routes
from outgrow.databases.cluster import Cluster, in_transaction, known_clusters
from outgrow.databases.route import REPLICA, Route
from outgrow.databases.statements import Failure, is_read, kind_of
from outgrow.databases.watchdog import watchdog
from outgrow.errors import WriteInReadRequest, WriteOnReplica

logger: Final = logging.getLogger("outgrow.databases")

#: The failures of one server that another one may not have.
_ELSEWHERE: Final = frozenset(
    {Failure.LOST, Failure.REFUSED, Failure.CONFLICT, Failure.SCHEMA}
)

#: Modules whose frames are not the site's own code.
_FOREIGN: Final = ("django.", "outgrow.databases.", "asgiref.", "contextlib", "functools")

Execute = Callable[[Any, Any, bool, Mapping[str, Any]], Any]


class PrimaryGuard:
    """Notes the first write of each route to a primary, or refuses it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def __call__(
        self, execute: Execute, sql: Any, params: Any, many: bool, context: Mapping[str, Any]
    ) -> Any:
        """Django's protocol of an execute wrapper."""
        route = routes.current()
        if route is not None:
            text = as_text(sql, context)
            if is_read(text):
                self.cluster.count(self.cluster.primary)
            else:
                self._note(route, text)
        return execute(sql, params, many, context)

    def _note(self, route: Route, sql: str) -> None:
        leg = route.leg(self.cluster.primary)
        if leg.wrote:
            return
        if route.wait is None and self.cluster.mode(route) == REPLICA:
            self._judge(sql)
        leg.wrote = True

    def _judge(self, sql: str) -> None:
        """A write in a request that was to read: by the options."""
        alias, how = self.cluster.primary, self.cluster.options.write_on_read
        if how == "refuse" or (_is_atomic(alias) and not in_transaction(connections[alias])):
            raise WriteInReadRequest(alias, sql, site_line())
        if how == "log":
            logger.warning("A request that was to read writes: %s: %s", site_line(), sql[:200])


def _is_atomic(alias: str) -> bool:
    """Whether the site relies on ATOMIC_REQUESTS, so that its reads have no transaction here."""
    from outgrow.databases.atomic import AtomicRequests

    return isinstance(databases().get(alias, {}).get("ATOMIC_REQUESTS"), AtomicRequests)


class ReplicaGuard:
    """Refuses writes on a replica, and reads elsewhere what it does not answer."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        self.cluster = cluster
        self.alias = alias

    def __call__(
        self, execute: Execute, sql: Any, params: Any, many: bool, context: Mapping[str, Any]
    ) -> Any:
        """Django's protocol of an execute wrapper."""
        text = as_text(sql, context)
        if not is_read(text):
            raise WriteOnReplica(self.alias, text, site_line())
        connection = context["connection"]
        self.cluster.count(self.alias)
        try:
            with watchdog.limit(connection, self.cluster.options.read_timeout):
                return execute(sql, params, many, context)
        except (DatabaseError, InterfaceError) as error:
            return self._failed(error, sql, params, many, context, text)

    def _failed(
        self,
        error: Exception,
        sql: Any,
        params: Any,
        many: bool,
        context: Mapping[str, Any],
        text: str,
    ) -> Any:
        connection = context["connection"]
        failure = failure_of(connection, error)
        if failure is Failure.READ_ONLY:
            raise WriteOnReplica(self.alias, text, site_line()) from error
        if failure not in _ELSEWHERE or connection.in_atomic_block or many:
            if failure is Failure.LOST:
                self.cluster.failed(self.alias, error)
            raise error
        if failure in {Failure.LOST, Failure.REFUSED}:
            self.cluster.failed(self.alias, error)
            connection.close()
        return self._elsewhere(error, failure, sql, params, context)

    def _elsewhere(
        self, error: Exception, failure: Failure, sql: Any, params: Any, context: Mapping[str, Any]
    ) -> Any:
        """Read it from another server, into the cursor that its reader holds."""
        route = routes.current()
        if route is None:
            raise error  # somebody has named this replica
        leg = route.leg(self.cluster.primary)
        if leg.server == self.alias:
            leg.leave()
        if failure is Failure.SCHEMA:
            # The replica has not replayed a migration; no other is better for sure.
            other = leg.serve(self.cluster.primary, connections[self.cluster.primary])
        else:
            other = self.cluster.choose(leg, without=(self.alias,))
        return _read_again(context["cursor"], connections[other], sql, params)


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
    is_primary = connection.alias == cluster.primary
    # The first: what others of the site's wrappers see is what is sent.
    wrappers.insert(
        0, PrimaryGuard(cluster) if is_primary else ReplicaGuard(cluster, connection.alias)
    )
