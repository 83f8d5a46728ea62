"""Migrations by one process at a time, until the replicas have them.

Django's `migrate` takes no lock. Of several that begin at once, as when every server runs it
before it starts, some fail half way. This is what a deployment runs instead.

The laws:

1. Of all processes that ask for a turn at a database, on any machine, one has it at a time.
2. A turn ends with its process, however that ends: the database lets go of it.
3. Who can't keep others out says so, and does nothing.
4. A pooler in transaction mode may stand between: on PostgreSQL the turn is a lock of a
   transaction, which such a pooler leaves to whom it was given.

Sources: postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS,
mariadb.com/kb/en/get_lock, and flock(2) for SQLite, whose file is on one machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from django.db import DatabaseError, InterfaceError

from outgrow.databases.watch import own_connection
from outgrow.errors import MigrationNotAlone, MigrationUnderWay, NoMigrationLock

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

#: Seconds between two attempts to get a turn.
PAUSE: Final = 0.25

#: The number of the lock on PostgreSQL, where they are those of one database: a text as bytes.
KEY: Final = int.from_bytes(b"outgrowm")

#: Seconds that a session of MySQL and MariaDB may be idle: a year, the most that they take.
_LONGEST_WAIT: Final = 31_536_000


class _Turn(Protocol):
    """The right to migrate one database. Raises django.db.Error."""

    def take(self) -> bool:
        """Take it, if nobody has it."""

    def holder(self) -> str:
        """Who has it, in words; "" when that can't be told (any more)."""

    def is_kept(self) -> bool:
        """Whether it is still ours."""

    def close(self) -> None:
        """Let go of it, if it was taken."""


@contextmanager
def turn(
    alias: str,
    *,
    seconds: float,
    waiting: Callable[[str], object] = lambda _holder: None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """A turn at the database of this alias, for which up to `seconds` are waited.

    `waiting(holder)` is called once for each holder that is waited for. Raises
    `MigrationUnderWay` when it is another's to the end, `NoMigrationLock` for a vendor without
    such locks, `MigrationNotAlone` behind the block when the database has let go of it
    meanwhile, and django.db.Error.
    """
    with closing(_turn_of(own_connection(alias, "outgrow migrate"))) as own:
        deadline = clock() + seconds
        told = None
        while not own.take():
            holder = own.holder()
            if clock() >= deadline:
                raise MigrationUnderWay(alias, holder, seconds)
            if holder and holder != told:
                waiting(holder)
                told = holder
            sleep(PAUSE)
        yield
        if not own.is_kept():
            raise MigrationNotAlone(alias)


def _turn_of(connection: BaseDatabaseWrapper) -> _Turn:
    if connection.vendor == "postgresql":
        return _PostgreSQL(connection)
    if connection.vendor == "mysql":
        return _MySQL(connection)
    if connection.vendor == "sqlite":
        return _SQLite(connection)
    raise NoMigrationLock(connection.alias, connection.vendor)


def _do(connection: BaseDatabaseWrapper, sql: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)


def _row(connection: BaseDatabaseWrapper, sql: str, *values: Any) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


class _Session:
    """What belongs to a session of the server, and goes with it."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection

    def is_kept(self) -> bool:
        return _answers(self._connection)

    def close(self) -> None:
        self._connection.close()


class _PostgreSQL(_Session):
    """A lock of a transaction that stays open.

    Between its statements it has no snapshot: it hinders no vacuum, and no index that is made
    concurrently waits for it.
    """

    def take(self) -> bool:
        self._connection.set_autocommit(False)
        # Others keep their snapshot to the end.
        _do(self._connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        # A migration may take longer than a transaction of the site's may be idle.
        _row(
            self._connection,
            "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN "
            "('idle_in_transaction_session_timeout', 'transaction_timeout')",
        )
        row = _row(self._connection, "SELECT pg_try_advisory_xact_lock(%s)", KEY)
        if row == (True,):
            return True
        self._connection.rollback()
        return False

    def holder(self) -> str:
        # A number of 64 bits stands there in two halves, with 1 for "not two numbers of 32".
        row = _row(
            self._connection,
            "SELECT pid, host(client_addr), to_char(xact_start, 'HH24:MI:SS') "
            "FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND classid = %s AND objid = %s",
            KEY >> 32,
            KEY & 0xFFFFFFFF,
        )
        self._connection.rollback()
        return _holder(*row) if row else ""


class _MySQL(_Session):
    """A named lock of the session. The names are those of the whole server."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        super().__init__(connection)
        # A name may have 64 characters, as that of a database alone may have.
        database = str(connection.settings_dict["NAME"])
        self._name = f"outgrow.migrate.{hashlib.sha256(database.encode()).hexdigest()[:32]}"

    def take(self) -> bool:
        _do(self._connection, "SET SESSION wait_timeout = %s", _LONGEST_WAIT)
        return _row(self._connection, "SELECT GET_LOCK(%s, 0)", self._name) == (1,)

    def holder(self) -> str:
        row = _row(self._connection, "SELECT IS_USED_LOCK(%s)", self._name)
        return _holder(row[0]) if row and row[0] else ""

    def is_kept(self) -> bool:
        if not super().is_kept():
            return False
        sql = "SELECT IS_USED_LOCK(%s) = CONNECTION_ID()"
        return _row(self._connection, sql, self._name) == (1,)


class _SQLite:
    """A lock of the folder in which the database is, so that no file of ours is left there."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._folder = -1

    def take(self) -> bool:
        row = _row(self._connection, "SELECT file FROM pragma_database_list WHERE name = 'main'")
        if not row or not row[0]:
            return True  # in memory: it is this process's alone
        if self._folder < 0:
            self._folder = os.open(Path(row[0]).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def holder(self) -> str:
        return "another process of this machine"

    def is_kept(self) -> bool:
        return True

    def close(self) -> None:
        self._connection.close()
        if self._folder >= 0:
            os.close(self._folder)


def _holder(session: object, address: str = "", since: str = "") -> str:
    place = f" from {address}" if address else ""
    return f"session {session}{place}" + (f", since {since}" if since else "")


def _answers(connection: BaseDatabaseWrapper) -> bool:
    try:
        return _row(connection, "SELECT 1") == (1,)
    except (DatabaseError, InterfaceError):
        return False
