"""Request heads as bytes, and the pool on real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from outgrow import access, http
from outgrow.answer import BODY_LIMIT
from outgrow.endpoint import endpoint
from outgrow.http import (
    IDLE_CONNECTIONS,
    IDLE_LIMIT,
    Connection,
    FileBody,
    Pool,
    Request,
    resolve,
)
from outgrow.testing import FakeClock
from tests.live.processes import wait_until

# --- request heads

HOST = endpoint("http://h:8080/base/")


def test_the_head_of_a_put() -> None:
    request = Request("PUT", "a b", frozenset({201}), (("Authorization", "Bearer x"),), b"123")
    assert request.head(HOST, expect=True) == (
        b"PUT /base/a%20b HTTP/1.1\r\n"
        b"Host: h:8080\r\n"
        b"Content-Length: 3\r\n"
        b"Expect: 100-continue\r\n"
        b"Authorization: Bearer x\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("PUT", b"", b"Content-Length: 0\r\n"),
        ("PUT", FileBody(0, 1 << 40), b"Content-Length: 1099511627776\r\n"),
        ("GET", b"", b""),
        ("DELETE", b"", b""),
    ],
)
def test_the_length_is_sent_where_there_is_a_body(
    method: str, body: bytes | FileBody, length: bytes
) -> None:
    head = Request(method, "a", frozenset(), (), body).head(HOST)
    assert head == f"{method} /base/a HTTP/1.1\r\nHost: h:8080\r\n".encode() + length + b"\r\n"


@pytest.mark.parametrize("method", ["", "GET ", "GET / HTTP/1.1\r\nX: 1\r\n\r\nGET", "PÜT"])
def test_a_method_that_breaks_the_head_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match="is not an HTTP method"):
        Request(method, "a", frozenset())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "x"),
        ("A:", "x"),
        ("A B", "x"),
        ("A\r\n", "x"),
        ("Ä", "x"),
        ("A", "x\r\nEvil: 1"),
        ("A", "x\n"),
        ("A", "x\r"),
        ("A", " x"),
        ("A", "x\t"),
        ("A", "x\0y"),
        ("A", "é"),
        ("A", "\x7f"),
    ],
)
def test_a_header_that_breaks_the_head_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match="would break the request") as caught:
        Request("PUT", "a", frozenset(), ((key, value),))
    assert not value or value not in str(caught.value)  # it may be a secret


def test_large_bodies_come_from_files() -> None:
    assert Request("PUT", "a", frozenset(), (), b"x" * BODY_LIMIT).size == BODY_LIMIT
    with pytest.raises(ValueError, match="as a FileBody"):
        Request("PUT", "a", frozenset(), (), b"x" * (BODY_LIMIT + 1))


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(max_size=5),
    st.text(max_size=10),
)
def test_no_name_and_no_header_adds_a_line(name: str, key: str, value: str) -> None:
    try:
        request = Request("DELETE", name, frozenset(), ((key, value),))
    except ValueError:
        request = Request("DELETE", name, frozenset(), (("Key", "value"),))
    lines = request.head(HOST).split(b"\r\n")
    assert len(lines) == 5
    assert lines[0].startswith(b"DELETE /base/")
    assert lines[0].endswith(b" HTTP/1.1")
    assert len(lines[0].split(b" ")) == 3
    assert not any(byte in line for line in lines for byte in b"\r\n\0")


METHODS = ["GET", "HEAD", "OPTIONS", "PROPFIND", "PUT", "DELETE", "MKCOL", "POST", "MOVE"]


def test_what_changes_something() -> None:
    changing = [method for method in METHODS if Request(method, "a", frozenset()).changes]
    assert changing == ["PUT", "DELETE", "MKCOL", "POST", "MOVE"]


# --- the pool


class Peer:
    """A listener on loopback, and the server's ends of what was opened to it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.where = endpoint(f"http://127.0.0.1:{self.listener.getsockname()[1]}/")
        self.accepted: list[socket.socket] = []

    def open(self, process: int | None = None) -> Connection:
        stream = socket.create_connection((self.where.host, self.where.port), 5)
        stream.setblocking(False)
        self.listener.settimeout(5)
        self.accepted.append(self.listener.accept()[0])
        self.accepted[-1].settimeout(5)
        return Connection(self.where, stream, process or os.getpid())

    def close(self) -> None:
        for stream in (self.listener, *self.accepted):
            stream.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool(clock: FakeClock) -> Iterator[Pool]:
    pool = Pool(clock)
    yield pool
    pool.close()


