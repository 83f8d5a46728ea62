"""A MariaDB primary with one replica that follows it by GTID, to be broken and mended.

    def test_something(mariadb_cluster):
        primary, (replica,) = mariadb_cluster.primary, mariadb_cluster.replicas
        replica.pause_replay()
        with installed(mariadb_cluster.databases()):
            connections["primary"], connections["replica1"]

As in tests/live/replicas.py the servers run for the whole session, are put right behind
each test, and tables stay until `empty()`. No file of the machine's own server is read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.live import mysql_driver
from tests.live.databases import PATIENCE, DatabaseServer, installed, run
from tests.live.processes import missing, server_folder, unprivileged, wait_until

#: May do everything in the site's database, and nothing beyond it: a user with more
#: rights (SUPER, READ ONLY ADMIN) writes on a replica, whatever its read_only says.
OWNER = "site"
#: May read all tables of it and write none.
READER = "reader"

_SMALL = [
    "--innodb-buffer-pool-size=8M",
    "--innodb-log-file-size=4M",
    "--innodb-log-buffer-size=2M",
    "--innodb-temp-data-file-path=ibtmp1:4M:autoextend",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=1M",
    "--performance-schema=off",
    "--max-connections=60",
]
_OPTIONS = [
    *_SMALL,
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",
    # The kernel has each commit, as survives SIGKILL; the disk need not.
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--log-bin=binlog",
    "--log-slave-updates",
    "--relay-log=relay",
    "--gtid-strict-mode=on",
]

_USERS = f"""
CREATE DATABASE site;
CREATE USER {OWNER}@'127.0.0.1';
CREATE USER {READER}@'127.0.0.1';
GRANT ALL ON site.* TO {OWNER}@'127.0.0.1';
GRANT SELECT ON site.* TO {READER}@'127.0.0.1';
"""


class MariaDB(DatabaseServer):
    """One MariaDB server, primary or replica."""

    _numbers = count(1)

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        self.number = 0
        self.read_only = False
        #: Its data are no longer those of a replica of the primary.
        self.diverged = False
        self._set: dict[str, Any] = {}

    def command(self) -> list[str]:
        own = [
            f"--datadir={self.data}",
            # A server that starts removes what others have in a folder that they share.
            f"--tmpdir={self.data}",
            f"--port={self.port}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            f"--server-id={self.number}",
            f"--read-only={int(self.read_only)}",
        ]
        return [_program("mariadbd"), "--no-defaults", *own, *_OPTIONS]

    def answers(self) -> bool:
        try:
            return bool(self.value("SELECT 1") == 1)
        except _driver().OperationalError:
            return False

    def database(self, *, user: str = OWNER, direct: bool = False, **more: Any) -> dict[str, Any]:
        """An entry for DATABASES; through the proxy, unless `direct`."""
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": "site",
            "USER": user,
            "HOST": "127.0.0.1",
            "PORT": str(self.port if direct else self.proxy.port),
            "OPTIONS": {"connect_timeout": 10, **mysql_driver.options()},
            **more,
        }

    def connect(self, *, user: str = "root", **more: Any) -> Any:
        """A connection past the proxy, in autocommit mode; `root` may do anything."""
        return _driver().connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            connect_timeout=10,
            autocommit=True,
            **mysql_driver.options(),
            **more,
        )

    def execute(self, sql: str, *parameters: Any, user: str = "root") -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own, past the proxy; the rows, if any."""
        connection = self.connect(user=user)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, parameters or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def value(self, sql: str, *parameters: Any, user: str = "root") -> Any:
        """The first column of the first row."""
        return self.execute(sql, *parameters, user=user)[0][0]

    @property
    def replicates(self) -> bool:
        """Whether it is a replica now."""
        return bool(self.execute("SHOW SLAVE STATUS"))

    def set(self, name: str, value: Any) -> None:
        """Change a global variable until the end of the test, or until a restart."""
        self._set.setdefault(name, self.value(f"SELECT @@GLOBAL.{name}"))
        self.execute(f"SET GLOBAL {name} = %s", value)

    def reset(self) -> None:
        """Take back all that `set` did."""
        for name, value in self._set.items():
            self.execute(f"SET GLOBAL {name} = %s", value)
        self._set.clear()

    def pause_replay(self) -> None:
        """Replay nothing more, while the binlog still comes in; returns when that is so."""
        self.execute("STOP SLAVE SQL_THREAD")

    def resume_replay(self) -> None:
        self.execute("START SLAVE SQL_THREAD")


