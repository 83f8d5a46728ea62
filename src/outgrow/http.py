"""HTTP/1.1 client connections, kept alive: what is sent, and on what.

This module knows how one request looks on a socket that does not block, and
`outgrow.answer` what comes back; `outgrow.fanout` decides when to send and how long to wait.

The laws:

1. A connection is never shared: who takes it out of the pool owns it until he
   gives it back, and only after a whole answer that allows another request.
2. A connection belongs to the process that opened it. A child that finds its
   parent's connections closes its own copies and says nothing on them.
3. An idle connection is closed after `IDLE_LIMIT`, or when there is something to
   read on it before it is used: the server closed it, or speaks out of turn.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from outgrow.access import Access
from outgrow.answer import BODY_LIMIT
from outgrow.endpoint import Endpoint
from outgrow.header_fields import NAME, SENT_VALUE

#: Seconds after which an unused connection is closed. Below the keep-alive
#: times of servers (gunicorn 2 s behind a proxy is the exception; Apache 5 s,
#: lighttpd 5 s, nginx 75 s), so that it is the client who closes.
IDLE_LIMIT: Final = 3.0

#: Idle connections kept for one server by one process.
IDLE_CONNECTIONS: Final = 8

#: Seconds for which a resolved host name is believed.
RESOLVE_FOR: Final = 60.0


@dataclass(frozen=True, slots=True)
class FileBody:
    """A body that is read from an open file, from its first byte.

    The descriptor is only read at explicit offsets, so that several requests
    can send the same one at once.
    """

    descriptor: int
    size: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request, without its server: the name is put below each server's own path.

    `accept` holds the status codes that mean that the server did it. With
    `optional` nobody waits for this request once the others have ended (probes).
    Bytes in `body` are for small ones; files are sent from their descriptor.
    Raises `ValueError` for what would break the request's head.
    """

    method: str
    name: str
    accept: frozenset[int]
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileBody = b""
    optional: bool = False

    def __post_init__(self) -> None:
        if not NAME.match(self.method):
            raise ValueError(f"{self.method!r} is not an HTTP method")
        for key, value in self.headers:
            if not (NAME.match(key) and SENT_VALUE.match(value)):
                raise ValueError(f"the header {key!r} can't be sent: it would break the request")
        if isinstance(self.body, bytes) and len(self.body) > BODY_LIMIT:
            raise ValueError(f"a body of {len(self.body)} bytes must be given as a FileBody")

    @property
    def size(self) -> int:
        """Bytes in the body."""
        return self.body.size if isinstance(self.body, FileBody) else len(self.body)

    @property
    def changes(self) -> bool:
        """Whether the server's files can be different afterwards."""
        return self.method not in {"GET", "HEAD", "OPTIONS", "PROPFIND"}

    def head(self, where: Endpoint, *, expect: bool = False, authorization: str = "") -> bytes:
        """The bytes of request line and headers for one server."""
        lines = [f"{self.method} {where.target(self.name)} HTTP/1.1", f"Host: {where.netloc}"]
        if self.method == "PUT" or self.size:
            lines.append(f"Content-Length: {self.size}")
        if expect:
            lines.append("Expect: 100-continue")
        if authorization:
            lines.append(f"Authorization: {authorization}")
        lines.extend(f"{key}: {value}" for key, value in self.headers)
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


@dataclass(slots=True)
class Connection:
    """One open socket to one server, not blocking. Owned by one thread at a time."""

    endpoint: Endpoint
    socket: socket.socket
    process: int
    used_at: float = 0.0

    def send(self, buffers: list[memoryview]) -> int:
        """Hand bytes to the kernel. Raises `BlockingIOError` when it takes none."""
        if isinstance(self.socket, ssl.SSLSocket):
            return self.socket.send(buffers[0])
        return self.socket.sendmsg(buffers)

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return isinstance(self.socket, ssl.SSLSocket)

    def is_quiet(self) -> bool:
        """Whether the server has neither closed it nor sent anything unasked."""
        try:
            if isinstance(self.socket, ssl.SSLSocket):
                # A read takes in session tickets, which are not ours to see
                # (RFC 8446 §4.6.1), and blocks when there was nothing else.
                self.socket.recv(1)
            else:
                self.socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close this process's end."""
        self.socket.close()


class Pool:
    """The idle connections of this process, by endpoint.

    `access` is that of all of them: storages with other certificates or credentials have
    pools of their own. Thread-safe without a lock (`deque` appends and pops are atomic), so
    a fork at any moment leaves nothing locked in the child. Nothing is opened here.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, access: Access | None = None
    ) -> None:
        self._clock = clock
        self.access = access or Access()
        self._idle: dict[Endpoint, deque[Connection]] = {}
        # Nobody closes a storage. What it leaves open is closed with it, without
        # the ResourceWarning that a socket gives when it is collected.
        weakref.finalize(self, _close_all, self._idle)

    def take(self, where: Endpoint) -> Connection | None:
        """An idle connection that can be used now, or None."""
        idle = self._idle.get(where)
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread took the last one
                return None
            fresh = self._clock() - connection.used_at < IDLE_LIMIT
            if fresh and connection.process == os.getpid() and connection.is_quiet():
                return connection
            connection.close()
        return None

    def give(self, connection: Connection) -> None:
        """Keep a connection whose last answer was whole."""
        idle = self._idle.setdefault(connection.endpoint, deque())
        connection.used_at = self._clock()
        idle.append(connection)
        self._close_old(idle)

    def close(self) -> None:
        """Close what is idle."""
        _close_all(self._idle)

    def _close_old(self, idle: deque[Connection]) -> None:
        # The oldest stand on the left, for the youngest are taken first.
        limit = self._clock() - IDLE_LIMIT
        while idle:
            try:
                oldest = idle.popleft()
            except IndexError:
                return
            if oldest.used_at >= limit and len(idle) < IDLE_CONNECTIONS:
                idle.appendleft(oldest)
                return
            oldest.close()


def _close_all(connections: dict[Endpoint, deque[Connection]]) -> None:
    for idle in list(connections.values()):
        # Another thread may take the last one between the look and the pop.
        with contextlib.suppress(IndexError):
            while idle:
                idle.pop().close()


Address = tuple[int, tuple[object, ...]]

_resolved: dict[tuple[str, int], tuple[float, list[Address]]] = {}


def resolve(host: str, port: int, clock: Callable[[], float] = time.monotonic) -> list[Address]:
    """The addresses of a host, the best first; remembered for `RESOLVE_FOR` seconds.

    The look-up blocks for as long as the system's resolver does. Raises `OSError`.
    """
    known = _resolved.get((host, port))
    if known is not None and clock() - known[0] < RESOLVE_FOR:
        return known[1]
    # As bytes: for a text Python loads a codec at the first use, and a process that is
    # forked while another thread does that never has it.
    found = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(entry[0], entry[4]) for entry in found]
    _resolved[host, port] = (clock(), addresses)
    return addresses


def no_address(host: str, error: OSError) -> str:
    """What `resolve` could not do, in words."""
    if error.errno == socket.EAI_AGAIN:
        return f"the host name {host!r} can't be looked up now: the name server does not answer"
    return f"the host name {host!r} has no address ({error})"
