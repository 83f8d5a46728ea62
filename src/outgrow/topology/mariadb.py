"""A MariaDB primary and its GTID replicas on this machine: files and commands, as values.

The laws:

1. They listen on the loopback address alone, on no Unix socket, and want a password.
2. Each runs its SQL file at every start: users, the database, and whom a replica
   follows. None of that is in the primary's log, so each server does it for itself.
3. A replica begins empty and reads the primary's log from its start, which is kept
   whole: no other program is needed to copy a server.
4. Each has a folder of its own for temporary files: one that starts removes what it
   finds there, the tables of others that run, too.

Sources: mariadb.com/kb/en/gtid/, and mariadbd-options for what is on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outgrow.topology.database import Database
from outgrow.topology.model import LOOPBACK, Service
from outgrow.topology.parts import Planned, Programs, Step
from outgrow.topology.probes import Succeeds
from outgrow.topology.process import Command
from outgrow.topology.render import File

#: The programs of a MariaDB that are needed.
PROGRAMS: Final = ("mariadbd", "mariadb-install-db", "mariadb")

#: Who may only replicate.
REPLICATION_USER: Final = "outgrow_replica"

_CLIENT: Final = "client.cnf"

#: Seconds for a replica to find its primary; it tries every second.
_FOLLOW_LIMIT: Final = 5.0

# A laptop needs no more; the defaults take 100 MB of disk for each server.
_SMALL: Final = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=64M")

# Names hold nothing to quote (`rules.identifier`). Django's test database is the site's, too.
_SETUP_SQL: Final = """\
SET SESSION sql_log_bin = 0;
CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{password}';
ALTER USER '{user}'@'%' IDENTIFIED BY '{password}';
GRANT ALL ON `{pattern}`.* TO '{user}'@'%';
GRANT ALL ON `test\\_{pattern}%`.* TO '{user}'@'%';
CREATE USER IF NOT EXISTS '{replication}'@'%' IDENTIFIED BY '{password}';
ALTER USER '{replication}'@'%' IDENTIFIED BY '{password}';
GRANT REPLICATION SLAVE ON *.* TO '{replication}'@'%';
"""

_FOLLOW_SQL: Final = """\
STOP SLAVE;
CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, \
MASTER_USER = '{replication}', MASTER_PASSWORD = '{password}', \
MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1;
START SLAVE;
"""

_WRITES: Final = """\
BEGIN NOT ATOMIC
  IF @@GLOBAL.read_only THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'it is read only'; END IF;
END"""

# ON while both threads run and the first is connected.
_STREAMS: Final = """\
BEGIN NOT ATOMIC
  IF NOT EXISTS (SELECT 1 FROM information_schema.GLOBAL_STATUS
                  WHERE VARIABLE_NAME = 'SLAVE_RUNNING' AND VARIABLE_VALUE = 'ON') THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'it does not follow the primary';
  END IF;
END"""


@dataclass(frozen=True, slots=True)
class MariaDB:
    """The servers of one site, below `home`."""

    database: Database
    primary: Service
    home: Path
    programs: Programs

    def files(self, password: str, replicas: tuple[Service, ...]) -> tuple[File, ...]:
        """What the servers and the client read, all of it private."""
        setup = _SETUP_SQL.format(
            name=self.database.name,
            pattern=self.database.name.replace("_", "\\_"),
            user=self.database.user,
            replication=REPLICATION_USER,
            password=password,
        )
        follow = _FOLLOW_SQL.format(
            host=LOOPBACK,
            port=self.primary.port.number,
            replication=REPLICATION_USER,
            password=password,
        )
        contents = {
            self.home / _CLIENT: f"[client]\npassword={password}\n",
            self._sql(self.primary): setup,
            **{self._sql(replica): setup + follow for replica in replicas},
        }
        return tuple(File(str(path), text, private=True) for path, text in contents.items())

    def start_primary(self) -> Planned:
        """The primary, and how its data are made."""
        # Sequences without a gap, whoever wrote last.
        log = ("--server-id=1", "--log-bin=binlog", "--gtid-strict-mode=1")
        step = self._install(self.primary)
        check = Succeeds(self._client(self.primary, _WRITES))
        return self._server(self.primary, step, log, "accepts a write", check)

    def start_replica(self, service: Service, number: int) -> Planned:
        """One replica, the first of which has the number 2."""
        follow = (f"--server-id={number}", "--read-only=1", "--relay-log=relay")
        step = self._install(service, copies=self.home / self.primary.name)
        check = Succeeds(self._client(service, _STREAMS), _FOLLOW_LIMIT)
        return self._server(service, step, follow, "follows the primary", check)

    def _install(self, service: Service, copies: Path | None = None) -> Step:
        data = self.home / service.name
        new = data.with_name(f"{data.name}.new")
        words = (
            *(self.programs.database["mariadb-install-db"], "--no-defaults"),
            *(f"--datadir={new}", f"--tmpdir={new}"),
            # Root comes through a Unix socket alone, and there is none.
            *("--auth-root-authentication-method=socket", "--skip-test-db", *_SMALL),
        )
        return Step(f"{service.name} install", self._as_server(words), data, copies)

    def _server(
        self, service: Service, step: Step, more: tuple[str, ...], work: str, check: Succeeds
    ) -> Planned:
        data = self.home / service.name
        words = (
            *(self.programs.database["mariadbd"], "--no-defaults"),
            *(f"--datadir={data}", f"--tmpdir={data}"),
            *(f"--bind-address={LOOPBACK}", f"--port={service.port.number}", "--socket="),
            *("--skip-name-resolve", "--character-set-server=utf8mb4", *_SMALL),
            *(f"--init-file={self._sql(service)}", *more),
            # A killed server loses nothing by this, a machine without power may.
            "--innodb-flush-log-at-trx-commit=2",
            # A laptop's log is for what went wrong.
            "--silent-startup",
        )
        return Planned(
            service.name,
            f"{service.role} (mariadb)",
            self._as_server(words),
            work,
            check,
            Succeeds(self._client(service, "SELECT 1"), seconds=0.0),
            service.port,
            data,
            service.url,
            step,
        )

    def _client(self, service: Service, sql: str) -> Command:
        words = (
            *(self.programs.database["mariadb"], f"--defaults-file={self.home / _CLIENT}"),
            *("--skip-ssl", "-h", LOOPBACK, "-P", str(service.port.number)),
            # Statements of several lines hold semicolons.
            *("-u", self.database.user, "--connect-timeout=5", "--delimiter=//", "-e", sql),
        )
        return Command(words, self.home)

    def _sql(self, service: Service) -> Path:
        return self.home / f"{service.name}.sql"

    def _as_server(self, words: tuple[str, ...]) -> Command:
        return Command(words, self.home, account=self.programs.account)
