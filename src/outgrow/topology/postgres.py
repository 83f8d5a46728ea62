"""A PostgreSQL primary and its hot standbys on this machine: files and commands, as values.

The laws:

1. They listen on the loopback address alone, on no Unix socket (its path may be too
   long), and want a password (SCRAM) from everybody.
2. What depends on ports is on the command line, not in the data: ports may be others
   the next time.
3. A standby has a slot of its name, so that the primary keeps what it still lacks; at
   most 1 GB of it. One that has lost its place is made anew (`LocalSite`).
4. Whatever makes the roles, the database and the slots can be repeated, and is.
5. With `synchronous` a commit waits until any one standby has it on its disk: so the primary
   may be lost with its disk. What is set up before there are standbys does not wait.
6. SIGKILL is survived, by primary and standbys. Loss of power is not: fsync is off.

Sources: postgresql.org/docs/current/warm-standby.html and app-pgbasebackup.html.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from outgrow.topology.database import Database, alias, any_of
from outgrow.topology.model import LOOPBACK, Host, Service
from outgrow.topology.parts import Planned, Programs, Step
from outgrow.topology.probes import TIMEOUT, Succeeds
from outgrow.topology.process import Command, Reload
from outgrow.topology.render import File

#: The programs of a PostgreSQL that are needed, in one folder.
PROGRAMS: Final = (
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_controldata",
    "pg_isready",
    "pg_rewind",
    "psql",
)

#: Who may do all, and who may only replicate.
ADMIN: Final = "postgres"
REPLICATION_USER: Final = "outgrow_replica"

#: In the data of a standby, and not in those of a primary.
IS_STANDBY: Final = "standby.signal"

_PASSFILE: Final = "pgpass"
_SETUP: Final = "setup.sql"
_PWFILE: Final = "password"
_REWIND: Final = "rewind.conf"

_SETTINGS: Final = {
    "wal_retrieve_retry_interval": "200ms",
    "max_slot_wal_keep_size": "1GB",
    # Without it an old primary could not be made a standby of the new one by pg_rewind.
    "wal_log_hints": "on",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    # A killed server loses nothing by this, a machine without power may. Without it a
    # new standby takes seconds on a slow disk, to sync what it has just copied.
    "fsync": "off",
    # A laptop's log is for what went wrong.
    "log_checkpoints": "off",
    "log_line_prefix": "",
}

# psql's \gexec runs what a query returns. Names hold nothing to quote (`rules.identifier`).
_SETUP_SQL: Final = """\
SET client_min_messages = warning;
-- Standbys are made after this.
SET synchronous_commit = local;
SELECT 'CREATE ROLE "{user}"'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{user}') \\gexec
ALTER ROLE "{user}" LOGIN CREATEDB PASSWORD '{secret}';
SELECT 'CREATE ROLE {replication}'
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{replication}') \\gexec
ALTER ROLE {replication} LOGIN REPLICATION PASSWORD '{password}';
SELECT 'CREATE DATABASE "{name}" OWNER "{user}"'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{name}') \\gexec
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
 WHERE slot_type = 'physical' AND NOT active
   AND (slot_name <> ALL (ARRAY[{slots}]::name[]) OR wal_status = 'lost');
SELECT pg_create_physical_replication_slot(wanted, true)
  FROM unnest(ARRAY[{slots}]::name[]) AS wanted
 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = wanted);
"""

# Says nothing when all is well; `psql` prints the text of an exception.
_STREAMS: Final = """\
DO $$ BEGIN
  IF NOT pg_is_in_recovery() THEN RAISE 'it is no standby any more'; END IF;
  IF NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') THEN
    RAISE 'it does not stream from the primary';
  END IF;
END $$"""

# Until it is a primary, and a checkpoint says so in its files: pg_rewind reads it there, before
# PostgreSQL 16 at least.
_PROMOTE: Final = """\
DO $$ BEGIN
  IF pg_is_in_recovery() AND NOT pg_promote(true, 60) THEN
    RAISE 'it was told to become the primary, and did not within 60 s';
  END IF;
