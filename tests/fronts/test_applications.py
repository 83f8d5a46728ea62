"""Application servers alone: how long they wait, how they reload, whom they believe."""

from __future__ import annotations

import http.client
import itertools
import json
import select
import signal
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psutil
import pytest

from outgrow.topology.applications import ENGINES, reload
from outgrow.topology.front import IDLE
from tests.fronts.servers import APPLICATIONS, LOOPBACK, ApplicationServer
from tests.live.processes import all_have_status, wait_until

#: Those that speak HTTP, with the several workers that a server has.
SPEAK_HTTP = [kind for kind, (name, _) in APPLICATIONS.items() if ENGINES[name].protocol == "http"]

WORKERS = 2
VISITORS = 3


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


def test_a_reload_loses_no_request(server: ApplicationServer, tmp_path: Path) -> None:
    signal = reload(server.engine, server.application())
    if signal is None:
        # What docs/howto/application-servers.md says.
        assert server.engine not in {"gunicorn", "uvicorn"}
        return
    leader, *old = server.family()
    visitors = Visitors(server, tmp_path / "executed")
    before = {one.pid for one in old}

    def renewed() -> bool:
        # A helper of multiprocessing stays.
        left = [one for one in old if one.is_running() and is_worker(one)]
        return all_have_status(left, psutil.STATUS_ZOMBIE) and bool(visitors.served_by() - before)

    with visitors:
        wait_until(lambda: bool(visitors.served_by()), "nobody is served")
        leader.send_signal(signal)
        wait_until(renewed, "the old workers are still there", seconds=150)
    assert leader.is_running()
    # What has been begun is answered.
    assert visitors.failed & visitors.executed() == set()
    # Each worker of uvicorn closes the connections on which it has read nothing yet.
    assert len(visitors.failed) <= (WORKERS * VISITORS if server.engine == "uvicorn" else 0)


class Visitors:
    """Several that come again and again, on new connections; the site writes down who came."""

    def __init__(self, server: ApplicationServer, file: Path) -> None:
        self._server = server
        self._file = file
        self._numbers = itertools.count()
        self._enough = threading.Event()
        self._pool = ThreadPoolExecutor(VISITORS)
        self.failed: set[str] = set()

    def __enter__(self) -> None:
        self._running = [self._pool.submit(self._visit) for _ in range(VISITORS)]

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()

    def executed(self) -> set[str]:
        return {name for name, _ in self._lines()}

    def served_by(self) -> set[int]:
        return {int(pid) for _, pid in self._lines()}

    def _lines(self) -> list[list[str]]:
        with suppress(FileNotFoundError):
            return [line.split() for line in self._file.read_text().splitlines()]
        return []

    def _visit(self) -> None:
        while not self._enough.is_set():
            name = f"n{next(self._numbers)}"
            with closing(connection(self._server)) as one:
                try:
                    one.request("POST", f"/count?file={self._file}&id={name}", b"a=1")
                    answer = one.getresponse()
                    assert (answer.status, answer.read()) == (200, name.encode())
                except (OSError, http.client.HTTPException):
                    self.failed.add(name)


def is_worker(process: psutil.Process) -> bool:
    try:
        return not any("resource_tracker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def test_one_process_of_uvicorn_is_ended_by_the_signal_of_several() -> None:
    several = reload("uvicorn", ApplicationServer("uvicorn", workers=2).application())
    assert several is not None
    # Below `nohup` it is ignored, by who is started there, too.
    before = signal.signal(several, signal.SIG_DFL)
    try:
        with closing(running("uvicorn", workers=1)) as servers:
            server = next(servers)
            assert reload("uvicorn", server.application()) is None
            leader = server.family()[0]
            leader.send_signal(several)
            wait_until(lambda: all_have_status([leader], psutil.STATUS_ZOMBIE), "it lives on")
    finally:
        signal.signal(several, before)


def test_a_worker_that_dies_is_replaced(server: ApplicationServer) -> None:
    first = asked(server)
    assert first is not None
    psutil.Process(first).kill()
    seen: set[int | None] = set()

    def others() -> bool:
        seen.add(asked(server))
        return len(seen - {first, None}) > 0 and len(server.family()) > WORKERS

    wait_until(others, "nobody serves")


def test_idle_connections_keep_nobody_out(server: ApplicationServer) -> None:
    """A front keeps many; by default the workers of granian would take half of these."""
    with ExitStack() as stack:
        for _ in range(1400):
            kept = stack.enter_context(closing(connection(server)))
            answered(kept)
        assert asked(server) is not None
