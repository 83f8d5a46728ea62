"""The connections of the embedded media server: how large and how slow a head may be.

uvicorn reads the head of a request for as long as it comes, whatever its size. This
protocol of its own does not:

1. A head has `HEAD_LIMIT` bytes at most: 431, and the connection is closed.
2. It is whole `HEAD_WITHIN` seconds after the connection was made, or after its first
   byte on a connection that was used before: 408 if some of it came, and closed.
3. There are `connections` of them at a time: 503, and closed.
4. A connection that is closed is gone after `LAST_BYTES` seconds, though its client does
   not read what was sent.

It derives from uvicorn's protocol for httptools, whose callbacks are httptools' own.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of request line and headers. A name of 1000 bytes, quoted, is 3000.
HEAD_LIMIT = 16 * 1024

#: Seconds for a whole head. nginx gives 60, Apache 20 to 40.
HEAD_WITHIN = 10.0

#: Seconds for a client to take the last bytes of an answer.
LAST_BYTES = 30.0


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `limit` is set for a whole server: see `limited`."""

    limit: ClassVar[int] = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, and begin to wait for a head."""
        super().connection_made(transport)
        self._fields = self._taken = 0
        self._in_head = False
        self._ended = False
        self._head_timer: asyncio.TimerHandle | None = None
        if self.limit and len(self.connections) > self.limit:
            self._end(503)
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self._ended:
            return
        began_in_head = self._in_head
        idle = getattr(self.cycle, "response_complete", True)  # None before the first request
        if self._head_timer is None and idle:
            # Whatever this is (line breaks before a request line, too), it is no body.
            self._await_head()
        super().data_received(data)
        if self._in_head and not self._ended:
            # A chunk in which a head only begins is not counted: most of it may be a body.
            self._taken += len(data) if began_in_head else 0
            if self._taken > HEAD_LIMIT:
                self._end(431)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._fields = self._taken = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole; what was too large is not carried out."""
        if self._ended:
            return
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body; of a head that was refused there is none."""
        if not self._ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._ended:
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """It was idle for long: close it, whether the client reads or not (law 4)."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(LAST_BYTES, self.transport.abort)

    def _count(self, size: int) -> None:
        self._fields += size
        if self._fields > HEAD_LIMIT and not self._ended:
            self._end(431)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_WITHIN, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._end(408)
        else:
            self._close()

    def _end(self, status: int) -> None:
        """Say why, and close."""
        self._ended = True
        self._stop_waiting()
        phrase = HTTPStatus(status).phrase
        body = f"{phrase}\n".encode()
        head = (
            f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._close()

    def _close(self) -> None:
        self.transport.close()
        self.loop.call_later(LAST_BYTES, self.transport.abort)


def limited(connections: int) -> Any:
    """The protocol of a server that has so many connections at most; 0 for any number."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limit": connections})
