"""Promises D1 to D5 on a real MariaDB with a replica that follows by GTID."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.checks import run_checks
from django.db import OperationalError, connections
from django.test import Client

from outgrow.databases import is_read_only, server_states
from outgrow.databases.cluster import Cluster
from outgrow.databases.route import REPLICA, Route, active
from outgrow.errors import WriteOnReplica
from tests.databases.sites import everybody_seen, until_unused
from tests.live.databases import PATIENCE, installed
from tests.live.mariadb import OWNER, MariaDBCluster
from tests.live.processes import wait_until

Sites = Callable[..., AbstractContextManager[Cluster]]


def ask(client: Client, path: str = "/list/") -> dict[str, Any]:
    response = client.get(path)
    assert response.status_code == 200
    return dict(response.json())


def write(client: Client, name: str) -> None:
    assert client.post(f"/write/?name={name}").status_code == 200


@pytest.mark.usefixtures("protocol")
def test_with_replay_stopped_a_writer_sees_what_he_wrote(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    with mariadb_site():
        (replica,) = mariadb_cluster.replicas
        replica.pause_replay()
        writer, other = Client(), Client()
        for number in range(10):
            write(writer, f"n{number}")
            assert ask(writer)["names"][-1] == f"n{number}"
        assert ask(other) == {"db": "replica1", "names": []}
        replica.resume_replay()
        mariadb_cluster.wait_caught_up()
        answer = ask(writer)
        assert answer["db"] == "replica1"
        assert len(answer["names"]) == 10


@pytest.mark.usefixtures("protocol")
def test_when_behind_wait(mariadb_site: Sites, mariadb_cluster: MariaDBCluster) -> None:
    """The server itself waits: MASTER_GTID_WAIT."""
    with mariadb_site(when_behind="wait", wait=10, pin_for=120):
        (replica,) = mariadb_cluster.replicas
        replica.pause_replay()
        writer = Client()
        write(writer, "a")
        timer = threading.Timer(0.3, replica.resume_replay)
        timer.start()
        assert ask(writer) == {"db": "replica1", "names": ["a"]}
        timer.join()


@pytest.mark.usefixtures("protocol")
def test_a_replica_is_killed_and_comes_back(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    with mariadb_site() as cluster:
        client = Client()
        assert ask(client)["db"] == "replica1"
        mariadb_cluster.replicas[0].kill()
        for _ in range(5):
            assert ask(client)["db"] == "default"
        mariadb_cluster.replicas[0].start()
        everybody_seen(cluster)
        assert ask(client)["db"] == "replica1"


def test_a_connection_that_dies_between_two_queries(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    with mariadb_site(), active(Route(REPLICA)) as route:
        list(Group.objects.all())
        assert route.leg("default").server == "replica1"
        mariadb_cluster.replicas[0].proxy.refuse()
        assert list(Group.objects.all()) == []
        assert route.leg("default").server == "default"


@pytest.mark.usefixtures("protocol")
def test_a_frozen_replica_costs_one_read_timeout(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    options = {"read_timeout": 1, "downtime": 60, "check_every": 2.5, "pin_for": 120}
    with mariadb_site(**options) as cluster:
        client = Client()
        ask(client)
        mariadb_cluster.replicas[0].freeze()
        begin = cluster.clock()
        assert ask(client)["db"] == "default"
        assert cluster.clock() - begin < 5
        assert ask(client)["db"] == "default"


def test_a_query_that_is_slow_is_waited_for_and_costs_its_replica_nothing(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    options = {"read_timeout": 2, "downtime": 60, "check_every": 60, "max_lag": 120}
    with mariadb_site(**options, pin_for=300) as cluster:
        write(Client(), "a")
        mariadb_cluster.wait_caught_up()
        with active(Route(REPLICA)) as route:
            (row,) = Group.objects.raw("SELECT id, name, SLEEP(5) FROM auth_group")
            assert row.name == "a"
            assert route.leg("default").server == "replica1"
        assert all(map(cluster.health.is_up, cluster.servers))


@pytest.mark.usefixtures("protocol")
def test_a_promoted_replica_serves_nobody(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    """Its history is another one, and its numbers may be higher than the primary's."""
    with mariadb_site() as cluster:
        (replica,) = mariadb_cluster.replicas
        mariadb_cluster.promote(replica)
        name = replica.database()["NAME"]
        for number in range(5):
            replica.execute(f"INSERT INTO {name}.auth_group (name) VALUES ('other {number}')")
        until_unused(cluster, "replica1")
        assert server_states()[1].failure == "it can be written to, so it is no replica"
        for _ in range(10):
            assert ask(Client()) == {"db": "default", "names": []}
        write(writer := Client(), "a")
        assert ask(writer)["names"] == ["a"]


