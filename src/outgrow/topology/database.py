"""The table ``[database]`` as a value: which engine, and how replicas are used.

A password is never in the file, which is for everybody to read: the file says where
it is, and `load.current` reads it for the process that needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from outgrow.topology import rules
from outgrow.topology.keys import Table

#: What holds the rows; the first is the default.
ENGINES: Final = ("sqlite", "postgresql", "mariadb")

#: Where a server of each engine listens, unless `ports` says otherwise; 0 for none.
PORTS: Final[Mapping[str, int]] = {"sqlite": 0, "postgresql": 5432, "mariadb": 3306}

#: The alias of the primary in Django's settings.
PRIMARY_ALIAS: Final = "default"

#: What a request does when no replica has what its client wrote.
WHEN_BEHIND: Final = ("primary", "wait", "stale")

#: What becomes of a write in a request that was to read.
WRITE_ON_READ: Final = ("pin", "refuse", "log")

# The defaults of OUTGROW["REPLICATION"], in seconds, for the one check that takes several.
MAX_LAG: Final = 10.0
CHECK_EVERY: Final = 5.0
_PIN_FOR: Final = 60.0

#: Seconds of `pin_for` beyond what a replica may be behind.
_MARGIN: Final = 5.0

_NO_SERVER: Final = "is for a database server, and SQLite is none."


@dataclass(frozen=True, slots=True)
class Replication:
    """Options of OUTGROW["REPLICATION"], by the same names; None leaves one to its default.

    The numbers are in seconds.
    """

    max_lag: float | None = None
    check_every: float | None = None
    pin_for: float | None = None
    downtime: float | None = None
    when_behind: str | None = None
    wait: float | None = None
    write_on_read: str | None = None
    read_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Database:
    """The site's database. `name` is that of the database; for SQLite the path of its file.

    `synchronous`: a commit is answered when one replica has it on its disk, too.
    `password` is empty in what `load` reads; see `load.current`.
    """

    engine: str
    name: str
    user: str = ""
    password_env: str = ""
    password_file: PurePath | None = None
    replication: Replication = Replication()
    synchronous: bool = False
    password: str = field(default="", repr=False)

    @property
    def has_servers(self) -> bool:
        """Whether it is reached over the network."""
        return self.engine != "sqlite"


def parse(table: Table, folder: PurePath) -> Database:
    """The database that a table describes; relative paths in it are relative to `folder`."""
    engine = table.choice("engine", ENGINES, "an engine for a database") or ENGINES[0]
    hint = "Write password_env or password_file, which say where it is."
    table.refuse("password", "does not belong into this file.", hint)
    database = _file(table, folder) if engine == "sqlite" else _served(engine, table, folder)
    table.close()
    return database


def alias(server: str) -> str:
    """The alias in DATABASES, and the replication slot, of the replica on this server."""
    name = re.sub(r"[^a-z0-9]", "_", server)
    return f"_{name}" if name[:1].isdigit() else name


def any_of(standbys: Iterable[str]) -> str:
    """PostgreSQL's synchronous_standby_names: a commit waits for any one of these aliases.

    postgresql.org/docs/current/runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES
    """
    names = ", ".join(f'"{one}"' for one in standbys)
    return f"ANY 1 ({names})"


def _file(table: Table, folder: PurePath) -> Database:
    name = table.text("name", rules.path)
    for key in ("user", "password_env", "password_file", "synchronous"):
        table.refuse(key, _NO_SERVER)
    return Database("sqlite", str(folder / name), replication=_replication(table))


def _served(engine: str, table: Table, folder: PurePath) -> Database:
    name = table.text("name", rules.identifier)
    user = table.text("user", rules.identifier, default=name)
    variable, file = "", None
    if table.has("password_env"):
        variable = table.text("password_env", rules.variable)
    if table.has("password_file"):
        file = folder / table.text("password_file", rules.path)
    if variable and file:
        table.wrong("password_file", "is one too many beside password_env.", "Choose one.")
    synchronous = _synchronous(engine, table)
    return Database(engine, name, user, variable, file, _replication(table), synchronous)


def _synchronous(engine: str, table: Table) -> bool:
    if engine == "postgresql":
        return table.flag("synchronous") or False
    table.refuse("synchronous", "is for PostgreSQL.")
    return False


def _replication(table: Table) -> Replication:
    found = Replication(
        max_lag=table.number("max_lag", more_than=0),
        check_every=table.number("check_every", more_than=0),
        pin_for=table.number("pin_for", more_than=0),
        downtime=table.number("downtime", more_than=0),
        when_behind=table.choice("when_behind", WHEN_BEHIND, "a choice"),
        wait=table.number("wait", more_than=0),
        write_on_read=table.choice("write_on_read", WRITE_ON_READ, "a choice"),
        read_timeout=table.number("read_timeout", more_than=0),
    )
    behind = (found.max_lag or MAX_LAG) + 2 * (found.check_every or CHECK_EVERY) + _MARGIN
    pin = found.pin_for or _PIN_FOR
    if pin < behind:
        what = "max_lag + 2 * check_every + 5"
        table.wrong("pin_for", f"must be at least {what}, which is {behind:g}, not {pin:g}.")
    return found
