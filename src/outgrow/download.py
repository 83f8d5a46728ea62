"""One GET whose body is read as it comes, from one server.

`outgrow.exchange` gathers a whole small answer; this hands on the bytes of a large one,
in memory that does not depend on its size. It blocks, and belongs to one thread.

The laws:

1. No `read` waits longer than the limits say: `timeout` for each sign of life, and at
   least `floor` bytes a second over any `window` of waiting. Time that the caller takes
   between two reads does not count.
2. A body that is shorter than its head promised is an error, never an end.
3. A connection goes back to the pool only after the whole body.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from outgrow import access, http
from outgrow.answer import ANSWER_LIMIT, AnswerError, AnswerParser
from outgrow.endpoint import endpoint
from outgrow.errors import (
    BadAnswer,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    NoAccess,
    ServerError,
    TimedOut,
)
from outgrow.exchange import Limits
from outgrow.http import Connection, Pool, Request
from outgrow.servers import Server

#: Bytes that are asked of the socket at once.
PIECE = 1 << 18


class BodyParser(AnswerParser):
    """As `AnswerParser`, but the body of a success is kept in `chunks` for who takes it."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.chunks: deque[bytes] = deque()
        self._given = 0

    @property
    def body_length(self) -> int | None:
        """The body's length, where the head promises one."""
        if "transfer-encoding" in self._headers or "content-length" not in self._headers:
            return None
        return int(self._headers["content-length"])

    def feed(self, data: bytes) -> None:
        """See `AnswerParser`. Behind the head of a success there is no limit to the body."""
        if not 200 <= self.status < 300:
            super().feed(data)
            return
        for part in (data[:-1], data[-1:]):
            if part:
                self._parse(part)
        self._taken += len(data)
        # Chunk sizes, their extensions and trailers: what is no body.
        if self._taken - self._given > ANSWER_LIMIT:
            raise AnswerError("its answer does not end")

    def on_body(self, data: bytes) -> None:
        """A part of the body is read."""
        if not 200 <= self.status < 300 or self._bodiless:
            super().on_body(data)
            return
        self.chunks.append(data)
        self._given += len(data)

    def _overlong(self, limit: int) -> None:
        if not 200 <= self.status < 300:
            super()._overlong(limit)


