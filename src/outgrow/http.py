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
   kept, more than `HEAD_LIMIT` of headers: each is a `BadAnswer`. Only the page of
   a refusal (300 and up) may be longer than `BODY_LIMIT`; the rest is not read.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import ssl
import time
import weakref
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

#: Bytes of a whole answer, with all that is around its body: chunk sizes and their
#: extensions, trailers, interim answers.
ANSWER_LIMIT: Final = 1 << 18

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]*))?\Z")
#: RFC 1035 §2.3.4: a label has 1 to 63 octets, a name at most 253 as text.
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[^.]{1,63}\.)*[^.]{1,63}\.?\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: RFC 9110 §5.6.2, §5.5: a token, and a field value in ASCII.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?\Z")


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
    # urlsplit drops line breaks and tabs without a word.
    if _CONTROL.search(url) or url != url.strip():
        raise ValueError("has a control character in it, or a space around it")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("has no valid host name") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("is not an http:// or https:// URL")
    if "@" in parts.netloc:
        raise ValueError("holds a user or a password; use the option 'token'")
    if "?" in url or "#" in url:
        raise ValueError("has a query or a fragment; give the address and the path only")
    host, port = _authority(parts.netloc, parts.scheme)
    default = 443 if parts.scheme == "https" else 80
    netloc = f"[{host}]" if ":" in host else host
    return Endpoint(
        parts.scheme,
        host,
        port,
        _path(parts.path),
        netloc if port == default else f"{netloc}:{port}",
    )


def _authority(text: str, scheme: str) -> tuple[str, int]:
    """The host and the port of ``host:port`` or ``[address]:port``."""
    if not text.isascii():
        raise ValueError("has a host name that is not ASCII; write it in its xn-- form")
    found = _AUTHORITY.match(text)
    if found is None:
        host, _, rest = text.rpartition(":")
        if _AUTHORITY.match(host) and not rest.isdigit():
            raise ValueError("has no valid port")
        raise ValueError("has no valid host name")
    address, name, number = found.groups()
    port = 443 if scheme == "https" else 80
    if number is not None:
        port = int(number) if 0 < len(number) < 6 else 0
        if not 0 < port < 65536:
            raise ValueError("has no valid port")
    return _address(address) if address else _host(name), port


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError("has no valid IPv6 address") from None


def _host(name: str) -> str:
    if not _HOST.match(name):
        raise ValueError("has no valid host name")
    return name.lower()


def _path(text: str) -> str:
    """The path, quoted as `Endpoint.target` quotes names; ends with a slash."""
    try:
        path = unquote(text, errors="strict") or "/"
        quoted = quote(path if path.endswith("/") else path + "/", safe="/~")
    except UnicodeError:
        raise ValueError("has a path that is not UTF-8") from None
    if _CONTROL.search(path):
        raise ValueError("has a control character in its path")
    if any(part in {".", ".."} for part in path.split("/")):
        raise ValueError("has '.' or '..' in its path")
    return quoted


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
        if not _TOKEN.match(self.method):
            raise ValueError(f"{self.method!r} is not an HTTP method")
        for key, value in self.headers:
            if not (_TOKEN.match(key) and _VALUE.match(value)):
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
        self._taken = 0
        self._cut = False
        self._interim = 0
        self._error = ""

    @property
    def head(self) -> Response:
        """What is known when the head is read and the body is not waited for."""
        return Response(self.status, self._headers)

    @property
    def touched(self) -> bool:
        """Whether any byte has come."""
        return bool(self._start)

    def feed(self, data: bytes) -> None:
        """Take bytes from the server. Raises `AnswerError`.

        The result is the same however the bytes are split: limits are looked at
        after the same byte, and the last byte is parsed alone, because llhttp
        skips line breaks behind an answer without a word.
        """
        while data and not self._cut:
            limit = HEAD_LIMIT if self._taken < HEAD_LIMIT else ANSWER_LIMIT
            room = max(1, limit - self._taken)
            piece, data = data[:room], data[room:]
            for part in (piece[:-1], piece[-1:]):
                if part:
                    self._parse(part)
            self._taken += len(piece)
            if self._taken == limit and self.response is None:
                self._overlong(limit)

    def _parse(self, data: bytes) -> None:
        if self._cut:
            return
        if self.response is not None:
            raise AnswerError("it sent bytes after the end of its answer")
        if len(self._start) < 5:
            self._start += data[:5]
            # llhttp also takes RTSP and leading line breaks.
            if not b"HTTP/".startswith(self._start[:5]):
                raise AnswerError(f"it does not begin like HTTP: {data[:40]!r}")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._cut:
                raise AnswerError(self._error or str(error)) from None

    def _overlong(self, limit: int) -> None:
        """So many bytes have come, and the answer has not ended."""
        if not self.status:
            raise AnswerError("its headers do not end")
        if limit < ANSWER_LIMIT:
            return
        if self.status < 300:
            raise AnswerError("its answer does not end")
        self._cut_off()

    def _cut_off(self) -> None:
        """A refusal is one whatever its page says: the rest of it is not wanted."""
        self._cut = True
        self._finish(keep_alive=False)

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
        """A first line begins; none may after a final answer."""
        if self.response is not None:
            self._refuse("it sent bytes after the end of its answer")
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header is read."""
        self._header_count += 1
        if self._header_count > HEADERS_LIMIT:
            self._refuse(f"it sent more than {HEADERS_LIMIT} headers")
        if not self.status:  # what follows a chunked body is no header
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is read: interim or final."""
        status: int = self._parser.get_status_code()
        # llhttp takes 0.9 and 2.0 as well, and any three digits.
        if self._parser.get_http_version() not in {"1.0", "1.1"}:
            self._refuse(f"it speaks HTTP/{self._parser.get_http_version()}")
        if status < 100 or status == 101:
            self._refuse(f"it answered {status}, which nobody asked for")
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
        """A part of the body is read."""
        if self.response is not None:
            if not self._cut:
                self._refuse("it sent a body in answer to HEAD")
            return
        self._body.append(data[: BODY_LIMIT - self._size])
        self._size += len(data)
        if self._size > BODY_LIMIT:
            if self.status < 300:
                self._refuse(f"it sent more than {BODY_LIMIT} bytes in answer")
            self._cut_off()

    def on_message_complete(self) -> None:
        """The answer has come to its promised end."""
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

    Thread-safe without a lock (`deque` appends and pops are atomic), so a fork
    at any moment leaves nothing locked in the child. Nothing is opened here.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
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
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(entry[0], entry[4]) for entry in found]
    _resolved[host, port] = (clock(), addresses)
    return addresses


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The system's certificate authorities, verification on. Made at the first use."""
    return ssl.create_default_context()
