"""Connections that stand in for those of the replicas during a block, in all threads.

The laws:

1. No connection object of the site is changed or closed, and none is put in another's place:
   `connections[alias]` gives another one for a block. So there is nothing to be repaired
   behind it, in whatever thread and however the test has ended.
2. A shared one is a connection of Django's in all but the driver's: it has its own alias, execute
   wrappers, log of queries and transactions. So the guard knows which alias was asked, and a
   query that is refused does not break the primary's transaction.
3. What a shared one does to its transaction never reaches the driver: a replica has nothing to
   commit, and the open transaction is the test's.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler, load_backend

from outgrow.databases import guard


class StandIn(Protocol):
    """What gives the connections of one alias."""

    def get(self, handler: ConnectionHandler) -> BaseDatabaseWrapper:
        """The connection for the thread that asks."""


class _Connections(ConnectionHandler):
    """Django's connections, but for the aliases for which others stand in."""

    def __getitem__(self, alias: str) -> Any:
        stand_in = _stand_ins.get(alias)
        return super().__getitem__(alias) if stand_in is None else stand_in.get(self)


_stand_ins: Mapping[str, StandIn] = {}


def standing() -> Mapping[str, StandIn]:
    """What stands in now, by alias."""
    return _stand_ins


@contextmanager
def standing_in(stand_ins: Mapping[str, StandIn]) -> Iterator[None]:
    """A block in which these give the connections of their aliases, in all threads."""
    global _stand_ins
    before = _stand_ins, connections.__class__
    _stand_ins, connections.__class__ = stand_ins, _Connections
    try:
        yield
    finally:
        _stand_ins, connections.__class__ = before


class SharedReplica:
    """A replica that shares the primary's connection, of each thread that has one."""

    def __init__(self, alias: str, primary: str) -> None:
        self._alias = alias
        self._primary = primary
        #: One for each object of the primary: threads that share that one share this one.
        self._made: dict[BaseDatabaseWrapper, BaseDatabaseWrapper] = {}

    def get(self, handler: ConnectionHandler) -> BaseDatabaseWrapper:
        """The one that shares the primary's of this thread."""
        target: Any = handler[self._primary]
        kind: Any = type(target)
        found = self._made.get(target)
        if found is None:
            made = _sharing(kind)(target, handler.settings[self._alias], self._alias)
            guard.install(made)
            found = self._made.setdefault(target, made)
        return found


class OwnReplica:
    """A replica whose connections are opened with these settings, one for each thread."""

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        self._alias = alias
        self._settings = copy.deepcopy(dict(settings))
        # Its connections would be another block's, too.
        self._settings.get("OPTIONS", {}).pop("pool", None)
        self._here = threading.local()
        self._made: list[BaseDatabaseWrapper] = []

    def get(self, handler: ConnectionHandler) -> BaseDatabaseWrapper:  # noqa: ARG002
        """The one of this thread."""
        found: BaseDatabaseWrapper | None = getattr(self._here, "connection", None)
        if found is None:
            found = self._here.connection = self.make()
        return found

    def make(self) -> BaseDatabaseWrapper:
        """Another one. It is closed by `close`."""
        backend: Any = load_backend(self._settings["ENGINE"])
        made: BaseDatabaseWrapper = _allowed(backend.DatabaseWrapper)(self._settings, self._alias)
        self._made.append(made)
        return made

    def close(self) -> None:
        """Close those of all threads."""
        for connection in self._made:
            connection.inc_thread_sharing()
            connection.close()


class _Allowed(BaseDatabaseWrapper):
    """A connection that Django's test cases don't refuse.

    They replace this method of the base class, for aliases that are not in `databases`.
    """

    def ensure_connection(self) -> None:
        if self.connection is None:
            with self.wrap_database_errors:
                self.connect()


class _Sharing(BaseDatabaseWrapper):
    """A connection whose driver's connection is another's (laws 2 and 3)."""

    def __init__(self, target: Any, settings: dict[str, Any], alias: str) -> None:
        self._target = target
        super().__init__(settings, alias)
        # As behind `connect()`, which is the target's to do.
        self.autocommit = True

    @property
    def connection(self) -> Any:
        return self._target.connection

    @connection.setter
    def connection(self, _: Any) -> None:
        """Django sets it to None, for a new one and for one that is closed."""

    def ensure_connection(self) -> None:
        self._target.ensure_connection()

    connect = ensure_connection

    def create_cursor(self, name: str | None = None) -> Any:
        return self._target.create_cursor(name)

    def cursor(self) -> Any:
        # By way of the target's own method: a test case that may use no database has blocked it.
        return self._wrapped(self._target.cursor())

    def chunked_cursor(self) -> Any:
        # The target numbers those that have names on the server.
        return self._wrapped(self._target.chunked_cursor())

    def _wrapped(self, cursor: Any) -> Any:
        """The driver's cursor, whose statements go through the wrappers of this alias."""
        base: Any = super()
        return base._prepare_cursor(cursor.cursor)  # noqa: SLF001 - our own class's

    def validate_thread_sharing(self) -> None:
        self._target.validate_thread_sharing()

    def close_if_health_check_failed(self) -> None:
        self._target.close_if_health_check_failed()

    def _nothing(self, *_: Any) -> None:
        """Not sent: it would be the primary's that is closed, committed or rolled back."""

    close = close_if_unusable_or_obsolete = _nothing
    _commit = _rollback = _close = _nothing
    _savepoint = _savepoint_commit = _savepoint_rollback = _nothing
    _set_autocommit = _start_transaction_under_autocommit = _nothing


@lru_cache
def _sharing(kind: type[BaseDatabaseWrapper]) -> type[Any]:
    return type("SharedConnection", (_Sharing, kind), {})


@lru_cache
def _allowed(kind: type[BaseDatabaseWrapper]) -> type[Any]:
    return type("OwnConnection", (_Allowed, kind), {})
