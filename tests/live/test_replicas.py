"""The fixtures with replicated databases do what they say."""

from __future__ import annotations

import psycopg
import pytest
from django.db import OperationalError, connections

from tests.live.processes import wait_until


def rows(server, sql="SELECT count(*) FROM things"):
    return server.value(sql)


@pytest.fixture
def cluster(postgres_aliases):
    postgres_aliases.primary.execute("CREATE TABLE IF NOT EXISTS things (id int)")
    postgres_aliases.primary.execute("TRUNCATE things")
    postgres_aliases.wait_caught_up()
    return postgres_aliases


def insert(server):
    server.execute("INSERT INTO things VALUES (1)")


def test_standbys_follow_and_pause_by_themselves(cluster):
    first, second = cluster.standbys
    first.pause_replay()
    insert(cluster.primary)
    cluster.wait_caught_up(second)
    assert [rows(first), rows(second)] == [0, 1]
    first.resume_replay()
    cluster.wait_caught_up()
    assert rows(first) == 1


def test_aliases_lead_to_the_servers_through_their_proxies(cluster):
    with connections["replica1"].cursor() as cursor, cluster.standbys[0].proxy.counted() as count:
        cursor.execute("SELECT inet_server_port()")
        assert cursor.fetchone() == (cluster.standbys[0].port,)
    assert (count.connections, count.round_trips) == (0, 1)


def test_a_killed_standby_comes_back(cluster):
    standby = cluster.standbys[0]
    standby.kill()
    with pytest.raises(psycopg.OperationalError):
        standby.execute("SELECT 1")
    insert(cluster.primary)
    standby.start()
    cluster.wait_caught_up()
    assert rows(standby) == 1


def test_a_killed_primary_comes_back_and_the_standbys_find_it(cluster):
    cluster.primary.kill()
    assert rows(cluster.standbys[1]) == 0
    cluster.primary.start()
    insert(cluster.primary)
    cluster.wait_caught_up()


def test_what_was_frozen_goes_on(cluster):
    standby = cluster.standbys[0]
    connections["replica1"].ensure_connection()
    standby.freeze()
    with connections["replica1"].cursor() as cursor:
        standby.thaw()
        cursor.execute("SELECT 1")
    standby.freeze()
    # The fixture thaws it


def test_a_crash_of_one_backend_ends_the_connections_of_all(cluster):
    standby = cluster.standbys[0]
    pid = standby.pid
    with standby.connect() as bystander:
        standby.crash_backend()
        with pytest.raises(psycopg.OperationalError):
            bystander.execute("SELECT 1")
    assert standby.pid == pid
    cluster.wait_caught_up()


def test_a_fail_over_and_back(cluster):
    first, second = cluster.standbys
    cluster.primary.kill()
    cluster.promote(first)
    cluster.follow(second, first)
    insert(first)
    cluster.wait_caught_up(second, source=first)
    assert rows(second) == 1
    cluster.rebuild(cluster.primary, first)
    assert cluster.primary.in_recovery
    cluster.mend()
    assert not cluster.primary.in_recovery
    assert [rows(server) for server in cluster.servers] == [1, 1, 1]


@pytest.mark.parametrize("what", ["promoted", "killed", "frozen", "paused", "set", "left open"])
def test_whatever_a_test_has_done(cluster, what):
    standby = cluster.standbys[0]
    if what == "promoted":
        cluster.promote(standby)
        insert(standby)
    elif what == "killed":
        for server in cluster.servers:
            server.kill()
    elif what == "frozen":
        for server in cluster.servers:
            server.freeze()
            server.proxy.freeze()
    elif what == "paused":
        standby.pause_replay()
    elif what == "set":
        standby.set("max_standby_streaming_delay", "100ms")
        assert standby.value("SHOW max_standby_streaming_delay") == "100ms"
    else:
        connection = connections["primary"]
        connection.set_autocommit(False)
        connection.cursor().execute("LOCK things")


def test_is_whole_for_the_next(cluster):
    first = cluster.standbys[0]
    assert [rows(server) for server in cluster.servers] == [0, 0, 0]
    assert [server.in_recovery for server in cluster.servers] == [False, True, True]
    assert first.value("SHOW max_standby_streaming_delay") == "30s"
    for alias in ("primary", "replica1", "replica2"):
        connections[alias].cursor().execute("SELECT 1")


def test_rights(cluster):
    for server in cluster.servers:
        assert server.value("SELECT count(*) FROM things", user="reader") == 0
        assert server.value("SELECT pg_has_role('plain', 'pg_monitor', 'member')") is False
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        cluster.primary.execute("INSERT INTO things VALUES (1)", user="reader")
    cluster.primary.execute("INSERT INTO things VALUES (1)", user="plain")


def test_a_proxy_refuses_cuts_and_freezes(cluster):
    proxy = cluster.standbys[0].proxy
    connection = connections["replica1"]
    connection.ensure_connection()
    proxy.cut()
    with pytest.raises(OperationalError):
        connection.cursor().execute("SELECT 1")
    connection.close()
    connection.cursor().execute("SELECT 1")
    proxy.refuse()
    with pytest.raises(OperationalError):
        connection.cursor().execute("SELECT 1")
    connection.close()
    with pytest.raises(OperationalError, match="refused"):
        connection.ensure_connection()
    proxy.freeze()
    connection.settings_dict["OPTIONS"]["connect_timeout"] = 2
    before = proxy.connections
    with pytest.raises(OperationalError, match="timeout"):
        connection.ensure_connection()
    wait_until(lambda: proxy.connections > before, "the frozen proxy did not accept")
    proxy.open()
    connection.ensure_connection()
