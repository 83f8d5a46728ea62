"""What a hostile reader broke once: threads, cursors, cookies, servers that come back older."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.core.checks import run_checks
from django.db import OperationalError, connections, router, transaction
from django.test import Client, RequestFactory, override_settings

from outgrow.databases import middleware, using_primary, using_replica
from outgrow.databases.cluster import Cluster
from outgrow.databases.route import PIN, PRIMARY, REPLICA, Route, active
from outgrow.databases.watchdog import Watchdog
from tests.databases.sites import site
from tests.databases.test_promises_postgres import ask, settle, write
from tests.live.databases import PATIENCE
from tests.live.processes import wait_until
from tests.live.replicas import PLAIN, PostgresCluster

REPLICAS = {"replica1", "replica2"}
Sites = Callable[..., AbstractContextManager[Cluster]]


def in_thread(function: Callable[[], Any]) -> Any:
    """Run it in another thread of the same request."""
    context = contextvars.copy_context()

    def run() -> Any:
        try:
            return context.run(function)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


# --- threads and connections


def test_a_thread_that_takes_anothers_number_has_its_own_transactions(cluster: Cluster) -> None:
    """Numbers of threads come again: what the one before knew says nothing."""

    def in_transaction() -> str:
        with transaction.atomic():
            return router.db_for_read(Group)

    with active(Route(REPLICA)):
        for _ in range(5):
            assert in_thread(lambda: router.db_for_read(Group)) in REPLICAS
            assert in_thread(in_transaction) == "default"


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.usefixtures("protocol")
def test_a_connection_that_is_opened_anew_is_asked_anew(
    postgres_site: Sites, postgres_cluster: PostgresCluster, elsewhere: bool
) -> None:
    """In the middle of a request, or in another thread of it: the server may be older now."""
    with postgres_site(weights={"replica1": 1, "replica2": 0}) as cluster:
        standby = postgres_cluster.standbys[0]
        postgres_cluster.primary.execute("CHECKPOINT")
        settle(postgres_cluster)
        standby.execute("CHECKPOINT")
        write(Client(), "a")
        settle(postgres_cluster)
        route = Route(REPLICA, {"default": middleware.written_now(cluster)})
        settle(postgres_cluster)
        with active(route):
            assert router.db_for_read(Group) == "replica1"
            connections["replica1"].close()
            standby.set("recovery_min_apply_delay", "1h")
            standby.kill()
            standby.start()
            wait_until(
                lambda: cluster.health.is_up(cluster.by_alias["replica1"]),
                "it stays down",
                seconds=PATIENCE,
            )

            def names() -> list[str]:
                return list(Group.objects.values_list("name", flat=True))

            assert (in_thread(names) if elsewhere else names()) == ["a"]


def test_a_connection_that_was_closed_and_its_server_is_gone(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site(), active(Route(REPLICA)):
        alias = Group.objects.all().db
        connections[alias].close()
        next(one for one in postgres_cluster.standbys if one.name == alias).proxy.refuse()
        assert Group.objects.count() == 0


@pytest.mark.usefixtures("protocol")
def test_a_kept_connection_that_was_cut_costs_its_server_nothing(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """A firewall forgets idle connections: the server behind is well."""
    with postgres_site(check_every=50, max_lag=100, pin_for=300, downtime=60) as cluster:
        client = Client()
        for _ in range(20):
            ask(client)
        for standby in postgres_cluster.standbys:
            standby.proxy.cut()
        assert {ask(client)["db"] for _ in range(20)} == REPLICAS
        assert all(cluster.health.is_up(one) for one in cluster.servers)


def test_to_be_connected_is_no_proof_of_health(cluster: Cluster) -> None:
    server = cluster.by_alias["replica1"]
    assert cluster.connect("replica1")
    cluster.failed("replica1", OperationalError("frozen"))
    assert cluster.connect("replica1")
    assert not cluster.health.is_up(server)


# --- servers


def test_a_cursor_of_the_server_is_not_waited_for_for_ever(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    options = {"check_every": 5, "max_lag": 60, "pin_for": 100, "read_timeout": 1}
    with postgres_site(**options), active(Route(REPLICA)):
        Group.objects.bulk_create([Group(name=f"g{number:04}") for number in range(3000)])
        settle(postgres_cluster)
        rows = Group.objects.using("default").order_by("name").iterator(chunk_size=100)
        assert next(rows).name == "g0000"
        with using_replica(stale=True):
            rows = Group.objects.order_by("name").iterator(chunk_size=100)
            assert next(rows).name == "g0000"
            for standby in postgres_cluster.standbys:
                standby.proxy.freeze()
            begin = time.monotonic()
            # Some of it was used: nobody else could go on with it.
            with pytest.raises(OperationalError):
                list(rows)
            assert time.monotonic() - begin < 10


@pytest.mark.usefixtures("protocol")
def test_that_the_watch_is_refused_makes_no_replica_younger(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """The role has no connection left, while the site's own goes on writing."""
    primary = postgres_cluster.primary
    with postgres_site(check_every=0.1, max_lag=0.5, pin_for=6) as cluster:
        client = Client()
        write(client, "first")
        settle(postgres_cluster)
        for standby in postgres_cluster.standbys:
            standby.pause_replay()
        primary.execute(f"ALTER ROLE {PLAIN} CONNECTION LIMIT 1")
        try:
            primary.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE usename = '{PLAIN}' AND application_name = 'outgrow watch'"
            )
            write(client, "second")
            wait_until(
                lambda: (
                    not any(
                        cluster.knowledge.is_fresh(alias, cluster.clock()) for alias in REPLICAS
                    )
                ),
                "a replica counts as fresh",
                seconds=PATIENCE,
            )
            assert ask(client)["names"] == ["first", "second"]
        finally:
            primary.execute(f"ALTER ROLE {PLAIN} CONNECTION LIMIT -1")


