"""`manage.py outgrow databases migrate`: one process at a time, until the replicas have it."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from outgrow.databases import migrating
from outgrow.databases.cluster import Cluster
from outgrow.databases.migrating import turn
from outgrow.errors import MigrationNotAlone, MigrationUnderWay, NoMigrationLock
from outgrow.testing import free_port
from tests.databases.sites import aliases
from tests.live.databases import PATIENCE
from tests.live.mariadb import MariaDBCluster
from tests.live.processes import kill_family, launched, missing, server_folder, wait_until
from tests.live.replicas import OWNER, PostgresCluster

Sites = Callable[..., AbstractContextManager[Cluster]]
Database = dict[str, Any]

ROOT = Path(__file__).parents[2]

#: Takes a turn, says so, and keeps it until it is killed.
_KEEPER = """
import django, sys
django.setup()
from outgrow.databases.migrating import turn
with turn("default", seconds=60):
    print("taken", flush=True)
    sys.stdin.read()
"""

_NAME = "site_to_migrate"


@pytest.fixture(params=["postgresql", "mysql", "sqlite"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_blocker: Any
) -> Iterator[Database]:
    """An entry for DATABASES, of a database in which nothing is yet."""
    if request.param == "sqlite":
        with django_db_blocker.unblock():
            yield {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "site.sqlite3")}
        return
    name = "postgres_cluster" if request.param == "postgresql" else "mariadb_cluster"
    servers: PostgresCluster | MariaDBCluster = request.getfixturevalue(name)
    primary = servers.primary
    primary.execute(f"CREATE DATABASE {_NAME}")
    owner = OWNER if request.param == "postgresql" else "root"
    yield primary.database(user=owner, direct=True) | {"NAME": _NAME}
    end = " WITH (FORCE)" if request.param == "postgresql" else ""
    primary.execute(f"DROP DATABASE {_NAME}{end}")


def environment(database: Database) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.databases.migrating_site",
        "DATABASE": json.dumps(database),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }


def migrate(database: Database, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "django", "outgrow", "databases", "migrate", *words],
        cwd=ROOT,
        env=environment(database),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def keeper(database: Database) -> Iterator[subprocess.Popen[str]]:
    """Another process that migrates, and comes to no end."""
    with subprocess.Popen(
        [sys.executable, "-c", _KEEPER],
        cwd=ROOT,
        env=environment(database),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "taken\n"
            yield process
        finally:
            process.kill()


def test_several_begin_at_once(database: Database) -> None:
    processes = [migrate(database, "--timeout", "120") for _ in range(4)]
    ends = [(process.communicate(timeout=240)[0], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0] * 4, ends
    told = [text for text, _ in ends if "Applying sessions.0001_initial... OK" in text]
    assert len(told) == 1, ends


def test_who_comes_second_waits_and_does_nothing(
    database: Database, keeper: subprocess.Popen[str]
) -> None:
    text, _ = migrate(database, "--timeout", "0.5").communicate(timeout=PATIENCE)
    assert "is migrated by" in text
    assert "waited for, for 0.5 s, and nothing was done" in text
    assert "Applying" not in text


def test_a_turn_ends_with_its_process(database: Database, keeper: subprocess.Popen[str]) -> None:
    second = migrate(database, "--timeout", "120")
    assert second.stdout
    line = second.stdout.readline()
    assert line.startswith("Another migration is at work: "), line
    keeper.kill()
    rest, _ = second.communicate(timeout=PATIENCE * 2)
    assert second.returncode == 0, rest
    assert "Applying sessions.0001_initial... OK" in rest


def test_the_holder_is_named(database: Database, keeper: subprocess.Popen[str]) -> None:
    said: list[str] = []
    with (
        aliases({"default": database}),
        pytest.raises(MigrationUnderWay) as raised,
        turn("default", seconds=0, waiting=said.append),
    ):
        pass
    assert raised.value.alias == "default"
    word = "process" if "sqlite" in database["ENGINE"] else "session"
    assert word in raised.value.holder
    assert said == []  # nobody was waited for


def test_words_reach_django(database: Database) -> None:
    text, _ = migrate(database, "contenttypes", "0001").communicate(timeout=PATIENCE)
    assert "Applying contenttypes.0001_initial... OK" in text
    assert "sessions" not in text
    process = migrate(database, "--", "--plan")
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Planned operations" in text
    assert "Applying" not in text


def test_what_django_refuses_is_an_error(database: Database) -> None:
    process = migrate(database, "nothing")
    text, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "nothing" in text


def test_a_lost_turn_is_told(postgres_cluster: PostgresCluster) -> None:
    own = "pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    with (
        aliases({"default": postgres_cluster.primary.database(direct=True)}),
        pytest.raises(MigrationNotAlone, match="kept others out was lost"),
        turn("default", seconds=0),
    ):
        assert postgres_cluster.primary.execute(f"SELECT {own}") == [(True,)]


def test_a_lost_turn_is_told_by_mariadb(mariadb_cluster: MariaDBCluster) -> None:
    database = mariadb_cluster.primary.database(user="root", direct=True)
    with (
        aliases({"default": database}),
        pytest.raises(MigrationNotAlone),
        turn("default", seconds=0),
    ):
        rows = mariadb_cluster.primary.execute(
            "SELECT id FROM information_schema.processlist WHERE info IS NULL AND command = 'Sleep'"
        )
        for (session,) in rows:
            mariadb_cluster.primary.execute(f"KILL {session}")


def test_an_index_is_made_concurrently_meanwhile(postgres_cluster: PostgresCluster) -> None:
    """Such an index waits for every transaction that has a snapshot."""
    primary = postgres_cluster.primary
    database = primary.database(direct=True)
    database["OPTIONS"] = database["OPTIONS"] | {
        "isolation_level": psycopg.IsolationLevel.REPEATABLE_READ
    }
    primary.execute("CREATE TABLE indexed (value integer)")
    with aliases({"default": database}), turn("default", seconds=0), primary.connect() as other:
        other.execute("SET statement_timeout = '30s'")
        other.execute("CREATE INDEX CONCURRENTLY ON indexed (value)")
    primary.execute("DROP TABLE indexed")


def test_a_time_limit_for_idle_transactions_does_not_end_a_turn(
    postgres_cluster: PostgresCluster,
) -> None:
    primary = postgres_cluster.primary
    database = primary.database(direct=True)
    limit = "-c idle_in_transaction_session_timeout=100"
    database["OPTIONS"] = database["OPTIONS"] | {"options": limit}
    with aliases({"default": database}), turn("default", seconds=0):
        other = primary.connect(options=limit)
        with closing(other):
            # As long as it takes for one without our care to be ended.
            other.execute("BEGIN")
            other.execute("SELECT 1")
            pid = other.info.backend_pid
            wait_until(
                lambda: (
                    not primary.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid)
                ),
                "the other is not ended",
            )


def test_a_turn_behind_a_pooler_in_transaction_mode(
    postgres_cluster: PostgresCluster, pooler: int
) -> None:
    """Its two connections to the server are given to whoever begins a transaction."""
    database = postgres_cluster.primary.database(direct=True) | {"PORT": str(pooler)}
    with (
        aliases({"default": database}),
        turn("default", seconds=0),
        pytest.raises(MigrationUnderWay),
        turn("default", seconds=1),
    ):
        pass


@pytest.fixture
def pooler(postgres_cluster: PostgresCluster) -> Iterator[int]:
    """The port of a PgBouncer with two connections to the primary."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("PgBouncer is not installed", "apt-get install pgbouncer")
    port = free_port()
    with server_folder("outgrow-pooler-") as folder:
        (folder / "pgbouncer.ini").write_text(
            f"""[databases]
postgres = host=127.0.0.1 port={postgres_cluster.primary.port} user={OWNER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
""",
            encoding="utf-8",
        )
        process = launched([program, folder / "pgbouncer.ini"], folder, os.environ)
        try:
            wait_until(lambda: is_listening(port), "PgBouncer does not listen")
            yield port
        finally:
            kill_family(process)


