"""Promises D1 to D5 on a real PostgreSQL with two standbys: paused, killed, frozen, cut, promoted.

Every test breaks servers. Who served a request is seen in its answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import OperationalError, connections
from django.test import Client

from outgrow.databases import is_read_only
from outgrow.databases.cluster import Cluster
from outgrow.databases.route import REPLICA, Route, active
from tests.databases.sites import everybody_seen, until_unused
from tests.live.databases import PATIENCE
from tests.live.processes import wait_until
from tests.live.replicas import PostgresCluster

REPLICAS = {"replica1", "replica2"}
Sites = Callable[..., AbstractContextManager[Cluster]]


def ask(client: Client, path: str = "/list/") -> dict[str, Any]:
    response = client.get(path)
    assert response.status_code == 200
    return dict(response.json())


def write(client: Client, name: str) -> None:
    assert client.post(f"/write/?name={name}").status_code == 200


def served(client: Client, times: int = 20, path: str = "/list/") -> set[str]:
    return {ask(client, path)["db"] for _ in range(times)}


def settle(cluster: PostgresCluster, *standbys: Any) -> None:
    """Wait until the standbys have replayed all that the primary has in its log.

    Reading may write there, too (pages are tidied), and that is flushed by the next commit.
    """
    cluster.primary.execute("SELECT pg_logical_emit_message(true, 'tests', 'settle')")
    cluster.wait_caught_up(*standbys)


# --- D1


@pytest.mark.usefixtures("protocol")
def test_with_replay_paused_everywhere_a_writer_sees_what_he_wrote(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site() as cluster:
        for standby in postgres_cluster.standbys:
            standby.pause_replay()
        writer, other = Client(), Client()
        for number in range(20):
            name = f"n{number:02}"
            write(writer, name)
            answer = ask(writer)
            assert answer["names"][-1] == name
            assert answer["db"] == "default"
        # Who wrote nothing is served by a replica, which is a moment behind.
        answer = ask(other)
        assert answer["db"] in REPLICAS
        assert answer["names"] == []
        for standby in postgres_cluster.standbys:
            standby.resume_replay()
        settle(postgres_cluster)
        assert len(ask(writer)["names"]) == 20
        assert served(writer) <= REPLICAS
        assert cluster.options.when_behind == "primary"


@pytest.mark.usefixtures("protocol")
def test_the_replica_that_has_it_serves(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site():
        first, second = postgres_cluster.standbys
        first.pause_replay()
        writer = Client()
        write(writer, "a")
        settle(postgres_cluster, second)
        assert served(writer) == {"replica2"}
        assert ask(writer)["names"] == ["a"]


@pytest.mark.parametrize("path", ["/fail/?name=a", "/session/"])
@pytest.mark.usefixtures("protocol")
def test_any_write_counts_whatever_became_of_the_response(
    postgres_site: Sites, postgres_cluster: PostgresCluster, path: str
) -> None:
    with postgres_site():
        for standby in postgres_cluster.standbys:
            standby.pause_replay()
        client = Client(raise_request_exception=False)
        client.get(path)
        assert served(client) == {"default"}
        assert ask(client, "/session/read/")["seen"] == (path == "/session/")


@pytest.mark.usefixtures("protocol")
def test_responses_of_parallel_writes_in_any_order(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """Each write leaves a cookie of its own and takes away only those that it has read."""
    with postgres_site():
        first, second = Client(), Client()
        write(first, "a")
        early = dict(first.cookies)
        second.cookies.update(early)
        for standby in postgres_cluster.standbys:
            standby.pause_replay()
        write(first, "b")
        write(second, "c")  # at the same time, with the same cookies
        browser = Client()
        # The browser gets the answer of the second write first, then that of the first.
        for response_of in (second, first):
            for name, morsel in response_of.cookies.items():
                if morsel["max-age"] == 0:
                    browser.cookies.pop(name, None)
                else:
                    browser.cookies[name] = morsel.value
        assert ask(browser)["names"] == ["a", "b", "c"]
        write(browser, "d")
        alive = [one for one in browser.cookies.values() if one["max-age"] != 0]
        assert len(alive) == 1


@pytest.mark.usefixtures("protocol")
def test_a_standby_that_comes_back_older_is_not_believed(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """What an incarnation has replayed says nothing of the next one."""
    with postgres_site(weights={"replica1": 1, "replica2": 0}) as cluster:
        standby = postgres_cluster.standbys[0]
        # From here it will begin again after a crash.
        postgres_cluster.primary.execute("CHECKPOINT")
        settle(postgres_cluster)
        standby.execute("CHECKPOINT")
        writer = Client()
        write(writer, "a")
        settle(postgres_cluster)
        assert served(writer, 3) == {"replica1"}
        standby.set("recovery_min_apply_delay", "1h")
        standby.kill()
        standby.start()
        # It may be connected to before it has replayed again what it had before.
        wait_until(
            lambda: cluster.health.is_up(cluster.by_alias["replica1"]),
            "it stays down",
            seconds=PATIENCE,
        )
        for _ in range(20):
            assert ask(writer)["names"] == ["a"]


@pytest.mark.usefixtures("protocol")
def test_when_behind_wait(postgres_site: Sites, postgres_cluster: PostgresCluster) -> None:
    with postgres_site(when_behind="wait", wait=10, pin_for=120):
        for standby in postgres_cluster.standbys:
            standby.set("recovery_min_apply_delay", "200ms")
        writer = Client()
        write(writer, "a")
        answer = ask(writer)
        assert answer["names"] == ["a"]
        assert answer["db"] in REPLICAS


@pytest.mark.usefixtures("protocol")
def test_when_behind_stale(postgres_site: Sites, postgres_cluster: PostgresCluster) -> None:
    with postgres_site(when_behind="stale"):
        for standby in postgres_cluster.standbys:
            standby.pause_replay()
        writer = Client()
        write(writer, "a")
        response = writer.get("/list/")
        assert response.json()["db"] in REPLICAS
        assert response.json()["names"] == []
        assert response["Outgrow-Stale"] == "default"
        assert "Outgrow-Stale" not in Client().get("/list/")


@pytest.mark.usefixtures("protocol")
def test_after_a_fail_over_the_primary_serves_who_wrote_before_it(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """Another timeline: positions of before can't be compared with those of after."""
    primary, (first, second) = postgres_cluster.primary, postgres_cluster.standbys
    with postgres_site() as cluster, ExitStack() as stack:
        writer = Client()
        write(writer, "a")
        settle(postgres_cluster)
        before = cluster.knowledge.primary.sighting.incarnation
        primary.kill()
        postgres_cluster.promote(first)
        postgres_cluster.follow(second, first)
        stack.enter_context(leads_to(primary, first))
        primary.proxy.cut()
        wait_until(
            lambda: (
                not is_read_only()
                and cluster.knowledge.primary.sighting.incarnation != before
                and not cluster.knowledge.is_fresh("replica2", cluster.clock())
            ),
            "nobody has seen the new primary",
            seconds=PATIENCE,
        )
        connections["default"].close()
        assert ask(writer) == {"db": "default", "names": ["a"]}
        write(writer, "b")
        assert ask(writer)["names"] == ["a", "b"]
        # The other standby knows the new timeline for sure when it has a restartpoint there.
        first.execute("CHECKPOINT")
        postgres_cluster.wait_caught_up(second, source=first)
        second.execute("CHECKPOINT")
        wait_until(
            lambda: cluster.knowledge.is_fresh("replica2", cluster.clock()),
            "the standby of the new primary is not used",
            seconds=PATIENCE,
        )
        answer = ask(Client())
        assert answer["db"] in REPLICAS
        assert answer["names"] == ["a", "b"]


