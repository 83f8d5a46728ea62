"""The listing of the embedded server: what is in it, for whom, and what it costs."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from outgrow.media.disk import Disk
from outgrow.media.inventory import Inventory
from outgrow.media.listing import Entry, Lines
from tests.live.processes import wait_until
from tests.media.embedded import running

LIST = "/.outgrow/list/"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path, fsync=False)
    disk.open()
    yield disk
    disk.close()


def read(inventory: Inventory) -> list[Entry]:
    lines, found = Lines(), []
    while page := inventory.page():
        found += lines.feed(page)
    lines.close()
    return found


def fill(root: Path, count: int) -> None:
    for number in range(count):
        path = root / f"{number % 7}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * number)


def test_what_is_in_it(disk: Disk, tmp_path: Path) -> None:
    fill(tmp_path, 30)
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(b"x")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "link.txt").symlink_to(outside / "secret.txt")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"latin\xe9.txt")).write_bytes(b"x")
    found = read(Inventory(disk, (), digests=False))
    assert [one.name for one in found] == sorted(f"{n % 7}/{n}.txt" for n in range(30))
    assert {one.name: one.size for one in found}["1/29.txt"] == 29
    assert all(abs(float(one.date) - time.time()) < 60 for one in found)
    assert [one.name for one in read(Inventory(disk, ("3",), digests=False))] == [
        "3/10.txt",
        "3/17.txt",
        "3/24.txt",
        "3/3.txt",
    ]
    assert read(Inventory(disk, ("nowhere",), digests=False)) == []
    assert read(Inventory(disk, ("link",), digests=False)) == []


def test_a_deleted_name_is_not_in_it_though_its_file_lies_there(disk: Disk, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    disk.remove(("1", "1.txt"), lambda _: None)
    (tmp_path / "1" / "1.txt").write_bytes(b"put back by hand")
    assert [one.name for one in read(Inventory(disk, (), digests=False))] == ["0/0.txt", "2/2.txt"]


def test_digests(disk: Disk, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "large.bin").write_bytes(content)
    (tmp_path / "empty.bin").write_bytes(b"")
    found = read(Inventory(disk, (), digests=True))
    assert [(one.name, one.digest) for one in found] == [
        ("empty.bin", hashlib.sha256(b"").hexdigest()),
        ("large.bin", hashlib.sha256(content).hexdigest()),
    ]


def test_a_long_hash_gives_signs_of_life(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgrow.media.inventory.PATIENCE", 0.0)
    (tmp_path / "large.bin").write_bytes(bytes(5 << 20))
    inventory = Inventory(disk, (), digests=True)
    pages = []
    while page := inventory.page():
        pages.append(page)
    assert pages[:5] == [b"\n"] * 5
    assert len(pages) == 7  # the file, and the end


def test_a_file_that_goes_meanwhile_is_left_out(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(b"x")
    (tmp_path / "g.bin").write_bytes(b"x")
    inventory = Inventory(disk, (), digests=True)
    entries = disk.entries(())
    first = next(entries)
    (tmp_path / "g.bin").unlink()
    assert first.name == "f.bin"
    assert [one.name for one in read(inventory)] == ["f.bin"]


def test_over_http(tmp_path: Path) -> None:
    fill(tmp_path, 5000)
    with running(tmp_path) as server:
        reply = server.ask("GET", LIST)
        lines = Lines()
        found = list(lines.feed(reply.content))
        lines.close()
        assert len(found) == 5000
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        assert server.ask("HEAD", LIST).content == b""
        assert server.status("PUT", f"{LIST}f.txt", b"x") == 405
        assert server.status("GET", f"{LIST}../f.txt") == 400


def test_only_who_may_write_may_list(tmp_path: Path) -> None:
    token = tmp_path.parent / "token"
    token.write_text("secret-token\n")
    with running(tmp_path, "--token-file", str(token)) as server:
        assert server.status("GET", LIST) == 401
        assert server.status("GET", LIST, headers={"Authorization": "Bearer wrong-token"}) == 401
        right = {"Authorization": "Bearer secret-token"}
        assert server.status("GET", LIST, headers=right) == 200


def test_a_reader_that_leaves_costs_nothing_more(tmp_path: Path) -> None:
    for number in range(20):
        with (tmp_path / f"{number}.bin").open("wb") as file:
            file.truncate(1 << 30)
    with running(tmp_path) as server:
        process = psutil.Process(server.process.pid)
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(
                b"GET /.outgrow/list/ HTTP/1.1\r\nHost: localhost\r\n"
                b"Want-Repr-Digest: sha-256=1\r\n\r\n"
            )
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")

        def is_idle() -> bool:
            return process.cpu_percent(0.2) < 20 and not [
                one for one in process.open_files() if one.path.endswith(".bin")
            ]

        wait_until(is_idle, "the server goes on hashing")
        assert server.status("GET", "/nothing.txt") == 404
