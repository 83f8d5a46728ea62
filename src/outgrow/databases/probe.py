"""One question to a database server: which one is it, does it write, and how far has it come?

The laws:

1. `look` is exactly one round trip on a connection that is open, on every vendor.
2. It goes below Django's execute wrappers: nobody counts it as a query of the site.
3. A position is never ahead of the truth for a replica, nor behind it for a primary. Who
   can't tell has none.
4. Another incarnation means that what was known of the server may be void: behind a crash a
   standby replays again from its last restartpoint, and may show older data than before.

Neither `look` nor `wait` may be called within a transaction: they would open or break it. Both
raise django.db.Error, with the driver's error as its cause; how long they wait for
a server that is silent is up to the connection's own time limits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from outgrow.databases.position import (
    Count,
    DomainGtids,
    GtidSet,
    Lsn,
    Position,
    normalised_insert,
)

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

#: Seconds between two looks of `wait`: the first pause, and the longest.
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.1
#: Seconds that a server is asked to wait at most in one round trip: less than the time
#: limits for reading that connections have.
_LONGEST_ROUND: Final = 0.5


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a server said of itself.

    `incarnation` is another text behind a restart of its processes, and on another server.
    `writable`: neither in recovery nor read only. `position` is what it has written, if
    it is writable, else what it has replayed; None when it can't tell.
    """

    incarnation: str
    writable: bool
    position: Position | None


def look(connection: BaseDatabaseWrapper) -> Sighting:
    """Ask the server. Opens the connection if it is not open, and raises django.db.Error."""
    find = _LOOKS.get(connection.vendor)
    return find(connection) if find else Sighting("", writable=True, position=None)


