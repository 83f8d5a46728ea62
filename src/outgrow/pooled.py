"""What breaks behind a pooler of PostgreSQL's connections: found in DATABASES.

A pooler that lends a session for one transaction leads each transaction of a client to any
session of the server. What is kept in a session (a cursor, a prepared statement, a role) is not
there in the next one, or is there for somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from outgrow.mistakes import Mistake

#: PgBouncer's default (pgbouncer.org/config.html), and that of others which stand in its place.
_PORT: Final = "6432"


def mistakes(
    databases: Mapping[str, Mapping[str, Any]], poolers: Mapping[str, str]
) -> Iterator[Mistake]:
    """All of them. `poolers` has an alias -> "transaction" or "session", where that is said."""
    for alias, entry in databases.items():
        path, options = f"DATABASES[{alias!r}]", entry.get("OPTIONS") or {}
        if options.get("pool") and entry.get("CONN_MAX_AGE", 0) != 0:
            yield Mistake(
                f"{path} has a pool, and CONN_MAX_AGE: Django refuses to connect so.",
                "Leave CONN_MAX_AGE out; the pool keeps the connections.",
                "E523",
            )
        mode = poolers.get(alias, "")
        yield from _cursors(path, entry, mode)
        if mode == "transaction":
            yield from _sessions(path, options)


def _cursors(path: str, entry: Mapping[str, Any], mode: str) -> Iterator[Mistake]:
    if entry.get("DISABLE_SERVER_SIDE_CURSORS"):
        return
    hint = "Set 'DISABLE_SERVER_SIDE_CURSORS': True."
    if mode == "transaction":
        yield Mistake(
            f"{path} is lent a session for each transaction, and a cursor of the server lives in "
            "one session: .iterator() fails outside of a transaction.",
            hint,
            "E521",
        )
    is_postgresql = str(entry.get("ENGINE", "")).endswith(("postgresql", "postgis"))
    if not mode and is_postgresql and str(entry.get("PORT", "")) == _PORT:
        yield Mistake(
            f"{path} is at port {_PORT}, which is PgBouncer's: if that lends a session for each "
            "transaction, .iterator() fails.",
            f"{hint} If it lends one until the client goes, write 'session' for this alias in "
            "OUTGROW['POOLED'].",
            "W522",
        )


def _sessions(path: str, options: Mapping[str, Any]) -> Iterator[Mistake]:
    if options.get("prepare_threshold") is not None:
        yield Mistake(
            f"{path}['OPTIONS'] has prepare_threshold: a statement that is prepared in one session "
            "is not there in the next. PgBouncer before 1.21 knows none of them.",
            "Leave it out: Django then prepares none.",
            "E524",
        )
    if options.get("assume_role"):
        yield Mistake(
            f"{path}['OPTIONS'] has assume_role: the role stays with the session, and other "
            "clients get it, too.",
            "Let the user itself have the rights, or reach the server past the pooler.",
            "E524",
        )
