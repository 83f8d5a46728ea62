"""An application server that can't reload, restarted behind a balancer as docs say it."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPException

import pytest

from outgrow.topology.balancer import Balancer as Options
from outgrow.topology.front import Front, Route
from outgrow.topology.model import Port
from tests.fronts.balancers import PROGRAMS, Balancer, balancer
from tests.fronts.servers import ApplicationServer, upstream
from tests.fronts.test_applications import asked
from tests.live.processes import wait_until

#: What the units of balancers have for ExecReload.
RELOADS = {"nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2}


def behind(*servers: ApplicationServer, drained: ApplicationServer | None = None) -> Route:
    """All of them; one that is drained has the weight 0."""
    found = upstream(*servers)
    members = tuple(
        replace(member, weight=0 if drained and drained.port == member.port else 1)
        for member in found.members
    )
    return Route("/", replace(found, members=members))


@contextmanager
def visited(front: Balancer) -> Iterator[Counter[object]]:
    """Visitors who come one after the other, some with a form; what each was told."""
    answers: Counter[object] = Counter()
    enough = threading.Event()

    def visitor(method: str) -> None:
        while not enough.is_set():
            try:
                answers[front.ask("/", method, b"a=1" if method == "POST" else None)[0]] += 1
            except (OSError, HTTPException) as error:
                answers[repr(error)] += 1

    with ThreadPoolExecutor(4) as several:
        running = [several.submit(visitor, method) for method in ("GET", "POST") * 2]
        try:
            yield answers
        finally:
            enough.set()
        for one in running:
            one.result()


def go_on(answers: Counter[object]) -> None:
    seen = answers.total()
    wait_until(lambda: answers.total() > seen + 50, "nobody is served")


@pytest.mark.parametrize("program", RELOADS)
def test_a_drained_server_is_restarted_and_no_request_is_lost(program: str) -> None:
    servers = [ApplicationServer("granian", name, workers=2) for name in ("app1", "app2")]

    def make(listen: Port) -> Front:
        return Front("front", listen, (behind(*servers),), Options(timeout=60))

    try:
        for server in servers:
            server.start()
        with balancer(PROGRAMS[program], make) as front, visited(front) as answers:
            for server in servers:
                # A master of HAProxy that has just started does not hear the signal.
                go_on(answers)
                drained = replace(front.front, routes=(behind(*servers, drained=server),))
                front.reload(drained, RELOADS[program])
                wait_until(lambda server=server: not server.connected(), "it is asked")
                server.stop()
                server.start()
                wait_until(lambda server=server: asked(server) is not None, "it does not serve")
                whole = replace(front.front, routes=(behind(*servers),))
                front.reload(whole, RELOADS[program])
            go_on(answers)
        assert set(answers) == {200}
    finally:
        for server in servers:
            server.kill()
