"""The embedded media server as a process of its own, and raw sockets to talk to it."""

from __future__ import annotations

import copy
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import psutil


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: Message
    content: bytes


class Embedded:
    """`outgrow media-server` on a port that the system chose. Killed by its id."""

    def __init__(self, root: Path, process: subprocess.Popen[str], ready: str) -> None:
        self.root = root
        self.process = process
        self.ready = ready
        #: The last one is where it may be written to.
        self.ports = [int(port) for port in re.findall(r":(\d+)(?=;|$)", ready.strip())]
        self.port = self.ports[-1] if self.ports else 0
        self.new = root / ".outgrow-new"

    @property
    def uploads(self) -> int:
        """The number of files that have no name yet."""
        return len(list(self.new.iterdir()))

    @property
    def peak_memory(self) -> int:
        """The most memory that the process has held so far, in bytes (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def open_files(self) -> int:
        return len(psutil.Process(self.process.pid).open_files())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send a signal and wait for the end; return what was written to stderr."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=10)[1]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def by_port(self, number: int) -> Embedded:
        """The same server, asked at one of its ports."""
        other = copy.copy(self)
        other.port = self.ports[number]
        return other

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer to one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(
                method, path, body, dict(headers or {}), encode_chunked=is_chunked(body)
            )
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def status(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        return self.ask(method, path, body, headers).status

    def raw(self, request: bytes) -> bytes:
        """What comes back for these bytes until the server closes."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)


def is_chunked(body: object) -> bool:
    return body is not None and not isinstance(body, bytes)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def read_head(connection: socket.socket) -> bytes:
    """One answer's head; what follows it is left to be read."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        data = connection.recv(1)
        assert data, f"the connection ended after {received!r}"
        received += data
    return received


def command(root: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "outgrow.cli", "media-server", "--root", str(root), *options]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTGROW_")}
    return kept | more


@contextmanager
def running(
    root: Path,
    *options: str,
    bind: str = "127.0.0.1:0",
    wrapper: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Embedded]:
    """A server that answers; killed at the end, whatever happens."""
    process = subprocess.Popen(
        [*wrapper, *command(root, "--bind", bind, *options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
        env=environment(**(env or {})),
    )
    # A server that hangs at its start ends the wait for its line by its end.
    watchdog = threading.Timer(20, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if not ready:
            raise RuntimeError(f"the server did not start: {process.communicate()[1]}")
        watchdog.cancel()
        yield Embedded(root, process, ready)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
