"""What was deleted from the embedded media server stays deleted: laws of `tombstones`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outgrow.media import protocol
from outgrow.media.conditions import File
from outgrow.media.disk import NEW_FOLDER, Disk
from outgrow.media.protocol import NoFile, Refused, State, Wanted
from outgrow.media.tombstones import EVERYTHING, GONE_FOLDER, KEEP, Parts
from tests.live.processes import missing, wait_until
from tests.media.children import gravedigger
from tests.media.embedded import Embedded, running

PARTS = gravedigger.PARTS
WANTED = Wanted("PUT", PARTS, {})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def disk(root: Path) -> Iterator[Disk]:
    disk = Disk(root, fsync=False)
    disk.open()
    yield disk
    disk.close()


@pytest.fixture
def other(root: Path) -> Iterator[Disk]:
    """Another process: it shares nothing but the root."""
    disk = Disk(root, fsync=False)
    disk.open()
    yield disk
    disk.close()


def allowed(state: State) -> None:
    protocol.check_write(WANTED, state)


def put(disk: Disk, check: Callable[[State], None] = allowed, parts: Parts = PARTS) -> int:
    """The status: 201, or that of a refusal."""
    upload = disk.create()
    try:
        upload.write(b"content")
        upload.commit(parts, check, exclusive=False)
    except Refused as refused:
        return refused.answer.status
    finally:
        upload.discard()
    return 201


def delete(disk: Disk, parts: Parts = PARTS) -> int:
    state = disk.remove(parts, lambda state: protocol.check_removal(WANTED, state))
    return protocol.removed(state).status


def sweep(disk: Disk, after: float = 0.0) -> None:
    disk.sweep(time.time() + after, lambda: False)


def tombstones(root: Path) -> list[Path]:
    return list((root / GONE_FOLDER).iterdir())


def file(root: Path) -> Path:
    return root.joinpath(*PARTS)


# One process


def test_a_deleted_name_is_gone(disk: Disk, root: Path) -> None:
    assert put(disk) == 201
    assert delete(disk) == 204
    assert disk.look(PARTS) is NoFile.GONE
    assert disk.read(PARTS) == (NoFile.GONE, -1)
    assert put(disk) == 410
    assert delete(disk) == 404
    assert not file(root).exists()


def test_a_put_that_comes_after_its_delete_is_refused(disk: Disk, root: Path) -> None:
    assert delete(disk) == 404
    assert put(disk) == 410
    assert not file(root).exists()


def test_what_lies_at_a_deleted_name_is_not_served(disk: Disk, root: Path) -> None:
    delete(disk)
    file(root).parent.mkdir()
    file(root).write_bytes(b"left")
    assert disk.look(PARTS) is NoFile.GONE
    assert disk.read(PARTS) == (NoFile.GONE, -1)
    assert delete(disk) == 404
    assert not file(root).exists()


def test_a_refused_delete_leaves_no_tombstone(disk: Disk, root: Path) -> None:
    file(root).mkdir(parents=True)
    with pytest.raises(Refused):
        delete(disk)
    assert tombstones(root) == []


def test_names_that_look_alike_are_different(disk: Disk) -> None:
    delete(disk)
    for parts in (("folder",), ("folder", "File"), ("file",), ("folder", "file", "x")):
        assert disk.look(parts) is NoFile.MISSING


def test_tombstones_stay_for_a_week_and_go_after_it(disk: Disk, root: Path) -> None:
    delete(disk)
    sweep(disk, KEEP - 10)
    assert put(disk) == 410
    sweep(disk, KEEP + 10)
    assert tombstones(root) == []
    assert put(disk) == 201


def test_a_leftover_goes_before_its_tombstone(disk: Disk, root: Path) -> None:
    delete(disk)
    file(root).parent.mkdir()
    file(root).write_bytes(b"left")
    sweep(disk, KEEP + 10)
    assert not file(root).exists()
    assert tombstones(root) == []


def test_a_sweep_stops_when_it_is_told(disk: Disk, root: Path) -> None:
    delete(disk)
    disk.sweep(time.time() + KEEP + 10, lambda: True)
    assert len(tombstones(root)) == 1


def test_a_sweep_touches_nothing_that_is_no_tombstone(disk: Disk, root: Path) -> None:
    outside = root.parent / "outside"
    outside.write_bytes(b"outside")
    gone = root / GONE_FOLDER
    (gone / hashlib.sha256(b"../outside").hexdigest()).symlink_to("../outside")
    (gone / "x").symlink_to("folder/file")
    (gone / "y").write_bytes(b"")
    put(disk)
    sweep(disk, KEEP + 10)
    assert outside.exists()
    assert file(root).exists()
    assert len(tombstones(root)) == 3


# Names that are used again


@pytest.mark.parametrize("reused", [EVERYTHING, ("folder",), PARTS])
def test_names_that_are_used_again_have_none(root: Path, reused: Parts) -> None:
    disk = Disk(root, fsync=False, reused=[reused])
    disk.open()
    for _ in range(3):
        assert put(disk) == 201
        assert delete(disk) == 204
        assert delete(disk) == 404
    assert tombstones(root) == []
    disk.close()


@pytest.mark.parametrize("reused", [("fold",), ("folder", "file", "x"), ("file",)])
def test_only_they(root: Path, reused: Parts) -> None:
    disk = Disk(root, fsync=False, reused=[reused])
    disk.open()
    delete(disk)
    assert put(disk) == 410
    disk.close()


def test_the_masters_id_may_be_given_again(disk: Disk) -> None:
    name = ("outgrow-master-id.txt",)
    disk.remove(name, lambda _state: None)
    assert disk.look(name) is NoFile.MISSING


def test_names_that_become_so_lose_theirs_and_no_new_file(disk: Disk, root: Path) -> None:
    put(disk)
    delete(disk)
    old = ("folder", "old")
    delete(disk, old)
    (root / "folder/old").write_bytes(b"left")
    os.utime(root / "folder/old", (1, 1))
    keeping = Disk(root, fsync=False, reused=[EVERYTHING])
    keeping.open()
    assert put(keeping) == 201
    # Later than the tombstone, whatever the clock that the file system stamps links with.
    os.utime(file(root), (time.time() + 1, time.time() + 1))
    sweep(keeping)
    assert tombstones(root) == []
    assert file(root).exists()
    assert not (root / "folder/old").exists()
    keeping.close()


# Several processes


def test_a_delete_by_another_process_between_look_and_name(
    disk: Disk, other: Disk, root: Path
) -> None:
    deleted: list[int] = []

    def check(state: State) -> None:
        allowed(state)
        if not deleted:
            deleted.append(delete(other))

    assert put(disk, check) == 410
    assert deleted == [404]
    assert not file(root).exists()
    assert list((root / NEW_FOLDER).iterdir()) == []


def test_of_a_put_and_a_delete_at_once_the_delete_wins(disk: Disk, other: Disk, root: Path) -> None:
    for number in range(300):
        parts = ("folder", str(number))
        threads = [
            threading.Thread(target=put, args=(disk, allowed, parts)),
            threading.Thread(target=delete, args=(other, parts)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert disk.look(parts) is NoFile.GONE
        assert not root.joinpath(*parts).exists()


def test_one_process_sweeps_at_a_time(disk: Disk, other: Disk, root: Path) -> None:
    delete(disk)
    with disk.tombstones.sweeping() as alone:
        assert alone
        sweep(other, KEEP + 10)
        assert len(tombstones(root)) == 1
    sweep(other, KEEP + 10)
    assert tombstones(root) == []


# SIGKILL


def die(root: Path, what: str, calls: int) -> bool:
    """Let a child do it and die before a call of the system; whether it was killed."""
    words = [sys.executable, gravedigger.__file__, str(root), what, str(calls)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode == -9


def each_call(root: Path, what: str, prepare: Callable[[Disk], object]) -> Iterator[Disk]:
    """A disk after each place where the child may die, until it lives."""
    for calls in range(200):
        folder = root / str(calls)
        folder.mkdir()
        disk = Disk(folder, fsync=False)
        disk.open()
        prepare(disk)
        killed = die(folder, what, calls)
        yield disk
        disk.close()
        if not killed:
            assert calls > 3  # there was something to be killed at
            return
    raise AssertionError("it does not end")


def never_back(disk: Disk) -> None:
    """From now on the name is gone, whatever is done; and in the end nothing is left of it."""
    assert put(disk) == 410
    assert disk.look(PARTS) is NoFile.GONE
    sweep(disk, KEEP + 10)
    assert disk.look(PARTS) is NoFile.MISSING
    assert not file(disk.path).exists()
    assert tombstones(disk.path) == []


def test_a_delete_is_killed_before_every_call(root: Path) -> None:
    outcomes = set()
    for disk in each_call(root, "delete", put):
        state = disk.look(PARTS)
        outcomes.add(type(state))
        if isinstance(state, File):  # not begun
            assert file(disk.path).read_bytes() == b"content"
            assert tombstones(disk.path) == []
            assert delete(disk) == 204
        never_back(disk)
    assert outcomes == {File, NoFile}


def test_a_delete_of_what_is_not_there_is_killed_before_every_call(root: Path) -> None:
    for disk in each_call(root, "delete", tombstones_of_nothing):
        if disk.look(PARTS) is NoFile.MISSING:
            assert delete(disk) == 404
        never_back(disk)


def tombstones_of_nothing(disk: Disk) -> None:
    assert tombstones(disk.path) == []


def test_a_late_put_is_killed_before_every_call(root: Path) -> None:
    for disk in each_call(root, "put", delete):
        never_back(disk)


def leave_an_old_one(disk: Disk) -> None:
    """A tombstone that may go, of a process that died before it removed the file."""
    put(disk)
    content = file(disk.path).read_bytes()
    delete(disk)
    file(disk.path).write_bytes(content)
    for path in tombstones(disk.path):
        os.utime(path, (1, 1), follow_symlinks=False)


def test_a_sweep_is_killed_before_every_call(root: Path) -> None:
    for disk in each_call(root, "sweep", leave_an_old_one):
        assert disk.look(PARTS) in {NoFile.GONE, NoFile.MISSING}
        sweep(disk)
        assert not file(disk.path).exists()
        assert tombstones(disk.path) == []


# Over HTTP


def test_a_put_of_a_deleted_name_is_410_before_its_body(root: Path) -> None:
    with running(root) as server:
        server.ask("PUT", "/a/b", b"x")
        assert server.status("DELETE", "/a/b") == 204
        assert server.status("PUT", "/a/b", b"x") == 410
        assert server.status("DELETE", "/never/there") == 404
        assert server.status("PUT", "/never/there", b"x") == 410
        for path in (b"/a/b", b"/never/there"):
            head = b"PUT " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            received = server.raw(head + b"Expect: 100-continue\r\n\r\n")
            assert received.startswith(b"HTTP/1.1 410")
        assert server.status("GET", "/a/b") == 404
        assert not (root / "never").exists()
    with running(root) as server:
        assert server.status("PUT", "/a/b", b"x") == 410


def test_nobody_can_ask_for_the_tombstones(root: Path) -> None:
    with running(root) as server:
        server.ask("PUT", "/a", b"x")
        server.ask("DELETE", "/a")
        (path,) = tombstones(root)
        for method in ("GET", "PUT", "DELETE"):
            assert server.status(method, f"/{GONE_FOLDER}/{path.name}", b"x") == 400
            assert server.status(method, f"/%2e{GONE_FOLDER[1:]}/{path.name}", b"x") == 400


def put_again(server: Embedded, path: str) -> int:
    server.ask("PUT", path, b"x")
    server.ask("DELETE", path)
    return server.status("PUT", path, b"x")


def test_the_options_for_names_that_are_used_again(root: Path) -> None:
    with running(root, "--reused", "thumbnails/", "--reused", "a/b") as server:
        assert put_again(server, "/thumbnails/1.jpg") == 201
        assert put_again(server, "/a/b/c") == 201
        assert put_again(server, "/a/c") == 410
    with running(root, "--names", "keep") as server:
        wait_until(lambda: tombstones(root) == [], "the tombstones were not removed")
        assert put_again(server, "/a/c") == 201


def test_old_tombstones_are_swept_at_the_start(root: Path) -> None:
    with running(root) as server:
        assert put_again(server, "/a") == 410
        assert put_again(server, "/b") == 410
    for path in tombstones(root):
        if path.readlink() == Path("a"):
            os.utime(path, (1, 1), follow_symlinks=False)
    with running(root) as server:
        wait_until(lambda: len(tombstones(root)) == 1, "the tombstone was not removed")
        assert server.status("PUT", "/a", b"x") == 201
        assert server.status("PUT", "/b", b"x") == 410


def test_a_disk_without_room_for_a_tombstone_can_be_emptied(root: Path) -> None:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    mount = 'mount -t tmpfs -o size=2m,nr_inodes=12 tmpfs "$0" && exec "$@"'
    wrapper = ["unshare", "--mount", *as_root, "sh", "-c", mount, str(root)]
    probe = subprocess.run([*wrapper, "true"], capture_output=True, text=True, timeout=10)
    if probe.returncode:
        missing(f"no small file system can be mounted: {probe.stderr.strip()}", "sudo make test")
    with running(root, wrapper=wrapper) as server:
        names = [f"/{number}" for number in range(20)]
        stored = [name for name in names if server.status("PUT", name, b"x") == 201]
        assert 2 < len(stored) < 20
        assert server.status("PUT", "/more", b"x") == 507
        assert server.status("DELETE", stored[0]) == 204
        assert server.status("GET", stored[0]) == 404
        assert server.status("PUT", stored[0], b"x") in {410, 507}
