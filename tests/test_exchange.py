"""One request to one server that misbehaves in every way: an error that names it, in time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from outgrow import access, fanout
from outgrow.answer import Response
from outgrow.endpoint import endpoint
from outgrow.errors import (
    BadAnswer,
    ConnectFailed,
    ConnectionLost,
    FileCut,
    ServerError,
    TimedOut,
    UnexpectedStatus,
)
from outgrow.exchange import SMALL, Limits
from outgrow.fanout import Outcome
from outgrow.http import Connection, FileBody, Pool, Request
from outgrow.servers import Server
from outgrow.testing import MediaServer, free_port
from tests.raw import (
    Peer,
    RawServer,
    a_full_backlog,
    answer,
    answering,
    answering_once,
    takes,
)
from tests.test_answer import BAD_ANSWERS

#: Short, so that what never comes is not waited for; no Expect unless it is asked for.
QUICK = Limits(timeout=0.4, window=0.4, proceed_within=0.3, expect_above=1 << 40)
ASK = Limits(timeout=0.4, window=0.4, proceed_within=0.3, expect_above=1 << 20)
PATIENT = Limits(expect_above=1 << 40)
DONE = frozenset({200, 201, 204})
MEGABYTE = 1 << 20


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


class Files:
    """Makes files of a size, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[int] = []

    def body(self, content: bytes | int) -> FileBody:
        """A file with this content, or a sparse one of so many bytes."""
        path = self.folder / f"file{len(self._open)}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.touch()
            os.truncate(path, content)
        self._open.append(os.open(path, os.O_RDWR))
        return FileBody(self._open[-1], path.stat().st_size)

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path)
    yield files
    files.close()


def ask(
    pool: Pool,
    where: str | RawServer | MediaServer,
    method: str = "PUT",
    body: bytes | FileBody = b"hello",
    limits: Limits = QUICK,
) -> tuple[str, Response | ServerError]:
    """What became of one request: "done", "failed" or "unknown", and the answer or error."""
    url = where if isinstance(where, str) else where.url
    server = Server("the-server", url)
    body = b"" if method in {"GET", "HEAD", "DELETE"} else body
    request = Request(method, "a/b.txt", DONE, (), body)
    outcome = fanout.run(
        pool, {server: request}, need=1, deadline=time.monotonic() + 10, limits=limits
    )
    return the_one(outcome)


def the_one(outcome: Outcome) -> tuple[str, Response | ServerError]:
    found = [
        (kind, result)
        for kind in ("done", "failed", "unknown")
        for result in getattr(outcome, kind).values()
    ]
    assert len(found) == 1
    kind, result = found[0]
    if kind != "done":
        assert isinstance(result, ServerError)
        assert result.server == "the-server"
        assert str(result).startswith("the-server: ")
        assert str(result).isprintable()
    return kind, result


# --- hostile answers


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize("data", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_is_an_error_that_names_the_server(pool, data: bytes, method: str) -> None:
    with RawServer(answering_once(data)) as server, takes(at_most=3):
        kind, error = ask(pool, server, method)
        # What is behind a whole answer may come after it was taken; then the
        # connection is found readable before it is used again.
        if kind == "done":
            assert pool.take(endpoint(server.url)) is None
            return
        assert isinstance(error, BadAnswer)
        assert kind == ("unknown" if method == "PUT" else "failed")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_an_answer_that_stops_is_not_waited_for(pool, data: bytes) -> None:
    def stop(peer: Peer) -> None:
        peer.request()
        peer.send(data)
        peer.until_closed()

    with RawServer(stop) as server, takes(at_least=0.4, at_most=2):
        kind, error = ask(pool, server)
    assert kind == "unknown"
    assert isinstance(error, TimedOut)


def test_an_answer_that_trickles_is_not_waited_for(pool) -> None:
    def trickle(peer: Peer) -> None:
        peer.request()
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + b"y" * 1000:
            peer.send(bytes([byte]))
            threading.Event().wait(0.01)

    with RawServer(trickle) as server, takes(at_least=0.4, at_most=2):
        kind, error = ask(pool, server)
    assert kind == "unknown"
    assert isinstance(error, TimedOut)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(pool, status: int) -> None:
    with MediaServer() as elsewhere:
        location = f"Location: {elsewhere.url}/evil"
        with RawServer(answering(answer(status, "Moved", location))) as server:
            kind, error = ask(pool, server)
        assert elsewhere.log == []
    assert kind == "failed"
    assert isinstance(error, UnexpectedStatus)
    assert error.status == status
    assert error.location == f"{elsewhere.url}/evil"
    assert f"a redirect to '{elsewhere.url}/evil' is not followed" in str(error)


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (400, "answered PUT with 400"),
        (401, "credentials"),
        (404, "the path in 'servers'"),
        (409, "a folder is missing"),
        (414, "length of names"),
        (423, "locked"),
        (429, "asked too often"),
        (500, "its error log"),
        (501, "does not know PUT"),
        (503, "takes no requests now"),
        (403, "access rules"),
        (405, "WebDAV"),
        (413, "size of bodies"),
        (507, "disk is full"),
    ],
)
def test_a_refusal_says_what_to_do(pool, status: int, phrase: str) -> None:
    with RawServer(answering(answer(status, body=b"<html>"))) as server:
        kind, error = ask(pool, server)
        assert kind == "failed"
        assert phrase in str(error)
        # The answer was whole: the connection goes on.
        ask(pool, server)
        assert server.connections == 1