@contextmanager
def leads_to(server: Any, other: Any) -> Iterator[None]:
    """The address of one server leads to another, as libpq would find it if it had both."""
    server.proxy.target, before = other.port, server.port
    try:
        yield
    finally:
        server.proxy.target = before


@pytest.mark.usefixtures("protocol")
def test_a_promoted_standby_serves_nobody(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site() as cluster:
        first, _ = postgres_cluster.standbys
        postgres_cluster.promote(first)
        first.execute("INSERT INTO auth_group (name) VALUES ('of another history')")
        until_unused(cluster, "replica1")
        for _ in range(20):
            answer = ask(Client())
            assert answer == {"db": "replica2", "names": []}
        write(writer := Client(), "a")
        assert ask(writer)["names"] == ["a"]


# --- D3


@pytest.mark.usefixtures("protocol")
def test_a_standby_is_killed_under_load(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site() as cluster:
        client = Client()
        assert served(client) == REPLICAS
        postgres_cluster.standbys[0].kill()
        assert served(client) == {"replica2"}
        postgres_cluster.standbys[1].kill()
        assert served(client) == {"default"}
        for standby in postgres_cluster.standbys:
            standby.start()
        everybody_seen(cluster)
        assert served(client, 40) == REPLICAS


def test_a_connection_that_dies_between_two_queries(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(), active(Route(REPLICA)) as route:
        list(Group.objects.all())
        alias = route.leg("default").server
        server = next(one for one in postgres_cluster.standbys if one.name == alias)
        server.proxy.refuse()
        assert list(Group.objects.all()) == []
        assert route.leg("default").server in REPLICAS - {alias}


def test_a_long_result_is_read_elsewhere_before_its_first_row_only(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site():
        Group.objects.bulk_create([Group(name=f"g{number:04}") for number in range(5000)])
        settle(postgres_cluster)
        with active(Route(REPLICA)) as route:
            list(Group.objects.all()[:1])
            alias = route.leg("default").server
            server = next(one for one in postgres_cluster.standbys if one.name == alias)
            server.proxy.cut()
            # A cursor on the server, opened anew elsewhere.
            assert sum(1 for _ in Group.objects.iterator(chunk_size=100)) == 5000


@contextmanager
def took(*, less_than: float) -> Any:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < less_than


@pytest.mark.usefixtures("protocol")
def test_a_frozen_standby_costs_one_read_timeout(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """SIGSTOP: its kernel goes on taking what is sent, and nothing comes back."""
    with postgres_site(read_timeout=1, downtime=60, check_every=2.5, pin_for=120) as cluster:
        client = Client()
        served(client)
        frozen = postgres_cluster.standbys[0]
        frozen.freeze()
        with took(less_than=1 + 2 + 3):
            assert served(client) <= {"replica1", "replica2"}
        assert not cluster.health.is_up(cluster.by_alias["replica1"])
        assert served(client) == {"replica2"}


@pytest.mark.usefixtures("protocol")
def test_a_black_hole_costs_one_connect_timeout(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(read_timeout=1, downtime=60, check_every=2.5, pin_for=120) as cluster:
        for server in postgres_cluster.standbys:
            connections[server.name].close()
            connections[server.name].settings_dict["OPTIONS"]["connect_timeout"] = 2
        postgres_cluster.standbys[0].proxy.freeze()
        client = Client()
        with took(less_than=8):
            served(client)
        assert served(client) == {"replica2"}
        assert not cluster.health.is_up(cluster.by_alias["replica1"])


def test_a_query_that_is_slow_is_waited_for_and_costs_its_replica_nothing(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """It is told from a frozen server by what is seen of that one meanwhile."""
    options = {"read_timeout": 2, "downtime": 60, "check_every": 60, "max_lag": 120}
    with postgres_site(**options, pin_for=300) as cluster:
        write(Client(), "a")
        settle(postgres_cluster)
        with active(Route(REPLICA)) as route:
            (row,) = Group.objects.raw("SELECT id, name, pg_sleep(5)::text FROM auth_group")
            assert row.name == "a"
            assert route.leg("default").server in REPLICAS
        assert all(map(cluster.health.is_up, cluster.servers))


@pytest.mark.usefixtures("protocol")
def test_a_conflict_with_recovery_is_read_elsewhere(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site():
        for standby in postgres_cluster.standbys:
            standby.set("max_standby_streaming_delay", "0")
        write(Client(), "a")
        settle(postgres_cluster)
        with active(Route(REPLICA)) as route:
            list(Group.objects.all())
            alias = route.leg("default").server
            # An exclusive lock that is replayed cancels who reads.
            slow = "SELECT id, name, pg_sleep(20) FROM auth_group"
            timer = threading.Timer(
                1, postgres_cluster.primary.execute, ["TRUNCATE auth_group CASCADE"]
            )
            timer.start()
            with took(less_than=20):
                # Elsewhere it sleeps, too: by then the table is empty.
                assert list(Group.objects.raw(slow)) == []
            timer.join()
            assert route.leg("default").server != alias


def test_a_table_that_a_standby_does_not_have_yet(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """A migration has run on the primary, and its code is there."""
    with postgres_site():
        for standby in postgres_cluster.standbys:
            standby.pause_replay()
        postgres_cluster.primary.execute("CREATE TABLE fresh AS SELECT 1 AS id, 'x' AS name")
        postgres_cluster.primary.execute("GRANT ALL ON fresh TO PUBLIC")
        with active(Route(REPLICA)):
            (row,) = Group.objects.raw("SELECT id, name FROM fresh")
            assert row.name == "x"
        postgres_cluster.primary.execute("DROP TABLE fresh")


@pytest.mark.usefixtures("protocol")
def test_the_primary_is_gone(postgres_site: Sites, postgres_cluster: PostgresCluster) -> None:
    with postgres_site(max_lag=0.2, check_every=0.05) as cluster:
        client, writer = Client(), Client()
        write(writer, "a")
        settle(postgres_cluster)
        assert not is_read_only()
        postgres_cluster.primary.kill()
        wait_until(is_read_only, "nobody has seen it", seconds=PATIENCE)
        begin = cluster.clock()
        # Long after `max_lag`: nobody gets older while there is no primary.
        wait_until(lambda: cluster.clock() - begin > 0.5, "time stands still")
        assert served(client) <= REPLICAS
        # Who wrote is served by who has it.
        assert ask(writer)["names"] == ["a"]
        with pytest.raises(OperationalError):
            client.post("/write/?name=b")


@pytest.mark.usefixtures("protocol")
def test_a_paused_standby_on_a_quiet_site_is_behind(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(max_lag=2, check_every=0.25) as cluster:
        postgres_cluster.standbys[0].pause_replay()
        postgres_cluster.primary.execute("SELECT pg_switch_wal()")
        write(Client(), "a")
        until_unused(cluster, "replica1")
        assert "replica1" not in served(Client())
        # An idle primary is no lag.
        begin = cluster.clock()
        wait_until(lambda: cluster.clock() - begin > 3, "time stands still")
        wait_until(
            lambda: cluster.knowledge.is_fresh("replica2", cluster.clock()),
            "it counts as behind",
            seconds=PATIENCE,
        )


# --- D5


@pytest.mark.usefixtures("protocol")
def test_a_read_request_adds_no_round_trip(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(read_timeout=600, check_every=50, max_lag=100, pin_for=300):
        client = Client()
        served(client)
        proxies = [server.proxy for server in postgres_cluster.servers]
        with (
            proxies[0].counted() as primary,
            proxies[1].counted() as one,
            proxies[2].counted() as two,
        ):
            for _ in range(20):
                ask(client)
        assert primary.round_trips == 0
        # One query a request.
        assert one.round_trips + two.round_trips == 20


@pytest.mark.usefixtures("protocol")
def test_a_request_that_wrote_adds_one_round_trip(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(read_timeout=600, check_every=50, max_lag=100, pin_for=300):
        client = Client()
        write(client, "a")
        ask(client)
        settle(postgres_cluster)
        proxies = [server.proxy for server in postgres_cluster.servers]
        with proxies[0].counted() as primary:
            write(client, "b")
        # The INSERT, the SELECT of the view, and the position.
        assert primary.round_trips == 3
        settle(postgres_cluster)
        served(client)
        with proxies[1].counted() as one, proxies[2].counted() as two:
            for _ in range(20):
                assert ask(client)["db"] in REPLICAS
        # It is known by now that both have replayed it.
        assert one.round_trips + two.round_trips == 20