class Download:
    """The answer to one GET. `open` it, `read` it, `close` it in any case.

    `status` and `headers` are known after `open`. Each method raises a `ServerError`
    that names the server.
    """

    def __init__(
        self,
        pool: Pool,
        server: Server,
        request: Request,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server
        self.request = request
        self._pool = pool
        self._limits = limits or Limits()
        self._clock = clock
        self._where = endpoint(server.address)
        self._connection: Connection | None = None
        self._parser = BodyParser(request.method)
        self._left: int | None = None
        self._window = (0.0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def status(self) -> int:
        """The status code."""
        return self._parser.status

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with lower-case names."""
        return self._parser.head.headers

    def open(self) -> None:
        """Send the request and read the head of the answer."""
        reused = self._connection = self._pool.take(self._where)
        try:
            self._ask(reused or self._connect())
        except (access.NoCredentials, ConfigurationError) as error:
            self.close()
            raise NoAccess(self.server.name, str(error)) from error
        except (ConnectionLost, BadAnswer):
            # The server may have closed a kept connection at that moment. GET may be
            # sent again (RFC 9110 §9.2.2).
            if reused is None or self._parser.touched:
                raise
            self._parser = BodyParser(self.request.method)
            self._ask(self._connect())

    def _ask(self, connection: Connection) -> None:
        self._connection = connection
        self._window = (0.0, 0)
        body = self.request.body
        self._send(self._head() + (body if isinstance(body, bytes) else b""))
        while not self._parser.status:
            self._take_in()
        self._left = self._parser.body_length
        if self._left is not None:
            # From here on the length alone says where the body ends.
            self._left -= sum(map(len, self._parser.chunks))

    def _head(self) -> bytes:
        authorization = self._pool.access.authorization(self.server.name)
        return self.request.head(self._where, authorization=authorization)

    def read(self, size: int = PIECE) -> bytes:
        """Up to `size` bytes of the body, at least one; none at its end."""
        while not self._parser.chunks:
            if self._parser.response is not None or self._left == 0:
                self._end()
                return b""
            if self._left is None:
                self._take_in()
                continue
            data = self._receive(min(size, self._left))
            if not data:
                raise self._cut()
            self._left -= len(data)
            return data
        data = self._parser.chunks.popleft()
        if len(data) > size:
            self._parser.chunks.appendleft(data[size:])
        return data[:size]

    def close(self) -> None:
        """Let go of the connection. Harmless when repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _end(self) -> None:
        """The body is whole: others may use the connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._left == 0 or self._parser.keep_alive:
            self._give(connection)
        else:
            connection.close()

    def _give(self, connection: Connection) -> None:
        if self.headers.get("connection", "").lower() == "close":
            connection.close()
        else:
            self._pool.give(connection)

    # --- the socket

    def _connect(self) -> Connection:
        name, timeout = self.server.name, self._limits.timeout
        try:
            addresses = http.resolve(self._where.host, self._where.port, self._clock)
        except OSError as error:
            raise ConnectFailed(name, http.no_address(self._where.host, error)) from error
        tls = self._pool.access.context() if self._where.scheme == "https" else None
        problem: OSError | None = None
        for family, address in addresses:
            stream = socket.socket(family, socket.SOCK_STREAM)
            try:
                stream.settimeout(timeout)
                stream.connect(address)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    stream = tls.wrap_socket(stream, server_hostname=self._where.host)
                stream.setblocking(False)  # noqa: FBT003 - the only way to say it
                return Connection(self._where, stream, os.getpid())
            except OSError as error:
                stream.close()
                problem = error
        raise self._not_connected(problem) from problem

    def _not_connected(self, problem: OSError | None) -> ConnectFailed:
        refused = self._refused(problem)
        if refused is not None:
            return refused
        if isinstance(problem, TimeoutError):
            reason = f"no connection within {self._limits.timeout:g} s"
        else:
            reason = f"no connection: {getattr(problem, 'strerror', None) or problem}"
        return ConnectFailed(self.server.name, reason)

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._open.send([rest]) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except OSError as error:
                raise self._lost(error) from error

    def _take_in(self) -> None:
        """Give the parser what comes next."""
        data = self._receive(PIECE)
        try:
            if data:
                self._parser.feed(data)
            elif self._parser.touched:
                self._parser.end()
            else:
                raise self._lost(None)
        except AnswerError as error:
            self.close()
            reason = f"its answer is not usable: {error}"
            raise BadAnswer(self.server.name, reason) from error

    def _receive(self, size: int) -> bytes:
        while True:
            try:
                data = self._open.socket.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except OSError as error:
                raise self._lost(error) from error
            else:
                self._came(len(data))
                return data

    def _wait(self, event: int) -> None:
        """Wait until the socket is ready (law 1)."""
        poll = select.poll()
        poll.register(self._open.socket, event)
        begin = self._clock()
        ready = poll.poll(self._limits.timeout * 1000)
        waited = self._clock() - begin
        self._window = (self._window[0] + waited, self._window[1])
        if not ready:
            self.close()
            raise TimedOut(self.server.name, f"sent nothing for {self._limits.timeout:g} s")

    def _came(self, count: int) -> None:
        waited, came = self._window[0], self._window[1] + count
        limits = self._limits
        if waited < limits.window:
            self._window = (waited, came)
            return
        if came < limits.floor * limits.window and self._left != count:
            self.close()
            raise TimedOut(
                self.server.name,
                f"sent less than {limits.floor // 1024} KB/s over {limits.window:g} s",
            )
        self._window = (0.0, 0)

    def _refused(self, error: OSError | None) -> NoAccess | None:
        own = bool(self._pool.access.certificate)
        reason = access.refusal(error, has_certificate=own)
        return NoAccess(self.server.name, reason) if reason else None

    def _last_words(self) -> OSError | None:
        """What a server that closes has said of our certificate, if it has (TLS 1.3)."""
        try:
            self._open.socket.recv(1)
        except OSError as error:
            return error
        return None

    def _lost(self, error: OSError | None) -> ServerError:
        refused = self._refused(error) or self._refused(self._last_words())
        self.close()
        if refused is not None:
            return refused
        text = (error.strerror or str(error)) if error else "closed the connection"
        return ConnectionLost(self.server.name, f"lost the connection: {text}")

    def _cut(self) -> BadAnswer:
        self.close()
        whole = self._parser.body_length
        return BadAnswer(
            self.server.name, f"its answer was cut {self._left} bytes before the end of {whole}"
        )

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise ValueError("this Download is closed")
        return self._connection