def test_a_long_error_page_is_a_refusal(pool) -> None:
    with RawServer(answering_once(answer(404, body=b"x" * 300_000))) as server:
        kind, error = ask(pool, server, "DELETE")
        assert kind == "failed"
        assert isinstance(error, UnexpectedStatus)
        assert pool.take(endpoint(server.url)) is None


# --- early answers


def early(data: bytes, end: str) -> object:
    def behave(peer: Peer) -> None:
        peer.head()
        peer.send(data)
        if end == "reset":
            peer.reset()
        elif end == "read on":
            peer.until_closed()
        # else: closed with what it has not read, so that the system sends a reset

    return behave


@pytest.mark.parametrize("end", ["close", "reset", "read on"])
@pytest.mark.parametrize("status", [301, 401, 413, 500, 502, 507])
def test_an_early_refusal_of_a_large_body(pool, files, status: int, end: str) -> None:
    body = files.body(64 * MEGABYTE)
    data = answer(status, "No", "Location: /there", body=b"an explanation")
    with RawServer(early(data, end), buffer=65536) as server, takes(at_most=2):
        kind, error = ask(pool, server, body=body)
        assert isinstance(error, UnexpectedStatus), repr(error)
        assert (kind, error.status, error.location) == ("failed", status, "/there")
        assert pool.take(endpoint(server.url)) is None
        assert len(server.log) == 1


def test_the_explanation_of_an_early_refusal_is_not_waited_for(pool, files) -> None:
    data = b"HTTP/1.1 307 No\r\nLocation: /there\r\nContent-Length: 1000\r\n\r\nbecause"
    with RawServer(early(data, "read on"), buffer=65536) as server, takes(at_most=0.3):
        kind, error = ask(pool, server, body=files.body(64 * MEGABYTE))
    assert kind == "failed"
    assert isinstance(error, UnexpectedStatus)
    assert error.location == "/there"


def test_success_before_the_body_is_read_is_no_success(pool, files) -> None:
    with RawServer(early(answer(201), "read on"), buffer=65536) as server:
        kind, error = ask(pool, server, body=files.body(64 * MEGABYTE))
    assert kind == "failed"
    assert isinstance(error, BadAnswer)
    assert "before it had the whole body" in str(error)


# --- Expect: 100-continue


def test_a_large_body_waits_for_100(pool, files) -> None:
    content = os.urandom(3 * MEGABYTE)
    before: list[bytes] = []

    def behave(peer: Peer) -> None:
        head = peer.head()
        peer.stream.settimeout(0.1)
        with pytest.raises(TimeoutError):
            before.append(peer.more())
        peer.stream.settimeout(5)
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert peer.body(head) == content
        peer.send(answer(201))

    with RawServer(behave) as server:
        assert ask(pool, server, body=files.body(content), limits=ASK)[0] == "done"
        assert b"Expect: 100-continue" in server.log[0]
    assert before == []


