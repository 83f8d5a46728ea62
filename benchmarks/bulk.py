"""Whole folders at once: ours and rsync's, side by side."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measure import Result, in_turn
from outgrow.media import HybridStorage
from outgrow.media.comparison import Comparison
from outgrow.media.listing import Child, Entry
from outgrow.media.repair import Repair
from outgrow.media.verify import Verify
from outgrow.media.walking import walk
from outgrow.testing import free_port
from tests.live.nginx import running_nginx
from tests.live.processes import server_folder, unprivileged, wait_until
from tests.media.embedded import running as running_own

_RSYNCD = """\
use chroot = no
port = {port}
address = 127.0.0.1
pid file = {folder}/pid
log file = {folder}/log
[copies]
path = {folder}/root
read only = no
{user}"""


class Rsync:
    """An rsync daemon on loopback; `send` is the client."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.port = folder, folder / "root", free_port()

    def start(self) -> subprocess.Popen[bytes]:
        user = unprivileged()
        self.root.mkdir()
        if user:
            os.chown(self.root, *user)
        text = _RSYNCD.format(port=self.port, folder=self.folder, user="")
        (self.folder / "rsyncd.conf").write_text(text)
        words = ["rsync", "--daemon", "--no-detach", f"--config={self.folder}/rsyncd.conf"]
        who = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, **who)  # type: ignore[call-overload]
        wait_until(self._answers, "rsync does not answer")
        return process

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(8) == b"@RSYNCD:"
        except OSError:
            return False

    def send(self, source: Path, *words: str) -> None:
        target = f"rsync://127.0.0.1:{self.port}/copies/"
        subprocess.run(["rsync", "-rt", *words, f"{source}/", target], check=True, timeout=600)


@contextmanager
def rsync() -> Iterator[Rsync]:
    with server_folder("outgrow-rsync-") as folder:
        server = Rsync(folder)
        process = server.start()
        try:
            yield server
        finally:
            process.terminate()
            process.wait(10)


def fill(root: Path, count: int, low: int, high: int) -> None:
    """So many files of `low` to `high` bytes, in folders of a hundred."""
    choose, block = random.Random(1), os.urandom(1 << 20)
    for number in range(count):
        folder = root / f"{number // 100:04}"
        folder.mkdir(exist_ok=True, parents=True)
        size = choose.randint(low, high)
        start = choose.randint(0, len(block) - size)
        name = f"photo{number:06}_{choose.getrandbits(64):016x}.jpg"
        (folder / name).write_bytes(block[start : start + size])


def emptied(root: Path) -> None:
    """The same folder, empty, as its server has it."""
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def started(run: Callable[[], None]) -> float:
    """Seconds that a program takes to begin and to end, with nothing to do."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return sorted(times)[2]


def bring_in() -> list[Result]:
    """an empty server is brought in: 10,000 files of 4 to 64 KB, per file"""
    count = 10_000
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))) / "master"
        fill(root, count, 4096, 65536)
        empty = root.parent / "empty"
        empty.mkdir()
        target = stack.enter_context(rsync())
        nginx = stack.enter_context(running_nginx(workers=2))
        storage = HybridStorage(location=root, base_url="/", servers=[nginx.url])
        name = storage.options.servers[0].name

        def with_rsync() -> None:
            emptied(target.root)
            target.send(root, "--exclude=.outgrow")

        def with_ours() -> None:
            emptied(nginx.root)
            storage.journal.set_claimed(name, claimed=False)
            storage.journal.owe_all(name)
            report = Repair(storage.replication).once(settle=False)
            assert report.complete, report
            assert report.put == count, report

        lead = started(lambda: target.send(empty)) / count * 1000
        results = in_turn({"rsync": with_rsync, "media repair": with_ours}, count=count, rounds=5)
        return _without(lead, results)


def verify() -> list[Result]:
    """nothing differs: 100,000 files, per file"""
    count = 100_000
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))) / "master"
        fill(root, count, 1, 64)
        empty = root.parent / "empty"
        empty.mkdir()
        target = stack.enter_context(rsync())
        target.send(root)
        nginx = stack.enter_context(running_nginx(workers=2))
        own_root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        own = stack.enter_context(running_own(own_root))
        urls = {"nginx": nginx.url, "own": f"http://127.0.0.1:{own.port}"}
        storage = HybridStorage(location=root, base_url="/", servers=urls)
        assert Repair(storage.replication).once(settle=False).complete

        def against(server: str) -> Callable[[], None]:
            def run() -> None:
                found = Verify(storage.replication, only=[server]).run()
                assert found.equal, found
                assert found.verdicts[0].compared == count

            return run

        candidates = {
            "rsync -n": lambda: target.send(root, "-n", "--exclude=.outgrow"),
            "media verify, nginx": against("nginx"),
            "media verify, our own server": against("own"),
        }
        lead = started(lambda: target.send(empty, "-n")) / count * 1000
        return _without(lead, in_turn(candidates, count=count, rounds=5))


def _without(lead: float, results: list[Result]) -> list[Result]:
    """rsync without the time that it takes to start; ratios to that."""
    results[0].wall -= lead
    results[0].what += f" (less {lead * 1000:.1f} us a file of starting)"
    for result in results:
        result.ratio = f"{result.wall / results[0].wall:.2f} wall"
    return results


def listing() -> list[Result]:
    """a million names in one folder, simulated on both sides: time per name, and memory"""
    count = 1_000_000

    def read(_: str) -> Iterator[Child]:
        for n in range(count):
            number = n * 7919 % count  # as a file system has them: in no order
            yield Child(f"photo{number:07}_{'x' * 16}.jpg", number % 4096)

    def names() -> Iterator[Entry]:
        return walk(read)

    class Simulated:
        """A journal and a transport, as far as a comparison needs them."""

        def entries(self, *_: object) -> Iterator[Entry]:
            return names()

        def list(self, *_: object, **__: object) -> Iterator[Entry]:
            return names()

    simulated = Simulated()
    comparison = Comparison(simulated, simulated, failed=lambda *_: None)  # type: ignore[arg-type]
    begin, used = time.perf_counter(), time.process_time()
    assert not list(comparison.differences(None))  # type: ignore[arg-type]
    wall, used = time.perf_counter() - begin, time.process_time() - used
    tracemalloc.start()
    assert not list(comparison.differences(None))  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return [Result("comparison", wall / count * 1000, used / count * 1000, f"{peak / 1e6:.1f} MB")]