def test_a_network_that_is_cut_in_a_read_costs_nobody_anything(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster, protocol: str
) -> None:
    with mariadb_site():
        client = Client()
        wait_until(lambda: ask(client)["db"] == "replica1", "the replica does not serve")
        for _ in range(5):
            mariadb_cluster.replicas[0].proxy.cut()
            found = ask(client)["db"]
            # Of the others that are in flight over ASGI one may have been cut off twice, which
            # takes a replica out: the next cut comes when it serves again.
            assert found == "replica1" or protocol == "asgi"
            wait_until(lambda: ask(client)["db"] == "replica1", "the replica does not serve again")


@pytest.mark.usefixtures("protocol")
def test_the_primary_is_gone(mariadb_site: Sites, mariadb_cluster: MariaDBCluster) -> None:
    with mariadb_site():
        write(Client(), "a")
        mariadb_cluster.wait_caught_up()
        mariadb_cluster.primary.kill()
        wait_until(is_read_only, "nobody has seen it", seconds=PATIENCE)
        assert ask(Client()) == {"db": "replica1", "names": ["a"]}
        with pytest.raises(OperationalError):
            Client().post("/write/?name=b")


def test_no_write_runs_on_a_replica(mariadb_site: Sites, mariadb_cluster: MariaDBCluster) -> None:
    """Promise D4: the guard refuses it, and the session would, too."""
    mariadb_cluster.replicas[0].set("read_only", 0)
    with mariadb_site(fresh=False):
        with pytest.raises(WriteOnReplica):
            Group.objects.using("replica1").create(name="x")
        connections["replica1"].close()
        # A user who may write, on a server that takes writes: the session does not.
        connections["replica1"].settings_dict["USER"] = OWNER
        connection = connections["replica1"]
        connection.ensure_connection()
        with (
            closing(connection.create_cursor()) as cursor,
            pytest.raises(Exception, match=r"(?i)read.only"),
        ):
            cursor.execute("INSERT INTO auth_group (name) VALUES ('x')")


@pytest.mark.usefixtures("protocol")
def test_a_replica_without_gtids_serves_nobody(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    """It follows by file and offset and tells no position: how old it is, nobody knows."""
    (replica,) = mariadb_cluster.replicas
    replica.execute("STOP SLAVE")
    replica.execute("CHANGE MASTER TO MASTER_USE_GTID=no")
    replica.execute("SET GLOBAL gtid_slave_pos = ''")
    with mariadb_site(fresh=False) as cluster:
        wait_until(lambda: cluster.knowledge.replica("replica1") is not None, "it was not seen")
        client = Client()
        for _ in range(3):
            assert ask(client)["db"] == "default"


@pytest.mark.usefixtures("protocol")
def test_a_read_request_adds_no_round_trip(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    with mariadb_site(read_timeout=600, check_every=50, max_lag=100, pin_for=300):
        client = Client()
        ask(client)
        primary, replica = (server.proxy for server in mariadb_cluster.servers)
        with primary.counted() as there, replica.counted() as here:
            for _ in range(20):
                ask(client)
        assert there.round_trips == 0
        assert here.round_trips == 20


def test_a_replica_with_filters_is_told(
    mariadb_site: Sites, mariadb_cluster: MariaDBCluster
) -> None:
    (replica,) = mariadb_cluster.replicas
    name = str(replica.database()["NAME"])
    concern = {
        "replicate_do_db": "elsewhere",
        "replicate_ignore_db": f"mysql,{name}",
        "replicate_ignore_table": f"mysql.user, {name}.auth_group",
        "replicate_wild_do_table": "else%.%",
        "replicate_wild_ignore_table": f"{name[:2]}%.%",
    }
    harmless = {
        "replicate_ignore_db": "mysql",
        "replicate_ignore_table": "mysql.rds_heartbeat",
        "replicate_wild_ignore_table": r"mysql.%,other\_%.%",
    }
    cases = [(one, True) for one in concern.items()] + [(one, False) for one in harmless.items()]
    with mariadb_site():
        assert told() == []
        replica.execute("STOP SLAVE")
        try:
            for (variable, value), is_told in cases:
                replica.execute(f"SET GLOBAL {variable} = %s", value)
                assert told() == ["outgrow.E110"] * is_told, (variable, value)
                replica.execute(f"SET GLOBAL {variable} = ''")
            replica.execute("RESET SLAVE ALL")
            replica.execute(
                f"CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_USER = 'root', MASTER_PORT = "
                f"{mariadb_cluster.primary.port}, IGNORE_DOMAIN_IDS = (7)"
            )
            kept = {"CONN_MAX_AGE": None, "TEST": {"MIRROR": "default"}}
            with installed({"replica1": replica.database(user="root", **kept)}):
                assert told() == ["outgrow.E110"]
            assert told() == []  # whoever may not see the status is told nothing of domains
            replica.execute("SET GLOBAL gtid_slave_pos = ''")
            assert told() == ["outgrow.W111"]
        finally:
            mariadb_cluster.rebuild(replica)


def told() -> list[str]:
    """What the live checks say."""
    return [str(one.id) for one in run_checks(databases=["replica1"]) if "outgrow" in str(one.id)]