@pytest.mark.parametrize("size", [SMALL, SMALL + 1, MEGABYTE])
def test_a_smaller_body_does_not(pool, files, size: int) -> None:
    with RawServer(answering(answer(201))) as server, takes(at_most=0.25):
        assert ask(pool, server, body=files.body(size), limits=ASK)[0] == "done"
        assert b"Expect" not in server.log[0]


def test_what_is_sent_with_the_head_expects_nothing(pool, files) -> None:
    limits = Limits(expect_above=10)
    with RawServer(answering(answer(201))) as server, takes(at_most=0.5):
        assert ask(pool, server, body=b"x" * SMALL, limits=limits)[0] == "done"
        assert ask(pool, server, body=files.body(SMALL), limits=limits)[0] == "done"
        assert not any(b"Expect" in head for head in server.log)


def test_a_server_that_knows_no_100_is_sent_the_body_after_a_while(pool, files) -> None:
    content = os.urandom(2 * MEGABYTE)
    got: list[bytes] = []

    def behave(peer: Peer) -> None:
        got.append(peer.request()[1])
        peer.send(answer(201))

    with RawServer(behave) as server, takes(at_least=1.0, at_most=3):
        assert ask(pool, server, body=files.body(content), limits=Limits())[0] == "done"
    assert got == [content]


@pytest.mark.parametrize("status", [401, 413, 507])
def test_a_refusal_instead_of_100(pool, files, status: int) -> None:
    counts: list[int] = []

    def behave(peer: Peer) -> None:
        peer.head()
        peer.send(answer(status))
        counts.append(peer.until_closed())

    with RawServer(behave) as server:
        kind, error = ask(pool, server, body=files.body(8 * MEGABYTE), limits=ASK)
    assert (kind, error.status) == ("failed", status)
    assert counts == [0]


def test_417_is_asked_again_without_expecting(pool, files) -> None:
    content = os.urandom(2 * MEGABYTE)
    got: list[bytes] = []

    def behave(peer: Peer) -> None:
        head = peer.head()
        if b"Expect" in head:
            peer.send(answer(417))
            assert peer.until_closed() == 0
            return
        got.append(peer.body(head))
        peer.send(answer(201))

    with RawServer(behave) as server, takes(at_most=0.3 + 1):
        assert ask(pool, server, body=files.body(content), limits=ASK)[0] == "done"
        assert len(server.log) == 2
    assert got == [content]


def test_417_for_ever_is_a_refusal(pool, files) -> None:
    with RawServer(early(answer(417), "read on")) as server:
        kind, error = ask(pool, server, body=files.body(2 * MEGABYTE), limits=ASK)
        assert (kind, error.status) == ("failed", 417)
        assert len(server.log) == 2


def test_a_flood_of_interim_answers_instead_of_100(pool, files) -> None:
    def flood(peer: Peer) -> None:
        peer.head()
        while True:
            peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")

    with RawServer(flood) as server:
        kind, error = ask(pool, server, body=files.body(2 * MEGABYTE), limits=ASK)
    assert kind == "failed"
    assert "interim answers" in str(error)


def test_silence_after_the_head_and_then_closing(pool, files) -> None:
    def behave(peer: Peer) -> None:
        peer.head()

    with RawServer(behave) as server:
        kind, error = ask(pool, server, body=files.body(8 * MEGABYTE), limits=ASK)
    assert kind == "failed"
    assert isinstance(error, ConnectionLost)


# --- no connection


def test_a_server_that_is_down(pool) -> None:
    with takes(at_most=0.4):
        kind, error = ask(pool, f"http://127.0.0.1:{free_port()}")
    assert kind == "failed"
    assert isinstance(error, ConnectFailed)
    assert "refused" in str(error)


def test_a_server_that_does_not_let_anyone_in(pool) -> None:
    with a_full_backlog() as server, takes(at_least=0.4, at_most=2):
        kind, error = ask(pool, server.address)
    assert kind == "failed"
    assert isinstance(error, TimedOut)
    assert "no connection within 0.4 s" in str(error)


