"""The server that we give to our users' tests, asked over real sockets."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgrow.testing import FakeClock, Hang, MediaServer, entity_tag, free_port
from tests.live.processes import wait_until


@pytest.fixture(params=["memory", "folder"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MediaServer]:
    with MediaServer(tmp_path if request.param == "folder" else None) as server:
        yield server


def ask(
    server: MediaServer,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: dict[str, str] | None = None,
    *,
    timeout: float = 5,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        chunked = body is not None and not isinstance(body, bytes)
        connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def connect(server: MediaServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 5)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


# What it does


def test_files_are_written_read_and_deleted(server: MediaServer) -> None:
    assert ask(server, "PUT", "/a/b%20c.txt", b"hello") == (201, b"")
    assert server.files["a/b c.txt"] == b"hello"
    assert ask(server, "PUT", "/a/b%20c.txt", b"again") == (204, b"")
    assert ask(server, "GET", "/a/b%20c.txt") == (200, b"again")
    assert ask(server, "HEAD", "/a/b%20c.txt") == (200, b"")
    assert ask(server, "DELETE", "/a/b%20c.txt") == (204, b"")
    assert ask(server, "DELETE", "/a/b%20c.txt") == (404, b"")
    assert ask(server, "GET", "/a/b%20c.txt") == (404, b"")
    assert dict(server.files) == {}
    assert server.log[:3] == [
        ("PUT", "/a/b%20c.txt", 201),
        ("PUT", "/a/b%20c.txt", 204),
        ("GET", "/a/b%20c.txt", 200),
    ]


def test_what_the_test_puts_in_is_served(server: MediaServer) -> None:
    server.files["x.txt"] = b"x"
    assert ask(server, "GET", "/x.txt") == (200, b"x")
    assert list(server.files) == ["x.txt"]
    assert len(server.files) == 1
    del server.files["x.txt"]
    with pytest.raises(KeyError):
        del server.files["x.txt"]
    assert ask(server, "GET", "/x.txt?version=2") == (404, b"")


def test_a_chunked_body(server: MediaServer) -> None:
    assert ask(server, "PUT", "/c", iter([b"one", b"two"])) == (201, b"")
    assert server.files["c"] == b"onetwo"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"PUT /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        b"PUT /cut HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
        b"PUT /cut HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"PUT /cut HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_body_that_does_not_come_whole_changes_nothing(
    server: MediaServer, request_bytes: bytes
) -> None:
    with connect(server) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert dict(server.files) == {}
    assert server.log == [("PUT", "/cut", 0)]


def test_a_connection_is_kept(server: MediaServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.connect()
    used = connection.sock
    for name in "abc":
        connection.request("PUT", f"/{name}", b"x")
        assert connection.getresponse().read() == b""
    assert connection.sock is used
    connection.close()
    assert sorted(server.files) == ["a", "b", "c"]


def test_the_body_is_asked_for_with_100_continue(server: MediaServer) -> None:
    with connect(server) as connection:
        connection.sendall(
            b"PUT /e HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"body")
        assert read_all(connection).startswith(b"HTTP/1.1 201 ")
    assert server.files["e"] == b"body"


def test_what_is_refused_is_refused_before_the_body_is_asked_for(server: MediaServer) -> None:
    server.read_only = True
    with connect(server) as connection:
        connection.sendall(
            b"PUT /e HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert read_all(connection).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("path", ["/../x", "/a/%2e%2e/x", "/a%00b", "/./x", "x"])
def test_names_that_would_escape_are_refused(server: MediaServer, path: str) -> None:
    assert ask(server, "PUT", path, b"x") == (400, b"")
    assert dict(server.files) == {}


def test_folders(server: MediaServer) -> None:
    assert ask(server, "PUT", "/a/b.txt", b"b")[0] == 201
    assert ask(server, "MKCOL", "/a/")[0] == 405
    assert ask(server, "MKCOL", "/c/d/")[0] == 409
    assert ask(server, "MKCOL", "/c/")[0] == 201
    assert ask(server, "MKCOL", "/c/d/")[0] == 201
    assert ask(server, "PUT", "/a", b"x")[0] == 409
    assert ask(server, "PUT", "/a/b.txt/c", b"x")[0] == 409
    assert ask(server, "PUT", "/a/new/", b"x")[0] == 409
    assert ask(server, "DELETE", "/a")[0] == 409
    assert dict(server.files) == {"a/b.txt": b"b"}


def test_a_server_that_wants_mkcol() -> None:
    with MediaServer(missing_parent_409=True) as server:
        assert ask(server, "PUT", "/a/b/c.txt", b"c")[0] == 409
        assert ask(server, "MKCOL", "/a/")[0] == 201
        assert ask(server, "MKCOL", "/a/b/")[0] == 201
        assert ask(server, "PUT", "/a/b/c.txt", b"c")[0] == 201
        assert ask(server, "DELETE", "/a/b/c.txt")[0] == 204
        # A folder stays when its last file goes.
        assert ask(server, "PUT", "/a/b/d.txt", b"d")[0] == 201
        # Measured: lighttpd and Apache remove a folder with all that is in it.
        assert ask(server, "DELETE", "/a")[0] == 204
        assert dict(server.files) == {}
        assert ask(server, "PUT", "/a/e.txt", b"e")[0] == 409


def test_conditions_of_writers(server: MediaServer) -> None:
    server.files["a"] = b"1"
    assert ask(server, "PUT", "/a", b"2", {"If-None-Match": "*"})[0] == 412
    assert ask(server, "PUT", "/b", b"2", {"If-None-Match": "*"})[0] == 201
    assert ask(server, "DELETE", "/a", headers={"If-Match": '"other"'})[0] == 412
    assert ask(server, "DELETE", "/none", headers={"If-Match": "*"})[0] == 412
    assert ask(server, "DELETE", "/a", headers={"If-Match": entity_tag(b"1")})[0] == 204


# Its faults


def test_read_only(server: MediaServer) -> None:
    server.files["a"] = b"1"
    server.read_only = True
    assert [ask(server, method, "/a")[0] for method in ("PUT", "DELETE", "MKCOL")] == [403] * 3
    assert ask(server, "GET", "/a") == (200, b"1")


def test_a_fixed_answer(server: MediaServer) -> None:
    server.answer_with(503)
    assert [ask(server, "PUT", "/a", b"1")[0] for _ in range(3)] == [503] * 3
    server.answer_with(None)
    assert ask(server, "PUT", "/a", b"1")[0] == 201


def test_a_fixed_answer_for_some_requests(server: MediaServer) -> None:
    server.answer_with(507, times=2, method="PUT")
    assert ask(server, "GET", "/a")[0] == 404
    assert [ask(server, "PUT", "/a", b"1")[0] for _ in range(3)] == [507, 507, 201]


def test_a_cut_answer(server: MediaServer) -> None:
    server.files["a"] = b"0123456789"
    server.cut_body_after = 4
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(server, "GET", "/a")
    assert caught.value.partial == b"0123"
    server.cut_body_after = 10
    assert ask(server, "GET", "/a") == (200, b"0123456789")


def test_a_delay(server: MediaServer) -> None:
    server.delay = 30
    with pytest.raises(TimeoutError):
        ask(server, "GET", "/a", timeout=0.05)
    server.delay = 0
    assert ask(server, "GET", "/a")[0] == 404


@pytest.mark.parametrize("stage", ["before-body", "before-answer"])
def test_a_put_that_hung_is_carried_out_later(server: MediaServer, stage: Hang) -> None:
    server.hang = stage
    with pytest.raises(TimeoutError):
        ask(server, "PUT", "/late", b"late", timeout=0.05)
    wait_until(lambda: server.held == 1, "the request is not held")
    # Others are answered meanwhile: a DELETE proves nothing about the PUT.
    server.hang = None
    assert ask(server, "DELETE", "/late")[0] == 404
    server.thaw()
    done = ("PUT", "/late", 201)
    wait_until(lambda: done in server.log, "the late PUT was never carried out")
    assert server.files["late"] == b"late"
    assert server.log == [("DELETE", "/late", 404), ("PUT", "/late", 201)]
    assert server.held == 0


def test_a_frozen_server_accepts_and_acts_once_thawed(server: MediaServer) -> None:
    server.freeze()
    with pytest.raises(TimeoutError):
        ask(server, "PUT", "/late", b"late", timeout=0.05)
    wait_until(lambda: server.held == 1, "the request is not held")
    assert dict(server.files) == {}
    server.thaw()
    wait_until(lambda: "late" in server.files, "the late PUT was never carried out")


def test_what_hangs_when_the_server_is_stopped_is_never_carried_out(server: MediaServer) -> None:
    server.hang = "before-answer"
    with pytest.raises(TimeoutError):
        ask(server, "PUT", "/late", b"late", timeout=0.05)
    wait_until(lambda: server.held == 1, "the request is not held")
    server.stop()
    server.hang = None
    server.start()
    server.thaw()
    assert ask(server, "GET", "/late")[0] == 404
    assert ("PUT", "/late", 201) not in server.log


def test_bytes_instead_of_an_answer(server: MediaServer) -> None:
    server.raw_answer = b"220 mail.example ESMTP\r\n"
    with connect(server) as connection:
        connection.sendall(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        assert read_all(connection) == b"220 mail.example ESMTP\r\n"
    assert dict(server.files) == {}


def test_a_callable_instead_of_an_answer(server: MediaServer) -> None:
    def early(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    server.raw_answer = early
    with connect(server) as connection:
        # The head alone: the answer comes before the body.
        connection.sendall(b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


# Its life


def test_it_comes_back_on_its_port_with_its_files(server: MediaServer) -> None:
    assert ask(server, "PUT", "/a", b"1")[0] == 201
    port = server.port
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    server.start()
    assert server.port == port
    assert ask(server, "GET", "/a") == (200, b"1")


def test_stopping_closes_kept_connections(server: MediaServer) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 404")
        server.stop()
        assert connection.recv(1000) == b""
    server.stop()


def test_it_leaves_no_thread() -> None:
    before = threading.active_count()
    with MediaServer() as server:
        server.hang = "before-answer"
        with pytest.raises(TimeoutError):
            ask(server, "PUT", "/a", b"1", timeout=0.05)
    assert threading.active_count() == before


def test_it_is_started_once(server: MediaServer) -> None:
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()


def test_a_taken_port_is_an_error(server: MediaServer) -> None:
    with pytest.raises(OSError, match="in use"):
        MediaServer(port=server.port).start()
    assert free_port() != server.port


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be kept so")
def test_a_free_port_is_not_told_twice(monkeypatch) -> None:
    # By chance alone some of so many among a thousand would be the same.
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw4")
    for _ in range(3):
        assert len({free_port() for _ in range(64)}) == 64


CHOOSE = "from outgrow.testing import free_port; print(*{free_port() for _ in range(450)})"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a port be kept so")
def test_the_port_of_a_stopped_server_is_chosen_by_no_other_process(monkeypatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw5")
    with MediaServer() as server, MediaServer() as running:
        server.stop()
        words = [sys.executable, "-c", CHOOSE]
        chosen: set[str] = set()
        # So many that the port would be among them: there are a thousand.
        for _ in range(8):
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            chosen.update(done.stdout.split())
        assert len(chosen) > 900
        assert not chosen & {str(server.port), str(running.port)}
        server.start()
        assert ask(server, "GET", "/a")[0] == 404


def test_each_worker_of_xdist_has_ports_of_its_own(monkeypatch) -> None:
    chosen = []
    for worker in ("gw0", "gw1", "gw2"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        chosen.append({free_port() for _ in range(150)})
    assert not chosen[0] & chosen[1]
    assert not chosen[2] & (chosen[0] | chosen[1])


@pytest.mark.parametrize("worker", ["gw1000", "main", ""])
def test_a_port_is_found_whatever_the_environment_says(monkeypatch, worker: str) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    assert 20_000 <= free_port() < 26_000


def test_many_clients_at_once(server: MediaServer) -> None:
    def save(name: str) -> None:
        for number in range(20):
            ask(server, "PUT", f"/{name}/{number}", b"x")

    threads = [threading.Thread(target=save, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.files) == len(server.log) == 160


def test_the_fixture_is_found_without_an_import(media_server: MediaServer) -> None:
    assert ask(media_server, "PUT", "/a", b"1") == (201, b"")
    assert media_server.url == f"http://127.0.0.1:{media_server.port}"


def test_a_clock_that_moves_when_told() -> None:
    clock = FakeClock(100)
    clock.advance(2.5)
    assert clock() == 102.5
