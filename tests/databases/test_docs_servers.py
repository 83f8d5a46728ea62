"""What the documentation tells database servers, and the site's operator, is carried out."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from outgrow.databases.cluster import Cluster
from tests.databases.sites import aliases
from tests.live.mariadb import MariaDBCluster, _program
from tests.live.replicas import PostgresCluster
from tests.test_docs import blocks
from tests.test_docs_run import commands


def statements(server: str) -> list[str]:
    """The statements of all blocks for this kind of server, which their first line says."""
    found: list[str] = []
    for block in blocks("sql"):
        head, _, body = block.values[0].partition("\n")  # type: ignore[attr-defined]
        assert head in HEADS, head
        if head == f"-- {server}":
            found += [one.strip() for one in body.split(";") if one.strip()]
    assert found, server
    return found


HEADS = {f"-- {kind}, primary" for kind in ("PostgreSQL", "MariaDB")} | {
    "-- PostgreSQL, standby",
    "-- MariaDB, replica",
}


def test_postgresql_does_what_the_page_says(postgres_cluster: PostgresCluster) -> None:
    primary, standby = postgres_cluster.primary, postgres_cluster.standbys[0]
    said = statements("PostgreSQL, primary")
    try:
        for statement in said:
            primary.execute(statement)
        postgres_cluster.wait_caught_up(standby)
        for statement in statements("PostgreSQL, standby"):
            standby.execute(statement)
        assert standby.value("SHOW max_standby_streaming_delay") == "5s"
        # The user of the replicas may read all, can tell its timeline, and writes nothing.
        assert standby.value("SELECT received_tli FROM pg_stat_wal_receiver", user="site_reader")
        assert primary.value("SHOW transaction_read_only", user="site_reader") == "on"
    finally:
        for server, kind in ((primary, "primary"), (standby, "standby")):
            for statement in statements(f"PostgreSQL, {kind}"):
                if match := re.match(r"ALTER SYSTEM SET (\w+)", statement):
                    server.execute(f"ALTER SYSTEM RESET {match[1]}")
            server.execute("SELECT pg_reload_conf()")
        for (slot,) in primary.execute("SELECT slot_name FROM pg_replication_slots"):
            if any(slot in statement for statement in said):
                primary.execute("SELECT pg_drop_replication_slot(%s)", slot)
        primary.execute("DROP ROLE IF EXISTS replicator, site_reader")


def test_the_primary_s_alias_follows_a_fail_over(
    postgres_cluster: PostgresCluster, django_db_blocker: Any
) -> None:
    """The settings of the page, with two servers of this machine for its three."""
    (text,) = [one for (one,) in map(_values, blocks("python")) if "target_session_attrs" in one]
    names: dict[str, Any] = {}
    exec(compile(text, "documentation", "exec"), names)
    entry = names["DATABASES"]["default"]
    first, second = postgres_cluster.primary, postgres_cluster.standbys[0]
    own = first.database(direct=True)
    entry |= {"HOST": "127.0.0.1,127.0.0.1", "PORT": f"{first.port},{second.port}"}
    entry |= {"NAME": own["NAME"], "USER": own["USER"]}
    with django_db_blocker.unblock(), aliases({"moving": entry}):
        connection = connections["moving"]
        assert _port(connection) == first.port
        first.kill()
        postgres_cluster.promote(second)
        # As at the beginning of the next request: its health is checked.
        connection.health_check_done = False
        connection.close_if_unusable_or_obsolete()
        assert _port(connection) == second.port
        connection.close()


def _port(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inet_server_port() WHERE NOT pg_is_in_recovery()")
        return int(cursor.fetchone()[0])


def _values(block: Any) -> Any:
    return block.values


@pytest.fixture
def mended(mariadb_cluster: MariaDBCluster) -> Iterator[MariaDBCluster]:
    """A MariaDB with a replica, which is made anew behind the test."""
    yield mariadb_cluster
    mariadb_cluster.primary.execute("DROP USER IF EXISTS replicator, site_reader")
    mariadb_cluster.rebuild(mariadb_cluster.replicas[0])


def test_mariadb_does_what_the_page_says(mended: MariaDBCluster) -> None:
    (replica,) = mended.replicas
    for statement in statements("MariaDB, primary"):
        mended.primary.execute(statement)
    for statement in statements("MariaDB, replica"):
        replica.execute(statement)


FILES = [one for one in blocks("ini") if one.values[0].startswith("[mariadbd]")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", FILES)
def test_mariadb_takes_the_files_of_the_page(
    text: str, tmp_path: Path, mariadb_cluster_servers: MariaDBCluster
) -> None:
    path = tmp_path / "own.cnf"
    path.write_text(text)
    # It reads the file, and tells what each of its variables is.
    words = [_program("mariadbd"), f"--defaults-file={path}", "--verbose", "--help"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    values = dict(re.findall(r"^([a-z-]+) +(\S+)$", done.stdout, re.MULTILINE))
    for name, value in re.findall(r"^(\w+) = (\S+)$", text, re.MULTILINE):
        found = values[name.replace("_", "-")]
        assert found == value or (value == "1" and found in {"TRUE", "ON"}), name


@pytest.mark.parametrize("words", commands("python", "manage.py", "outgrow", "databases"))
def test_databases_commands_end_well(words: list[str], cluster: Cluster) -> None:
    out = io.StringIO()
    call_command("outgrow", "databases", *words, stdout=out)
    assert "replica1" in out.getvalue()


@pytest.mark.parametrize("words", commands("python", "manage.py", "check"))
def test_the_servers_are_checked(words: list[str], cluster: Cluster) -> None:
    out = io.StringIO()
    call_command("check", *words, stdout=out, stderr=out)
    assert "no issues" in out.getvalue()