def test_a_host_without_an_address(pool, monkeypatch) -> None:
    # The system's resolver would ask the network; tests stay on loopback.
    def no_such_host(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    kind, error = ask(pool, "http://media.example:8080")
    assert kind == "failed"
    assert isinstance(error, ConnectFailed)
    assert "'media.example' has no address" in str(error)


@pytest.mark.parametrize("first", ["refused", "silent"])
def test_the_next_address_is_tried(pool, monkeypatch, first: str) -> None:
    with a_full_backlog() as silent, RawServer(answering(answer(201))) as server:
        port = endpoint(silent.address).port if first == "silent" else free_port()
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))
            for number in (port, server.port)
        ]
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            assert ask(pool, f"http://two-addresses-{first}.example")[0] == "done"


# --- frozen and cut connections


def test_frozen_before_the_body_is_read_is_failed(pool, files) -> None:
    with (
        RawServer(lambda peer: threading.Event().wait(1), buffer=65536) as server,
        takes(at_least=0.4, at_most=2),
    ):
        kind, error = ask(pool, server, body=files.body(64 * MEGABYTE))
    assert kind == "failed"
    assert isinstance(error, TimedOut)
    assert "took less than 64 KB/s over 0.4 s" in str(error)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_frozen_after_the_body_is_unknown(pool, method: str) -> None:
    with MediaServer() as server, takes(at_least=0.4, at_most=2):
        server.hang = "before-answer"
        kind, error = ask(pool, server, method)
    assert kind == "unknown"
    assert isinstance(error, TimedOut)
    assert "no answer within 0.4 s" in str(error)


def test_a_listener_that_never_accepts_is_unknown(pool) -> None:
    # The system takes the connection and the bytes: they may be read later.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kind, error = ask(pool, f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert kind == "unknown"
    assert isinstance(error, TimedOut)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_frozen_read_has_failed(pool, method: str) -> None:
    with MediaServer() as server:
        server.hang = "before-answer"
        kind, _ = ask(pool, server, method)
    assert kind == "failed"


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_that_is_cut_in_the_body_has_failed(pool, files, end: str) -> None:
    def behave(peer: Peer) -> None:
        peer.head()
        for _ in range(10):
            peer.more()
        if end == "reset":
            peer.reset()

    with RawServer(behave, buffer=65536) as server, takes(at_most=2):
        kind, error = ask(pool, server, body=files.body(64 * MEGABYTE))
        assert kind == "failed"
        assert isinstance(error, ConnectionLost)
        assert server.connections == 1


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_connection_that_is_cut_after_the_body_is_unknown(pool, end: str) -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        if end == "reset":
            peer.reset()

    with RawServer(behave) as server, takes(at_most=2):
        kind, error = ask(pool, server)
        assert kind == "unknown"
        assert isinstance(error, ConnectionLost)
        assert len(server.log) == 1


# --- slow servers


def reading(size: int, pause: float) -> object:
    """Reads so many bytes after each pause."""

    def behave(peer: Peer) -> None:
        head = peer.head()
        left = length_of(head) - len(peer.data)
        while left:
            left -= len(peer.more(min(size, left)))
            threading.Event().wait(pause)
        peer.send(answer(201))

    return behave


def length_of(head: bytes) -> int:
    return int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])


def test_a_server_that_reads_below_the_floor_has_failed(pool, files) -> None:
    # 4 KB every 20 ms are 200 KB/s; asked for is 1 MB/s.
    limits = Limits(timeout=0.3, window=0.5, floor=MEGABYTE, expect_above=1 << 40)
    with (
        RawServer(reading(4096, 0.02), buffer=16384) as server,
        takes(at_least=0.5, at_most=4),
    ):
        kind, error = ask(pool, server, body=files.body(64 * MEGABYTE), limits=limits)
    assert kind == "failed"
    assert isinstance(error, TimedOut)
    assert "took less than 1024 KB/s over 0.5 s" in str(error)


