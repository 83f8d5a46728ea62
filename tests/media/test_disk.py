"""The disk of the embedded media server: what a request from outside can't show."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from outgrow.errors import ConfigurationError
from outgrow.media.conditions import File
from outgrow.media.disk import NEW_FOLDER, Disk
from outgrow.media.protocol import NoFile, State
from outgrow.media.tombstones import GONE_FOLDER


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path, fsync=False)
    disk.open()
    yield disk
    disk.close()


def allow(_state: State) -> None:
    """A check that lets everything pass."""


def store(disk: Disk, *parts: str, content: bytes = b"x", exclusive: bool = False) -> File:
    upload = disk.create()
    try:
        upload.write(content)
        return upload.commit(parts, allow, exclusive=exclusive)[0]
    finally:
        upload.discard()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are synced, in their order. The disk is synced all the same."""
    paths: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return paths


def test_what_is_synced_and_in_which_order(tmp_path: Path, synced: list[str]) -> None:
    disk = Disk(tmp_path)
    disk.open()
    try:
        store(disk, "a", "b", "c.txt")
        new, *names = synced
        assert Path(new).parent == tmp_path / NEW_FOLDER
        # The folders that were given a new entry, from the root down.
        assert names == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a/b")]
        synced.clear()
        store(disk, "a", "b", "d.txt", exclusive=True)
        assert synced[1:] == [str(tmp_path / "a/b")]
        synced.clear()
        disk.remove(("a", "b", "d.txt"), allow)
        assert synced == [str(tmp_path / GONE_FOLDER), str(tmp_path / "a/b")]
        synced.clear()
        disk.remove(("a", "none", "d.txt"), allow)
        assert synced == [str(tmp_path / GONE_FOLDER)]
    finally:
        disk.close()


def test_nothing_is_synced_when_that_is_not_wanted(disk: Disk, synced: list[str]) -> None:
    store(disk, "a", "b.txt")
    disk.remove(("a", "b.txt"), allow)
    assert synced == []


def test_each_version_has_a_tag_of_its_own(disk: Disk) -> None:
    # An inode that is used again, within one tick of the file system's clock.
    tags = [store(disk, "a").tag for _ in range(500)]
    assert len(set(tags)) == 500


def test_a_file_has_the_time_of_its_upload_not_that_of_a_tick(disk: Disk) -> None:
    for _ in range(50):
        before = time.time_ns()
        assert before <= store(disk, "a").mtime_ns <= time.time_ns()


def test_an_exclusive_upload_loses_against_another_process(disk: Disk, tmp_path: Path) -> None:
    upload = disk.create()
    upload.write(b"late")

    def another_process_is_faster(state: State) -> None:
        assert state is NoFile.MISSING
        (tmp_path / "a").write_bytes(b"first")

    with pytest.raises(FileExistsError):
        upload.commit(("a",), another_process_is_faster, exclusive=True)
    upload.discard()
    assert (tmp_path / "a").read_bytes() == b"first"
    assert list((tmp_path / NEW_FOLDER).iterdir()) == []


def test_a_folder_exchanged_for_a_link_leads_nowhere(disk: Disk, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    stop = threading.Event()

    def exchange() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            with suppress(FileNotFoundError):
                folder.rename(tmp_path / f"aside-{number}")
            # In between the disk may make the folder anew: then it is no link now.
            with suppress(FileExistsError):
                folder.symlink_to(outside)
                folder.unlink()

    thread = threading.Thread(target=exchange)
    thread.start()
    outcomes = Counter[str]()
    deadline = time.monotonic() + 20
    try:
        while min(outcomes["stored"], outcomes["refused"]) < 20 and time.monotonic() < deadline:
            outcomes[try_to_store(disk, "folder", "file")] += 1
    finally:
        stop.set()
        thread.join()
    assert list(outside.iterdir()) == []
    assert min(outcomes["stored"], outcomes["refused"]) >= 20, outcomes


def try_to_store(disk: Disk, *parts: str) -> str:
    upload = disk.create()
    try:
        upload.write(b"x")
        upload.commit(parts, refuse_links, exclusive=False)
    except PermissionError:
        return "refused"
    except FileNotFoundError:
        return "gone"  # the folder was moved away just after it was made
    finally:
        upload.discard()
    return "stored"


def refuse_links(state: State) -> None:
    if state is NoFile.LINK:
        raise PermissionError


def test_what_a_given_up_upload_writes_goes_nowhere(disk: Disk) -> None:
    upload = disk.create()
    upload.discard()
    upload.discard()
    with pytest.raises(OSError, match="given up"):
        upload.write(b"x")


def test_a_closed_disk_can_be_opened_again(disk: Disk) -> None:
    store(disk, "a")
    disk.close()
    disk.close()
    disk.open()
    assert isinstance(disk.look(("a",)), File)


@pytest.fixture
def plain_user() -> Iterator[None]:
    """Root may write anywhere; for one test it is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_root_that_can_not_be_written_is_an_error(plain_user: None) -> None:
    # /usr can be read by everyone, and written by root alone.
    with pytest.raises(ConfigurationError, match="writable"):
        Disk(Path("/usr")).open()


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must exist"):
        Disk(tmp_path / "none").open()
