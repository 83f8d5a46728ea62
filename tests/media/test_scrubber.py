"""Files that go bad on the disk of the embedded media server: laws of `scrubber`."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.test import override_settings

from outgrow.media import checksums
from outgrow.media.disk import NEW_FOLDER, Disk
from outgrow.media.integrity import KEEP_FILES, Record, Scrub
from outgrow.media.protocol import NoFile, State
from outgrow.media.quarantine import BAD_FOLDER
from outgrow.media.repair import Repair
from outgrow.media.scrubber import MANY, RETRY, Scrubber
from outgrow.media.tombstones import EVERYTHING
from tests.live.processes import missing, wait_until
from tests.media.children import gravedigger
from tests.media.embedded import Embedded, command, environment, running
from tests.raw import takes

DAY = 86400.0
WEEK = 7 * DAY
CONTENT = b"as it was uploaded"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def disk(root: Path) -> Iterator[Disk]:
    disk = Disk(root, fsync=False, records=True)
    disk.open()
    assert disk.keeps_records, "these tests need a file system with extended attributes"
    yield disk
    disk.close()


def allow(_state: State) -> None:
    """A check that lets everything pass."""


def store(disk: Disk, name: str, content: bytes = CONTENT) -> Path:
    upload = disk.create()
    try:
        upload.write(content)
        digest = hashlib.sha256(content).digest()
        upload.commit(tuple(name.split("/")), allow, exclusive=False, digest=digest)
    finally:
        upload.discard()
    return disk.path / name


def flip(path: Path) -> None:
    """Let a bit go bad, as a disk does: size and time stay."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def held(root: Path) -> list[Path]:
    """What is in the quarantine, the oldest first."""
    return sorted(one for one in (root / BAD_FOLDER).iterdir() if "progress" not in one.name)


