"""HTTP/1.1 client connections, kept alive: what is sent, what comes back, and on what.

This module knows how one request and one answer look on a socket that does not
block; `outgrow.fanout` decides when to send and how long to wait.

The laws:

1. A connection is never shared: who takes it out of the pool owns it until he
   gives it back, and only after a whole answer that allows another request.
2. A connection belongs to the process that opened it. A child that finds its
   parent's connections closes its own copies and says nothing on them.
3. An idle connection is closed after `IDLE_LIMIT`, or when there is something to
   read on it before it is used: the server closed it, or speaks out of turn.
4. An answer is whole or it is an error. Bytes after its end, a length that is not
   kept, more than `HEAD_LIMIT` of headers: each is a `BadAnswer`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import httptools

#: Seconds after which an unused connection is closed. Below the keep-alive
#: times of servers (gunicorn 2 s behind a proxy is the exception; Apache 5 s,
#: lighttpd 5 s, nginx 75 s), so that it is the client who closes.
IDLE_LIMIT: Final = 3.0

#: Idle connections kept for one server by one process.
IDLE_CONNECTIONS: Final = 8

#: Bytes of status line and headers. Servers cap what they accept at 8 to 64 KB
#: (nginx `large_client_header_buffers` 4 x 8 KB); an answer gets the largest.
HEAD_LIMIT: Final = 65536

#: Headers in one answer. Apache's `LimitRequestFields` default is 100.
HEADERS_LIMIT: Final = 128

#: Interim (1xx) answers before the final one. Go's net/http allows 5 per request.
INTERIM_LIMIT: Final = 16

#: Bytes of an answer's body that are kept in memory: enough for an error page.
BODY_LIMIT: Final = 65536

#: Seconds for which a resolved host name is believed.
RESOLVE_FOR: Final = 60.0

_HOST = re.compile(r"[A-Za-z0-9._-]+\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is: scheme, host, port, and the path below which its files lie.

    `path` begins and ends with a slash. `netloc` is what the Host header says.
    """

    scheme: str
    host: str
    port: int
    path: str
    netloc: str

    def target(self, name: str) -> str:
        """The request target of the file `name`: the path and the quoted name."""
        # RFC 3986: only unreserved characters stay as they are. "/" separates.
        return self.path + quote(name, safe="/~")


@lru_cache(maxsize=256)
def endpoint(url: str) -> Endpoint:
    """Parse a server's URL.

    Raises `ValueError` with a phrase that can be shown after the URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("is not an http:// or https:// URL")
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment; give the address and the path only")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or a password; use the option 'token'")
    host = parts.hostname or ""
    port = _port(parts.netloc, parts.scheme)
    is_ipv6 = ":" in host
    if is_ipv6:
        ipaddress.IPv6Address(host.partition("%")[0])
    elif not _HOST.match(host):
        raise ValueError("has no valid host name")
    path = unquote(parts.path) or "/"
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise ValueError("has a control character in its path")
    if any(part in {".", ".."} for part in path.split("/")):
        raise ValueError("has '.' or '..' in its path")
    path = quote(path if path.endswith("/") else path + "/", safe="/~")
    default = 443 if parts.scheme == "https" else 80
    netloc = f"[{host}]" if is_ipv6 else host
    return Endpoint(
        parts.scheme, host, port, path, netloc if port == default else f"{netloc}:{port}"
    )


def _port(netloc: str, scheme: str) -> int:
    text = netloc.rpartition("@")[2].rpartition("]")[2]
    _, colon, number = text.rpartition(":")
    if not colon:
        return 443 if scheme == "https" else 80
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ValueError(f"has no valid port: {number!r}")
    return int(number)


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
    """

    method: str
    name: str
    accept: frozenset[int]
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileBody = b""
    optional: bool = False

    @property
    def size(self) -> int:
        """Bytes in the body."""
        return self.body.size if isinstance(self.body, FileBody) else len(self.body)

    @property
    def changes(self) -> bool:
        """Whether the server's files can be different afterwards."""
        return self.method not in {"GET", "HEAD", "OPTIONS", "PROPFIND"}

    def head(self, where: Endpoint, *, expect: bool = False) -> bytes:
        """The bytes of request line and headers for one server."""
        lines = [f"{self.method} {where.target(self.name)} HTTP/1.1", f"Host: {where.netloc}"]
        if self.method == "PUT" or self.size:
            lines.append(f"Content-Length: {self.size}")
        if expect:
            lines.append("Expect: 100-continue")
        lines.extend(f"{key}: {value}" for key, value in self.headers)
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `headers` has lower-case names; `body` at most `BODY_LIMIT` bytes."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class AnswerError(Exception):
    """What came back is not an answer; the text says what is wrong with it."""


