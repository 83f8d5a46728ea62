"""What stands behind the fronts: application servers, and servers of files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil

from outgrow.testing import free_port
from outgrow.topology.applications import ENGINES, Application, words
from outgrow.topology.front import Member, Upstream
from outgrow.topology.model import Port
from tests.fastcgi.serving import ROOT
from tests.live.processes import all_have_status, family, kill_family, wait_until

LOOPBACK = "127.0.0.1"

#: What runs behind the fronts: the program, and whether the site is an ASGI application.
APPLICATIONS = {
    "gunicorn": ("gunicorn", False),
    "uvicorn": ("uvicorn", True),
    "granian": ("granian", False),
    "granian (ASGI)": ("granian", True),
    "fastcgi": ("fastcgi", False),
}


class ApplicationServer:
    """One application server, as production starts it, at a port that it keeps.

    `kind` is one of APPLICATIONS.
    """

    def __init__(self, kind: str, name: str = "app1", workers: int = 1) -> None:
        self.kind = kind
        self.workers = workers
        self.engine, self.asgi = APPLICATIONS[kind]
        self.name = name
        self.port = Port(LOOPBACK, free_port())
        self._process: subprocess.Popen[bytes] | None = None

    def application(self) -> Application:
        """What it runs."""
        site = f"tests.fronts.{'asgi' if self.asgi else 'wsgi'}:application"
        return Application(
            site, self.port, fronts=(LOOPBACK,), asgi=self.asgi, workers=self.workers
        )

    def start(self) -> None:
        application = self.application()
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.fronts.site"}
        self._process = subprocess.Popen(
            [sys.executable, *words(self.engine, application)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._listens, f"{self.engine} does not listen")

    def _listens(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.engine} ended at its start")
        return self._has(psutil.CONN_LISTEN)

    def family(self) -> list[psutil.Process]:
        """The master, and its workers."""
        return family(self._process.pid) if self._process else []

    def connected(self) -> bool:
        """Whether anybody has a connection to it."""
        return self._has(psutil.CONN_ESTABLISHED)

    def _has(self, status: str) -> bool:
        found = (port for process in self.family() for port in _ports(process, status))
        return any(port == self.port.number for port in found)

    def stop(self) -> None:
        """SIGTERM, as systemd sends it to the leader; returns when all of it has ended."""
        everyone = self.family()
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)
        wait_until(lambda: all_have_status(everyone, psutil.STATUS_ZOMBIE), "somebody is left")
        self._process = None

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        if self._process:
            kill_family(self._process)
            self._process = None


def _ports(process: psutil.Process, status: str) -> Iterator[int]:
    """The ports of this machine at which a process has a socket in this state."""
    with suppress(psutil.NoSuchProcess):
        for one in process.net_connections("tcp"):
            if one.status == status:
                yield one.laddr.port


@contextmanager
def application_server(kind: str, name: str = "app1") -> Iterator[ApplicationServer]:
    """One that runs as long as the block lasts."""
    server = ApplicationServer(kind, name)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def upstream(*servers: ApplicationServer) -> Upstream:
    """These servers as a front sees them."""
    engine = ENGINES[servers[0].engine]
    members = tuple(Member(server.name, server.port) for server in servers)
    return Upstream("app", members, engine.protocol, not servers[0].asgi)


class FileServer:
    """Files by their paths, and a list of all requests that have come."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.port = Port(LOOPBACK, self._server.server_address[1])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
                outer.asked.append((self.command, self.path))
                content = outer.files.get(path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content or b"")

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer  # noqa: N815

            def log_message(self, *_words: object) -> None:
                pass

        return Handler

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def file_servers() -> Iterator[tuple[FileServer, FileServer]]:
    """Two of them."""
    first, second = servers = FileServer("media1"), FileServer("media2")
    for one in servers:
        one.start()
    try:
        yield first, second
    finally:
        for one in servers:
            one.stop()


def files_upstream(servers: tuple[FileServer, ...]) -> Upstream:
    """These servers as a front sees them."""
    return Upstream("media", tuple(Member(one.name, one.port) for one in servers))
