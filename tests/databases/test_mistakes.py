"""The system checks: what is wrong with the settings, and what the servers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.db import connections
from django.test import override_settings

from outgrow.databases.cluster import Cluster
from tests.databases.sites import MIDDLEWARE, ROUTER, site
from tests.live.replicas import PLAIN, PostgresCluster

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"


def ids(**more: Any) -> list[tuple[str, str]]:
    found = run_checks(**more)
    for one in found:
        assert one.hint or not one.id.startswith("outgrow.")
    return [(one.id.removeprefix("outgrow."), one.msg) for one in found if "outgrow" in one.id]


def numbers(**more: Any) -> list[str]:
    return [number for number, _ in ids(**more)]


def test_a_good_site_has_none(cluster: Cluster) -> None:
    assert ids() == []


def test_a_site_without_replicas_has_none() -> None:
    assert ids() == []


def test_mistakes_in_the_setting_are_all_told() -> None:
    wrong = {"REPLICATION": {"default": {"replicas": ["x", "default"], "wait": -1}}}
    with override_settings(OUTGROW=wrong, DATABASE_ROUTERS=[ROUTER], MIDDLEWARE=[MIDDLEWARE]):
        assert numbers() == ["E101"] * 3


@pytest.mark.parametrize(
    ("routers", "wanted"),
    [
        ([], ["E102"]),
        (["tests.databases.test_routing.Elsewhere", ROUTER], ["E102"]),
        (["outgrow.databases.router.ReplicationRouter"], []),
        ([ROUTER, "tests.databases.test_routing.Elsewhere"], []),
    ],
)
def test_the_router(cluster: Cluster, routers: list[str], wanted: list[str]) -> None:
    with override_settings(DATABASE_ROUTERS=routers):
        assert numbers() == wanted


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([SESSIONS], ["E103"]),
        ([SESSIONS, MIDDLEWARE], ["E103"]),
        ([MIDDLEWARE, SESSIONS], []),
        (["outgrow.databases.middleware.ReplicationMiddleware", SESSIONS], []),
    ],
)
def test_the_middleware(cluster: Cluster, names: list[str], wanted: list[str]) -> None:
    rest = [name for name in __import__("tests.settings").settings.MIDDLEWARE if name != SESSIONS]
    with override_settings(MIDDLEWARE=[*names, *rest]):
        assert numbers() == wanted


def test_replicas_are_mirrors_in_tests_and_keep_their_connections(
    sqlite_databases: dict[str, dict[str, Any]],
) -> None:
    del sqlite_databases["replica1"]["TEST"]
    del sqlite_databases["replica2"]["CONN_MAX_AGE"]
    with site(sqlite_databases):
        assert numbers() == ["E104", "W105"]


def test_a_pooler_that_lends_a_session_wants_no_connection_kept(
    sqlite_databases: dict[str, dict[str, Any]],
) -> None:
    del sqlite_databases["replica2"]["CONN_MAX_AGE"]
    for mode, wanted in (("session", []), ("transaction", ["E521", "W105"])):
        with site(sqlite_databases):
            pooled = {**settings.OUTGROW, "POOLED": {"replica2": mode}}
            with override_settings(OUTGROW=pooled):
                assert sorted(numbers()) == wanted


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"cache": "nowhere"}, ["E106"]),
        ({"cache": "local"}, ["E106"]),
        ({"cache": "redis"}, []),
        ({"cache": "redis", "key": "tests.nowhere.key"}, ["E106"]),
    ],
)
def test_the_cache(
    sqlite_databases: dict[str, dict[str, Any]], options: Any, wanted: list[str]
) -> None:
    backend = "django.core.cache.backends."
    caches = {
        "default": {"BACKEND": f"{backend}locmem.LocMemCache"},
        "local": {"BACKEND": f"{backend}locmem.LocMemCache"},
        "redis": {"BACKEND": f"{backend}redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"},
    }
    given = {"remember": "cache", "key": "tests.databases.test_remember.user_key", **options}
    with override_settings(CACHES=caches), site(sqlite_databases, **given):
        assert numbers() == wanted


# --- asking the servers

Sites = Callable[..., AbstractContextManager[Cluster]]
ALL = {"databases": ["default", "replica1", "replica2"]}


@pytest.fixture
def servers(postgres_site: Sites, postgres_cluster: PostgresCluster) -> Iterator[PostgresCluster]:
    with postgres_site():
        yield postgres_cluster


def test_good_servers(servers: PostgresCluster) -> None:
    assert ids(**ALL) == []


def test_a_server_that_is_away(servers: PostgresCluster) -> None:
    servers.standbys[0].kill()
    connections["replica1"].close()
    ((number, text),) = ids(**ALL)
    assert number == "W107"
    assert "'replica1' can't be asked" in text


def test_several_servers_behind_one_alias(servers: PostgresCluster) -> None:
    """A balancer: each connection leads to another one."""
    first, second = servers.standbys
    targets = iter([second.port, first.port] * 10)
    proxy = first.proxy
    plain = type(proxy).__dict__
    assert "target" not in plain

    class Balancer(type(proxy)):  # type: ignore[misc]
        @property
        def target(self) -> int:
            return next(targets)

        @target.setter
        def target(self, value: int) -> None:
            pass

    proxy.__class__ = Balancer
    try:
        found = ids(databases=["replica1"])
    finally:
        proxy.__class__ = Balancer.__bases__[0]
        proxy.target = first.port
    ((number, text),) = found
    assert number == "E108"
    assert text.count("127.0.0.1/") == 2


def test_a_replica_that_can_be_written_to(servers: PostgresCluster) -> None:
    servers.promote(servers.standbys[0])
    connections["replica1"].close()
    # As another program connects: our own sessions are read-only by themselves.
    connections["replica1"].settings_dict["OPTIONS"]["options"] = ""
    connections["replica1"].settings_dict["USER"] = PLAIN
    ((number, text),) = ids(databases=["replica1"])
    assert number == "E109"
    assert "'replica1' can be written to" in text
