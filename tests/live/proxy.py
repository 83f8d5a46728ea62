"""A TCP proxy in front of a server: it can refuse, cut, freeze, and counts round trips."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from outgrow.testing import free_port


@dataclass
class Counts:
    """What went through: connections, and what was asked and answered on them."""

    connections: int = 0
    round_trips: int = 0


class Proxy:
    """Hands what comes to `port` on loopback on to `target`, another port there.

    `open()`, `refuse()` and `freeze()` say what happens from now on; `cut()` happens once.
    `round_trips` counts how often a client has sent something and got an answer: the
    count has risen before the client can read the answer. The start of a connection
    has round trips too; `counted()` counts from where it stands. Use it as a context
    manager. All methods may be called from any thread.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self._total = Counts()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._pairs: set[_Pair] = set()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_error: object) -> None:
        self.refuse()

    @property
    def connections(self) -> int:
        """How many connections came in so far."""
        return self._total.connections

    @property
    def round_trips(self) -> int:
        """How many times so far something was sent and answered."""
        return self._total.round_trips

    @contextmanager
    def counted(self) -> Iterator[Counts]:
        """What goes through during the block; complete behind it."""
        before = Counts(self.connections, self.round_trips)
        counts = Counts()
        yield counts
        counts.connections = self.connections - before.connections
        counts.round_trips = self.round_trips - before.round_trips

    def open(self) -> None:
        """Hand everything on, also what a freeze has held back."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self._thread = threading.Thread(
                target=self._accept, args=(self._listener,), daemon=True
            )
            self._thread.start()
        self._flowing.set()

    def freeze(self) -> None:
        """Accept connections and data and hand nothing on, either way: a black hole."""
        self.open()
        self._flowing.clear()

    def cut(self) -> None:
        """Close all connections, both ends; new ones come through as before."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.close()
        for pair in pairs:
            pair.thread.join(10)
            assert not pair.thread.is_alive(), "a connection of the proxy did not end"

    def refuse(self) -> None:
        """Close all connections, and refuse new ones as a port without a server does."""
        if self._listener is not None:
            # A listener's shutdown wakes its accept(); a close alone would not.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            assert self._thread is not None
            self._thread.join(10)
            assert not self._thread.is_alive(), "the proxy still accepts connections"
        self.cut()
        self._flowing.set()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            pair = _Pair(self, client)
            with self._lock:
                self._total.connections += 1
                self._pairs.add(pair)
                pair.thread.start()

    def _answered(self) -> None:
        with self._lock:
            self._total.round_trips += 1

    def _over(self, pair: _Pair) -> None:
        with self._lock:
            self._pairs.discard(pair)


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._closing = threading.Event()
        # One byte here ends the wait for data.
        self._woken, self._waker = socket.socketpair()

    def close(self) -> None:
        self._closing.set()
        with suppress(OSError):
            self._waker.send(b"x")

    def _run(self) -> None:
        try:
            with suppress(OSError):
                self._serve()
        finally:
            self._reset(self.client)
            self._woken.close()
            self._waker.close()
            self.proxy._over(self)

    def _serve(self) -> None:
        if not self._flows():
            return
        with socket.create_connection(("127.0.0.1", self.proxy.target), 10) as server:
            for end in (server, self.client):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._pump(server)
            finally:
                self._reset(server)

    def _pump(self, server: socket.socket) -> None:
        asked = False
        while True:
            ready, _, _ = select.select([self.client, server, self._woken], [], [])
            for end in ready:
                if end is self._woken:
                    return
                data = end.recv(65536)
                if not data or not self._flows():
                    return
                if end is self.client:
                    asked = True
                    self._send(server, data)
                    continue
                if asked:
                    self.proxy._answered()
                    asked = False
                self._send(self.client, data)

    def _flows(self) -> bool:
        """Wait while the proxy is frozen. False: this connection is to end."""
        while not self.proxy._flowing.wait(0.01):
            if self._closing.is_set():
                return False
        return not self._closing.is_set()

    def _send(self, end: socket.socket, data: bytes) -> None:
        # Its peer may be stopped and take nothing: close() must still end it.
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([self._woken], [end], [])
            if self._closing.is_set():
                raise ConnectionAbortedError
            if writable:
                view = view[end.send(view, socket.MSG_DONTWAIT) :]

    @staticmethod
    def _reset(end: socket.socket) -> None:
        # RST rather than FIN: what a killed server's kernel sends for unread data, and
        # no TIME_WAIT that would hold the port.
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
