"""Application servers alone: how long they wait, how they reload, whom they believe."""

from __future__ import annotations

import http.client
import json
import select
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psutil
import pytest

from outgrow.topology.applications import ENGINES, reload
from outgrow.topology.front import IDLE
from tests.fronts.servers import APPLICATIONS, LOOPBACK, ApplicationServer
from tests.live.processes import all_have_status, wait_until

#: Those that speak HTTP, with the several workers that a server has.
SPEAK_HTTP = [kind for kind, (name, _) in APPLICATIONS.items() if ENGINES[name].protocol == "http"]

WORKERS = 2


def running(kind: str, workers: int = WORKERS) -> Generator[ApplicationServer]:
    server = ApplicationServer(kind, workers=workers)
    try:
        server.start()
        wait_until(lambda: asked(server) is not None, "serves nothing")
        yield server
    finally:
        server.kill()


def asked(server: ApplicationServer) -> int | None:
    """Who has answered a POST on a new connection; None where nobody has."""
    with closing(connection(server)) as visitor:
        try:
            return answered(visitor)
        except OSError:
            return None


def connection(server: ApplicationServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(LOOPBACK, server.port.number, timeout=120)


def answered(visitor: http.client.HTTPConnection) -> int:
    visitor.request("POST", "/", b"a=1")
    answer = visitor.getresponse()
    found = json.loads(answer.read())
    assert (answer.status, found["size"]) == (200, 3)
    pid: int = found["pid"]
    return pid


def test_an_idle_connection_is_kept_longer_than_by_a_front() -> None:
    """All of them at once: it takes as long as a front waits."""

    def waits(server: ApplicationServer) -> bool:
        with closing(connection(server)) as visitor:
            answered(visitor)
            poll = select.poll()
            poll.register(visitor.sock, select.POLLIN)
            # One that closes it is heard at once.
            closed = poll.poll((IDLE + 2) * 1000)
            return not closed and answered(visitor) > 0

    with ExitStack() as stack, ThreadPoolExecutor(len(SPEAK_HTTP)) as several:
        servers = [ApplicationServer(kind) for kind in SPEAK_HTTP]
        for server in servers:
            stack.callback(server.kill)
            server.start()
            wait_until(lambda server=server: asked(server) is not None, "serves nothing")
        assert dict(zip(SPEAK_HTTP, several.map(waits, servers), strict=True)) == dict.fromkeys(
            SPEAK_HTTP, True
        )


@pytest.fixture(params=SPEAK_HTTP)
def server(request: pytest.FixtureRequest) -> Iterator[ApplicationServer]:
    yield from running(request.param)


def test_a_reload_loses_no_request(server: ApplicationServer) -> None:
    signal = reload(server.engine, server.application())
    if signal is None:
        # What docs/howto/application-servers.md says.
        assert server.engine not in {"gunicorn", "uvicorn"}
        return
    leader, *old = server.family()
    enough, seen, failed = threading.Event(), set(), list[Exception]()

    def visitor() -> None:
        while not enough.is_set():
            try:
                with closing(connection(server)) as one:
                    seen.add(answered(one))
            except Exception as error:
                failed.append(error)

    def renewed() -> bool:
        # A helper of multiprocessing stays.
        left = [one for one in old if one.is_running() and is_worker(one)]
        return all_have_status(left, psutil.STATUS_ZOMBIE) and bool(seen - before)

    with ThreadPoolExecutor(3) as several:
        visitors = [several.submit(visitor) for _ in range(3)]
        try:
            wait_until(lambda: bool(seen), "nobody is served")
            before = {one.pid for one in old}
            leader.send_signal(signal)
            wait_until(renewed, "the old workers are still there", seconds=150)
        finally:
            enough.set()
        for one in visitors:
            one.result()
    assert failed == []
    assert leader.is_running()


def is_worker(process: psutil.Process) -> bool:
    try:
        return not any("resource_tracker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def test_one_process_of_uvicorn_is_ended_by_the_signal_of_several() -> None:
    several = reload("uvicorn", ApplicationServer("uvicorn", workers=2).application())
    assert several is not None
    with closing(running("uvicorn", workers=1)) as servers:
        server = next(servers)
        assert reload("uvicorn", server.application()) is None
        leader = server.family()[0]
        leader.send_signal(several)
        wait_until(lambda: all_have_status([leader], psutil.STATUS_ZOMBIE), "it lives on")


def test_a_worker_that_dies_is_replaced(server: ApplicationServer) -> None:
    first = asked(server)
    assert first is not None
    psutil.Process(first).kill()
    seen: set[int | None] = set()

    def others() -> bool:
        seen.add(asked(server))
        return len(seen - {first, None}) > 0 and len(server.family()) > WORKERS

    wait_until(others, "nobody serves")
