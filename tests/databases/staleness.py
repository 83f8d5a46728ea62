"""Clients that write and read while a replica lags, and a checker that knows every write.

Each client is a browser with cookies of its own; each thread has some of them, and asks
through Django's whole handler: middleware, router and all. A read is stale if it is older
than the last write of that client that was answered. The same run with clients that keep
no cookies is the control: there the checker must find stale reads, or it proves nothing.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie

from django.contrib.auth.models import Group
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.http import HttpRequest, JsonResponse
from django.test import RequestFactory
from django.urls import path

from tests.live.replicas import PostgresCluster

#: Reads in one request, as a page has several queries.
READS = 5
#: Of a client's requests one in so many writes.
WRITES = 8


def value(request: HttpRequest, client: int) -> JsonResponse:
    """What a client's row says, read several times, and by which database."""
    if request.method == "POST":
        name = f"{client}:{request.GET['value']}"
        Group.objects.filter(pk=client).update(name=name)
        return JsonResponse({})
    rows = [Group.objects.get(pk=client) for _ in range(READS)]
    return JsonResponse({"rows": [(row._state.db, int(row.name.split(":")[1])) for row in rows]})


urlpatterns = [path("value/<int:client>/", value)]


@dataclass
class Seen:
    """What the checker has counted."""

    reads: int = 0
    writes: int = 0
    stale: list[str] = field(default_factory=list)
    by_replica: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        self.reads += other.reads
        self.writes += other.writes
        self.stale += other.stale
        self.by_replica += other.by_replica
        self.failed += other.failed

    @property
    def share(self) -> float:
        """Which part of the reads the replicas served."""
        return self.by_replica / max(1, self.reads)


class Client:
    """One browser, and the last value that was acknowledged to it."""

    def __init__(self, number: int, handler: WSGIHandler, *, cookies: bool) -> None:
        self.number = number
        self._handler = handler
        self._keeps = cookies
        self._jar: dict[str, str] = {}
        self.acknowledged = 0

    def write(self, seen: Seen) -> None:
        wanted = self.acknowledged + 1
        status, _body = self._ask("POST", f"/value/{self.number}/?value={wanted}")
        if status != 200:
            seen.failed.append(f"write {status}")
            return
        self.acknowledged = wanted
        seen.writes += 1

    def read(self, seen: Seen) -> None:
        status, body = self._ask("GET", f"/value/{self.number}/")
        if status != 200:
            seen.failed.append(f"read {status}")
            return
        for alias, found in json.loads(body)["rows"]:
            seen.reads += 1
            seen.by_replica += alias != "default"
            if found < self.acknowledged:
                seen.stale.append(f"{alias}: {found} after {self.acknowledged}")

    def _ask(self, method: str, target: str) -> tuple[int, bytes]:
        factory = RequestFactory()
        cookie = "; ".join(f"{name}={text}" for name, text in self._jar.items())
        request = factory.generic(method, target, headers={"cookie": cookie} if cookie else {})
        response = self._handler.get_response(request)
        body = b"".join(response)
        response.close()
        if self._keeps:
            self._take(response.cookies)
        return response.status_code, body

    def _take(self, cookies: SimpleCookie) -> None:
        for name, morsel in cookies.items():
            if morsel["max-age"] == 0:
                self._jar.pop(name, None)
            else:
                self._jar[name] = morsel.coded_value


def run(
    reads: int, *, threads: int = 8, clients: int = 4, cookies: bool = True, seed: int = 0
) -> Seen:
    """At least so many reads, by `clients` in each of the threads; `lagging` made their rows."""
    handler = WSGIHandler()
    total, lock = Seen(), threading.Lock()

    def work(thread: int) -> None:
        chance = random.Random(seed * 1000 + thread)
        first = thread * clients + 1
        mine = [Client(one, handler, cookies=cookies) for one in range(first, first + clients)]
        seen = Seen()
        try:
            while seen.reads < reads / threads:
                client = chance.choice(mine)
                client.write(seen) if chance.random() < 1 / WRITES else client.read(seen)
        finally:
            connections.close_all()
            with lock:
                total.add(seen)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, thread) for thread in range(threads)]:
            done.result()
    return total


@contextmanager
def lagging(
    cluster: PostgresCluster, *, clients: int = 32, seed: int = 0, pause: float = 0.3
) -> Iterator[None]:
    """Replay of the first standby stops and goes on at random, for up to `pause` seconds, or not.

    There is a row for each client, which all servers have when it begins.
    """
    Group.objects.bulk_create(Group(pk=one, name=f"{one}:0") for one in range(1, clients + 1))
    cluster.wait_caught_up()
    chance, over = random.Random(seed), threading.Event()
    standby = cluster.standbys[0]

    def disturb() -> None:
        while pause and not over.is_set():
            standby.pause_replay()
            over.wait(chance.uniform(0.05, pause))
            standby.resume_replay()
            over.wait(chance.uniform(0.0, pause))

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        Group.objects.all().delete()