def is_closed(connection: Connection) -> bool:
    return connection.socket.fileno() == -1


def test_an_idle_connection_is_used_again_once(peer: Peer, pool: Pool) -> None:
    assert pool.take(peer.where) is None
    connection = peer.open()
    pool.give(connection)
    assert pool.take(peer.where) is connection
    assert pool.take(peer.where) is None
    connection.close()


def test_a_connection_is_for_its_endpoint_alone(peer: Peer, pool: Pool) -> None:
    pool.give(peer.open())
    assert pool.take(endpoint("http://127.0.0.1:1/")) is None


def test_the_youngest_is_taken_first(peer: Peer, pool: Pool, clock: FakeClock) -> None:
    old, young = peer.open(), peer.open()
    pool.give(old)
    clock.advance(1)
    pool.give(young)
    assert pool.take(peer.where) is young
    young.close()


@pytest.mark.parametrize(("idle", "closed"), [(IDLE_LIMIT - 0.01, False), (IDLE_LIMIT, True)])
def test_an_idle_connection_is_closed_after_a_while(peer, pool, clock, idle, closed) -> None:
    connection = peer.open()
    pool.give(connection)
    clock.advance(idle)
    assert (pool.take(peer.where) is None) is closed
    assert is_closed(connection) is closed
    connection.close()


def test_old_ones_are_closed_when_another_is_given(peer, pool, clock) -> None:
    old, young = peer.open(), peer.open()
    pool.give(old)
    clock.advance(IDLE_LIMIT + 1)
    pool.give(young)
    assert is_closed(old)
    assert not is_closed(young)


def test_only_so_many_are_kept(peer: Peer, pool: Pool) -> None:
    connections = [peer.open() for _ in range(IDLE_CONNECTIONS + 2)]
    for connection in connections:
        pool.give(connection)
    assert [is_closed(one) for one in connections].count(False) == IDLE_CONNECTIONS
    assert not is_closed(connections[-1])