class AnswerParser:
    """The bytes of one answer -> a `Response`. Made anew for each request.

    httptools (llhttp) does the grammar and is strict: it refuses bare line feeds,
    folded headers, two lengths, a length beside chunks. What it leaves open is
    refused here.
    """

    def __init__(self, method: str) -> None:
        self.response: Response | None = None
        #: The answer is final and its head is read; for early refusals.
        self.status = 0
        #: A 100 Continue has come.
        self.proceed = False
        self.keep_alive = False
        self._bodiless = method == "HEAD"
        self._parser = httptools.HttpResponseParser(self)
        self._start = b""
        self._headers: dict[str, str] = {}
        self._header_count = 0
        self._body: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._interim = 0
        self._error = ""

    @property
    def touched(self) -> bool:
        """Whether any byte has come."""
        return bool(self._start)

    def feed(self, data: bytes) -> None:
        """Take bytes from the server. Raises `AnswerError`."""
        if self.response is not None:
            raise AnswerError("it sent bytes after the end of its answer")
        if len(self._start) < 5:
            self._start += data[:5]
            # llhttp also takes RTSP and leading line breaks.
            if not b"HTTP/".startswith(self._start[:5]):
                raise AnswerError(f"it does not begin like HTTP: {data[:40]!r}")
        if not self.status:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT + BODY_LIMIT:
                raise AnswerError("its headers do not end")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise AnswerError("it switched protocols, which nobody asked for") from None
        except (httptools.HttpParserError, AnswerError) as error:
            raise AnswerError(self._error or str(error)) from None

    def end(self) -> None:
        """The server closed the connection. Raises `AnswerError` if the answer was cut."""
        if self.response is not None:
            return
        if not self.status:
            raise AnswerError("it closed the connection without an answer")
        promised = self._headers.get("content-length")
        chunked = "transfer-encoding" in self._headers
        if promised is not None or chunked:
            raise AnswerError(f"its answer was cut after {self._size} bytes of the body")
        self._finish(keep_alive=False)

    # What follows is called by httptools, which wraps what is raised here.

    def on_message_begin(self) -> None:
        if self.response is not None:
            self._refuse("it sent bytes after the end of its answer")
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > HEADERS_LIMIT:
            self._refuse(f"it sent more than {HEADERS_LIMIT} headers")
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        if status >= 200:
            self.status = status
            if self._bodiless:
                self._finish(keep_alive=self._parser.should_keep_alive())
            return
        self._interim += 1
        self.proceed = self.proceed or status == 100
        if self._interim > INTERIM_LIMIT:
            self._refuse(f"it sent more than {INTERIM_LIMIT} interim answers")

    def on_body(self, data: bytes) -> None:
        if self.response is not None:
            self._refuse("it sent a body in answer to HEAD")
        self._size += len(data)
        if self._size > BODY_LIMIT:
            self._refuse(f"it sent more than {BODY_LIMIT} bytes in answer")
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self.status and self.response is None:
            self._finish(keep_alive=self._parser.should_keep_alive())

    def _finish(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response = Response(self.status, self._headers, b"".join(self._body))

    def _refuse(self, problem: str) -> None:
        self._error = problem
        raise AnswerError(problem)


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
        self.socket.close()


class Pool:
    """The idle connections of this process, by endpoint.

    Thread-safe without a lock (`deque` appends and pops are atomic), so a fork
    at any moment leaves nothing locked in the child. Nothing is opened here.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._idle: dict[Endpoint, deque[Connection]] = {}

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
        for idle in list(self._idle.values()):
            while idle:
                idle.pop().close()

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


Address = tuple[int, tuple[object, ...]]

_resolved: dict[tuple[str, int], tuple[float, list[Address]]] = {}


def resolve(host: str, port: int, clock: Callable[[], float] = time.monotonic) -> list[Address]:
    """The addresses of a host, the best first; remembered for `RESOLVE_FOR` seconds.

    The look-up blocks for as long as the system's resolver does. Raises `OSError`.
    """
    known = _resolved.get((host, port))
    if known is not None and clock() - known[0] < RESOLVE_FOR:
        return known[1]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(entry[0], entry[4]) for entry in found]
    _resolved[host, port] = (clock(), addresses)
    return addresses


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The system's certificate authorities, verification on. Made at the first use."""
    return ssl.create_default_context()