def is_listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_other_databases_of_a_server_have_turns_of_their_own(
    postgres_cluster: PostgresCluster,
) -> None:
    primary = postgres_cluster.primary
    primary.execute("CREATE DATABASE another")
    own = primary.database(direct=True)
    try:
        with (
            aliases({"default": own, "another": own | {"NAME": "another"}}),
            turn("default", seconds=0),
            turn("another", seconds=0),
            pytest.raises(MigrationUnderWay, match="migrated by session"),
            turn("default", seconds=0),
        ):
            pass
    finally:
        primary.execute("DROP DATABASE another WITH (FORCE)")


def test_a_vendor_without_such_locks_is_refused(tmp_path: Path) -> None:
    with aliases({"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}):
        connection = connections["default"]
        connection.vendor = "oracle"
        with pytest.raises(NoMigrationLock, match="knows no lock of it"):
            migrating._turn_of(connection)


# --- replicas


def said(*words: str) -> str:
    out = io.StringIO()
    call_command("outgrow", "databases", "migrate", *words, stdout=out, no_color=True)
    return out.getvalue()


def test_replicas_are_waited_for(postgres_site: Sites, postgres_cluster: PostgresCluster) -> None:
    with postgres_site(OWNER):
        text = said()
        assert "replica1 has it." in text
        assert "replica2 has it." in text


def test_a_replica_that_stays_behind(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    first, _ = postgres_cluster.standbys
    with postgres_site(OWNER):
        first.pause_replay()
        postgres_cluster.primary.execute("SELECT pg_logical_emit_message(true, 'tests', 'x')")
        error = io.StringIO()
        with pytest.raises(SystemExit) as raised:
            call_command("outgrow", "databases", "migrate", "--replicas", "0.5", stderr=error)
        assert raised.value.code == 1
        assert "replica1 has not replayed the migration after 0.5 s" in error.getvalue()
        assert "replica" not in said("--replicas", "0")


def test_a_replica_that_is_down_is_no_hindrance(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(OWNER):
        postgres_cluster.standbys[0].kill()
        text = said()
        assert "replica1 does not answer" in text
        assert "replica2 has it." in text


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--database", "nowhere"), "DATABASES has no 'nowhere'"),
        (("--database", "replica1"), "'replica1' is a replica of 'default'"),
    ],
)
def test_no_primary(cluster: Cluster, words: tuple[str, ...], problem: str) -> None:
    with pytest.raises(CommandError, match=problem) as raised:
        said(*words)
    assert raised.value.returncode == 2
