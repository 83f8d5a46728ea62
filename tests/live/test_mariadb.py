"""The fixtures with replicated databases do what they say."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, OperationalError, connections


def rows(server):
    return server.value("SELECT count(*) FROM site.things")


def insert(server):
    server.execute("INSERT INTO site.things VALUES (1)")


@pytest.fixture
def cluster(mariadb_aliases):
    mariadb_aliases.primary.execute("CREATE TABLE IF NOT EXISTS site.things (id int)")
    mariadb_aliases.primary.execute("DELETE FROM site.things")
    mariadb_aliases.wait_caught_up()
    return mariadb_aliases


def test_the_replica_follows_and_pauses(cluster):
    (replica,) = cluster.replicas
    replica.pause_replay()
    insert(cluster.primary)
    assert rows(replica) == 0
    replica.resume_replay()
    cluster.wait_caught_up()
    assert rows(replica) == 1


def test_aliases_lead_to_the_servers_through_their_proxies(cluster):
    replica = cluster.replicas[0]
    with connections["replica1"].cursor() as cursor, replica.proxy.counted() as count:
        cursor.execute("SELECT @@port")
        assert cursor.fetchone() == (replica.port,)
    assert (count.connections, count.round_trips) == (0, 1)


def test_a_replica_takes_no_writes_of_the_site(cluster):
    with pytest.raises(DatabaseError, match="read-only"):
        connections["replica1"].cursor().execute("INSERT INTO things VALUES (1)")
    connections["primary"].cursor().execute("INSERT INTO things VALUES (1)")
    with pytest.raises(OperationalError, match="denied"):
        connections["primary"].cursor().execute("DROP DATABASE mysql")


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_server_comes_back(cluster, index):
    server = cluster.servers[index]
    server.kill()
    assert not server.answers()
    server.start()
    insert(cluster.primary)
    cluster.wait_caught_up()
    assert rows(cluster.replicas[0]) == 1


def test_a_fail_over_and_back(cluster):
    (replica,) = cluster.replicas
    cluster.primary.kill()
    cluster.promote(replica)
    insert(replica)
    cluster.rebuild(cluster.primary, replica)
    assert cluster.primary.replicates
    cluster.mend()
    assert [server.replicates for server in cluster.servers] == [False, True]
    assert [rows(server) for server in cluster.servers] == [1, 1]


@pytest.mark.parametrize("what", ["promoted", "killed", "frozen", "paused", "set", "left open"])
def test_whatever_a_test_has_done(cluster, what):
    (replica,) = cluster.replicas
    if what == "promoted":
        cluster.promote(replica)
        insert(replica)
    elif what == "killed":
        for server in cluster.servers:
            server.kill()
    elif what == "frozen":
        for server in cluster.servers:
            server.freeze()
            server.proxy.freeze()
    elif what == "paused":
        replica.pause_replay()
    elif what == "set":
        replica.set("lock_wait_timeout", 7)
        cluster.primary.set("read_only", 1)
    else:
        connection = connections["primary"]
        connection.set_autocommit(False)
        connection.cursor().execute("LOCK TABLES things WRITE")


def test_is_whole_for_the_next(cluster):
    assert [rows(server) for server in cluster.servers] == [0, 0]
    assert [server.replicates for server in cluster.servers] == [False, True]
    assert [server.value("SELECT @@read_only") for server in cluster.servers] == [0, 1]
    assert cluster.replicas[0].value("SELECT @@GLOBAL.lock_wait_timeout") > 7
    for alias in ("primary", "replica1"):
        connections[alias].cursor().execute("SELECT 1")
