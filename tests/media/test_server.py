"""The embedded media server: the real command as a process, asked over sockets."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.processes import missing, wait_until
from tests.media.embedded import Embedded, command, environment, read_all, read_head, running
from tests.raw import takes

MEGABYTE = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[Embedded]:
    with running(root) as server:
        yield server


def put(path: str, length: int, *headers: str) -> bytes:
    """The head of a PUT."""
    lines = [f"PUT {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


# Files


def test_files_are_written_read_and_deleted(server: Embedded) -> None:
    assert server.status("PUT", "/a/b/c%20d.txt", b"hello") == 201
    assert (server.root / "a/b/c d.txt").read_bytes() == b"hello"
    answer = server.ask("GET", "/a/b/c%20d.txt")
    assert (answer.status, answer.content) == (200, b"hello")
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = server.ask("HEAD", "/a/b/c%20d.txt")
    assert head.headers["ETag"] == answer.headers["ETag"]
    assert head.headers["Content-Length"] == "5"
    assert server.status("PUT", "/a/b/c%20d.txt", b"again") == 204
    assert server.status("DELETE", "/a/b/c%20d.txt") == 204
    assert server.status("DELETE", "/a/b/c%20d.txt") == 404
    assert server.status("GET", "/a/b/c%20d.txt") == 404


def test_a_folder_is_never_removed_nor_replaced(server: Embedded) -> None:
    server.ask("PUT", "/a/b.txt", b"b")
    assert server.status("DELETE", "/a") == 409
    assert server.status("DELETE", "/a/") == 400
    assert server.status("DELETE", "/") == 400
    assert server.status("PUT", "/a", b"x") == 409
    assert server.status("PUT", "/a/b.txt/c", b"x") == 409
    assert server.status("MKCOL", "/new/") == 405
    assert server.status("GET", "/a") == 404
    assert (server.root / "a/b.txt").read_bytes() == b"b"


@pytest.mark.parametrize("size", [0, 1, 65536, 256 * 1024, 256 * 1024 + 1, 3 * MEGABYTE + 7])
def test_bodies_of_every_size_come_back(server: Embedded, size: int) -> None:
    content = os.urandom(size)
    assert server.status("PUT", "/plain", content) == 201
    pieces = [content[i : i + 100_000] for i in range(0, size, 100_000)]
    assert server.status("PUT", "/chunked", iter(pieces)) == 201
    for name in ("/plain", "/chunked"):
        answer = server.ask("GET", name)
        assert answer.content == content
    assert server.uploads == 0


def test_ranges_and_conditions(server: Embedded) -> None:
    content = os.urandom(MEGABYTE)
    tag = server.ask("PUT", "/a", content).headers["ETag"]
    part = server.ask("GET", "/a", headers={"Range": "bytes=1000-700000", "If-Range": tag})
    assert (part.status, part.headers["Content-Range"]) == (206, "bytes 1000-700000/1048576")
    assert part.content == content[1000:700001]
    assert server.status("GET", "/a", headers={"Range": "bytes=1048576-"}) == 416
    assert server.status("GET", "/a", headers={"If-None-Match": tag}) == 304
    assert server.status("PUT", "/a", b"2", {"If-Match": '"other"'}) == 412
    assert server.status("PUT", "/a", b"2", {"If-Match": tag}) == 204
    assert server.status("DELETE", "/a", headers={"If-Match": tag}) == 412
    assert server.status("PUT", "/a", b"3", {"If-None-Match": "*"}) == 412
    assert server.status("PUT", "/new/b", b"3", {"If-Match": "*"}) == 412
    assert not (server.root / "new").exists()
    assert (server.root / "a").read_bytes() == b"2"


def test_the_file_with_the_masters_id_is_a_file_like_any(server: Embedded) -> None:
    assert server.status("PUT", "/outgrow-master-id.txt", b"id", {"If-None-Match": "*"}) == 201
    assert server.status("PUT", "/outgrow-master-id.txt", b"no", {"If-None-Match": "*"}) == 412
    assert server.ask("GET", "/outgrow-master-id.txt").content == b"id"


def test_versions_that_come_fast_have_different_tags(server: Embedded) -> None:
    tags = {server.ask("PUT", "/a", b"same size").headers["ETag"] for _ in range(50)}
    assert len(tags) == 50


def test_what_would_be_stored_encoded_is_refused(server: Embedded) -> None:
    assert server.status("PUT", "/a", b"x", {"Content-Encoding": "gzip"}) == 415
    head = b"PUT /a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    assert server.raw(head).startswith(b"HTTP/1.1 501")
    with server.connect() as connection:
        connection.sendall(head + b"1\r\nx\r\n0\r\n\r\n")
        assert read_head(connection).startswith(b"HTTP/1.1 501")
    assert server.status("GET", "/a") == 404


@pytest.mark.parametrize("header", ["Content-MD5", "Repr-Digest"])
@pytest.mark.parametrize("size", [4, MEGABYTE])
def test_checksums(server: Embedded, header: str, size: int) -> None:
    content = os.urandom(size)
    value = {
        "Content-MD5": base64.b64encode(hashlib.md5(content).digest()).decode(),
        "Repr-Digest": f"sha-512=:{base64.b64encode(hashlib.sha512(content).digest()).decode()}:",
    }[header]
    wrong = bytes([content[0] ^ 1]) + content[1:]
    assert server.status("PUT", "/a/b", wrong, {header: value}) == 400
    assert not (server.root / "a").exists()
    assert server.uploads == 0
    assert server.status("PUT", "/a/b", content, {header: value}) == 201


# Connections


def test_a_connection_is_kept_even_after_a_refusal(server: Embedded) -> None:
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(put("/.hidden", 5) + b"hello")
            assert read_head(connection).startswith(b"HTTP/1.1 400")
            assert connection.recv(1000).startswith(b"Bad Request: a part of the name starts")
            connection.sendall(put("/a", 5) + b"hello")
            assert read_head(connection).startswith(b"HTTP/1.1 20")


def test_the_body_is_asked_for_with_100_continue(server: Embedded) -> None:
    with server.connect() as connection:
        connection.sendall(put("/a", 5, "Expect: 100-continue"))
        assert read_head(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert read_head(connection).startswith(b"HTTP/1.1 201")


def test_a_download_does_not_wait_for_a_delayed_acknowledgement(server: Embedded) -> None:
    server.ask("PUT", "/a", bytes(16_384))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    seconds = []
    for _ in range(30):
        began = time.monotonic()
        connection.request("GET", "/a")
        connection.getresponse().read()
        seconds.append(time.monotonic() - began)
    connection.close()
    # Linux delays an acknowledgement by 40 ms at least (TCP_DELACK_MIN).
    assert statistics.median(seconds) < 0.03


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/.hidden", [], b"400"),
        ("/there", ["If-None-Match: *"], b"412"),
        ("/folder", [], b"409"),
        ("/there/below", [], b"409"),
        ("/part", ["Content-Range: bytes 0-4/5"], b"400"),
        ("/bad", ["Content-MD5: nonsense"], b"400"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_body(
    server: Embedded, path: str, headers: list[str], status: bytes
) -> None:
    server.ask("PUT", "/there", b"there")
    server.ask("PUT", "/folder/file", b"file")
    received = server.raw(put(path, 5, "Expect: 100-continue", *headers))
    assert received.startswith(b"HTTP/1.1 " + status)  # no 100 came first
    assert b"connection: close" in received


def test_a_large_body_that_is_refused_is_not_read_to_its_end(server: Embedded) -> None:
    with server.connect() as connection:
        connection.sendall(put("/.hidden", 10**12))
        with pytest.raises(OSError):  # the server closes: reset, or broken pipe
            for _ in range(1000):
                connection.sendall(bytes(MEGABYTE))


def test_an_unknown_method_and_garbage(server: Embedded) -> None:
    assert server.raw(b"BREW /a HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert server.raw(b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert server.status("GET", "/a") == 404


# Uploads that do not come to their end


def test_a_cut_body_leaves_nothing(server: Embedded) -> None:
    server.ask("PUT", "/old", b"old")
    for head in (
        put("/old", 10**7),
        put("/new/file", 10**7),
        b"PUT /old HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n80000\r\n",
    ):
        with server.connect() as connection:
            connection.sendall(head + bytes(MEGABYTE // 2))
            wait_until(lambda: server.uploads == 1, "the upload did not begin")
            # Nobody sees it meanwhile.
            assert server.ask("GET", "/old").content == b"old"
            assert server.status("GET", "/new/file") == 404
        wait_until(lambda: server.uploads == 0, "the cut upload was not removed")
    assert sorted(path.name for path in server.root.iterdir()) == [
        ".outgrow-gone",
        ".outgrow-new",
        "old",
    ]
    assert (server.root / "old").read_bytes() == b"old"


def test_sigkill_in_the_middle_of_a_body_leaves_no_half_file(root: Path) -> None:
    with running(root) as server:
        server.ask("PUT", "/old", b"old")
        with server.connect() as first, server.connect() as second:
            first.sendall(put("/old", 10**7) + bytes(MEGABYTE))
            second.sendall(put("/new", 10**7) + bytes(MEGABYTE))
            wait_until(lambda: server.uploads == 2, "the uploads did not begin")
            server.stop(signal.SIGKILL)
        assert server.uploads == 2  # what a killed process can't help leaving
    assert sorted(path.name for path in root.iterdir()) == [".outgrow-gone", ".outgrow-new", "old"]
    with running(root) as server:
        assert server.uploads == 0
        assert server.status("GET", "/new") == 404
        assert server.ask("GET", "/old").content == b"old"


def test_a_second_server_leaves_the_uploads_of_the_first_alone(
    server: Embedded, root: Path
) -> None:
    content = os.urandom(MEGABYTE)
    with server.connect() as connection:
        connection.sendall(put("/a", MEGABYTE) + content[:-1])
        wait_until(lambda: server.uploads == 1, "the upload did not begin")
        with running(root) as second:
            assert server.uploads == 1
            connection.sendall(content[-1:])
            assert read_head(connection).startswith(b"HTTP/1.1 201")
            assert second.ask("GET", "/a").content == content


@pytest.mark.parametrize("head", [put("/a", 10), put("/a", 10**7)])
def test_a_body_that_stands_still_is_given_up(root: Path, head: bytes) -> None:
    with running(root, "--body-timeout", "0.2") as server:
        received = server.raw(head + b"hello")
        assert received.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in received
        wait_until(lambda: server.uploads == 0, "the upload was not removed")
        assert not (root / "a").exists()


def test_a_reader_that_stands_still_is_given_up(root: Path) -> None:
    (root / "big").write_bytes(bytes(32 * MEGABYTE))
    with running(root, "--body-timeout", "0.2") as server, server.connect() as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: server.open_files == 1, "the file was not opened")
        wait_until(lambda: server.open_files == 0, "the file was not closed")


def test_a_file_that_is_cut_while_it_is_read_is_not_taken_for_whole(server: Embedded) -> None:
    (server.root / "big").write_bytes(bytes(32 * MEGABYTE))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/big")
    answer = connection.getresponse()
    answer.read(1000)
    os.truncate(server.root / "big", 1000)
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    connection.close()


def test_the_limit_of_a_body(root: Path) -> None:
    with running(root, "--max-body", "1M") as server:
        assert server.status("PUT", "/a", bytes(MEGABYTE)) == 201
        assert server.raw(put("/b", MEGABYTE + 1, "Expect: 100-continue")).startswith(
            b"HTTP/1.1 413"
        )
        assert server.status("PUT", "/b", iter([bytes(MEGABYTE), b"1"])) == 413
        assert server.uploads == 0
        assert not (root / "b").exists()


# The disk


def test_a_full_disk_is_507_and_leaves_nothing(root: Path) -> None:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    mount = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'
    wrapper = ["unshare", "--mount", *as_root, "sh", "-c", mount, str(root)]
    probe = subprocess.run([*wrapper, "true"], capture_output=True, text=True, timeout=10)
    if probe.returncode:
        missing(f"no small file system can be mounted: {probe.stderr.strip()}", "sudo make test")
    with running(root, wrapper=wrapper) as server:
        # Known before the body: the length says it.
        refused = server.raw(put("/a", 3 * MEGABYTE, "Expect: 100-continue"))
        assert refused.startswith(b"HTTP/1.1 507")
        # Found out by writing.
        chunks = (bytes(100_000) for _ in range(30))
        assert server.status("PUT", "/a", chunks) == 507
        assert server.status("GET", "/a") == 404
        # The room has been given back.
        assert server.status("PUT", "/a", bytes(MEGABYTE + MEGABYTE // 2)) == 201
        assert server.ask("GET", "/a").content == bytes(MEGABYTE * 3 // 2)


def test_a_file_too_large_for_the_file_system_is_413(root: Path) -> None:
    # The limit stands in for a file system's; sh counts it in blocks of 512 bytes.
    wrapper = ["sh", "-c", 'ulimit -f 2048 && exec "$@"', "sh"]
    with running(root, wrapper=wrapper) as server:
        assert server.status("PUT", "/a", bytes(3 * MEGABYTE)) == 413
        assert server.uploads == 0


def test_symbolic_links_are_not_followed(server: Embedded, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (server.root / "file").symlink_to("../secret")
    (server.root / "folder").symlink_to("../outside")
    (server.root / "loop").symlink_to("loop")
    for path in ("/file", "/folder/x", "/loop", "/loop/x", "/folder"):
        assert server.status("GET", path) == 403, path
        assert server.status("PUT", path, b"x") == 403, path
        assert server.status("DELETE", path) == 403, path
    assert (tmp_path / "secret").read_text() == "secret"
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_is_no_file_is_neither_read_nor_written(server: Embedded) -> None:
    os.mkfifo(server.root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        # A relative name: the path of a Unix socket has room for 108 bytes only.
        before = Path.cwd()
        os.chdir(server.root)
        try:
            unix.bind("socket")
        finally:
            os.chdir(before)
    for path in ("/pipe", "/socket"):
        assert server.status("GET", path) == 404
        assert server.status("PUT", path, b"x") == 409
        assert server.status("DELETE", path) == 409


@pytest.mark.parametrize(
    "target",
    [
        b"/../outside",
        b"/%2e%2e/outside",
        b"/..%2foutside",
        b"/%2e%2e%2foutside",
        b"/..%5coutside",
        b"/..\\outside",
        b"//outside",
        b"/./outside",
        b"/a/../../outside",
        b"/outside%00.jpg",
        b"/outside%0d%0aX: y",
        b"/.outside",
        b"/.outgrow-new/outside",
        b"/" + b"x" * 256,
        b"/" + b"x/" * 600 + b"x",
        b"/outside/",
        b"/\xff\xfe",
        b"/%ff%fe",
        b"outside",
        b"*",
    ],
)
def test_hostile_names(server: Embedded, tmp_path: Path, target: bytes) -> None:
    for method in (b"PUT", b"DELETE", b"GET"):
        head = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
        received = server.raw(method + b" " + target + head)
        assert received.startswith(b"HTTP/1.1 400"), (method, target, received)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == []


def test_memory_does_not_depend_on_the_size(server: Embedded) -> None:
    server.ask("PUT", "/small", bytes(MEGABYTE))
    server.ask("GET", "/small")
    before = server.peak_memory
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    pieces = (bytes(MEGABYTE) for _ in range(96))
    connection.request("PUT", "/big", pieces, {"Content-Length": str(96 * MEGABYTE)})
    assert connection.getresponse().read() == b""
    connection.request("GET", "/big")
    answer = connection.getresponse()
    while answer.read(MEGABYTE):
        pass
    connection.close()
    assert server.peak_memory - before < 8 * MEGABYTE


# Several at once


def together(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_several_that_want_a_new_file_one_gets_it(root: Path) -> None:
    with running(root) as first, running(root) as second:
        for name in (f"/{number}" for number in range(20)):
            statuses: list[int] = []

            def create(number: int, name: str = name, statuses: list[int] = statuses) -> None:
                server = (first, second)[number % 2]
                body = str(number).encode()
                statuses.append(server.status("PUT", name, body, {"If-None-Match": "*"}))

            together(6, create)
            assert sorted(statuses) == [201, 412, 412, 412, 412, 412]


def test_if_match_loses_no_update(server: Embedded) -> None:
    server.ask("PUT", "/counter", b"0")
    wins: list[int] = []

    def count(_number: int) -> None:
        for _ in range(20):
            seen = server.ask("GET", "/counter")
            value = int(seen.content) + 1
            match = {"If-Match": seen.headers["ETag"]}
            if server.status("PUT", "/counter", str(value).encode(), match) == 204:
                wins.append(value)

    together(4, count)
    assert sorted(wins) == list(range(1, len(wins) + 1))
    assert server.ask("GET", "/counter").content == str(len(wins)).encode()


# Its life


def test_it_says_in_one_line_that_it_is_ready(server: Embedded, root: Path) -> None:
    assert server.ready == f"Serving {root} on http://127.0.0.1:{server.port}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_soon_and_quietly(server: Embedded, number: signal.Signals) -> None:
    with server.connect() as idle, server.connect() as uploading:
        idle.sendall(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_head(idle)
        uploading.sendall(put("/a", 10**7) + bytes(MEGABYTE))
        wait_until(lambda: server.uploads == 1, "the upload did not begin")
        with takes(at_most=3):
            errors = server.stop(number)
        received = read_all(uploading)
    assert received.startswith(b"HTTP/1.1 503")
    assert "Traceback" not in errors
    assert server.uploads == 0
    assert server.process.returncode == (0 if number == signal.SIGINT else -signal.SIGTERM)


def test_it_stops_without_a_traceback_whatever_is_going_on(root: Path) -> None:
    (root / "big").write_bytes(bytes(64 * MEGABYTE))
    get = b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(root) as server, ExitStack() as stack:
        for head, begun in (
            (put("/.hidden", 10**7) + b"x", b"HTTP/1.1 400"),  # refused, the body is not whole
            (put("/.hidden", 10, "Expect: 100-continue"), b"HTTP/1.1 400"),
            (put("/a", 10, "Expect: 100-continue"), b"HTTP/1.1 100"),
            (get, b"HTTP/1.1 200"),
            (get * 3, b"HTTP/1.1 200"),
            (put("/b", 1) + b"x" + put("/b", 10) + b"x", b"HTTP/1.1 201"),
        ):
            connection = stack.enter_context(server.connect())
            connection.sendall(head)
            assert read_head(connection).startswith(begun)
        errors = server.stop()
    assert "Traceback" not in errors
    assert server.uploads == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_change_that_the_disk_holds_up_is_not_called_undone(
    root: Path, number: signal.Signals
) -> None:
    slow = (
        "import os, sys, time; real = os.fsync\n"
        "def fsync(fd): open('begun', 'w'); time.sleep(3); real(fd)\n"
        "os.fsync = fsync; sys.argv = sys.argv[3:]\n"
        "from outgrow.cli import main; main()"
    )
    wrapper = ["env", "-C", str(root), sys.executable, "-c", slow]
    with running(root, wrapper=wrapper) as server, server.connect() as connection:
        connection.sendall(put("/a", 5) + b"hello")
        wait_until((root / "begun").exists, "the upload did not begin")
        server.process.send_signal(number)
        # Neither 503, which says that nothing was done, nor a lie that it was.
        # After SIGTERM the process is gone before it could say anything.
        assert read_all(connection)[:12] == (b"HTTP/1.1 504" if number == signal.SIGINT else b"")
        assert "Traceback" not in server.process.communicate(timeout=20)[1]


def test_it_takes_an_inherited_socket(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        fd = listener.fileno()
        with running(root, "--fd", str(fd), bind="127.0.0.1:1", pass_fds=[fd]) as server:
            assert server.port == port
            assert server.status("PUT", "/a", b"x") == 201


def test_ipv6(root: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        missing("this machine has no ::1", "sysctl net.ipv6.conf.lo.disable_ipv6=0")
    with running(root, bind="[::1]:0") as server:
        assert server.ready.endswith(f" on http://[::1]:{server.port}\n")


# Who may write


@pytest.mark.parametrize("given", ["file", "environment"])
def test_the_token(root: Path, tmp_path: Path, given: str) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    options = ["--token-file", str(tmp_path / "token")] if given == "file" else []
    env = {} if given == "file" else {"OUTGROW_MEDIA_TOKEN": "s3cret"}
    with running(root, *options, bind="0.0.0.0:0", env=env) as server:
        right = {"Authorization": "Bearer s3cret"}
        wrong = {"Authorization": "Bearer s3cret2"}
        assert server.status("PUT", "/a", b"x") == 401
        assert server.status("PUT", "/a", b"x", wrong) == 401
        assert server.status("PUT", "/a", b"x", right) == 201
        assert server.status("GET", "/a") == 200
        assert server.status("DELETE", "/a") == 401
        assert server.status("DELETE", "/a", headers=right) == 204


def test_a_web_page_can_not_write_by_a_name_of_its_own(root: Path) -> None:
    with running(root, "--host", "media.internal") as server:
        for host in ("rebound.example", f"rebound.example:{server.port}", "localhost.example"):
            for method in ("PUT", "DELETE"):
                assert server.status(method, "/a", b"x", {"Host": host}) == 421
            assert server.status("GET", "/a", headers={"Host": host}) == 404
        for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]", "Media.internal:8080"):
            assert server.status("PUT", "/a", b"x", {"Host": host}) in {201, 204}
        two = b"PUT /a HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\n"
        assert server.raw(two + b"Content-Length: 1\r\n\r\n").startswith(b"HTTP/1.1 421")
        none = b"PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n"
        assert server.raw(none).startswith(b"HTTP/1.1 421")


def test_it_may_be_called_by_the_name_that_it_is_bound_to(root: Path) -> None:
    # The resolver takes it for 127.0.0.1; written so, it is no IP address.
    with running(root, bind="127.1:0") as server:
        assert server.status("PUT", "/a", b"x", {"Host": f"127.1:{server.port}"}) == 201
    with running(root) as server:
        assert server.status("PUT", "/a", b"x", {"Host": f"127.1:{server.port}"}) == 421


def test_with_a_token_any_name_will_do(root: Path) -> None:
    with running(root, env={"OUTGROW_MEDIA_TOKEN": "s3cret"}) as server:
        headers = {"Host": "media.example", "Authorization": "Bearer s3cret"}
        assert server.status("PUT", "/a", b"x", headers) == 201


def refusal(*arguments: str, **env: str) -> str:
    """What the command says when it refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "outgrow.cli", "media-server", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(**env),
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_no_start_without_a_token_where_others_can_connect(root: Path, bind: str) -> None:
    said = refusal("--root", str(root), "--bind", bind)
    assert "without a token they could write" in said
    assert "OUTGROW_MEDIA_TOKEN" in said