def test_a_server_that_is_no_primary_any_more_is_not_believed(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """The position of a replica is behind what was written: it must not go to a client."""
    with postgres_site() as cluster:
        connection = connections["default"]
        connection.close()
        connection.settings_dict["PORT"] = str(postgres_cluster.standbys[0].port)
        assert middleware.written_now(cluster) == PIN
        connection.close()


def test_while_the_primary_is_frozen_replicas_go_on_serving(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    options = {"check_every": 1, "max_lag": 4, "pin_for": 60, "read_timeout": 4}
    with postgres_site(**options) as cluster:
        postgres_cluster.primary.proxy.freeze()
        end = cluster.clock() + 9
        while cluster.clock() < end:
            with active(Route(REPLICA)):
                assert router.db_for_read(Group) in REPLICAS
            time.sleep(0.05)  # the pace of requests


def test_a_replica_that_is_the_primary_is_told(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    with postgres_site():
        connections["replica1"].close()
        settings = connections["replica1"].settings_dict
        settings["PORT"] = str(postgres_cluster.primary.port)
        settings["USER"] = PLAIN
        found = [one.id for one in run_checks(databases=["replica1"])]
        assert "outgrow.E109" in found


def test_what_conflicts_everywhere_ends_at_the_primary(postgres_site: Sites) -> None:
    """A table that is locked away by replay on all replicas: each is tried once."""
    tried = []

    def cancel(*_: Any) -> Any:
        tried.append(1)
        cause = psycopg.errors.SerializationFailure("conflict with recovery")
        raise OperationalError("conflict with recovery") from cause

    with postgres_site() as cluster, contextlib.ExitStack() as stack:
        for alias in REPLICAS:
            stack.enter_context(connections[alias].execute_wrapper(cancel))
        with active(Route(REPLICA)) as route:
            assert list(Group.objects.all()) == []
            assert route.leg("default").server == "default"
        assert len(tried) == 2
        assert all(cluster.health.is_up(one) for one in cluster.servers)


# --- clients


@pytest.mark.usefixtures("protocol")
def test_names_of_cookies_break_no_write(cluster: Cluster) -> None:
    for name in ("outgrow-a[b]", "outgrow-consent", "outgrow-"):
        response = Client().post("/write/?name=" + name[-3:], headers={"cookie": f"{name}=1"})
        assert response.status_code == 200
        assert name not in response.cookies
        assert len([one for one in response.cookies if one.startswith("outgrow-")]) == 1


@pytest.mark.usefixtures("protocol")
def test_a_position_of_now_replaces_what_a_client_brought(cluster: Cluster) -> None:
    """Or one bad moment would pin who goes on writing for ever."""
    client, request = Client(), RequestFactory().post("/")
    response = client.get("/list/")
    cookies = middleware.Cookies("outgrow")
    cookies.write(request, response, {"default": PIN}, 60, ())
    client.cookies.update(response.cookies)
    assert client.get("/list/").json()["db"] == "default"
    client.post("/write/?name=a")
    assert client.get("/list/").json()["db"] in REPLICAS


def test_reports_may_be_behind_for_who_wrote(cluster: Cluster) -> None:
    with active(Route(REPLICA, {"default": PIN})):
        assert router.db_for_read(Group) == "default"
        with using_replica(stale=True):
            assert router.db_for_read(Group) in REPLICAS
        assert router.db_for_read(Group) == "default"


# --- Django


def test_a_generator_that_is_left_behind_ends_its_own_block(cluster: Cluster) -> None:
    def parts() -> Any:
        with using_replica():
            yield

    with active(Route(PRIMARY)):
        left = parts()
        next(left)
        with using_primary():
            left.close()
            assert router.db_for_read(Group) == "default"
        assert router.db_for_read(Group) == "default"


def test_a_function_that_gives_a_coroutine(cluster: Cluster) -> None:
    async def inner() -> str:
        return await asyncio.to_thread(lambda: router.db_for_read(Group))

    @using_primary
    def outer() -> Any:
        return inner()

    async def use() -> str:
        with active(Route(REPLICA)):
            return str(await outer())

    assert async_to_sync(use)() == "default"


@pytest.mark.usefixtures("protocol")
def test_views_outside_of_transactions_may_write_when_they_read(
    sqlite_databases: dict[str, dict[str, Any]],
) -> None:
    """`non_atomic_requests`: nobody promised them a transaction."""
    sqlite_databases["default"]["ATOMIC_REQUESTS"] = True
    with site(sqlite_databases):
        assert Client().get("/not-atomic/?name=a").status_code == 200


@pytest.mark.usefixtures("protocol")
def test_settings_that_are_overridden_in_a_test(cluster: Cluster) -> None:
    client = Client()
    client.get("/list/")
    with override_settings(OUTGROW={}):
        assert client.post("/write/?name=a").status_code == 200
    assert client.get("/list/").json()["names"] == ["a"]


def test_a_save_with_an_alias_asks_no_router(cluster: Cluster) -> None:
    """Documented: then Django loads what is missing, from the replica, and writes all of it."""
    User.objects.create(username="u")
    with active(Route(REPLICA)):
        user = User.objects.only("username").get()
        user.username = "v"
        user.save()
        assert user._state.db == "default"


# --- the watchdog


class Connection:
    """What the watchdog sees of a connection of Django's."""

    def __init__(self, raw: Any) -> None:
        self.connection = raw


class Interrupted:
    """A driver's connection that can be interrupted, as sqlite3's."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def interrupt(self) -> None:
        self.event.set()


def test_the_watchdog_outlives_connections_that_are_closed() -> None:
    class Closed:
        def fileno(self) -> int:
            raise psycopg.OperationalError("the connection is closed")

    dog = Watchdog()
    with dog.limit(Connection(Closed()), 0.05) as slot:
        wait_until(lambda: slot.fired, "it was not looked at")
    late = Connection(Interrupted())
    with dog.limit(late, 0.05):
        assert late.connection.event.wait(PATIENCE)


@pytest.mark.usefixtures("protocol")
def test_the_kernel_looks_after_the_connections_of_replicas(
    postgres_site: Sites, postgres_cluster: PostgresCluster
) -> None:
    """One whose path alone is dead ends within `read_timeout`, whatever the server's pulse."""
    with postgres_site(read_timeout=7) as cluster, active(Route(REPLICA)):
        list(User.objects.all())
        [alias] = [one for one, reads in cluster.reads.items() if reads]
        number = connections[alias].connection.fileno()
        with socket.socket(fileno=os.dup(number)) as one:
            assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000


def test_limits_within_limits() -> None:
    dog, late = Watchdog(), Connection(Interrupted())
    with dog.limit(late, 0.3):
        with dog.limit(late, 60):
            pass
        assert late.connection.event.wait(PATIENCE)


def test_the_watchdog_wakes_again() -> None:
    dog = Watchdog()
    for _ in range(3):
        late = Connection(Interrupted())
        with dog.limit(late, 0.05):
            assert late.connection.event.wait(PATIENCE)
        wait_until(lambda: not dog._busy.is_set(), "it does not rest")