class MariaDBCluster:
    """A primary and its replica, and what can happen to them."""

    def __init__(self, folder: Path, replicas: int = 1) -> None:
        self.folder = folder
        self.primary = MariaDB("primary", self._place("primary"))
        names = [f"replica{number}" for number in range(1, replicas + 1)]
        self.replicas = [MariaDB(name, self._place(name)) for name in names]

    @property
    def servers(self) -> list[MariaDB]:
        return [self.primary, *self.replicas]

    def databases(self, **options: Any) -> dict[str, dict[str, Any]]:
        """DATABASES with the aliases primary, replica1, ...; `options` as in `database()`."""
        return {server.name: server.database(**options) for server in self.servers}

    def start(self) -> None:
        """Make the data of all servers, and start them."""
        words = ["--auth-root-authentication-method=normal", "--skip-test-db", *_SMALL]
        made = (f"--datadir={self._template}", f"--tmpdir={self._template}")
        run(_program("mariadb-install-db"), "--no-defaults", *made, *words, folder=self.folder)
        self._fresh(self.primary)
        self.primary.start()
        for statement in filter(str.strip, _USERS.split(";")):
            self.primary.execute(statement)
        for replica in self.replicas:
            self.rebuild(replica)
        for server in self.servers:
            server.proxy.open()

    def stop(self) -> None:
        """Stop all servers for certain."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.callback(server.proxy.refuse)
                stack.callback(server.stop, at_once=True)

    def wait_caught_up(self, *replicas: MariaDB, source: MariaDB | None = None) -> None:
        """Wait until the replicas (all, if none is named) have replayed what is committed."""
        target = (source or self.primary).value("SELECT @@GLOBAL.gtid_current_pos")
        for replica in replicas or self.replicas:
            reached = replica.value("SELECT MASTER_GTID_WAIT(%s, %s)", target, PATIENCE)
            assert reached == 0, f"{replica.name} does not catch up"

    def promote(self, replica: MariaDB) -> None:
        """Make a replica a primary; nothing else is changed."""
        replica.diverged = True
        replica.read_only = False
        for statement in ("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0"):
            replica.execute(statement)

    def rebuild(self, server: MariaDB, source: MariaDB | None = None) -> None:
        """Make a server anew, as a replica of the primary or of `source`."""
        source = source or self.primary
        server.stop(at_once=True)
        self._fresh(server)
        server.read_only = True
        server.start()
        server.diverged = source is not self.primary
        # It begins with nothing: the whole history is in the source's binlog.
        server.execute(
            f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {source.port},"
            " MASTER_USER = 'root', MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = slave_pos"
        )
        server.execute("START SLAVE")
        self.wait_caught_up(server, source=source)

    def mend(self) -> None:
        """Make the cluster whole again, with the roles that it started with."""
        for server in self.servers:
            server.thaw()
            server.proxy.open()
            if not server.running:
                server._set.clear()
                server.start()
            server.await_answer()
        self._end_sessions()
        if self.primary.replicates:
            source = next(server for server in self.replicas if not server.replicates)
            self.wait_caught_up(self.primary, source=source)
            self.promote(self.primary)
            self.primary.diverged = False
        self.primary.reset()
        for replica in self.replicas:
            self._mend(replica)
        self.wait_caught_up()

    def empty(self) -> None:
        """Drop all tables, and wait until the replicas have done so."""
        self.primary.execute("DROP DATABASE site")
        self.primary.execute("CREATE DATABASE site CHARACTER SET utf8mb4")
        self.wait_caught_up()

    def _mend(self, replica: MariaDB) -> None:
        if replica.diverged or not replica.replicates:
            self.rebuild(replica)
            return
        replica.reset()
        status = _status(replica)
        if status["Last_SQL_Errno"] != 0:
            self.rebuild(replica)
            return
        if status["Slave_IO_Running"] != "Yes":
            # It would try again by itself, a second later.
            replica.execute("STOP SLAVE IO_THREAD")
        replica.execute("START SLAVE")
        wait_until(
            lambda: _status(replica)["Slave_IO_Running"] == "Yes",
            f"{replica.name} does not replicate",
            seconds=PATIENCE,
        )

    def _end_sessions(self) -> None:
        for server in self.servers:
            sessions = server.execute(
                "SELECT id FROM information_schema.processlist"
                " WHERE user IN (%s, %s) OR (user = 'root' AND command = 'Sleep')",
                OWNER,
                READER,
            )
            for (session,) in sessions:
                with suppress(_driver().OperationalError):  # it has ended by itself
                    server.execute(f"KILL {session}")

    def _fresh(self, server: MariaDB) -> None:
        shutil.rmtree(server.data, ignore_errors=True)
        run("cp", "-R", str(self._template), str(server.data), folder=server.folder)
        server._set.clear()
        # A new id: what came from its old self would be skipped as its own.
        server.number = next(MariaDB._numbers)

    @property
    def _template(self) -> Path:
        return self.folder / "template"

    def _place(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        if user := unprivileged():
            os.chown(folder, *user)
        return folder


def _status(replica: MariaDB) -> dict[str, Any]:
    connection = replica.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            names = [column[0] for column in cursor.description]
            return dict(zip(names, cursor.fetchone(), strict=True))
    finally:
        connection.close()


@cache
def _driver() -> Any:
    return mysql_driver.install()


def _program(name: str) -> str:
    # Debian keeps the server in /usr/sbin, which is not in the PATH of a plain user.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        missing(
            f"MariaDB ({name}) is not installed",
            "apt-get install mariadb-server-core mariadb-client-core",
        )
    return path


@contextmanager
def running_mariadb(*, replicas: int = 1) -> Iterator[MariaDBCluster]:
    """A cluster that runs, stopped and removed at the end."""
    _program("mariadbd")
    with server_folder("outgrow-my-") as folder:
        cluster = MariaDBCluster(folder, replicas)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def mariadb_cluster_servers() -> Iterator[MariaDBCluster]:
    """The cluster of the session. Tests ask for `mariadb_cluster`."""
    with running_mariadb() as cluster:
        yield cluster


@pytest.fixture
def mariadb_cluster(
    mariadb_cluster_servers: MariaDBCluster, django_db_blocker: Any
) -> Iterator[MariaDBCluster]:
    """A primary with a replica that follows; put right behind the test.

    Django may use databases during the test, whatever its marks say.
    """
    with django_db_blocker.unblock():
        try:
            yield mariadb_cluster_servers
        finally:
            mariadb_cluster_servers.mend()


@pytest.fixture
def mariadb_aliases(mariadb_cluster: MariaDBCluster) -> Iterator[MariaDBCluster]:
    """The same, with the aliases primary and replica1 in Django."""
    with installed(mariadb_cluster.databases()):
        yield mariadb_cluster