def test_what_keeps_it_from_starting_is_said(root: Path, tmp_path: Path) -> None:
    here = ["--root", str(root)]
    assert "must exist" in refusal("--root", str(tmp_path / "none"), "--bind", "127.0.0.1:0")
    (tmp_path / "file").touch()
    assert "must exist" in refusal("--root", str(tmp_path / "file"), "--bind", "127.0.0.1:0")
    for bind in ("127.0.0.1", "8080", ":8080", "127.0.0.1:x", "127.0.0.1:65536"):
        assert "is not an address" in refusal(*here, "--bind", bind)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "in use" in refusal(*here, "--bind", f"127.0.0.1:{port}")
    assert "is not a size" in refusal(*here, "--max-body", "10X")
    for folder in ("/", ".hidden", "a//b", "../a"):
        assert "is no folder of files" in refusal(*here, "--reused", folder)
    assert "can't be read" in refusal(*here, "--token-file", str(tmp_path / "none"))
    assert "is no token" in refusal(*here, "--token-file", str(tmp_path / "file"))
    assert "is no token" in refusal(*here, OUTGROW_MEDIA_TOKEN="two words")
    assert "not a socket" in refusal(*here, "--fd", "0")


def test_a_missing_uvicorn_is_named_with_its_extra(root: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv[0] = 'outgrow'\n"
        "from outgrow.cli import main; main()"
    )
    arguments = command(root)[3:]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert "pip install 'outgrow[server]'" in done.stderr


def test_importing_it_imports_neither_uvicorn_nor_django() -> None:
    code = "import sys, outgrow.media.server; print({'uvicorn', 'django'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout == "set()\n", done.stderr