def progress(root: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((root / BAD_FOLDER / "progress.json").read_text())
    return found


class Passes:
    """Scrubs by a clock that stands still but for the waits; stops at a long one.

    `meanwhile` is called at each wait, with its number.
    """

    def __init__(self, disk: Disk, rate: int = 10**9) -> None:
        self.disk = disk
        self.rate = rate
        # Uploads were made an hour ago: they are settled.
        self.now = time.time() + 3600
        self.waited = 0.0
        self.last = 0.0
        self.waits = 0
        self.longest = 60.0
        self.meanwhile: Callable[[int], object] = lambda _number: None

    def pause(self, seconds: float) -> bool:
        self.last = seconds
        if seconds >= self.longest:
            return True
        self.now += seconds
        self.waited += seconds
        self.waits += 1
        self.meanwhile(self.waits)
        return False

    def once(self) -> None:
        """One pass, by a process of its own, after a week."""
        one = Scrubber(self.disk, Scrub(self.rate), now=lambda: self.now, pause=self.pause)
        one.open()
        try:
            one.run()
        finally:
            one.close()
        self.now += WEEK


@pytest.fixture
def passes(disk: Disk) -> Passes:
    return Passes(disk)


# Records


def test_an_upload_has_its_record_before_it_has_its_name(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Record | None] = []
    real = os.rename

    def rename(source: str, name: str, **folders: int) -> None:
        descriptor = os.open(source, os.O_RDONLY, dir_fd=folders["src_dir_fd"])
        seen.append(checksums.read(descriptor))
        os.close(descriptor)
        real(source, name, **folders)

    monkeypatch.setattr(os, "rename", rename)
    found = store(disk, "a").stat()
    digest = hashlib.sha256(CONTENT).digest()
    assert seen == [Record(digest, found.st_size, found.st_mtime_ns)]


def test_no_record_is_kept_when_nobody_scrubs(root: Path) -> None:
    disk = Disk(root, fsync=False)
    disk.open()
    assert os.listxattr(store(disk, "a")) == []
    disk.close()


def test_an_upload_does_not_fail_for_its_record(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room for an attribute")

    monkeypatch.setattr(os, "setxattr", full)
    assert store(disk, "a").read_bytes() == CONTENT


def test_files_that_were_there_before_get_theirs_at_the_first_pass(
    passes: Passes, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "folder").mkdir()
    old = root / "folder" / "old"
    old.write_bytes(CONTENT)
    passes.once()
    assert old.read_bytes() == CONTENT
    assert caplog.messages == []
    flip(old)
    passes.once()
    assert not old.exists()
    assert len(held(root)) == 1


def test_a_garbled_record_is_none(passes: Passes, root: Path) -> None:
    path = store(passes.disk, "a")
    os.setxattr(path, checksums.ATTRIBUTE, b"garbage")
    passes.once()
    assert path.exists()
    assert len(os.getxattr(path, checksums.ATTRIBUTE)) == 48


# What is bad, and what is not


def test_a_flipped_bit_sends_a_file_to_the_quarantine(
    passes: Passes, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = store(passes.disk, "folder/good"), store(passes.disk, "folder/bad one")
    flip(bad)
    passes.once()
    assert good.read_bytes() == CONTENT
    assert passes.disk.look(("folder", "bad one")) is NoFile.MISSING
    (found,) = held(root)
    assert found.name.endswith("-folder%2Fbad%20one")
    assert found.read_bytes()[1:] == CONTENT[1:]
    assert (root / BAD_FOLDER).stat().st_mode & 0o777 == 0o700
    assert [one.name for one in passes.disk.entries(())] == ["folder/good"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "'folder/bad one' no longer has the bytes" in record.message


def test_good_files_stay_pass_after_pass(passes: Passes, root: Path) -> None:
    paths = [store(passes.disk, f"{n % 3}/{n}", os.urandom(n * 1000)) for n in range(30)]
    for _ in range(3):
        passes.once()
    assert all(path.exists() for path in paths)
    assert held(root) == []


@pytest.mark.parametrize("content", [b"as somebody has it", b"longer than it was uploaded", b""])
def test_what_somebody_changed_is_said_once_and_kept(
    passes: Passes, root: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = store(passes.disk, "a")
    path.write_bytes(content)
    for _ in range(3):
        passes.once()
    assert path.read_bytes() == content
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert "'a' was changed on the disk" in caplog.text
    if content:
        flip(path)
        passes.once()
        assert not path.exists()


def test_what_may_still_be_written_to_is_left_for_the_next_pass(passes: Passes) -> None:
    path = store(passes.disk, "a")
    path.write_bytes(b"x")
    times = os.stat(path)
    passes.now = times.st_mtime + 0.5
    before = os.getxattr(path, checksums.ATTRIBUTE)
    passes.once()
    assert os.getxattr(path, checksums.ATTRIBUTE) == before
    passes.once()
    assert os.getxattr(path, checksums.ATTRIBUTE) != before


def test_one_bad_reading_condemns_nobody(
    passes: Passes, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(passes.disk, "a")
    real, readings = os.pread, []

    def pread(descriptor: int, size: int, position: int) -> bytes:
        data = real(descriptor, size, position)
        readings.append(position)
        return b"!" * len(data) if len(readings) == 1 else data

    monkeypatch.setattr(os, "pread", pread)
    passes.once()
    assert path.exists()
    assert readings.count(0) == 2


def test_the_disk_is_read_and_not_the_cache(
    passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(passes.disk, "a")
    calls: list[str] = []
    for name in ("pread", "posix_fadvise"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, real=real: [calls.append(name), real(*a)][1]
        )
    passes.once()
    assert calls == ["posix_fadvise", "pread", "pread", "posix_fadvise"]


# What happens meanwhile


def at(number: int, work: Callable[[], object]) -> Callable[[int], object]:
    """Do it at one wait."""
    return lambda seen: work() if seen == number else None


# The waits for one small file: before the pass, before the file, and after each reading,
# of which a bad one has two.


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_file_is_deleted_while_it_is_looked_at(passes: Passes, root: Path, number: int) -> None:
    path = store(passes.disk, "a")
    flip(path)
    passes.meanwhile = at(number, lambda: passes.disk.remove(("a",), allow))
    passes.once()
    assert passes.waits >= number
    assert not path.exists()
    assert passes.disk.look(("a",)) is NoFile.GONE
    assert held(root) == []


@pytest.mark.parametrize(
    ("number", "flipped"), [(2, True), (3, True), (4, True), (2, False), (3, False)]
)
def test_a_file_is_replaced_while_it_is_looked_at(
    root: Path, number: int, monkeypatch: pytest.MonkeyPatch, *, flipped: bool
) -> None:
    renamed: list[str] = []
    real = os.rename

    def rename(source: str, name: str, **folders: int) -> None:
        renamed.append(source)
        real(source, name, **folders)

    monkeypatch.setattr(os, "rename", rename)
    disk = Disk(root, fsync=False, records=True, reused=[EVERYTHING])
    disk.open()
    passes = Passes(disk)
    path = store(disk, "a")
    if flipped:
        flip(path)
    passes.meanwhile = at(number, lambda: store(disk, "a", b"a new one"))
    passes.once()
    assert passes.waits >= number
    passes.once()
    assert path.read_bytes() == b"a new one"
    assert held(root) == []
    assert "a" not in renamed  # it was there all the time
    disk.close()


def test_a_file_is_written_to_while_it_is_looked_at(passes: Passes, root: Path) -> None:
    path = store(passes.disk, "a")
    flip(path)
    passes.meanwhile = at(4, lambda: path.write_bytes(b"by hand"))
    passes.once()
    assert path.read_bytes() == b"by hand"
    assert held(root) == []


def test_a_file_that_is_written_to_meanwhile_gets_no_record(passes: Passes, root: Path) -> None:
    path = root / "a"
    path.write_bytes(b"by ha")
    passes.meanwhile = at(3, lambda: path.write_bytes(b"by hand"))
    passes.once()
    assert os.listxattr(path) == []
    passes.once()
    assert os.listxattr(path) == [checksums.ATTRIBUTE]


@pytest.mark.parametrize("more", [False, True])
def test_another_process_replaces_it_at_the_last_moment(
    passes: Passes, root: Path, monkeypatch: pytest.MonkeyPatch, *, more: bool
) -> None:
    path = store(passes.disk, "a")
    flip(path)
    other = Disk(root, fsync=False, records=True)
    other.open()
    real = os.rename

    def rename(source: str, name: str, **folders: int) -> None:
        monkeypatch.setattr(os, "rename", real)
        store(other, "a", b"new")
        real(source, name, **folders)
        if more:
            store(other, "a", b"newer")

    passes.meanwhile = at(4, lambda: monkeypatch.setattr(os, "rename", rename))
    passes.once()
    other.close()
    assert path.read_bytes() == (b"newer" if more else b"new")
    assert held(root) == []


def test_what_lies_at_a_deleted_name_is_not_looked_at(passes: Passes, root: Path) -> None:
    path = store(passes.disk, "a")
    passes.disk.remove(("a",), allow)
    path.write_bytes(b"left")
    passes.once()
    assert path.exists()
    assert os.listxattr(path) == []
    assert held(root) == []


def test_links_and_what_is_no_file_are_left_alone(passes: Passes, root: Path) -> None:
    (root / "link").symlink_to("target")
    os.mkfifo(root / "pipe")
    (root / ".hidden").write_bytes(b"x")
    store(passes.disk, "target")
    passes.once()
    assert (root / "link").is_symlink()
    assert os.listxattr(root / ".hidden") == []


# Its pace


@pytest.mark.parametrize("rate", [50_000, 1_000_000])
def test_the_rate_is_kept(passes: Passes, rate: int) -> None:
    passes.rate = rate
    for number in range(5):
        store(passes.disk, f"{number}", os.urandom(400_000))
    passes.longest = 1e3
    passes.once()
    wanted = 5 * (400_000 + 4096) / rate
    assert wanted - 1.1 <= passes.waited <= wanted * 1.01


def test_many_empty_files_are_not_read_at_once(passes: Passes) -> None:
    passes.rate = 4096
    for number in range(20):
        store(passes.disk, f"{number}", b"")
    passes.once()
    assert 18 <= passes.waited <= 21


def test_it_rests_between_two_passes(passes: Passes, root: Path) -> None:
    store(passes.disk, "a")
    passes.once()
    assert passes.last == pytest.approx(WEEK, abs=1)
    found = progress(root)
    assert (found["position"], found["ended"]) == ("", pytest.approx(passes.now - WEEK, abs=1))
    passes.now -= DAY
    passes.once()
    assert passes.last == pytest.approx(DAY, abs=1)


def test_a_pass_that_was_broken_off_goes_on(passes: Passes, root: Path) -> None:
    for folder in "abc":
        (root / folder).mkdir()
        for number in range(3):
            (root / folder / str(number)).write_bytes(CONTENT)

    def watched() -> list[str]:
        every = sorted(path for path in root.rglob("[0-9]") if path.is_file())
        return [str(path.relative_to(root)) for path in every if os.listxattr(path)]

    passes.meanwhile = lambda number: setattr(passes, "longest", 0.0 if number == 8 else 60.0)
    passes.once()
    first = watched()
    assert 0 < len(first) < 9
    assert progress(root)["position"] == first[-1]
    for name in first:
        os.removexattr(root / name, checksums.ATTRIBUTE)
    passes.meanwhile = lambda _number: None
    passes.longest = 60.0
    passes.once()
    assert len(first) + len(watched()) == 9
    assert not set(first) & set(watched())
    assert progress(root)["position"] == ""


def test_progress_that_can_not_be_read_is_none(passes: Passes, root: Path) -> None:
    store(passes.disk, "a")
    passes.once()
    (root / BAD_FOLDER / "progress.json").write_bytes(b"\xff\xfe{")
    flip(root / "a")
    passes.once()
    assert len(held(root)) == 1


def test_one_process_scrubs_at_a_time(passes: Passes, disk: Disk, root: Path) -> None:
    first = Scrubber(disk, Scrub(10**9))
    first.open()
    thread = threading.Thread(target=first.run)
    thread.start()
    try:
        wait_until((root / BAD_FOLDER / "progress.json").exists, "the first one does not work")
        passes.once()
        assert passes.last == RETRY
    finally:
        first.stop()
        thread.join()
        first.close()
    passes.once()
    assert passes.last > DAY


# When more is wrong


def test_a_disk_that_breaks_does_not_empty_the_folder(
    passes: Passes, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [store(passes.disk, f"{number:03}") for number in range(MANY + 20)]
    for path in paths:
        flip(path)
    passes.once()
    assert len(held(root)) == MANY
    assert sum(path.exists() for path in paths) == 20
    assert f"{MANY} files are bad" in caplog.messages[-1]
    assert passes.last > DAY


def test_what_can_not_be_read_is_left_where_it_is(
    passes: Passes, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, bad = store(passes.disk, "a"), store(passes.disk, "b")
    flip(bad)
    inode, real = broken.stat().st_ino, os.pread

    def pread(descriptor: int, size: int, position: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, size, position)

    monkeypatch.setattr(os, "pread", pread)
    before = len(os.listdir("/proc/self/fd"))
    passes.once()
    after = len(os.listdir("/proc/self/fd"))
    assert broken.exists()
    assert len(held(root)) == 1
    assert "'a' can't be read: Input/output error. It is left where it is" in caplog.messages[0]
    assert after <= before


def test_a_folder_that_can_not_be_read_does_not_hide_the_others(
    passes: Passes, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a/1", "b/1", "c/1"):
        flip(store(passes.disk, name))
    broken, real = (root / "b").stat().st_ino, os.scandir

    def scandir(descriptor: int) -> object:
        if os.fstat(descriptor).st_ino == broken:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor)

    monkeypatch.setattr(os, "scandir", scandir)
    passes.once()
    monkeypatch.undo()
    assert len(held(root)) == 2
    assert "The folder 'b/' can't be read" in caplog.text


def test_a_quarantine_that_takes_nothing_is_said(
    passes: Passes, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = store(passes.disk, "a")
    flip(path)
    real = os.rename

    def rename(source: str, name: str, **folders: int) -> None:
        if source == "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        real(source, name, **folders)

    monkeypatch.setattr(os, "rename", rename)
    passes.once()
    assert path.exists()
    assert "can't be moved to the quarantine: Permission denied" in caplog.text


def test_a_full_disk_does_not_end_it(
    passes: Passes, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flip(store(passes.disk, "a"))
    real = os.rename

    def rename(source: str, name: str, **folders: int) -> None:
        if source.startswith("progress"):
            monkeypatch.setattr(os, "rename", real)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, name, **folders)

    monkeypatch.setattr(os, "rename", rename)
    passes.longest = RETRY + 1
    passes.once()
    assert "can't be scrubbed now" in caplog.text
    assert len(held(root)) == 1
    assert progress(root)["position"] == ""


@pytest.mark.parametrize("call", ["open", "pread", "scandir"])
def test_too_many_open_files_are_not_the_disks_fault(
    passes: Passes,
    root: Path,
    call: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    flip(store(passes.disk, "a"))
    real, failed = getattr(os, call), []

    def fail_once(*words: object, **named: object) -> object:
        # Not yet for what is opened before the pass.
        if passes.waits and not failed:
            failed.append(words)
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*words, **named)

    monkeypatch.setattr(os, call, fail_once)
    passes.longest = RETRY + 1
    passes.once()
    assert failed
    assert "can't be scrubbed now" in caplog.messages[0]
    assert len(caplog.messages) == 2
    assert len(held(root)) == 1


def test_files_of_another_user_are_counted(
    passes: Passes, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if os.geteuid() != 0:
        missing("only root can give a file to another user", "sudo make test")
    for name, mode in (("closed", 0o600), ("readable", 0o644), ("ours", 0o644)):
        (root / name).write_bytes(CONTENT)
        (root / name).chmod(mode)
    root.chmod(0o755)
    (root / BAD_FOLDER).mkdir()
    for path in (root / "ours", root / BAD_FOLDER, root / ".outgrow-gone"):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        passes.once()
    finally:
        os.seteuid(0)
    assert caplog.messages == [
        "2 files are not watched: the server's user may not read them, or write them."
    ]
    assert os.listxattr(root / "ours") == [checksums.ATTRIBUTE]


def test_the_move_is_on_the_disk_before_it_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(root, records=True)
    disk.open()
    flip(store(disk, "folder/a"))
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    Passes(disk).once()
    disk.close()
    # The new place first: it is nowhere at no time.
    assert synced == [str(root / BAD_FOLDER), str(root / "folder")]


def test_the_quarantine_has_an_end(
    passes: Passes, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip(store(passes.disk, "a"))
    folder = root / BAD_FOLDER
    folder.mkdir()
    for number in range(KEEP_FILES + 2):
        (folder / f"{number:020}-1-x").touch()
    (folder / "notes").touch()
    passes.once()
    assert (folder / "notes").exists()
    labels = [path.name for path in held(root) if path.name != "notes"]
    assert len(labels) == KEEP_FILES
    assert labels[0].startswith(f"{3:020}-")
    assert labels[-1].endswith("-a")
    assert "its 3 oldest files were removed" in caplog.text


# SIGKILL


def test_a_pass_is_killed_before_every_call(root: Path) -> None:
    outcomes = set()
    for calls in range(400):
        folder = root / str(calls)
        folder.mkdir()
        disk = Disk(folder, fsync=False, records=True)
        disk.open()
        good, bad, old = store(disk, "good"), store(disk, "bad"), folder / "old"
        old.write_bytes(CONTENT)
        os.utime(old, (1, 1))
        flip(bad)
        words = [sys.executable, gravedigger.__file__, str(folder), "scrub", str(calls)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
        assert done.returncode in {0, -9}, done.stderr
        assert good.read_bytes() == old.read_bytes() == CONTENT
        # It is at its name or in the quarantine, whole.
        places = [*held(folder), *([bad] if bad.exists() else [])]
        assert [place.read_bytes()[1:] for place in places] == [CONTENT[1:]]
        outcomes.add(bad.exists())
        Passes(disk).once()
        assert [good.exists(), old.exists(), bad.exists()] == [True, True, False]
        assert len(held(folder)) == 1
        assert list((folder / NEW_FOLDER).iterdir()) == []
        disk.close()
        if done.returncode == 0:
            break
    assert outcomes == {True, False}
    assert calls > 20


# The real server


def settle(root: Path) -> None:
    """Let all files be an hour old, as those of a server that has run for longer."""
    for path in root.rglob("*"):
        if path.is_file() and BAD_FOLDER not in path.parts:
            os.utime(path, (time.time() - 3600, time.time() - 3600))


def scrubbed(root: Path) -> bool:
    """Whether a pass has come to its end."""
    try:
        found = progress(root)
    except FileNotFoundError:
        return False
    return bool(found["ended"])


@pytest.mark.parametrize("size", [100, 3_000_000])
@pytest.mark.parametrize("exclusive", [{}, {"If-None-Match": "*"}])
def test_uploads_are_recorded(root: Path, size: int, exclusive: dict[str, str]) -> None:
    content = os.urandom(size)
    with running(root, "--scrub", "5M") as server:
        assert server.status("PUT", "/a", content, exclusive) == 201
        found = Record.unpack(os.getxattr(root / "a", checksums.ATTRIBUTE))
    stat = (root / "a").stat()
    assert found == Record(hashlib.sha256(content).digest(), size, stat.st_mtime_ns)


def test_a_bad_file_is_neither_served_nor_listed(root: Path) -> None:
    with running(root, "--scrub", "5M") as server:
        for name in ("/folder/bad", "/folder/good"):
            assert server.status("PUT", name, CONTENT) == 201
        server.stop(signal.SIGKILL)
    flip(root / "folder/bad")
    (root / BAD_FOLDER / "progress.json").unlink()
    with running(root, "--scrub", "5M") as server:
        wait_until(lambda: scrubbed(root), "the pass did not end")
        assert server.status("GET", "/folder/bad") == 404
        assert server.ask("GET", "/folder/good").content == CONTENT
        assert b"bad" not in server.ask("GET", "/.outgrow/list/").content
        (label,) = [path.name for path in held(root)]
        for path in (f"/{BAD_FOLDER}/{label}", f"/%2e{BAD_FOLDER[1:]}/{label}"):
            for method in ("GET", "PUT", "DELETE"):
                assert server.status(method, path, b"x") == 400
        # A good copy is welcome.
        assert server.status("PUT", "/folder/bad", CONTENT, {"If-None-Match": "*"}) == 201
        errors = server.stop()
    assert "'folder/bad' no longer has the bytes that it was stored with" in errors
    assert "Traceback" not in errors


def test_a_listing_tells_the_bytes_and_not_the_record(root: Path) -> None:
    with running(root, "--scrub", "5M") as server:
        server.ask("PUT", "/a", CONTENT)
        flip(root / "a")
        content = (root / "a").read_bytes()
        want = {"Want-Repr-Digest": "sha-256=1"}
        listed = server.ask("GET", "/.outgrow/list/", headers=want).content
    assert hashlib.sha256(content).hexdigest().encode() in listed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_are_answered_during_a_slow_pass_that_ends_soon(
    root: Path, number: signal.Signals
) -> None:
    names = [f"{number:02}" for number in range(20)]
    for name in names:
        (root / name).write_bytes(os.urandom(50_000))
    settle(root)
    with running(root, "--scrub", "100K") as server:
        slowest = 0.0
        for _ in range(100):
            began = time.monotonic()
            assert server.status("PUT", "/x", CONTENT) in {201, 204}
            assert server.ask("GET", "/x").content == CONTENT
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1
        wait_until(lambda: bool(os.listxattr(root / "03")), "nothing is looked at")
        with takes(at_most=3):
            errors = server.stop(number)
    assert "Traceback" not in errors
    # It knows how far it came.
    assert str(progress(root)["position"]) >= "02"
    assert not scrubbed(root)


def test_the_rate_of_the_real_server(root: Path) -> None:
    (root / "a").write_bytes(os.urandom(3_000_000))
    settle(root)
    began = time.monotonic()
    with running(root, "--scrub", "1M"):
        wait_until(lambda: scrubbed(root), "the pass did not end")
        # One second's worth may be caught up at the start.
        assert time.monotonic() - began > 1.5


def test_sigkill_in_a_pass_and_the_next_server_goes_on(root: Path) -> None:
    names = [f"{number:02}" for number in range(30)]
    for name in names:
        (root / name).write_bytes(os.urandom(100_000))
    settle(root)
    with running(root, "--scrub", "1M") as server:
        wait_until(lambda: bool(os.listxattr(root / "05")), "nothing is looked at")
        server.stop(signal.SIGKILL)
    assert not scrubbed(root)
    with running(root, "--scrub", "100M"):
        wait_until(lambda: scrubbed(root), "the pass did not end")
    assert all(os.listxattr(root / name) for name in names)
    assert held(root) == []


def test_verify_finds_it_missing_and_mends_it(root: Path, tmp_path: Path) -> None:
    options = {"location": str(tmp_path / "master"), "downtime": 0.1}
    with running(root, "--scrub", "100M") as server, ExitStack() as stack:
        options["servers"] = {"media1": f"http://127.0.0.1:{server.port}"}
        media = {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}
        stack.enter_context(override_settings(STORAGES={"default": media}))
        site = storages["default"]
        Repair(site.replication).once(settle=False)
        good, bad = (site.save("f.txt", ContentFile(CONTENT)) for _ in range(2))
        wait_until(lambda: scrubbed(root), "the first pass did not end")
        flip(root / bad)
    (root / BAD_FOLDER / "progress.json").unlink()
    with running(root, "--scrub", "100M") as server, ExitStack() as stack:
        options["servers"] = {"media1": f"http://127.0.0.1:{server.port}"}
        stack.enter_context(override_settings(STORAGES={"default": media}))
        wait_until(lambda: not (root / bad).exists(), "the bad file is still there")
        told = io.StringIO()
        with pytest.raises(SystemExit):
            call_command("outgrow", "media", "verify", stdout=told)
        assert f"media1: {bad} is not there" in told.getvalue()
        assert good not in told.getvalue()
        call_command("outgrow", "media", "verify", "--repair", stdout=io.StringIO())
        call_command("outgrow", "media", "verify", stdout=told)
    assert (root / bad).read_bytes() == CONTENT
    assert len(held(root)) == 1


def refusal(root: Path, *options: str, wrapper: tuple[str, ...] = ()) -> str:
    words = [*wrapper, *command(root, "--bind", "127.0.0.1:0", *options)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, env=environment())
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def test_without_extended_attributes_it_does_not_start(root: Path) -> None:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    mount = 'mount -t ramfs ramfs "$0" && exec "$@"'
    wrapper = ("unshare", "--mount", *as_root, "sh", "-c", mount, str(root))
    probe = subprocess.run([*wrapper, "true"], capture_output=True, text=True, timeout=10)
    if probe.returncode:
        missing(f"no file system can be mounted: {probe.stderr.strip()}", "sudo make test")
    said = refusal(root, "--scrub", "5M", wrapper=wrapper)
    assert "keeps no extended attributes" in said
    assert "Start without --scrub" in said
    with running(root, wrapper=wrapper) as server:
        assert server.status("PUT", "/a", b"x") == 201


def test_options_that_can_not_be_used(root: Path) -> None:
    assert "is not a size" in refusal(root, "--scrub", "fast")
    for every in ("0d", "7", "12h", "-1d"):
        assert "is no number of days" in refusal(root, "--scrub", "5M", "--scrub-every", every)


def test_nothing_is_scrubbed_when_nobody_asks(server_without: Embedded) -> None:
    assert server_without.status("PUT", "/a", b"x") == 201
    assert os.listxattr(server_without.root / "a") == []
    assert not (server_without.root / BAD_FOLDER).exists()


@pytest.fixture
def server_without(root: Path) -> Iterator[Embedded]:
    with running(root) as server:
        yield server
