"""A PostgreSQL primary with two streaming hot standbys, to be broken and mended.

    def test_something(postgres_cluster):
        primary, (first, second) = postgres_cluster.primary, postgres_cluster.standbys
        first.pause_replay()
        with installed(postgres_cluster.databases()):
            connections["primary"], connections["replica1"], connections["replica2"]

The servers run for the whole session. Behind each test the cluster is made whole:
whatever was frozen, killed, promoted or set is put right, and all connections are
ended. Tables stay; `empty()` drops them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString, cast

import psutil
import psycopg
import pytest

from tests.live.databases import PATIENCE, DatabaseServer, installed, run
from tests.live.postgres import binary
from tests.live.processes import missing, server_folder, unprivileged, wait_until

#: The owner of everything, a superuser; one that may read all tables and write none;
#: one that may read and write all tables. Only the first is a member of pg_monitor.
OWNER, READER, PLAIN = "site", "reader", "plain"

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "wal_level": "replica",
    "hot_standby": "on",
    "max_wal_senders": "10",
    # Whatever a standby misses while it is frozen or dead, it still finds.
    "wal_keep_size": "1GB",
    "wal_retrieve_retry_interval": "50ms",
    "shared_buffers": "16MB",
    "max_connections": "60",
    # Nothing writes but the tests, and no restartpoint comes but those they ask for.
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "jit": "off",
}

_USERS = f"""
CREATE ROLE {READER} LOGIN;
CREATE ROLE {PLAIN} LOGIN;
GRANT pg_read_all_data TO {READER}, {PLAIN};
GRANT pg_write_all_data TO {PLAIN};
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
"""


class Postgres(DatabaseServer):
    """One PostgreSQL server, primary or standby."""

    orderly, at_once = signal.SIGINT, signal.SIGQUIT  # "fast" and "immediate"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, folder)
        #: Its data are no longer those of a standby of the primary.
        self.diverged = False
        self._set: set[str] = set()

    def command(self) -> list[str]:
        options = [f"-c{key}={value}" for key, value in _OPTIONS.items()]
        return [str(binary("postgres")), "-D", str(self.data), f"-p{self.port}", *options]

    def answers(self) -> bool:
        try:
            return bool(self.value("SELECT 1") == 1)
        except psycopg.OperationalError:
            return False

    def database(self, *, user: str = OWNER, direct: bool = False, **more: Any) -> dict[str, Any]:
        """An entry for DATABASES; through the proxy, unless `direct`."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": user,
            "HOST": "127.0.0.1",
            "PORT": str(self.port if direct else self.proxy.port),
            "OPTIONS": {"connect_timeout": 10},
            **more,
        }

    def connect(self, *, user: str = OWNER, **more: Any) -> psycopg.Connection[Any]:
        """A connection past the proxy, in autocommit mode."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            dbname="postgres",
            autocommit=True,
            connect_timeout=10,
            **more,
        )

    def execute(self, sql: str, *parameters: Any, user: str = OWNER) -> list[tuple[Any, ...]]:
        """Run SQL on a connection of its own, past the proxy; the rows, if any."""
        with self.connect(user=user) as connection:
            cursor = connection.execute(cast("LiteralString", sql), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, sql: str, *parameters: Any, user: str = OWNER) -> Any:
        """The first column of the first row."""
        return self.execute(sql, *parameters, user=user)[0][0]

    @property
    def in_recovery(self) -> bool:
        """Whether it is a standby now."""
        return bool(self.value("SELECT pg_is_in_recovery()"))

    def set(self, name: str, value: str) -> None:
        """Change a setting, without a restart, until the end of the test."""
        self._set.add(name)
        self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self._reload()

    def reset(self) -> None:
        """Take back all that `set` did."""
        for name in self._set:
            self.execute(f"ALTER SYSTEM RESET {name}")
        if self._set:
            self._reload()
        self._set.clear()

    def pause_replay(self) -> None:
        """Replay nothing more, while the WAL still comes in; wait until that is so."""
        self.execute("SELECT pg_wal_replay_pause()")
        self._await_pause_state("paused")

    def resume_replay(self) -> None:
        self.execute("SELECT pg_wal_replay_resume()")
        self._await_pause_state("not paused")

    def crash_backend(self) -> None:
        """SIGKILL one backend: the postmaster stays, and restarts all other processes."""
        with self.connect() as victim:
            process = psutil.Process(victim.info.backend_pid)
            assert process.ppid() == self.pid
            started = self._startups()
            process.kill()
            # Until it has been noticed the old processes would still answer.
            wait_until(lambda: self._startups() > started, "no crash was seen", seconds=PATIENCE)
            with suppress(psycopg.OperationalError):
                victim.execute("SELECT 1")
        self.await_answer()

    def discard(self) -> None:
        """End it and remove its data."""
        self.stop(at_once=True)
        # Who was killed and not started again has left a segment of shared memory: its id
        # stands in the seventh line (miscadmin.h, LOCK_FILE_LINE_SHMEM_KEY).
        with suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            if len(lines) >= 7 and shutil.which("ipcrm"):
                number = lines[6].split()[1]
                subprocess.run(["ipcrm", "-m", number], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.data, ignore_errors=True)

    def _startups(self) -> int:
        log = (self.folder / "log").read_text(errors="replace")
        return log.count("all server processes terminated; reinitializing")

    def _reload(self) -> None:
        loaded = self.value("SELECT pg_conf_load_time()")
        self.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: bool(self.value("SELECT pg_conf_load_time() > %s", loaded)),
            f"{self.name} did not load its settings",
            seconds=PATIENCE,
        )

    def _await_pause_state(self, wanted: str) -> None:
        wait_until(
            lambda: bool(self.value("SELECT pg_get_wal_replay_pause_state()") == wanted),
            f"{self.name} is not {wanted}",
            seconds=PATIENCE,
        )


class PostgresCluster:
    """A primary and its standbys, and what can happen to them."""

    def __init__(self, folder: Path, standbys: int = 2) -> None:
        self.folder = folder
        self.primary = Postgres("primary", self._place("primary"))
        names = [f"replica{number}" for number in range(1, standbys + 1)]
        self.standbys = [Postgres(name, self._place(name)) for name in names]

    @property
    def servers(self) -> list[Postgres]:
        return [self.primary, *self.standbys]

    def databases(self, **options: Any) -> dict[str, dict[str, Any]]:
        """DATABASES with the aliases primary, replica1, ...; `options` as in `database()`."""
        return {server.name: server.database(**options) for server in self.servers}

    def start(self) -> None:
        """Make the data of all servers, and start them."""
        words = ["-U", OWNER, "-A", "trust", "-N", "-E", "UTF8", "--no-locale"]
        run(_program("initdb"), "-D", str(self.primary.data), *words, folder=self.folder)
        self.primary.start()
        self.primary.execute(_USERS)
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(self.rebuild, standby) for standby in self.standbys]:
                done.result()
        for server in self.servers:
            server.proxy.open()

    def stop(self) -> None:
        """Stop all servers for certain."""
        with ExitStack() as stack:
            for server in self.servers:
                stack.callback(server.proxy.refuse)
                stack.callback(server.discard)

    def wait_caught_up(self, *standbys: Postgres, source: Postgres | None = None) -> None:
        """Wait until the standbys (all, if none is named) have replayed what is committed."""
        target = (source or self.primary).value("SELECT pg_current_wal_flush_lsn()")
        for standby in standbys or self.standbys:
            wait_until(
                lambda standby=standby: bool(
                    standby.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", target)
                ),
                f"{standby.name} does not catch up",
                seconds=PATIENCE,
            )

    def promote(self, standby: Postgres) -> None:
        """Make a standby a primary, on a timeline of its own; nothing else is changed."""
        standby.diverged = True
        assert standby.value("SELECT pg_promote(true, %s)", int(PATIENCE))

    def follow(self, standby: Postgres, source: Postgres) -> None:
        """Let a running standby stream from another server, as after a fail-over."""
        standby.diverged = True
        standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{_conninfo(standby, source)}'")
        standby._reload()
        self.wait_streaming(standby, source)

    def rebuild(self, server: Postgres, source: Postgres | None = None) -> None:
        """Make a server anew, as a standby of the primary or of `source`."""
        source = source or self.primary
        server.discard()
        backup = [_program("pg_basebackup"), "-D", str(server.data), "-R", "-N", "-c", "fast"]
        run(*backup, "-d", _conninfo(server, source), folder=server.folder)
        # The settings of the source came along.
        server._set = set(source._set)
        server.start()
        server.diverged = source is not self.primary
        self.wait_streaming(server, source)

    def wait_streaming(self, standby: Postgres, source: Postgres | None = None) -> None:
        """Wait until a standby gets the WAL of its source as it is written."""
        wait_until(
            lambda: _streams(standby, source or self.primary),
            f"{standby.name} does not stream",
            seconds=PATIENCE,
        )

    def mend(self) -> None:
        """Make the cluster whole again, with the roles that it started with."""
        for server in self.servers:
            server.thaw()
            server.proxy.open()
            if not server.running:
                server.start()
            server.await_answer()
        self._end_sessions()
        if self.primary.in_recovery:
            source = next(server for server in self.standbys if not server.in_recovery)
            self.wait_caught_up(self.primary, source=source)
            self.promote(self.primary)
            self.primary.diverged = False
        self.primary.reset()
        for standby in self.standbys:
            self._mend(standby)
        self.wait_caught_up()

    def empty(self) -> None:
        """Drop all tables, and wait until the standbys have done so."""
        self.primary.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        self.wait_caught_up()

    def _mend(self, standby: Postgres) -> None:
        if standby.diverged or not standby.in_recovery:
            self.rebuild(standby)
            return
        standby.resume_replay()
        standby.reset()
        self.wait_streaming(standby)

    def _end_sessions(self) -> None:
        for server in self.servers:
            server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def _place(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        if user := unprivileged():
            os.chown(folder, *user)
        return folder


def _program(name: str) -> str:
    path = binary(name)
    if path is None:
        missing(f"PostgreSQL ({name}) is not installed", "apt-get install postgresql")
    return path


def _conninfo(standby: Postgres, source: Postgres) -> str:
    # The application's name is what synchronous_standby_names knows it by.
    return (
        f"host=127.0.0.1 port={source.port} user={OWNER} application_name={standby.name}"
        " sslmode=disable gssencmode=disable"
    )


def _streams(standby: Postgres, source: Postgres) -> bool:
    rows: Sequence[tuple[Any, ...]] = standby.execute(
        "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'"
    )
    return rows == [(source.port,)]


@contextmanager
def running_cluster(*, standbys: int = 2) -> Iterator[PostgresCluster]:
    """A cluster that runs, stopped and removed at the end."""
    _program("initdb")
    with server_folder("outgrow-pg-") as folder:
        cluster = PostgresCluster(folder, standbys)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="session")
def postgres_cluster_servers() -> Iterator[PostgresCluster]:
    """The cluster of the session. Tests ask for `postgres_cluster`."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_cluster(
    postgres_cluster_servers: PostgresCluster, django_db_blocker: Any
) -> Iterator[PostgresCluster]:
    """A primary with two standbys that stream; put right behind the test.

    Django may use databases during the test, whatever its marks say.
    """
    with django_db_blocker.unblock():
        try:
            yield postgres_cluster_servers
        finally:
            postgres_cluster_servers.mend()


@pytest.fixture
def postgres_aliases(postgres_cluster: PostgresCluster) -> Iterator[PostgresCluster]:
    """The same, with the aliases primary, replica1 and replica2 in Django."""
    with installed(postgres_cluster.databases()):
        yield postgres_cluster