def test_a_connection_that_the_server_closed_is_not_used(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    peer.accepted[0].close()
    wait_until(lambda: not connection.is_quiet(), "the end of the connection was not seen")
    assert pool.take(peer.where) is None
    assert is_closed(connection)


def test_a_connection_on_which_the_server_spoke_is_not_used(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    peer.accepted[0].sendall(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    wait_until(lambda: not connection.is_quiet(), "what was sent was not seen")
    assert pool.take(peer.where) is None
    assert is_closed(connection)


def test_a_connection_that_was_reset_is_not_used(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    peer.accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.accepted[0].close()
    wait_until(lambda: not connection.is_quiet(), "the reset was not seen")
    assert pool.take(peer.where) is None


def test_behind_a_dead_one_an_older_one_that_lives_is_found(peer: Peer, pool: Pool) -> None:
    alive, dead = peer.open(), peer.open()
    pool.give(alive)
    pool.give(dead)
    peer.accepted[1].close()
    wait_until(lambda: not dead.is_quiet(), "the end of the connection was not seen")
    assert pool.take(peer.where) is alive
    alive.close()


def test_closing_the_pool_closes_what_is_idle(peer: Peer, pool: Pool) -> None:
    connections = [peer.open() for _ in range(3)]
    for connection in connections:
        pool.give(connection)
    pool.close()
    assert all(is_closed(one) for one in connections)
    assert pool.take(peer.where) is None


def test_a_child_leaves_its_parents_connection_alone(peer: Peer, pool: Pool) -> None:
    connection = peer.open()
    pool.give(connection)
    child = os.fork()
    if child == 0:
        # Nothing of the test framework may run here: the exit status is the result.
        status = 1
        try:
            status = 0 if pool.take(peer.where) is None and is_closed(connection) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # The server has neither heard anything nor seen the connection end.
    server = peer.accepted[0]
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
    assert pool.take(peer.where) is connection
    connection.socket.send(b"hello")
    server.settimeout(5)
    assert server.recv(9) == b"hello"
    connection.close()


def test_threads_never_share_a_connection(peer: Peer, pool: Pool) -> None:
    for _ in range(4):
        pool.give(peer.open())
    owners: dict[int, int] = {}
    faults: list[str] = []

    def work(number: int) -> None:
        taken = 0
        deadline = time.monotonic() + 30
        try:
            while taken < 300 and time.monotonic() < deadline:
                connection = pool.take(peer.where)
                if connection is None:
                    continue
                taken += 1
                if owners.setdefault(id(connection), number) != number:
                    faults.append("two threads had one connection")
                del owners[id(connection)]
                pool.give(connection)
        except Exception as error:
            faults.append(repr(error))
        if taken < 300:
            faults.append("a thread hardly ever got one")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []


def test_closing_while_others_take(peer: Peer, clock: FakeClock) -> None:
    pool = Pool(clock)
    faults: list[str] = []
    stop = threading.Event()

    def take_and_give() -> None:
        try:
            while not stop.is_set():
                for connection in filter(None, [pool.take(peer.where), pool.take(peer.where)]):
                    pool.give(connection)
        except Exception as error:
            faults.append(repr(error))

    threads = [threading.Thread(target=take_and_give) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        pool.give(peer.open())
        pool.give(peer.open())
        pool.close()
    stop.set()
    for thread in threads:
        thread.join(10)
    pool.close()
    assert faults == []


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch) -> Iterator[None]:
    """The test's own authority is the system's."""
    bundle = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    access.tls_context.cache_clear()
    yield
    access.tls_context.cache_clear()


def tls_pair(
    authority: trustme.CA, peer: Peer, version: ssl.TLSVersion
) -> tuple[Connection, ssl.SSLSocket]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = context.maximum_version = version
    authority.issue_cert("127.0.0.1").configure_cert(context)
    raw = peer.open()
    server: list[ssl.SSLSocket] = []
    # The server shakes hands in a thread and says nothing else; TLS 1.3 sends
    # two session tickets by itself.
    shaking = threading.Thread(
        target=lambda: server.append(context.wrap_socket(peer.accepted[-1], server_side=True))
    )
    shaking.start()
    raw.socket.settimeout(5)
    raw.socket = access.tls_context().wrap_socket(raw.socket, server_hostname="127.0.0.1")
    raw.socket.setblocking(False)
    shaking.join(5)
    peer.accepted[-1] = server[0]
    return raw, server[0]


def test_session_tickets_are_not_unsolicited_data(trusted, authority, peer, pool) -> None:
    connection, server = tls_pair(authority, peer, ssl.TLSVersion.TLSv1_3)
    # The tickets have come: the socket is readable, though there is no data.
    waiting = socket.socket(fileno=os.dup(connection.socket.fileno()))
    wait_until(lambda: has_bytes(waiting), "no session ticket came")
    waiting.close()
    pool.give(connection)
    assert pool.take(peer.where) is connection
    assert connection.is_tls
    connection.socket.send(b"hello")
    server.settimeout(5)
    assert server.recv(9) == b"hello"
    connection.close()


def has_bytes(stream: socket.socket) -> bool:
    stream.setblocking(False)
    try:
        return bool(stream.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("what", ["speaks", "says goodbye", "closes"])
def test_over_tls_what_the_server_did_is_seen(
    trusted, authority, peer, pool, version, what
) -> None:
    connection, server = tls_pair(authority, peer, version)
    assert connection.is_quiet()
    pool.give(connection)
    if what == "speaks":
        server.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    elif what == "says goodbye":
        server.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            server.unwrap()
    else:
        server.close()
    wait_until(lambda: not connection.is_quiet(), "nothing was seen")
    assert pool.take(peer.where) is None
    assert is_closed(connection)


def test_a_child_says_nothing_on_its_parents_tls_connection(trusted, authority, peer, pool) -> None:
    connection, server = tls_pair(authority, peer, ssl.TLSVersion.TLSv1_3)
    pool.give(connection)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if pool.take(peer.where) is None else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.take(peer.where) is connection
    connection.socket.send(b"hello")
    server.settimeout(5)
    assert server.recv(9) == b"hello"
    connection.close()


# --- names


def test_a_host_is_looked_up_once_a_minute(clock: FakeClock, monkeypatch) -> None:
    monkeypatch.setattr(http, "_resolved", {})
    first = resolve("127.0.0.1", 80, clock)
    assert first[0] == (socket.AF_INET, ("127.0.0.1", 80))
    clock.advance(http.RESOLVE_FOR - 1)
    assert resolve("127.0.0.1", 80, clock) is first
    clock.advance(1)
    assert resolve("127.0.0.1", 80, clock) is not first
    assert resolve("::1", 81, clock)[0][0] is socket.AF_INET6


def test_a_host_that_does_not_exist_is_an_oserror() -> None:
    # RFC 6761 §6.4: no resolver may find it. AI_NUMERICHOST would not look at all.
    with pytest.raises(OSError):
        resolve("nowhere.invalid", 80)