END $$"""

# Bytes of log that it has, from the first on; and whether more may be on the way.
_RECEIVED: Final = """\
SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn,
       (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming')"""

# pg_rewind ends the recovery of a server that was killed, by a server that it starts with this.
_REWIND_CONF: Final = "".join(f"{key} = {_SETTINGS[key]}\n" for key in ("wal_log_hints", "fsync"))

_WRITES: Final = "CREATE TEMPORARY TABLE outgrow_probe ()"


# What a probe finds is said by us, not in the server's log.
_UNLOGGED: Final = "-c log_min_messages=panic"

#: Seconds for a standby to find its primary; it tries every 0.2 s.
_FOLLOW_LIMIT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Accepts:
    """Ready when the postmaster says so in its file, where pg_ctl reads it, too.

    A client alone would fill the log of a server that is starting. The file alone may
    be that of a killed one.
    """

    data: Path
    client: Succeeds

    def __str__(self) -> str:
        return str(self.client)

    def problem(self) -> str:
        """Why it is not ready, or ""."""
        with suppress(OSError):
            # src/include/utils/pidfile.h: the eighth line is the status.
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")
            if lines[7:8] and lines[7].strip() == "ready":
                return self.client.problem()
        return "it does not take connections yet"


@dataclass(frozen=True, slots=True)
class Postgres:
    """The servers of one site, below `home`."""

    database: Database
    primary: Service
    home: Path
    programs: Programs

    def files(
        self, password: str, replicas: tuple[Host, ...], secret: str = ""
    ) -> tuple[File, ...]:
        """What the servers and the tools read, all of it private.

        The `secret` is what is kept of the password where that must be the same elsewhere.
        """
        setup = _SETUP_SQL.format(
            user=self.database.user,
            name=self.database.name,
            replication=REPLICATION_USER,
            password=password,
            secret=secret or password,
            slots=", ".join(f"'{alias(host.name)}'" for host in replicas),
        )
        contents = {
            _PASSFILE: f"*:*:*:*:{password}\n",
            _PWFILE: f"{password}\n",
            _SETUP: setup,
            _REWIND: _REWIND_CONF,
        }
        return tuple(
            File(str(self.home / name), content, private=True) for name, content in contents.items()
        )

    def start_primary(self, standbys: tuple[Host, ...] = ()) -> Planned:
        """The primary, and how its data are made."""
        data = self.home / self.primary.name
        words = (
            *(self._program("initdb"), "-D", str(_new(data))),
            *("-U", ADMIN, "-A", "scram-sha-256"),
            *("--pwfile", str(self.home / _PWFILE)),
            # Small segments: 28 MB on the disk rather than 87.
            *("-N", "-E", "UTF8", "--no-locale", "--wal-segsize", "1"),
        )
        step = Step(f"{self.primary.name} initdb", self._as_server(words), data)
        check = self._asks(self.primary, _WRITES)
        more = {}
        if self.database.synchronous:
            names = any_of(alias(host.name) for host in standbys)
            more = {"synchronous_standby_names": names}
        return self._server(self.primary, step, more, "accepts a write", check)

    def set_up(self) -> Step:
        """Roles, database and slots, in a primary that runs."""
        words = self._psql(self.primary, "-f", str(self.home / _SETUP))
        return Step(f"{self.primary.name} setup", self._as_us(words))

    def start_standby(self, service: Service, host: Host) -> Planned:
        """One standby, and how its data are copied from the primary."""
        data, slot = self.home / service.name, alias(host.name)
        source = self._conninfo(self.primary, REPLICATION_USER, application_name=slot)
        words = (
            *(self._program("pg_basebackup"), "-d", source, "-D", str(_new(data))),
            *("-R", "-X", "stream", "-S", slot, "-c", "fast", "-N", "--no-manifest"),
        )
        step = Step(
            f"{service.name} base backup",
            self._as_server(words),
            data,
            copies=self.home / self.primary.name,
        )
        follow = {"primary_conninfo": source, "primary_slot_name": slot}
        check = self._asks(service, _STREAMS, _FOLLOW_LIMIT)
        return self._server(service, step, follow, "streams from the primary", check)

    def received(self, service: Service) -> Command:
        """Prints the bytes of log that a standby has, "|", and 1 if it still receives."""
        return self._as_us(self._psql(service, "-c", _RECEIVED))

    def ended(self, service: Service) -> Command:
        """Prints how a server that does not run has ended."""
        words = (self._program("pg_controldata"), "-D", str(self.home / service.name))
        return Command(words, self.home, {"LC_ALL": "C"})

    def promote(self, service: Service) -> Step:
        """A standby becomes a primary, unless it is one."""
        words = self._psql(service, "-c", _PROMOTE, "-c", "CHECKPOINT")
        return Step(f"{service.name} promotion", self._as_us(words), limit=90.0)

    def rewind(self, service: Service) -> Step:
        """The data of a primary that was become those of a standby of this one."""
        words = (
            *(self._program("pg_rewind"), "-D", str(self.home / service.name)),
            *("--source-server", self._conninfo(self.primary, ADMIN, dbname="postgres")),
            *(f"--config-file={self.home / _REWIND}", "-R", "--no-sync"),
        )
        return Step(f"{service.name} rewind", self._as_server(words))

    def _server(
        self, service: Service, step: Step, more: dict[str, str], work: str, check: Succeeds
    ) -> Planned:
        data = self.home / service.name
        settings = {**_SETTINGS, "cluster_name": service.name, **more}
        words = (
            *(self._program("postgres"), "-D", str(data)),
            *("-h", LOOPBACK, "-p", str(service.port.number), "-k", ""),
            *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
        )
        address = ("-h", LOOPBACK, "-p", str(service.port.number), "-t", "2")
        client = (self._program("pg_isready"), *address)
        return Planned(
            service.name,
            f"{service.role} (postgresql)",
            # "Fast": SIGTERM would wait for every client to leave.
            replace(self._as_server(words, signal.SIGINT), reload=Reload()),
            work,
            check,
            Accepts(data, Succeeds(self._as_us(client), seconds=0.0)),
            service.port,
            data,
            service.url,
            step,
        )

    def through(self, service: Service) -> Succeeds:
        """Whether the primary answers the site's user through a pooler."""
        words = self._psql(
            service, "-c", "SELECT 1", user=self.database.user, dbname=self.database.name
        )
        return Succeeds(self._as_us(words))

    def _asks(self, service: Service, sql: str, seconds: float = TIMEOUT) -> Succeeds:
        return Succeeds(self._as_us(self._psql(service, "-c", sql)), seconds)

    def _psql(
        self, service: Service, *words: str, user: str = ADMIN, dbname: str = "postgres"
    ) -> tuple[str, ...]:
        quiet = ("-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse")
        connection = self._conninfo(service, user, dbname=dbname, options=_UNLOGGED)
        return (self._program("psql"), *quiet, "-d", connection, *words)

    def _conninfo(self, service: Service, user: str, **more: str) -> str:
        """All that PGHOST, PGSSLMODE and others in the environment would change is said."""
        values = {
            "host": LOOPBACK,
            "port": str(service.port.number),
            "user": user,
            "passfile": str(self.home / _PASSFILE),
            "sslmode": "disable",
            "gssencmode": "disable",
            "connect_timeout": "5",
            **more,
        }
        return " ".join(f"{key}={_quoted(value)}" for key, value in values.items())

    def _program(self, name: str) -> str:
        return self.programs.database[name]

    def _as_server(self, words: tuple[str, ...], stop: signal.Signals = signal.SIGTERM) -> Command:
        return Command(words, self.home, account=self.programs.account, stop=stop)

    def _as_us(self, words: tuple[str, ...]) -> Command:
        return Command(words, self.home)


def _new(data: Path) -> Path:
    return data.with_name(f"{data.name}.new")


def _quoted(value: str) -> str:
    """A value of a connection string; most need no quotes."""
    if value.replace("/", "").replace(".", "").replace("_", "").isalnum():
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