def test_a_server_that_reads_above_the_floor_is_waited_for(pool, files) -> None:
    # 64 KB every 5 ms are some 10 MB/s, and a tenth of that on a machine that is busy. The
    # whole takes several windows.
    limits = Limits(timeout=5, window=0.3, floor=MEGABYTE // 8, expect_above=1 << 40)
    with RawServer(reading(65536, 0.005), buffer=65536) as server, takes(at_least=0.5):
        body = files.body(16 * MEGABYTE)
        assert ask(pool, server, body=body, limits=limits)[0] == "done"


def test_the_time_for_an_answer_grows_with_the_body(pool, files) -> None:
    limits = Limits(timeout=0.1, sync_rate=10e6, expect_above=1 << 40)
    assert limits.answer_within(10_000_000) == pytest.approx(1.1)

    def behave(peer: Peer) -> None:
        peer.request()
        threading.Event().wait(0.5)
        peer.send(answer(201))

    with RawServer(behave) as server:
        assert ask(pool, server, body=b"small", limits=limits)[0] == "unknown"
        assert ask(pool, server, body=files.body(10_000_000), limits=limits)[0] == "done"


# --- never twice


class ClosesOnTheSecond:
    """Answers the first request of its life; closes without an answer on the next few."""

    def __init__(self, closing: int = 1) -> None:
        self.requests = 0
        self.closing = closing

    def __call__(self, peer: Peer) -> None:
        while True:
            peer.request()
            self.requests += 1
            if 2 <= self.requests <= 1 + self.closing:
                return
            peer.send(answer(201))


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_change_that_was_handed_over_is_never_sent_twice(pool, method: str) -> None:
    with RawServer(ClosesOnTheSecond()) as server:
        assert ask(pool, server)[0] == "done"
        kind, error = ask(pool, server, method)
        assert kind == "unknown"
        assert isinstance(error, ConnectionLost)
        assert len(server.log) == 2
        assert server.connections == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_is_sent_again_once(pool, method: str) -> None:
    with RawServer(ClosesOnTheSecond()) as server:
        assert ask(pool, server)[0] == "done"
        assert ask(pool, server, method)[0] == "done"
        assert [head.split(b" ")[0].decode() for head in server.log] == ["PUT", method, method]
    with RawServer(ClosesOnTheSecond(closing=9)) as server:
        assert ask(pool, server)[0] == "done"
        kind, error = ask(pool, server, method)
        assert kind == "failed"
        assert isinstance(error, ConnectionLost)
        assert len(server.log) == 3


def test_a_read_on_a_fresh_connection_is_not_sent_again(pool) -> None:
    with RawServer(Peer.request) as server:
        assert ask(pool, server, "GET")[0] == "failed"
        assert len(server.log) == 1


def test_a_read_whose_answer_has_begun_is_not_sent_again(pool) -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(answer(200))
        peer.request()
        peer.send(b"HTTP/1.1 20")

    with RawServer(behave) as server:
        assert ask(pool, server, "GET")[0] == "done"
        assert ask(pool, server, "GET")[0] == "failed"
        assert len(server.log) == 2


def test_a_put_whose_end_was_never_handed_over_is_sent_again(pool, files) -> None:
    content = os.urandom(64 * MEGABYTE)
    got: list[str] = []

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(answer(201))
        head = peer.head()
        if len(got) == 0:
            got.append("cut")
            peer.reset()
            return
        raise AssertionError(head)

    def second(peer: Peer) -> None:
        got.append(hashlib.sha256(peer.request()[1]).hexdigest())
        peer.send(answer(201))

    lives = iter([behave, second])

    def live(peer: Peer) -> None:
        next(lives)(peer)

    with RawServer(live, buffer=65536) as server:
        assert ask(pool, server, limits=PATIENT)[0] == "done"
        assert ask(pool, server, body=files.body(content), limits=PATIENT)[0] == "done"
        assert server.connections == 2
    assert got == ["cut", hashlib.sha256(content).hexdigest()]


def test_connections_are_used_again(pool, files) -> None:
    with RawServer(answering(answer(201))) as server:
        for body in (b"", b"x", files.body(100), files.body(MEGABYTE)):
            assert ask(pool, server, body=body)[0] == "done"
        assert server.connections == 1


def test_a_connection_that_the_server_means_to_close_is_not(pool) -> None:
    with RawServer(answering(answer(201, "X", "Connection: close"))) as server:
        for _ in range(3):
            assert ask(pool, server)[0] == "done"
        assert server.connections == 3


# --- the file


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * MEGABYTE + 1])
def test_every_size_arrives_whole(pool, files, media_server, size: int) -> None:
    content = os.urandom(size)
    for limits in (QUICK, ASK):
        assert ask(pool, media_server, body=files.body(content), limits=limits)[0] == "done"
        assert media_server.files.pop("a/b.txt") == content