def wait(
    connection: BaseDatabaseWrapper,
    position: Position,
    seconds: float,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Wait up to `seconds` until the server has reached a position; whether it has.

    False at once where the two can't be compared. With 0 seconds this is one round trip,
    and so it is where the position was reached before. Raises django.db.Error.
    """
    deadline = clock() + seconds
    pause = _FIRST_PAUSE
    while True:
        seen = look(connection)
        reached = position.reached_by(seen.position) if seen.position else None
        left = deadline - clock()
        # A writable PostgreSQL replays nothing: what it lacks now it will never have.
        over = connection.vendor == "postgresql" and seen.writable
        if reached is not False or left <= 0 or over:
            return reached is True
        if not _wait_there(connection, position, min(left, _LONGEST_ROUND)):
            sleep(min(left, pause))
            pause = min(pause * 2, _LONGEST_PAUSE)


def _wait_there(connection: BaseDatabaseWrapper, position: Position, seconds: float) -> bool:
    """Let the server itself wait, if it can; whether it can. For all of them 0 is for ever."""
    seconds = max(seconds, 0.001)
    if isinstance(position, GtidSet):
        _row(connection, f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{position.native}', {seconds:f})")
    elif isinstance(position, DomainGtids):
        _row(connection, f"SELECT MASTER_GTID_WAIT('{position.native}', {seconds:f})")
    elif isinstance(position, Lsn) and getattr(connection, "pg_version", 0) >= 190000:
        # It knows no timelines. The caller looks again behind it, and compares them.
        options = f"TIMEOUT '{round(seconds * 1000)}ms', NO_THROW"
        _row(connection, f"WAIT FOR LSN '{position.native}' WITH ({options})")
    else:
        return False
    return True


def _row(connection: BaseDatabaseWrapper, sql: str) -> tuple[Any, ...]:
    """The one row that a query has as its answer, past Django's wrappers of cursors."""
    connection.ensure_connection()
    with connection.wrap_database_errors, closing(connection.create_cursor()) as cursor:
        cursor.execute(sql)
        row: tuple[Any, ...] = cursor.fetchone()
        return row


# PostgreSQL. Whether it is in recovery is asked once: a promotion may come in between.
#
# A server's processes restart without their postmaster when one of them crashes. Its start
# then stays, but statistics are thrown away (StartupXLOG: pgstat_discard_stats, before
# 15 pgstat_reset_all) and get a new time of their reset; those of a clean end are kept. A
# user may reset them too: then something is forgotten for nothing. Times are asked as
# numbers: as texts they'd depend on the session's time zone.
#
# A primary is asked for the place of its next record, not for what is flushed: a commit
# with synchronous_commit=off isn't. Reading writes too (who prunes a page leaves a record),
# and such records are sent with the next commit, or when the WAL writer wakes up: a standby
# may be behind by them for some seconds on a server where nobody writes.
#
# The timeline of a standby: of the WAL that it receives (NULL without pg_monitor), or of the
# last restartpoint. Both may be too old behind a fail-over, neither is ever too new.
_POSTGRESQL: Final = """\
SELECT recovering,
       concat_ws('/', host(inet_server_addr()), inet_server_port(),
                 extract(epoch FROM pg_postmaster_start_time()),
                 (SELECT extract(epoch FROM stats_reset) FROM pg_stat_bgwriter)),
       CASE WHEN recovering
            THEN greatest((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT timeline_id FROM pg_control_checkpoint()))::text
            ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END,
       CASE WHEN recovering
            THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_insert_lsn() END::text,
       current_setting('wal_block_size')::bigint,
       pg_size_bytes(current_setting('wal_segment_size'))
  FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) AS state"""


def _look_at_postgresql(connection: BaseDatabaseWrapper) -> Sighting:
    recovering, incarnation, timeline, text, block, segment = _row(connection, _POSTGRESQL)
    if timeline is None or text is None:
        return Sighting(incarnation, not recovering, None)
    # Of a standby it is a decimal number, of a primary the beginning of a file's name.
    position = Lsn.of(int(timeline, 10 if recovering else 16), text)
    if not recovering:
        value = normalised_insert(position.value, block, segment)
        position = replace(position, value=value)
    return Sighting(incarnation, not recovering, position)


# MySQL and MariaDB. Neither tells the time of its start, but both count Uptime from the time
# at which the query came in, as they do UNIX_TIMESTAMP(): the difference is the second of
# the start, exactly, whatever the clock does meanwhile. A second start within the second
# of the first is not seen. Both let everybody read these tables. Positions are asked for in
# one SELECT with read_only, which is what tells a replica from a primary.
_MARIADB: Final = """\
SELECT @@GLOBAL.read_only,
       CONCAT_WS('/', @@hostname, @@port, @@GLOBAL.server_id, UNIX_TIMESTAMP() - (
           SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM information_schema.GLOBAL_STATUS
            WHERE VARIABLE_NAME = 'UPTIME')),
       @@GLOBAL.log_bin, @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos"""
_MYSQL: Final = """\
SELECT @@GLOBAL.read_only,
       CONCAT_WS('/', @@hostname, @@port, @@GLOBAL.server_uuid, UNIX_TIMESTAMP() - (
           SELECT CAST(VARIABLE_VALUE AS SIGNED) FROM performance_schema.global_status
            WHERE VARIABLE_NAME = 'Uptime')),
       @@GLOBAL.log_bin, @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed"""


def _look_at_mysql(connection: BaseDatabaseWrapper) -> Sighting:
    connection.ensure_connection()
    # Both drivers have kept what the server said when it was greeted. Django's own
    # property would ask for it, through the wrappers.
    if "MariaDB" in connection.connection.get_server_info():
        return _look_at_mariadb(connection)
    read_only, incarnation, logged, mode, executed = _row(connection, _MYSQL)
    writable = _is_off(read_only)
    # With GTIDs for a part of the transactions only, some leave no trace in the set. So do
    # those of a primary without a log; a replica notes in a table what it has replayed.
    if mode != "ON" or (writable and _is_off(logged)):
        return Sighting(incarnation, writable, None)
    return Sighting(incarnation, writable, GtidSet.of(executed))


def _look_at_mariadb(connection: BaseDatabaseWrapper) -> Sighting:
    read_only, incarnation, logged, written, replayed = _row(connection, _MARIADB)
    writable = _is_off(read_only)
    if writable:
        position = None if _is_off(logged) else DomainGtids.of(written)
    else:
        # Empty: it replicates without GTIDs, or has not begun.
        position = DomainGtids.of(replayed) if replayed else None
    return Sighting(incarnation, writable, position)


def _is_off(value: object) -> bool:
    # A number in most versions, a word where the variable has become an enumeration.
    return str(value).upper() in {"0", "OFF"}


# SQLite has no replicas: aliases that lead to one file see each commit at once. So the
# file is the run, and nothing is ever counted. Databases in memory have no file.
_SQLITE: Final = """\
SELECT (SELECT query_only FROM pragma_query_only),
       (SELECT file FROM pragma_database_list WHERE name = 'main')"""


def _look_at_sqlite(connection: BaseDatabaseWrapper) -> Sighting:
    query_only, path = _row(connection, _SQLITE)
    if not path:
        return Sighting("", not query_only, None)
    try:
        found = os.stat(path)
    except OSError:  # removed, while it is still open here
        return Sighting("", not query_only, None)
    run = f"{found.st_dev:x}.{found.st_ino:x}"
    return Sighting(run, not query_only, Count(run, 0))


_LOOKS: Final[dict[str, Callable[[BaseDatabaseWrapper], Sighting]]] = {
    "postgresql": _look_at_postgresql,
    "mysql": _look_at_mysql,
    "sqlite": _look_at_sqlite,
}
