"""Real servers that die or freeze around the body of a request, and in the gaps of a story.

M1, M3, M4, M5 of the design, with nginx and with our own server as processes that are
killed (SIGKILL) and frozen (SIGSTOP), and go on.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from django.core.files.base import ContentFile, File

from outgrow.media.repair import Repair
from outgrow.media.storages import HybridStorage
from outgrow.testing import MediaServer, free_port
from tests.live.nginx import Nginx, binary
from tests.live.processes import all_have_status, server_folder, wait_until
from tests.media.embedded import Embedded, running
from tests.media.test_drills import MASTER_ID, master_files, resume_one_worker

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]

#: More than the kernel buffers on a connection.
LARGE = 32 << 20
SMALL = 5000


class Own:
    """`outgrow media-server` on a port that it keeps, as `Nginx` is."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._stack = ExitStack()
        self._server: Embedded | None = None

    def start(self) -> None:
        bind = f"127.0.0.1:{self.port}"
        # The storage uses names again in some of these drills.
        self._server = self._stack.enter_context(running(self.root, "--names", "keep", bind=bind))

    def kill(self) -> None:
        self._stack.close()
        self._server = None

    stop = kill

    def pause(self) -> None:
        assert self._server is not None
        self._server.process.send_signal(signal.SIGSTOP)
        process = psutil.Process(self._server.process.pid)
        wait_until(lambda: all_have_status([process], psutil.STATUS_STOPPED), "it goes on")

    def resume(self) -> None:
        assert self._server is not None
        self._server.process.send_signal(signal.SIGCONT)

    @property
    def uploads(self) -> Path:
        """Where a body lies before it is whole."""
        return self.root / ".outgrow-new"


class Other(Nginx):
    """An nginx that says the same."""

    @property
    def uploads(self) -> Path:
        return self.folder / "body"


Real = Own | Other


def arrived(server: Real) -> int:
    """Bytes of a body that a server is being sent."""
    found = 0
    for path in server.uploads.rglob("*") if server.uploads.is_dir() else ():
        try:
            found += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue  # it is whole, and has its name
    return found


def files_of(server: Real | MediaServer) -> dict[str, bytes]:
    if isinstance(server, MediaServer):
        return {name: content for name, content in server.files.items() if name != MASTER_ID}
    return {
        str(path.relative_to(server.root)): path.read_bytes()
        for path in server.root.rglob("*")
        if path.is_file()
        and path.name != MASTER_ID
        and not path.relative_to(server.root).parts[0].startswith(".outgrow")
    }


@contextmanager
def real(kind: str, *, workers: int = 1) -> Iterator[tuple[Path, Real]]:
    """A folder for the master, and a server that runs."""
    if kind == "nginx":
        binary()
    with server_folder("outgrow-body-") as folder:
        server: Real = Other(folder, workers=workers) if kind == "nginx" else Own(folder)
        server.start()
        try:
            yield folder / "master", server
        finally:
            if kind == "nginx":
                server.resume()
            server.stop()


def storage_of(master: Path, urls: list[str], **options) -> HybridStorage:
    given = {"timeout": 0.5, "downtime": 0.05, "base_url": "/", **options}
    storage = HybridStorage(location=master, servers=urls, **given)
    repair = Repair(storage.replication)  # again, where a server was slow to answer
    wait_until(lambda: repair.once(settle=False).complete, "the servers do not get their id")
    return storage


def heal(storage: HybridStorage) -> None:
    """A pass with its second look, when the server answers again."""
    report = Repair(storage.replication).once()
    assert report.complete, report


# --- around the body


def save_until_caught(storage: HybridStorage, server: Real, path: Path, act) -> str:
    """Save large files until `act` came while the server had a part of one; its name."""
    for _ in range(30):
        caught: list[int] = []
        done = threading.Event()

        def watch(caught=caught, done=done) -> None:
            while not done.is_set():
                if 0 < arrived(server) < LARGE:
                    act()
                    caught.append(arrived(server))
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with path.open("rb") as file:
                name = storage.save("large.bin", File(file))
        finally:
            done.set()
            watcher.join()
        if caught and 0 < caught[0] < LARGE:
            return name
        if caught:  # it was too late: the server had all of it
            server.resume() if act == server.pause else server.start()
        storage.delete(name)
        wait_until(lambda: Repair(storage.replication).once(settle=False).complete, "no repair")
    raise AssertionError("the server was never in the middle of a body")