def test_a_file_that_grows_is_sent_as_it_was(pool, files, media_server) -> None:
    body = files.body(b"x" * 100_000)
    os.pwrite(body.descriptor, b"y" * 100_000, 100_000)
    assert ask(pool, media_server, body=body)[0] == "done"
    assert media_server.files["a/b.txt"] == b"x" * 100_000


def truncating(body: FileBody, got: list[int]) -> object:
    def behave(peer: Peer) -> None:
        peer.head()
        peer.more()
        os.ftruncate(body.descriptor, 100)
        got.append(peer.until_closed())

    return behave


def test_a_file_that_is_cut_while_it_is_sent(pool, files) -> None:
    body = files.body(64 * MEGABYTE)
    got: list[int] = []
    with RawServer(truncating(body, got), buffer=65536) as server, takes(at_most=2):
        kind, error = ask(pool, server, body=body)
        assert kind == "failed"
        assert isinstance(error, FileCut)
        assert f"of {body.size} bytes while it was sent" in str(error)
        assert pool.take(endpoint(server.url)) is None
    # The server has seen the connection end before the body did.
    assert got[0] < body.size


@pytest.mark.parametrize("size", [1000, SMALL])
def test_a_small_file_that_is_shorter_sends_nothing(pool, files, size: int) -> None:
    body = files.body(size)
    os.ftruncate(body.descriptor, 10)
    heads: list[int] = []
    with RawServer(lambda peer: heads.append(peer.until_closed())) as server:
        kind, error = ask(pool, server, body=body)
    assert kind == "failed"
    assert isinstance(error, FileCut)
    assert heads == [0]


@pytest.mark.parametrize("size", [1000, MEGABYTE])
@pytest.mark.parametrize("again", [False, True])
def test_a_file_that_cannot_be_read_is_not_the_servers_fault(pool, size, again) -> None:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        with RawServer(answering(answer(201))) as server:
            if again:
                ask(pool, server)
            kind, error = ask(pool, server, body=FileBody(descriptor, size))
            assert kind == "failed"
            assert isinstance(error, FileCut)
            assert "can't be read" in str(error)
        assert server.connections == 1
    finally:
        os.close(descriptor)


def test_where_the_kernel_cannot_send_the_file_it_is_read(pool, files, media_server) -> None:
    # sendfile(2): EINVAL for a descriptor with O_APPEND. Sockets are without it, so
    # this one is prepared and put into the pool.
    content = os.urandom(3 * MEGABYTE + 1)
    body = files.body(content)
    stream = socket.create_connection(("127.0.0.1", media_server.port), 5)
    stream.setblocking(False)
    fcntl.fcntl(stream, fcntl.F_SETFL, fcntl.fcntl(stream, fcntl.F_GETFL) | os.O_APPEND)
    with pytest.raises(OSError) as caught:
        os.sendfile(stream.fileno(), body.descriptor, 0, 1)
    assert caught.value.errno == errno.EINVAL
    pool.give(Connection(endpoint(media_server.url), stream, os.getpid()))
    assert ask(pool, media_server, body=body, limits=PATIENT)[0] == "done"
    assert media_server.files["a/b.txt"] == content


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path, monkeypatch) -> Iterator[ssl.SSLContext]:
    """A server's context; its authority is the system's for the time of the test."""
    bundle = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    access.tls_context.cache_clear()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield context
    access.tls_context.cache_clear()


def test_uploads_over_tls_are_whole(pool, files, tls) -> None:
    got: list[bytes] = []

    def behave(peer: Peer) -> None:
        while True:
            head = peer.head()
            if b"Expect" in head:
                peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            got.append(peer.body(head))
            peer.send(answer(201))

    contents = [os.urandom(size) for size in (0, 1, SMALL, SMALL + 1, 5 * MEGABYTE + 1)]
    with RawServer(behave, context=tls) as server:
        for content in contents:
            body = files.body(content)
            assert ask(pool, server, body=body, limits=Limits())[0] == "done"
            assert ask(pool, server, body=body, limits=PATIENT)[0] == "done"
        # Session tickets came with the first answer, and did not cost the connection.
        assert server.connections == 1
    assert got == [content for content in contents for _ in range(2)]


