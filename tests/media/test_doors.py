"""Readers and writers of the embedded media server at ports of their own."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from outgrow.errors import ConfigurationError
from outgrow.media.doors import Place, open_doors
from outgrow.media.protocol import Rules
from tests.live.processes import wait_until
from tests.media.embedded import Embedded, read_all, read_head, running
from tests.raw import takes

WRITES = ("--write-bind", "127.0.0.1:0")
TOKEN = {"OUTGROW_MEDIA_TOKEN": "s3cret"}
RIGHT = {"Authorization": "Bearer s3cret"}
MEGABYTE = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@contextmanager
def two(
    root: Path, *options: str, bind: str = "127.0.0.1:0", env: Mapping[str, str] | None = None
) -> Iterator[tuple[Embedded, Embedded]]:
    """One server, as readers and as writers see it."""
    with running(root, *WRITES, *options, bind=bind, env=env) as server:
        assert len(server.ports) == 2
        yield server.by_port(0), server.by_port(1)


def refuses(server: Embedded, headers: Mapping[str, str] | None = None) -> None:
    for method, path in (("PUT", "/a"), ("DELETE", "/a"), ("GET", "/.outgrow/list/")):
        answer = server.ask(method, path, b"new" if method == "PUT" else None, headers)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD"), method


# Who may do what


def test_files_are_written_and_listed_at_one_port_and_read_at_both(root: Path) -> None:
    with two(root) as (readers, writers):
        refuses(readers)
        assert writers.status("PUT", "/a", b"content") == 201
        assert writers.ask("GET", "/.outgrow/list/").content.startswith(b'["a",7,')
        refuses(readers)
        for server in (readers, writers):
            assert server.ask("GET", "/a").content == b"content"
        assert writers.status("DELETE", "/a") == 204
        assert readers.status("GET", "/a") == 404


def test_a_token_does_not_help_at_the_readers_port(root: Path) -> None:
    with two(root, env=TOKEN) as (readers, writers):
        refuses(readers, RIGHT)
        assert writers.status("PUT", "/a", b"x") == 401
        assert writers.status("PUT", "/a", b"x", RIGHT) == 201
        refuses(readers, RIGHT)
        assert readers.ask("GET", "/a").content == b"x"


def test_a_body_for_the_readers_port_is_not_waited_for(root: Path) -> None:
    with two(root) as (readers, _writers):
        head = b"PUT /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        for more in (b"Expect: 100-continue\r\n\r\n", b"\r\n"):
            received = readers.raw(head + more)
            assert received.startswith(b"HTTP/1.1 405")
            assert b"connection: close" in received


def test_files_stay_private_at_the_readers_port(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("for-this-test-alone\n")
    options = ("--secret-file", str(tmp_path / "secret"))
    with two(root, *options, bind="0.0.0.0:0", env=TOKEN) as (readers, writers):
        assert writers.status("PUT", "/a", b"x", RIGHT) == 201
        assert readers.status("GET", "/a") == 403
        assert readers.status("GET", "/a", headers=RIGHT) == 200


# Which needs a token


def test_readers_may_come_from_anywhere_without_a_token(root: Path) -> None:
    with two(root, bind="0.0.0.0:0") as (readers, writers):
        assert readers.ready.startswith(f"Serving {root} on http://0.0.0.0:{readers.port}; ")
        assert writers.status("PUT", "/a", b"x") == 201
        assert readers.status("GET", "/a") == 200


@pytest.mark.parametrize("write", ["0.0.0.0:0", "[::]:0"])
def test_writers_from_elsewhere_need_one(write: str) -> None:
    place = Place("write-bind", write)
    with pytest.raises(ConfigurationError, match="without a token they could write"):
        open_doors(Place("bind", "127.0.0.1:0"), place, Rules())
    doors = open_doors(Place("bind", "127.0.0.1:0"), place, Rules(token="s3cret"))
    for door in doors:
        door.listener.close()
    assert [door.rules.reads_only for door in doors] == [True, False]


def test_a_bad_address_names_its_option() -> None:
    here = Place("bind", "127.0.0.1:0")
    with pytest.raises(ConfigurationError, match="write-bind: 'x' is not an address"):
        open_doors(here, Place("write-bind", "x"), Rules())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="write-bind: can't listen"):
            open_doors(here, Place("write-bind", f"127.0.0.1:{port}"), Rules())
    with open(os.devnull) as file, pytest.raises(ConfigurationError, match="is not a socket"):
        open_doors(here, Place("write-fd", fd=file.fileno()), Rules())


def test_the_name_of_the_readers_port_is_none_to_write_by(root: Path) -> None:
    # The resolver takes it for 127.0.0.1; written so, it is no IP address.
    with two(root, bind="127.1:0") as (_readers, writers):
        assert writers.status("PUT", "/a", b"x", {"Host": "127.1"}) == 421
    with running(root, "--write-bind", "127.1:0") as server:
        assert server.status("PUT", "/a", b"x", {"Host": "127.1"}) == 201


# Sockets that are inherited


def test_both_sockets_can_be_inherited(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "writers"
    with (
        socket.create_server(("127.0.0.1", 0)) as public,
        socket.create_server(str(path), family=socket.AF_UNIX) as private,
    ):
        fds = [public.fileno(), private.fileno()]
        options = ["--fd", str(fds[0]), "--write-fd", str(fds[1])]
        with running(root, *options, pass_fds=fds) as server:
            assert server.ready.endswith(f"; files are written at unix:{path}\n")
            with socket.socket(socket.AF_UNIX) as writer:
                writer.connect(str(path))
                head = b"PUT /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
                writer.sendall(head)
                assert read_head(writer).startswith(b"HTTP/1.1 201")
            refuses(server)
            assert server.ask("GET", "/a").content == b"x"


# Limits


def begin(connection: socket.socket) -> None:
    """Make it busy: its upload is waited for."""
    head = b"PUT /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
    connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
    assert read_head(connection).startswith(b"HTTP/1.1 100")


def test_a_crowd_of_readers_does_not_keep_the_writers_out(root: Path) -> None:
    (root / "big").write_bytes(bytes(64 * MEGABYTE))
    with two(root, "--connections", "2") as (readers, writers), ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(readers.connect())
            connection.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_head(connection)
        assert readers.status("GET", "/big") == 503
        assert writers.status("PUT", "/a", b"x") == 201
        for _ in range(2):
            begin(stack.enter_context(writers.connect()))
        assert writers.status("PUT", "/a", b"x") == 503


def test_the_longest_idle_of_the_same_port_makes_room(root: Path) -> None:
    with two(root, "--connections", "1") as (readers, writers), readers.connect() as reader:
        head = b"HEAD /none HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader.sendall(head)
        assert read_head(reader).startswith(b"HTTP/1.1 404")
        for _ in range(3):
            assert writers.status("PUT", "/a", b"x") in {201, 204}
        reader.sendall(head)  # it is still there
        assert read_head(reader).startswith(b"HTTP/1.1 404")
        assert readers.status("GET", "/none") == 404
        assert read_all(reader) == b""  # closed, to make room


def test_both_ports_keep_the_limits(root: Path) -> None:
    options = ("--head-timeout", "0.3", "--max-head", "2K", "--max-body", "1K")
    with two(root, *options) as pair:
        for server in pair:
            slow = b"GET /a HTTP/1.1\r\n"
            assert server.raw(slow).startswith(b"HTTP/1.1 408")
            assert server.status("GET", "/a", headers={"X": "x" * 3000}) == 431
        assert pair[1].status("PUT", "/a", bytes(2000)) == 413


def test_uploads_and_downloads_at_both_are_quick(root: Path) -> None:
    # Without TCP_NODELAY each answer waits for a delayed acknowledgement of 40 ms.
    with two(root) as pair:
        pair[1].ask("PUT", "/a", bytes(16_384))
        for server in pair:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            seconds = []
            for _ in range(21):
                began = time.monotonic()
                connection.request("GET", "/a")
                connection.getresponse().read()
                seconds.append(time.monotonic() - began)
            connection.close()
            assert sorted(seconds)[10] < 0.03


# Its end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_stop_soon_and_quietly(root: Path, number: signal.Signals) -> None:
    with two(root) as (readers, writers), readers.connect() as idle, writers.connect() as busy:
        idle.sendall(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_head(idle)
        head = b"PUT /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000\r\n\r\n"
        busy.sendall(head + bytes(MEGABYTE))
        wait_until(lambda: writers.uploads == 1, "the upload did not begin")
        with takes(at_most=3):
            writers.process.send_signal(number)
            # Nobody else comes in while the upload is given its last second.
            wait_until(lambda: not any(map(answers, (readers, writers))), "a port is still open")
            assert writers.process.poll() is None
            errors = writers.process.communicate(timeout=10)[1]
        assert read_all(busy).startswith(b"HTTP/1.1 503")
        assert "Traceback" not in errors
        assert writers.uploads == 0


def answers(server: Embedded) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return False
    return True
