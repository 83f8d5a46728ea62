"""The table ``[pooler]`` as a value: connections to PostgreSQL that many processes share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from outgrow.topology.database import PRIMARY_ALIAS
from outgrow.topology.keys import Table

#: What a pooler runs.
ENGINE: Final = "pgbouncer"

#: Of which database it is, who are its clients, and what no database may be called.
DATABASE: Final = "postgresql"
CLIENTS: Final = ("app", "worker")
RESERVED: Final = "pgbouncer"

#: When a connection to the server is another client's: behind each transaction, or when the
#: client has gone. The first is the default.
MODES: Final = ("transaction", "session")

#: Where it listens, unless `ports` says otherwise: PgBouncer's own default (pgbouncer.org/config).
PORT: Final = 6432

#: Connections to one server: PgBouncer's own default, and what PostgreSQL's wiki comes to
#: for eight cores and fast disks: twice the cores, and some more
#: (wiki.postgresql.org/wiki/Number_Of_Database_Connections).
SIZE: Final = 20

#: The longest name of a database that PgBouncer and PostgreSQL know.
LONGEST: Final = 63

#: The alias that the catalogue of a distributed storage has for itself, its default.
CATALOGUE: Final = "outgrow"


def entry(database: str, alias: str) -> str:
    """Under which name a pooler has the server of an alias: Django's NAME for it.

    No database has a point in its name (`rules.identifier`), so no entry is another database.
    """
    return database if alias == PRIMARY_ALIAS else f"{database}.{alias}"


@dataclass(frozen=True, slots=True)
class Pooler:
    """The poolers of a site.

    `size` is how many connections each of them has to one database server at most; `clients`
    how many the site's processes may have to it, as many as there can be where it is None.
    """

    mode: str = MODES[0]
    size: int = SIZE
    clients: int | None = None

    @property
    def by_transaction(self) -> bool:
        """Whether two transactions of one client may be two sessions of the server."""
        return self.mode == "transaction"


def parse(table: Table) -> Pooler:
    """The poolers that a table describes."""
    found = Pooler(
        table.choice("mode", MODES, "a mode of a pooler") or MODES[0],
        table.whole("size", 1, 10_000, default=SIZE),
        table.whole("clients", 1, 1_000_000, default=0) or None,
    )
    table.close()
    return found