def test_a_slow_reader_over_tls_gets_all_of_it(pool, files, tls) -> None:
    content = os.urandom(2 * MEGABYTE)
    got: list[bytes] = []

    def behave(peer: Peer) -> None:
        head = peer.head()
        while len(peer.data) < length_of(head):
            peer.data += peer.more(16384)
            threading.Event().wait(0.001)
        got.append(peer.data)
        peer.send(answer(201))

    with RawServer(behave, context=tls, buffer=16384) as server:
        assert ask(pool, server, body=files.body(content), limits=PATIENT)[0] == "done"
    assert got == [content]


def test_a_large_answer_over_tls(pool, tls) -> None:
    page = os.urandom(60_000)
    with RawServer(answering(answer(200, body=page)), context=tls) as server:
        kind, response = ask(pool, server, "GET")
    assert kind == "done"
    assert response.body == page


def test_a_file_that_is_cut_over_tls(pool, files, tls) -> None:
    body = files.body(64 * MEGABYTE)
    got: list[int] = []
    with RawServer(truncating(body, got), context=tls, buffer=65536) as server:
        kind, error = ask(pool, server, body=body)
    assert kind == "failed"
    assert isinstance(error, FileCut)


def test_an_early_refusal_over_tls(pool, files, tls) -> None:
    data = answer(413)
    with RawServer(early(data, "read on"), context=tls, buffer=65536) as server:
        kind, error = ask(pool, server, body=files.body(64 * MEGABYTE))
    assert (kind, error.status) == ("failed", 413)


def test_a_certificate_of_nobody_known(pool, tls) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with RawServer(answering(answer(201)), context=context) as server:
        kind, error = ask(pool, server)
    assert kind == "failed"
    assert isinstance(error, ConnectFailed)
    assert "certificate is not accepted" in str(error)


def test_a_certificate_for_another_host(pool, tls, authority) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(context)
    with RawServer(answering(answer(201)), context=context) as server:
        kind, error = ask(pool, server)
    assert kind == "failed"
    assert "certificate is not accepted" in str(error)


def test_tls_to_a_server_that_has_none(pool, tls) -> None:
    with RawServer(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        kind, error = ask(pool, server.url.replace("http:", "https:"))
    assert kind == "failed"
    assert isinstance(error, ConnectFailed)
    assert "no TLS connection" in str(error)


def test_plain_http_to_a_server_with_tls(pool, tls) -> None:
    with RawServer(answering(answer(201)), context=tls) as server:
        kind, error = ask(pool, server.url.replace("https:", "http:"))
    assert kind == "unknown"
    assert isinstance(error, (BadAnswer, ConnectionLost))


def test_a_server_that_freezes_in_the_handshake(pool, tls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, takes(at_least=0.4, at_most=2):
        kind, error = ask(pool, f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert kind == "failed"
    assert isinstance(error, TimedOut)
    assert "no connection within" in str(error)


def test_a_server_that_hangs_up_in_the_handshake(pool, tls) -> None:
    with RawServer(Peer.more) as server:
        kind, error = ask(pool, server.url.replace("http:", "https:"))
    assert kind == "failed"
    assert isinstance(error, ConnectFailed)


# --- memory

MEMORY = """
import os, resource, socket, sys, threading, time
from outgrow import fanout
from outgrow.http import FileBody, Pool, Request
from outgrow.servers import Server

def discard(listener, size, buffer=bytearray(1 << 20)):
    stream, _ = listener.accept()
    left = size
    while left > 0:
        left -= stream.recv_into(buffer)
    stream.sendall(b"HTTP/1.1 201 Created\\r\\nContent-Length: 0\\r\\n\\r\\n")

def put(size):
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=discard, args=(listener, size), daemon=True).start()
    server = Server("it", f"http://127.0.0.1:{listener.getsockname()[1]}/")
    descriptor = os.open(sys.argv[1], os.O_RDONLY)
    request = Request("PUT", "a", frozenset({201}), (), FileBody(descriptor, size))
    outcome = fanout.run(Pool(), {server: request}, need=1, deadline=time.monotonic() + 60)
    assert outcome.done, outcome

put(2 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
put(1 << 30)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.drill
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.touch()
    os.truncate(path, 1 << 30)
    command = [sys.executable, "-c", MEMORY, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 8192, "KB more after a file of 1 GB"
