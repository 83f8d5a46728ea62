"""The embedded media server among strangers: what one connection may cost it.

The limits are small here, so that the tests are quick; their order is that of the laws in
`outgrow.media.connections`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from tests.live.processes import wait_until
from tests.media.embedded import Embedded, read_all, read_head, running
from tests.raw import takes

MEGABYTE = 1024 * 1024
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def strict(root: Path) -> Iterator[Embedded]:
    """A server with little patience: 0.5 s for a head, 10 KB/s over each 0.5 s for a body."""
    options = ["--head-timeout", "0.5", "--body-timeout", "0.5", "--min-rate", "10K"]
    with running(root, *options) as server:
        yield server


def pour(connection: socket.socket, data: bytes, most: int) -> int:
    """Send `data` again and again until the server has had enough; the bytes sent."""
    sent = 0
    with suppress(OSError):
        while sent < most:
            connection.sendall(data)
            sent += len(data)
    return sent


def drip(connection: socket.socket, data: bytes, seconds: float) -> float:
    """Send `data` again and again, slowly, until the server answers; the seconds it took."""
    began = time.monotonic()
    connection.settimeout(0.05)
    while time.monotonic() - began < seconds:
        try:
            connection.sendall(data)
            if connection.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except OSError:
            break
    connection.settimeout(10)
    return time.monotonic() - began


def last_words(connection: socket.socket) -> bytes:
    """All that was answered. What was sent too late resets the connection afterwards."""
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def begin(connection: socket.socket) -> None:
    """Make it busy, for certain: its upload is waited for."""
    connection.sendall(PUT + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
    assert read_head(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"


def connections(server: Embedded) -> int:
    found = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(1 for one in found if one.status != "LISTEN")


# Heads


@pytest.mark.parametrize("fields", [b"Cookie: " + b"x" * 16_384 + b"\r\n", b"X: y\r\n" * 3000])
def test_a_head_in_one_piece_that_is_too_large(root: Path, fields: bytes) -> None:
    with running(root) as server:
        received = server.raw(GET + fields + b"\r\n")
        assert received.startswith(b"HTTP/1.1 431")
        assert b"connection: close" in received


def test_a_query_counts_too(root: Path) -> None:
    with running(root) as server:
        query = b"GET /a?" + b"q" * 17_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert server.raw(query).startswith(b"HTTP/1.1 431")


def test_a_head_within_the_limit_is_served(root: Path) -> None:
    with running(root) as server:
        assert server.status("GET", "/a", headers={"Cookie": "x" * 15_000}) == 404
    with running(root, "--max-head", "0") as server:
        assert server.status("GET", "/a", headers={"Cookie": "x" * 40_000}) == 404


@pytest.mark.parametrize("start", [GET + b"X: ", b"GET /", GET, b""])
def test_a_head_without_end_costs_no_memory(root: Path, start: bytes) -> None:
    pieces = {GET: b"X: y\r\n" * 1000, b"": b"\r\n" * 1000}
    with running(root) as server:
        server.status("GET", "/a")
        before = server.peak_memory
        with server.connect() as connection:
            connection.sendall(start)
            sent = pour(connection, pieces.get(start, b"x" * 10_000), 64 * MEGABYTE)
        assert sent < 16 * MEGABYTE  # the kernel's buffers on both sides, at most
        assert server.peak_memory - before < 4 * MEGABYTE
        assert server.status("GET", "/a") == 404


@pytest.mark.parametrize("first", [b"", CHUNKED + b"1\r\nx\r\n0\r\n\r\n"])
def test_a_slow_head_is_408_counted_from_its_first_byte(strict: Embedded, first: bytes) -> None:
    with strict.connect() as connection:
        if first:
            connection.sendall(first)
            assert read_head(connection).startswith(b"HTTP/1.1 201")
        connection.sendall(GET)
        seconds = drip(connection, b"X: y\r\n", 5)
        assert 0.4 < seconds < 2
        received = last_words(connection)
        assert received.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in received


def test_a_slow_head_behind_a_whole_request_is_408(strict: Embedded) -> None:
    received = strict.raw(GET + b"\r\n" + GET)
    assert received.startswith(b"HTTP/1.1 404")
    assert b"HTTP/1.1 408" in received


def test_empty_lines_hold_no_connection(strict: Embedded) -> None:
    with strict.connect() as connection:
        assert drip(connection, b"\r\n", 5) < 2


# Bodies


def test_a_body_that_drips_is_408(strict: Embedded) -> None:
    for head, data in (
        (PUT + b"Content-Length: 1000\r\n\r\n", b"x"),
        (PUT + b"Content-Length: 10000000\r\n\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
    ):
        with strict.connect() as connection:
            connection.sendall(head)
            assert 0.4 < drip(connection, data, 5) < 2
            assert last_words(connection).startswith(b"HTTP/1.1 408")
    wait_until(lambda: strict.uploads == 0, "the uploads were not removed")
    assert not (strict.root / "a").exists()


def test_a_body_above_the_floor_is_stored(strict: Embedded) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(15):
            time.sleep(0.1)
            yield bytes(4000)

    assert strict.status("PUT", "/a", pieces()) == 201
    assert (strict.root / "a").stat().st_size == 60_000


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"1\r\nx\r\n0\r\nTrailer: ", b"x" * 10_000),
        (b"1\r\nx\r\n0\r\n", b"Trailer: y\r\n" * 1000),
        (b"1;extension=", b"x" * 10_000),
    ],
)
def test_trailers_and_extensions_have_an_end(root: Path, start: bytes, more: bytes) -> None:
    with running(root) as server:
        server.status("PUT", "/b", bytes(MEGABYTE))
        before = server.peak_memory
        with server.connect() as connection:
            connection.sendall(CHUNKED + start)
            assert pour(connection, more, 64 * MEGABYTE) < 16 * MEGABYTE
        assert server.peak_memory - before < 4 * MEGABYTE
        wait_until(lambda: server.uploads == 0, "the upload was not removed")
        assert not (root / "a").exists()


def test_a_body_that_must_not_be_written_is_not_waited_for(root: Path) -> None:
    with running(root, env={"OUTGROW_MEDIA_TOKEN": "s3cret"}) as server, server.connect() as one:
        with takes(at_most=2):
            one.sendall(PUT + b"Content-Length: 1000\r\n\r\nx")
            received = read_all(one)
        assert received.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in received


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
def test_the_body_of_a_request_that_has_none_is_not_waited_for(root: Path, method: bytes) -> None:
    with running(root) as server, server.connect() as connection:
        head = method + b" /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head)
        received = read_all(connection)
        assert received.startswith(b"HTTP/1.1 404")
        assert b"connection: close" in received


# Readers


def test_a_reader_that_drips_is_cut_off(strict: Embedded) -> None:
    (strict.root / "a").write_bytes(bytes(64 * MEGABYTE))
    with strict.connect() as connection:
        connection.sendall(GET + b"\r\n")
        began = time.monotonic()
        connection.settimeout(1)
        with suppress(ConnectionError):
            while strict.open_files or time.monotonic() - began < 0.3:
                assert time.monotonic() - began < 5
                connection.recv(10)
                time.sleep(0.02)
    wait_until(lambda: connections(strict) == 0, "the connection was not closed")


@pytest.mark.parametrize("ending", [b"\r\n", b"Connection: close\r\n\r\n"])
def test_an_answer_that_is_never_read_is_cut_off(strict: Embedded, ending: bytes) -> None:
    # Each answer leaves the application at once, and fills the kernel's buffers.
    (strict.root / "a").write_bytes(bytes(250_000))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", strict.port))
        connection.sendall((GET + b"\r\n") * 50 + GET + ending)
        wait_until(lambda: connections(strict) == 0, "the connection was not closed")
    assert strict.status("GET", "/a") == 200


def test_a_small_rest_that_is_never_read_is_cut_off_too(root: Path) -> None:
    # Less than what asyncio buffers before it tells anybody.
    (root / "a").write_bytes(bytes(40_000))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as connection:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        options = ["--fd", str(listener.fileno()), "--body-timeout", "0.5"]
        with running(root, *options, pass_fds=[listener.fileno()]) as server:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(listener.getsockname())
            connection.sendall(GET + b"Connection: close\r\n\r\n")
            connection.recv(1)
            wait_until(lambda: connections(server) == 0, "the connection was not closed")


def test_a_slow_reader_above_the_floor_gets_all(root: Path) -> None:
    size = 8 * MEGABYTE
    (root / "a").write_bytes(bytes(size))
    # On loopback the window opens by 64 KB at a time: every third of a second at this rate.
    options = ["--body-timeout", "2", "--min-rate", "10K"]
    with running(root, *options) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        read_head(connection)
        began = time.monotonic()
        received = 0
        # 200 KB/s: the kernel takes nothing new for longer than the window.
        while time.monotonic() - began < 6:
            received += len(connection.recv(10_000))
            time.sleep(0.05)
        assert received + len(read_all(connection)) == size


# Connections


def test_beyond_the_limit_the_longest_idle_goes_and_then_503(root: Path) -> None:
    with running(root, "--connections", "4") as server, ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(4)]
        for connection in held:
            connection.sendall(b"HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_head(connection).startswith(b"HTTP/1.1 404")
        for connection in held[1:]:
            begin(connection)
        assert server.status("GET", "/a") == 404
        assert read_all(held[0]) == b""  # closed
        held[0] = stack.enter_context(server.connect())
        begin(held[0])
        received = server.raw(GET + b"\r\n")
        assert received.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in received
        held[1].sendall(b"x")
        assert read_head(held[1]).startswith(b"HTTP/1.1 201")
        assert server.status("GET", "/a") == 200


def test_a_crowd_is_cut_off_and_those_who_are_served_notice_nothing(root: Path) -> None:
    with running(root, "--connections", "4") as server, ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(4)]
        for connection in held:
            begin(connection)
        for _ in range(300):
            stack.enter_context(server.connect()).sendall(b"")
        wait_until(lambda: connections(server) <= 4 + 64 + 1, "too many are held")
        for connection in held:
            connection.sendall(b"x")
            assert read_head(connection).startswith(b"HTTP/1.1 20")


@pytest.mark.parametrize("options", [(), ("--connections", "0")])
def test_hundreds_of_connections_at_once(root: Path, options: tuple[str, ...]) -> None:
    # Each has a socket and a file: more descriptors than the usual limit of 1024.
    with running(root, *options) as server, ExitStack() as stack:
        (root / "a").write_bytes(bytes(32 * MEGABYTE))
        many = [stack.enter_context(server.connect()) for _ in range(600)]
        for connection in many:
            connection.sendall(GET + b"\r\n")
        for connection in many:
            assert read_head(connection).startswith(b"HTTP/1.1 200")


# Answers do not mix


def test_garbage_behind_a_request_does_not_get_into_its_answer(root: Path) -> None:
    content = b"a" * (8 * MEGABYTE)
    (root / "a").write_bytes(content)
    with running(root) as server, server.connect() as connection:
        connection.sendall(GET + b"\r\n")
        read_head(connection)
        connection.sendall(b"\x00\x01garbage\r\n\r\n")
        received = b""
        with suppress(ConnectionError):
            received = read_all(connection)
        assert received.strip(b"a") == b""


def test_browsers_are_never_left_to_guess(root: Path) -> None:
    (root / "a").write_bytes(b"a")
    with running(root) as server:
        answers = [
            server.ask("GET", "/a").headers,
            server.ask("GET", "/a", headers={"If-None-Match": "*"}).headers,
            server.ask("GET", "/none").headers,
            server.ask("PUT", "/b", b"b").headers,
            server.ask("DELETE", "/b").headers,
            server.ask("PATCH", "/b").headers,
        ]
        assert [one["X-Content-Type-Options"] for one in answers] == ["nosniff"] * 6
        for request in (b"nonsense\r\n\r\n", GET + b"X: " + b"x" * 20_000):
            assert b"x-content-type-options: nosniff\r\n" in server.raw(request)


def test_an_upload_does_not_become_a_page_of_the_site(root: Path) -> None:
    with running(root) as server:
        server.ask("PUT", "/a.svg", b"<svg/>")
        headers = server.ask("GET", "/a.svg").headers
        assert headers["Content-Type"] == "image/svg+xml"  # for <img>
        assert headers["Content-Disposition"] == "attachment"
        assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    with running(root, "--active") as server:
        headers = server.ask("GET", "/a.svg").headers
        assert headers["Content-Disposition"] is None
        assert headers["Content-Security-Policy"] is None


def test_many_strangers_do_not_keep_the_others_waiting(strict: Embedded) -> None:
    stop = threading.Event()

    def annoy() -> None:
        while not stop.is_set():
            with suppress(OSError), strict.connect() as connection:
                connection.sendall(GET)
                drip(connection, b"X: y\r\n", 1)

    threads = [threading.Thread(target=annoy) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            assert strict.status("PUT", "/b", b"b") in {201, 204}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
