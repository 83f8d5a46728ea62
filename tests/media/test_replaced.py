"""What an upload replaces with other bytes is kept aside: law 2 of `quarantine`."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.test import override_settings

from outgrow.media.disk import Disk
from outgrow.media.integrity import KEEP_FILES
from outgrow.media.protocol import State
from outgrow.media.quarantine import BAD_FOLDER, Replaced
from outgrow.media.repair import Repair
from outgrow.media.tombstones import EVERYTHING
from tests.media.children import gravedigger
from tests.media.embedded import running

GOOD = b"late"  # what the child uploads
LARGE = 600_000
PARTS = gravedigger.PARTS


def keeping(root: Path, *reused: tuple[str, ...]) -> Disk:
    root.mkdir(exist_ok=True)
    disk = Disk(root, fsync=False, reused=reused)
    disk.keep = Replaced(disk).keep
    disk.open()
    return disk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def disk(root: Path) -> Iterator[Disk]:
    disk = keeping(root)
    yield disk
    disk.close()


def put(
    disk: Disk,
    content: bytes,
    name: str = "folder/file",
    *,
    check: Callable[[State], None] = lambda _: None,
) -> None:
    upload = disk.create()
    try:
        upload.write(content)
        upload.commit(tuple(name.split("/")), check, exclusive=False)
    finally:
        upload.discard()


def held(root: Path) -> list[bytes]:
    folder = root / BAD_FOLDER
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"r0tten", b"rotten"),
        (b"short", b"longer"),
        (b"longer", b"short"),
        (b"", b"x"),
        (b"x" * LARGE + b"y", b"x" * LARGE + b"z"),
    ],
)
def test_other_bytes_are_kept_aside(
    disk: Disk, old: bytes, new: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    put(disk, old)
    put(disk, new)
    assert (disk.path / "folder/file").read_bytes() == new
    assert held(disk.path) == [old]
    assert "'folder/file' had other bytes than what was uploaded now" in caplog.text


@pytest.mark.parametrize("content", [b"", b"the same", b"x" * LARGE])
def test_the_same_bytes_are_not(disk: Disk, content: bytes) -> None:
    put(disk, content)
    put(disk, content)
    assert held(disk.path) == []


def test_names_that_are_used_again_are_simply_replaced(root: Path) -> None:
    for number, folder in enumerate((EVERYTHING, ("folder",))):
        disk = keeping(root / str(number), folder)
        put(disk, b"first")
        put(disk, b"second")
        put(disk, b"one", "outgrow-master-id.txt")
        put(disk, b"two", "outgrow-master-id.txt")
        assert held(disk.path) == []
        disk.close()


@pytest.mark.parametrize("above", ["", "uploads/"])
def test_the_probe_leaves_nothing_here(disk: Disk, above: str) -> None:
    name = f"{above}outgrow-probe-{'0' * 32}/put.txt"
    put(disk, b"first", name)
    put(disk, b"second", name)
    assert held(disk.path) == []


@pytest.mark.parametrize("content", [b"newer", b"other"])
@pytest.mark.parametrize("older", [b"", b"older"])
def test_what_another_process_puts_there_at_the_last_moment_is_compared_too(
    disk: Disk, older: bytes, content: bytes
) -> None:
    second = keeping(disk.path)
    if older:
        put(disk, older)
    put(disk, b"newer", check=lambda _: put(second, content))
    second.close()
    assert (disk.path / "folder/file").read_bytes() == b"newer"
    assert held(disk.path) == [old for old in (older, content) if old not in {b"", b"newer"}]


def test_many_uploads_of_the_same_bytes_at_once_keep_nothing(disk: Disk) -> None:
    barrier = threading.Barrier(8)

    def run() -> None:
        for number in range(20):
            barrier.wait(20)
            put(disk, b"x" * LARGE, f"{number}")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(list(disk.path.glob("[0-9]*"))) == 20
    assert held(disk.path) == []


@pytest.mark.parametrize("call", ["link", "mkdir", "scandir"])
def test_a_good_copy_is_worth_more_than_a_bad_one(
    disk: Disk, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(disk, b"r0tten")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    put(disk, b"rotten")
    monkeypatch.undo()
    assert (disk.path / "folder/file").read_bytes() == b"rotten"
    assert held(disk.path) == []
    assert "could not be kept in the quarantine: No space left on device" in caplog.text


def test_a_file_that_can_not_be_read_is_kept(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(disk, b"the same")

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    put(disk, b"the same")
    assert held(disk.path) == [b"the same"]


def test_there_is_an_end_to_it(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    put(disk, b"r0tten")
    folder = disk.path / BAD_FOLDER
    folder.mkdir()
    for number in range(KEEP_FILES):
        (folder / f"{number:020}-1-x").touch()
    put(disk, b"rotten")
    assert len(held(disk.path)) == KEEP_FILES
    assert held(disk.path)[-1] == b"r0tten"
    assert "its 1 oldest files were removed" in caplog.text


def test_it_is_on_the_disk_before_its_name_is_anothers(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = keeping(root)
    put(disk, b"r0tten")
    disk.fsync = True
    events: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_sync(descriptor)

    def rename(*words: object, **named: object) -> None:
        events.append("rename")
        real_rename(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    put(disk, b"rotten")
    disk.close()
    assert events[1:] == [str(root / BAD_FOLDER), "rename", str(root / "folder")]


def test_a_replacement_is_killed_before_every_call(root: Path) -> None:
    outcomes = set()
    for calls in range(200):
        disk = keeping(root / str(calls))
        put(disk, b"r0tten")
        words = [sys.executable, gravedigger.__file__, str(disk.path), "replace", str(calls)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
        assert done.returncode in {0, -9}, done.stderr
        now = (disk.path / "folder/file").read_bytes()
        # Whole and never away; and the bad one is lost at no time.
        assert now in {b"r0tten", GOOD}
        assert b"r0tten" in [now, *held(disk.path)]
        outcomes.add((now, len(held(disk.path))))
        put(disk, GOOD)
        assert (disk.path / "folder/file").read_bytes() == GOOD
        assert held(disk.path) == [b"r0tten"]
        disk.close()
        if done.returncode == 0:
            break
    assert outcomes == {(b"r0tten", 0), (b"r0tten", 1), (GOOD, 1)}
    assert calls > 10


@pytest.mark.parametrize("bad", [b"r0tten", b"rotte"])
def test_verify_repairs_bit_rot_and_the_bad_copy_is_kept(
    root: Path, tmp_path: Path, bad: bytes
) -> None:
    """End to end, with two servers: the other one agrees with the master."""
    other = tmp_path / "other"
    other.mkdir()
    with running(root) as one, running(other) as two:
        options = {
            "location": str(tmp_path / "master"),
            "servers": {
                "media1": f"http://127.0.0.1:{one.port}",
                "media2": f"http://127.0.0.1:{two.port}",
            },
        }
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        with override_settings(STORAGES={"default": media}):
            site = storages["default"]
            Repair(site.replication).once(settle=False)
            name = site.save("f.txt", ContentFile(b"rotten"))
            (root / name).write_bytes(bad)
            told = io.StringIO()
            with pytest.raises(SystemExit):
                call_command("outgrow", "media", "verify", "--digest", stdout=told)
            assert held(root) == []
            call_command("outgrow", "media", "verify", "--digest", "--repair", stdout=told)
            call_command("outgrow", "media", "verify", "--digest", stdout=told)
            assert [(place / name).read_bytes() for place in (root, other)] == [b"rotten"] * 2
            assert (held(root), held(other)) == ([bad], [])
            assert one.status("GET", f"/{BAD_FOLDER}/") == 400
        assert f"'{name}' had other bytes" in one.stop()
