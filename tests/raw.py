"""Servers on bare sockets, for what no decent server does; and time limits for tests."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from outgrow.servers import Server

Behaviour = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection. `data` is what has been read and not used."""

    def __init__(self, stream: socket.socket, log: list[bytes]) -> None:
        self.stream = stream
        self.data = b""
        self.log = log

    def more(self, size: int = 65536) -> bytes:
        """Read once. Raises EOFError at the end."""
        data = self.stream.recv(size)
        if not data:
            raise EOFError
        return data

    def head(self) -> bytes:
        """The next request's head; it is put into the log."""
        while b"\r\n\r\n" not in self.data:
            self.data += self.more()
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        self.log.append(head)
        return head

    def body(self, head: bytes) -> bytes:
        """The body that belongs to a head."""
        size = length(head)
        chunks = [self.data[:size]]
        self.data = self.data[size:]
        left = size - len(chunks[0])
        while left:
            chunks.append(self.more(min(left, 1 << 20)))
            left -= len(chunks[-1])
        return b"".join(chunks)

    def request(self) -> tuple[bytes, bytes]:
        head = self.head()
        return head, self.body(head)

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def reset(self) -> None:
        """Close with RST instead of FIN (SO_LINGER with no time to linger)."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.stream.close()

    def until_closed(self) -> int:
        """Read and throw away until the client closes; says how many bytes came."""
        count = len(self.data)
        with suppress(EOFError, ConnectionError):
            while True:
                count += len(self.more())
        return count


def length(head: bytes) -> int:
    """The Content-Length of a head; 0 when there is none."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == b"content-length":
            return int(value)
    return 0


class RawServer:
    """Accepts connections on loopback and lets `behave` have each, in a thread of its own.

    `log` holds the heads that `behave` read, `connections` how many came. With
    `context` it speaks TLS. `buffer` limits what the kernel takes in unread.
    """

    def __init__(
        self,
        behave: Behaviour,
        *,
        context: ssl.SSLContext | None = None,
        buffer: int | None = None,
    ) -> None:
        self.log: list[bytes] = []
        self.connections = 0
        self.errors: list[Exception] = []
        self._behave = behave
        self._context = context
        self._listener = socket.socket()
        if buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/"
        self.server = Server(f"raw{self.port}", self.url)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._last: tuple[str, int] | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        # A connection of our own ends the loop behind all that came before it.
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.settimeout(5)
            last.connect(("127.0.0.1", self.port))
            self._thread.join(5)
        self._listener.close()
        for stream in self._open:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        alive = [thread for thread in self._threads if thread.is_alive()]
        for stream in self._open:
            stream.close()
        assert not alive
        assert not self.errors, self.errors

    def _accept(self) -> None:
        while True:
            stream, address = self._listener.accept()
            if address == self._last:
                stream.close()
                return
            self.connections += 1
            self._open.append(stream)
            thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, stream: socket.socket) -> None:
        # That the client goes away is what these servers are for.
        try:
            if self._context is not None:
                stream = self._context.wrap_socket(stream, server_side=True)
                self._open.append(stream)
            with stream:
                self._behave(Peer(stream, self.log))
        except (EOFError, OSError):
            return
        except Exception as error:
            self.errors.append(error)


def answer(status: int, reason: str = "X", *lines: str, body: bytes = b"") -> bytes:
    """A whole answer with its length."""
    head = [f"HTTP/1.1 {status} {reason}", *lines, f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def answering(data: bytes) -> Behaviour:
    """Answer each request on a connection with these bytes."""

    def behave(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(data)

    return behave


def answering_once(data: bytes) -> Behaviour:
    """Answer the first request with these bytes, then close."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(data)

    return behave


@contextmanager
def a_full_backlog() -> Iterator[Server]:
    """A port that drops what knocks: its queue of connections is full, and stays so."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        knocking = []
        try:
            for _ in range(16):
                client = socket.socket()
                knocking.append(client)
                client.settimeout(0.1)
                try:
                    client.connect(listener.getsockname())
                except TimeoutError:
                    break
            else:
                raise AssertionError("the backlog never filled up")
            port = listener.getsockname()[1]
            yield Server(f"full{port}", f"http://127.0.0.1:{port}/")
        finally:
            for client in knocking:
                client.close()


class Took:
    """Seconds that a block took."""

    seconds = 0.0


@contextmanager
def takes(at_least: float = 0.0, at_most: float = 5.0) -> Iterator[Took]:
    """The block takes so many seconds.

    `at_most` is meant for a machine that has a core for whoever wants one. Seconds in
    which somebody waited for a core count for a fifth only, so that what else runs here
    makes no test fail; on a machine with nothing else to do the limit is exact.
    """
    start, pressed = time.monotonic(), _seconds_of_pressure()
    took = Took()
    yield took
    took.seconds = time.monotonic() - start
    assert took.seconds >= at_least - 0.02
    waited = min(_seconds_of_pressure() - pressed, took.seconds)
    assert took.seconds - 0.8 * waited <= at_most, f"{took.seconds:.2f} s, {waited:.2f} s waited"


def _seconds_of_pressure() -> float:
    """For how long in all some process of this machine has waited for a core.

    Linux says it in microseconds: `some avg10=... total=N`. Where it is not said, half of
    the time is taken for it.
    """
    try:
        return int(Path("/proc/pressure/cpu").read_text().split("total=")[1].split()[0]) / 1e6
    except (OSError, IndexError, ValueError):
        return time.monotonic() / 2
