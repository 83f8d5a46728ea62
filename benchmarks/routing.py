"""What reads on replicas cost: ours, django-replicated, django-multidb-router, and no router.

All run in this process, on one PostgreSQL primary and two standbys on loopback, through
Django's whole handler; the peers with the settings that their documentation gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib.auth.models import Group
from django.core.handlers.wsgi import WSGIHandler
from django.db import router
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path
from django.utils.module_loading import import_string

from benchmarks.measure import Result, in_turn
from outgrow.databases.cluster import clusters
from tests.databases import staleness
from tests.databases.sites import MIDDLEWARE, ROUTER, everybody_seen, live_site, make_tables, site
from tests.live.replicas import OWNER, PostgresCluster, running_cluster

QUERIES = 20
CALLS = 20_000

#: Candidate -> its routers and its middleware.
CANDIDATES: dict[str, tuple[list[str], list[str]]] = {
    "no router": ([], []),
    "ours": ([ROUTER], [MIDDLEWARE]),
    "django-replicated": (
        ["django_replicated.router.ReplicationRouter"],
        ["django_replicated.middleware.ReplicationMiddleware"],
    ),
    "django-multidb-router": (
        ["multidb.PinningReplicaRouter"],
        ["multidb.middleware.PinningRouterMiddleware"],
    ),
}


def asked(request: HttpRequest) -> HttpResponse:
    """The router's answer to many questions."""
    for _ in range(CALLS):
        router.db_for_read(Group)
    return HttpResponse("done")


def page(request: HttpRequest) -> HttpResponse:
    """A page with twenty queries; from the database that is named, or the router's."""
    groups = Group.objects.db_manager(request.GET.get("db"))
    return HttpResponse(",".join(groups.get(pk=1).name for _ in range(QUERIES)))


def change(request: HttpRequest) -> HttpResponse:
    """One that writes."""
    Group.objects.filter(pk=1).update(name="changed")
    return HttpResponse("done")


urlpatterns = [path("asked/", asked), path("page/", page), path("change/", change)]


class Site:
    """Django's handler with the middleware of one candidate, and its routers."""

    def __init__(self, name: str) -> None:
        routers, middleware = CANDIDATES[name]
        with override_settings(DATABASE_ROUTERS=routers, MIDDLEWARE=middleware):
            self._handler = WSGIHandler()
            self._routers = [import_string(one)() for one in routers]

    def ask(self, target: str, *, method: str = "GET", times: int = 1) -> bytes:
        """Ask so many times, in the place of any other candidate; the last body."""
        router.routers = self._routers
        body = b""
        for _ in range(times):
            response = self._handler.get_response(RequestFactory().generic(method, target))
            body = b"".join(response)
            response.close()
            assert response.status_code == 200, body
        return body


@contextmanager
def servers() -> Iterator[PostgresCluster]:
    """A primary with two standbys, and the tables of Django's apps."""
    with running_cluster() as cluster:
        make_tables(cluster.primary.database(direct=True))
        yield cluster


@contextmanager
def sites(cluster: PostgresCluster, *, direct: bool) -> Iterator[dict[str, Site]]:
    """Each candidate on these servers."""
    kept = {"CONN_MAX_AGE": None, "TEST": {"MIRROR": "default"}, "user": OWNER, "direct": direct}
    databases = {server.name: server.database(**kept) for server in cluster.standbys}
    databases["default"] = cluster.primary.database(**kept)
    quick = {"check_every": 1, "max_lag": 60, "pin_for": 120}
    with site(databases, watched=True, urls=__name__, middleware=(), **quick) as found:
        Group.objects.using("default").create(pk=1, name="one")
        cluster.wait_caught_up()
        found.watch()
        everybody_seen(found)
        yield {name: Site(name) for name in CANDIDATES}


def routing() -> list[Result]:
    """db_for_read in a read request"""
    with servers() as cluster, sites(cluster, direct=True) as all_sites:
        runs = {name: partial(one.ask, "/asked/") for name, one in all_sites.items()}
        found = in_turn(runs, count=CALLS, rounds=15)
    for result in found:
        result.unit = "us"
    return found


def requests() -> list[Result]:
    """a GET request with 20 queries on PostgreSQL

    Two servers that take turns answer later than one that is always asked: the second line,
    without a router, shows what comes of that alone.
    """
    times = 50
    with servers() as cluster, sites(cluster, direct=True) as all_sites:
        runs = {
            "no router": partial(pages, all_sites["no router"], times, [""]),
            "no router, replicas in turn": partial(
                pages, all_sites["no router"], times, ["?db=replica1", "?db=replica2"]
            ),
        }
        for name in list(CANDIDATES)[1:]:
            runs[name] = partial(pages, all_sites[name], times, [""])
        return in_turn(runs, count=times, rounds=31)


def pages(one: Site, times: int, queries: list[str]) -> None:
    """So many pages, with each query string in turn."""
    for number in range(times):
        one.ask(f"/page/{queries[number % len(queries)]}")


@dataclass
class Trips:
    """Round trips of one request to all servers, beyond those of its own statements."""

    what: str
    read: int
    write: int

    def facts(self) -> dict[str, Any]:
        return {"what": self.what, "added to a read": self.read, "added to a write": self.write}


def round_trips() -> list[Trips]:
    """round trips added to one request, counted by a proxy before each server"""
    with servers() as cluster, sites(cluster, direct=False) as all_sites:
        found = []
        for name, one in all_sites.items():
            one.ask("/page/", times=20)  # connects to every server that it will use
            one.ask("/change/", method="POST", times=3)
            one.ask("/page/", times=20)
            with quiet(clusters()["default"]):
                read = counted(cluster, lambda one=one: one.ask("/page/")) - QUERIES
                # UPDATE alone, in autocommit mode.
                write = counted(cluster, lambda one=one: one.ask("/change/", method="POST")) - 1
            found.append(Trips(name, read, write))
        return found


@contextmanager
def quiet(cluster: Any) -> Iterator[None]:
    """Nobody looks at the servers meanwhile: what a request itself costs is counted."""
    watch = cluster.watch
    watch.__self__.stop()
    cluster.watch = lambda: None
    try:
        yield
    finally:
        cluster.watch = watch


def counted(cluster: PostgresCluster, ask: Callable[[], object]) -> int:
    """Round trips to all servers."""
    before = sum(server.proxy.round_trips for server in cluster.servers)
    ask()
    return sum(server.proxy.round_trips for server in cluster.servers) - before


@dataclass
class Reads:
    """What a checker that knows every write has seen."""

    what: str
    seen: staleness.Seen
    seconds: float

    def facts(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "reads": self.seen.reads,
            "stale": len(self.seen.stale),
            "by replicas": f"{self.seen.share:.0%}",
            "writes": self.seen.writes,
            "failed": len(self.seen.failed),
            "seconds": f"{self.seconds:.0f}",
        }


def stale(reads: int = 100_000) -> list[Reads]:
    """reads from 8 threads while a replica lags at random; the control keeps no cookies"""
    options = {"urls": "tests.databases.staleness", "middleware": (MIDDLEWARE,)}
    found = []
    with servers() as cluster:
        for what, cookies in (("ours", True), ("control: no cookies", False)):
            with live_site(cluster, **options), staleness.lagging(cluster):
                begin = time.perf_counter()
                seen = staleness.run(reads, cookies=cookies)
                found.append(Reads(what, seen, time.perf_counter() - begin))
    ours, control = found
    if ours.seen.stale or ours.seen.failed or ours.seen.share < 0.5 or not control.seen.stale:
        raise SystemExit(f"This run proves nothing, or worse: {[one.facts() for one in found]}")
    return found