@pytest.mark.parametrize("then", ["goes on", "dies"])
@pytest.mark.parametrize("when", ["before the body", "in the body", "after the body"])
@pytest.mark.parametrize("kind", ["nginx", "our own"])
def test_a_server_freezes_around_the_body(tmp_path, kind, when, then):
    """The others have the file, the save does not hang, and later all are equal."""
    large = tmp_path / "large"
    large.write_bytes(os.urandom(LARGE))
    with real(kind) as (master, server), MediaServer() as second, MediaServer() as third:
        storage = storage_of(master, [server.url, second.url, third.url])
        gone = storage.save("gone.bin", ContentFile(b"gone"))
        if when == "in the body":
            name = save_until_caught(storage, server, large, server.pause)
        else:
            server.pause()
            content = large.read_bytes() if when == "before the body" else os.urandom(SMALL)
            name = storage.save("frozen.bin", ContentFile(content))
        storage.delete(gone)
        late = storage.save("late.bin", ContentFile(b"late"))
        assert files_of(second) == files_of(third) == master_files(master)
        assert name not in files_of(server)
        owed = {debt.name for debt in storage.journal.debts(storage.options.servers[0].name)}
        assert {name, gone, late} <= owed
        if then == "dies":
            server.kill()
            server.start()
        else:
            server.resume()
        wait_until(lambda: storage.transport.probe()[storage.options.servers[0]] is None, "no life")
        heal(storage)
        assert files_of(server) == files_of(second) == files_of(third) == master_files(master)
        assert gone not in master_files(master)
        if kind == "our own":  # a killed nginx leaves a file in its folder for bodies
            wait_until(lambda: arrived(server) == 0, "a part of a body is left")


@pytest.mark.parametrize("kind", ["nginx", "our own"])
def test_a_server_is_killed_in_the_body(tmp_path, kind):
    large = tmp_path / "large"
    large.write_bytes(os.urandom(LARGE))
    with real(kind) as (master, server), MediaServer() as second, MediaServer() as third:
        storage = storage_of(master, [server.url, second.url, third.url])
        name = save_until_caught(storage, server, large, server.kill)
        assert files_of(second) == files_of(third) == master_files(master)
        assert name not in files_of(server)
        server.start()
        heal(storage)
        assert files_of(server) == files_of(second) == master_files(master)
        assert files_of(server)[name] == large.read_bytes()


# --- one name, in the gaps


#: The story is: save, delete, save. A gap is before its first step, between two, after the last.
GAPS = [(leaves, back) for leaves in range(4) for back in range(leaves + 1, 5)]

#: How a server leaves and comes back. What it has in its buffers it carries out, or loses; or
#: one of its workers does later, when the other has carried out what came after it.
WAYS = ["killed", "frozen", "frozen and killed"]


def leave(server: Real, how: str) -> None:
    server.kill() if how == "killed" else server.pause()


def come_back(server: Real, how: str) -> None:
    if how == "frozen and killed":
        server.kill()
    if how == "frozen":
        server.resume()
    elif how == "frozen, one worker for longer":
        assert isinstance(server, Nginx)
        resume_one_worker(server)
    else:
        server.start()


def story(kind: str, how: str, leaves: int, back: int) -> None:
    """One server is gone from one gap to a later one, or to the end of the story."""
    longer = how == "frozen, one worker for longer"
    with (
        real(kind, workers=2 if longer else 1) as (master, server),
        MediaServer() as second,
        MediaServer() as third,
    ):
        urls = [server.url, second.url, third.url]
        storage = storage_of(master, urls, names="keep", allow_overwrite=True)
        steps = [
            lambda: storage.save("a/one.bin", ContentFile(b"first")),
            lambda: storage.delete("a/one.bin"),
            lambda: storage.save("a/one.bin", ContentFile(b"second")),
        ]
        for gap in range(5):
            if gap == back:
                come_back(server, how)
            if gap == leaves:
                leave(server, how)
            if gap < 3:
                steps[gap]()
        thaw = threading.Timer(1.5, server.resume if longer else lambda: None)
        thaw.start()
        one = storage.options.servers[0]
        wait_until(lambda: storage.transport.probe()[one] is None, "no life")
        heal(storage)
        thaw.join()
        wanted = {"a/one.bin": b"second"}
        assert master_files(master) == wanted
        for each in (server, second, third):
            assert files_of(each) == wanted, (leaves, back, each)
        end = time.monotonic() + 0.5  # what it still had in its buffers comes now
        while time.monotonic() < end:
            assert files_of(server) == wanted, (leaves, back)
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("kind", "how"),
    [(kind, how) for kind in ("nginx", "our own") for how in WAYS]
    + [("nginx", "frozen, one worker for longer")],
)
def test_save_delete_save_with_a_server_that_leaves_in_each_gap(kind, how):
    """M3, M4: the second content is everywhere, whatever the server held or had in its buffers."""
    # Most of a story is waiting for the second look, ten seconds after the first.
    with ThreadPoolExecutor(5) as several:
        for told in [several.submit(story, kind, how, *gaps) for gaps in GAPS]:
            told.result()
