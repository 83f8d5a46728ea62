"""A proxy in front of an object store that breaks what a test wants to be broken.

It hands requests on unchanged, so that their signatures hold: the clients sign for the
address of the proxy, which stands in the header Host, and the store sees that.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.raw import Peer, RawServer


@dataclass
class Request:
    """One request to the store."""

    head: bytes
    body: bytes = field(repr=False)

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def step(self) -> str:
        """What it is for: "begin", "part 2", "complete" or "abort"; else its method."""
        query = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        if "uploads" in query and self.method == "POST":
            return "begin"
        if "uploadId" in query:
            number = query.get("partNumber", [""])[0]
            words = {"PUT": f"part {number}", "POST": "complete", "DELETE": "abort"}
            return words.get(self.method, self.method)
        return self.method


#: What a fault does with one request: it may hand it on, answer it, or end the connection.
Fault = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request, the client's connection, and the way to the store."""

    request: Request
    peer: Peer
    store: tuple[str, int]

    def forward(self) -> tuple[http.client.HTTPResponse, bytes]:
        """Hand the request on; the store's answer, and its body."""
        with socket.create_connection(self.store, timeout=60) as stream:
            stream.sendall(self.request.head + b"\r\n\r\n" + self.request.body)
            answer = http.client.HTTPResponse(stream, method=self.request.method)
            answer.begin()
            with answer:
                return answer, answer.read()

    def answer(self, found: http.client.HTTPResponse, body: bytes, **changed: str) -> bytes:
        """The bytes of an answer; `changed` has headers with "_" for "-"."""
        wanted = {name.lower(): text for name, text in found.headers.items()}
        wanted |= {name.replace("_", "-"): text for name, text in changed.items()}
        wanted.pop("transfer-encoding", None)
        wanted.pop("connection", None)
        if self.request.method != "HEAD":
            wanted["content-length"] = str(len(body))
        lines = "".join(f"{name}: {text}\r\n" for name, text in wanted.items())
        return f"HTTP/1.1 {found.status} {found.reason}\r\n{lines}\r\n".encode("latin-1") + body


def hand_on(exchange: Exchange) -> None:
    exchange.peer.send(exchange.answer(*exchange.forward()))


def cut_before(exchange: Exchange) -> None:
    """The connection ends before the store has got anything."""
    exchange.peer.reset()


def cut_behind(exchange: Exchange) -> None:
    """The store has done it, and nobody hears of it."""
    exchange.forward()
    exchange.peer.reset()


def cut_answer(exchange: Exchange) -> None:
    """The answer ends in the middle."""
    data = exchange.answer(*exchange.forward())
    exchange.peer.send(data[: len(data) // 2])
    exchange.peer.reset()


def refuse(status: int, code: str) -> Fault:
    """The store says no, and has done nothing."""

    def fault(exchange: Exchange) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\n"
        size = f"Content-Length: {len(body)}\r\n\r\n"
        sent = b"" if exchange.request.method == "HEAD" else body
        exchange.peer.send((head + size).encode() + sent)

    return fault


def wrong_etag(exchange: Exchange) -> None:
    """The answer names another content than was sent."""
    exchange.peer.send(exchange.answer(*exchange.forward(), etag='"' + "0" * 32 + '"'))


def corrupt(exchange: Exchange) -> None:
    """A byte of the body changes on its way."""
    body = bytearray(exchange.request.body)
    body[len(body) // 2] ^= 1
    exchange.request.body = bytes(body)
    hand_on(exchange)


class Hold:
    """Holds a request back until `drop`, and never hands it on; `arrived` says that it is there."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self._dropped = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        self.arrived.set()
        self._dropped.wait(60)
        exchange.peer.reset()

    def drop(self) -> None:
        self._dropped.set()


class FaultyProxy:
    """Stands before the store at `endpoint`; `url` is what clients are given.

    `break_at(step, fault, times)` breaks the next requests of a step. `steps` is the list of
    what came, in order. Use it as a context manager.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        assert parts.hostname
        assert parts.port
        self._store = (parts.hostname, parts.port)
        self._lock = threading.Lock()
        self._faults: list[tuple[str, Fault, int]] = []
        self._server: RawServer | None = None
        self.steps: list[str] = []

    def __enter__(self) -> Self:
        self._server = RawServer(self._serve)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server
        self._server.__exit__(*error)

    @property
    def url(self) -> str:
        assert self._server
        return self._server.url.rstrip("/")

    def break_at(self, step: str, fault: Fault, times: int = 1) -> None:
        """The next `times` requests of this step meet the fault."""
        with self._lock:
            self._faults.append((step, fault, times))

    def mend(self) -> None:
        """No fault from now on."""
        with self._lock:
            self._faults.clear()

    def _serve(self, peer: Peer) -> None:
        while True:
            head, body = peer.request()
            request = Request(head, body)
            self._take(request)(Exchange(request, peer, self._store))

    def _take(self, request: Request) -> Fault:
        with self._lock:
            self.steps.append(request.step)
            for number, (step, fault, times) in enumerate(self._faults):
                if step == request.step:
                    if times > 1:
                        self._faults[number] = (step, fault, times - 1)
                    else:
                        del self._faults[number]
                    return fault
        return hand_on
