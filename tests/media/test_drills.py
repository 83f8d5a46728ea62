"""The promises of the media protocol, with real processes that are killed and frozen.

M1, M2, M3, M4 and M5 of the design: a process dies at every step of a save, a
delete and a repair; a server freezes with a request in its buffers.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from django.core.files.base import ContentFile

from outgrow.errors import NotEnoughServers
from outgrow.media import files
from outgrow.media.repair import Repair
from outgrow.media.storages import HybridStorage
from outgrow.testing import MediaServer
from tests.live.nginx import Nginx, binary, running_nginx
from tests.live.processes import server_folder
from tests.media.actors import ACTOR, act
from tests.media.children.actor import NAMES

MASTER_ID = "outgrow-master-id.txt"

#: More steps, and more calls of the system, than any save, delete or repair here takes.
STEPS_LIMIT = 300


def storage_at(folder: Path, urls: list[str], **options) -> HybridStorage:
    given = {"timeout": 1.0, "downtime": 0.1, **options}
    return HybridStorage(location=folder, base_url="/media/", servers=urls, **given)


def master_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".outgrow" not in path.relative_to(folder).parts
    }


def copies(server: MediaServer) -> dict[str, bytes]:
    return {name: content for name, content in server.files.items() if name != MASTER_ID}


def heal(storage: HybridStorage) -> None:
    report = Repair(storage.replication).once(settle=False)
    assert report.complete, report


def forget_watched(storage: HybridStorage) -> None:
    """Every moment to die at begins with the same journal: nothing of the last is looked at."""
    for server in storage.transport.servers:
        for debt in storage.journal.debts(server.name):
            storage.journal.forget(debt)


def check_equal(folder: Path, servers: list[MediaServer]) -> dict[str, bytes]:
    wanted = master_files(folder)
    for server in servers:
        assert copies(server) == wanted
    return wanted


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two, MediaServer() as three:
        yield [one, two, three]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def said(lines: list[str], word: str) -> list[str]:
    return [line.split()[1] for line in lines if line.startswith(f"{word} ")]


def set_fault(server: MediaServer, fault: str) -> None:
    if fault == "one down":
        server.stop()
    elif fault == "one takes it late":
        server.hang = "before-answer"


def end_fault(server: MediaServer, fault: str) -> None:
    if fault == "one down":
        server.start()
    elif fault == "one takes it late":
        server.hang = None
        server.thaw()


#: Where the process dies: between two steps of the protocol, or before any call of
#: the system that changes something.
every_step = pytest.mark.parametrize(
    ("grain", "fault"),
    [
        ("step", "all up"),
        ("step", "one down"),
        ("step", "one takes it late"),
        ("call", "all up"),
        ("call", "one down"),
    ],
)


def deaths(
    grain: str, first: int = 0, step: int = 1
) -> Iterator[tuple[str, Callable[[int], bool]]]:
    """Each moment to die at, and what takes the exit code and tells whether it did.

    Ends when an actor has survived, which is when there are no more moments. A long drill
    is shared by several tests: each takes every `step`-th moment.
    """
    died = [True]

    def told(code: int) -> bool:
        died[0] = code == -signal.SIGKILL
        return died[0]

    for number in range(first, STEPS_LIMIT, step):
        yield (f"c{number}" if grain == "call" else str(number)), told
        if not died[0]:
            return
    raise AssertionError(f"it takes more than {STEPS_LIMIT} steps")


@pytest.mark.drill
@pytest.mark.timeout(900)
@every_step
def test_sigkill_at_every_step_of_save(tmp_path, servers, grain, fault):
    """M1, M2: what was confirmed is there; what was not is everywhere or nowhere."""
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls)
    kept = warm.save("kept.bin", ContentFile(b"kept"))
    heal(warm)
    died = 0
    for step, told in deaths(grain):
        set_fault(servers[2], fault)
        code, lines = act(tmp_path, urls, "save", step)
        end_fault(servers[2], fault)
        died += told(code)
        heal(warm)
        wanted = check_equal(tmp_path, servers)
        assert {kept, *said(lines, "saved")} <= wanted.keys()
        assert not files.names(tmp_path / ".outgrow" / "open")
    assert died >= (16 if grain == "call" else 5), "the save has fewer steps than it had"


@pytest.mark.drill
@pytest.mark.timeout(900)
@every_step
def test_sigkill_at_every_step_of_delete(tmp_path, servers, grain, fault):
    """M3: a delete that was confirmed is one everywhere; one that was cut off is whole too."""
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls)
    died = 0
    for step, told in deaths(grain):
        name = warm.save("gone.bin", ContentFile(b"gone"))
        heal(warm)
        set_fault(servers[1], fault)
        code, lines = act(tmp_path, urls, "delete", step, name)
        end_fault(servers[1], fault)
        died += told(code)
        heal(warm)
        wanted = check_equal(tmp_path, servers)
        if said(lines, "deleted") or "step buried" in lines:
            assert name not in wanted
        forget_watched(warm)
    assert died >= (12 if grain == "call" else 4), "the delete has fewer steps than it had"


@pytest.mark.drill
@pytest.mark.timeout(900)
@every_step
def test_sigkill_at_every_step_of_an_asynchronous_save(
    tmp_path, servers, monkeypatch, grain, fault
):
    """M1, M2: of the process that saves, and of its thread that tells the servers."""
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls)
    kept = warm.save("kept.bin", ContentFile(b"kept"))
    heal(warm)
    monkeypatch.setenv("ASYNC", "1")
    died = after_the_save = 0
    for moment, told in deaths(grain):
        set_fault(servers[2], fault)
        code, lines = act(tmp_path, urls, "save", moment)
        end_fault(servers[2], fault)
        died += told(code)
        saved = said(lines, "saved")
        # From the commit on it is the thread that takes steps, before or after "saved" is said.
        after_the_save += "step committed" in lines and "told" not in lines
        heal(warm)
        wanted = check_equal(tmp_path, servers)
        assert {kept, *saved} <= wanted.keys()
        assert not files.names(tmp_path / ".outgrow" / "open")
    assert died >= (16 if grain == "call" else 5), "the save has fewer steps than it had"
    assert after_the_save >= 2, "the thread has fewer steps than it had"


@pytest.mark.drill
@pytest.mark.timeout(900)
@every_step
def test_sigkill_at_every_step_of_an_asynchronous_delete(
    tmp_path, servers, monkeypatch, grain, fault
):
    """M3: what was deleted is gone everywhere, whether its worker came to it or not."""
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls)
    monkeypatch.setenv("ASYNC", "1")
    died = after_the_delete = 0
    for moment, told in deaths(grain):
        name = warm.save("gone.bin", ContentFile(b"gone"))
        heal(warm)
        set_fault(servers[1], fault)
        code, lines = act(tmp_path, urls, "delete", moment, name)
        end_fault(servers[1], fault)
        died += told(code)
        after_the_delete += "step buried" in lines and "told" not in lines
        heal(warm)
        wanted = check_equal(tmp_path, servers)
        if said(lines, "deleted") or "step buried" in lines:
            assert name not in wanted
        forget_watched(warm)
    assert died >= (12 if grain == "call" else 4), "the delete has fewer steps than it had"
    assert after_the_delete >= 2, "the thread has fewer steps than it had"


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("grain", ["step", "call"])
def test_sigkill_at_every_step_of_repair(tmp_path, servers, grain):
    """M4: a repairer may die anywhere; the next pass ends what it began."""
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls)
    heal(warm)
    died = 0
    for step, told in deaths(grain):
        gone = warm.save("gone.bin", ContentFile(b"gone"))
        servers[2].stop()
        names = [warm.save("owed.bin", ContentFile(b"owed")) for _ in range(2)]
        warm.delete(gone)
        servers[2].start()
        code, _ = act(tmp_path, urls, "repair", step)
        died += told(code)
        heal(warm)
        wanted = check_equal(tmp_path, servers)
        assert set(names) <= wanted.keys()
        assert gone not in wanted
        forget_watched(warm)
    wanted = 25 if grain == "call" else 9
    assert died >= wanted, "the repair of three names has fewer steps than it had"


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("grain", ["step", "call"])
def test_sigkill_at_every_step_of_bringing_in(tmp_path, servers, grain):
    """The same for a walk over a server that is owed everything."""
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls)
    heal(warm)
    names = [warm.save("kept.bin", ContentFile(b"kept")) for _ in range(3)]
    server = warm.options.servers[2].name
    died = 0
    for step, told in deaths(grain):
        gone = warm.save("gone.bin", ContentFile(b"gone"))
        content = servers[2].files[gone]
        warm.delete(gone)
        servers[2].files[gone] = content
        del servers[2].files[names[0]]
        servers[2].files[names[1]] = b"cut"
        warm.journal.owe_all(server)
        code, _ = act(tmp_path, urls, "repair", step)
        died += told(code)
        heal(warm)
        assert check_equal(tmp_path, servers).keys() == set(names)
        forget_watched(warm)
    wanted = 15 if grain == "call" else 7
    assert died >= wanted, "bringing in three names has fewer steps than it had"


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_two_repairers_at_once_and_one_dies(tmp_path, servers):
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls)
    heal(warm)
    for step in range(0, 20, 3):
        servers[0].stop()
        names = [warm.save("owed.bin", ContentFile(b"owed")) for _ in range(4)]
        warm.delete(names.pop())
        servers[0].start()
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda at: act(tmp_path, urls, "repair", at), (str(step), "-1")))
        heal(warm)
        assert set(names) <= check_equal(tmp_path, servers).keys()


class Fitful(MediaServer):
    """A server that carries out a request at once, or a moment later than those behind it."""

    @property
    def delay(self) -> float:
        return random.choice((0.0, 0.0, 0.03))

    @delay.setter
    def delay(self, seconds: float) -> None:
        """It is as it is."""


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["all up", "one down", "one takes it late", "all are fitful"])
@pytest.mark.parametrize("names", ["unique", "keep", "overwrite"])
def test_processes_that_save_one_name_at_once(tmp_path, servers, names, fault, stack):
    """M1, M4: each save that was confirmed is kept whole; of replaced ones the last."""
    rounds, saves = 1, 20
    if fault == "all are fitful":
        # What is sent last overtakes what was sent before: what counts is the end.
        servers = [stack.enter_context(Fitful()) for _ in range(3)]
        rounds, saves = 12, 3
    urls = [server.url for server in servers]
    warm = storage_at(tmp_path, urls, **NAMES[names])
    heal(warm)
    confirmed: dict[str, bytes] = {}
    for number in range(rounds):
        set_fault(servers[2], fault)
        words = (tmp_path, urls, names, "-1", f"a/{number}.txt", str(saves))
        with ThreadPoolExecutor(3) as writers:
            ends = list(writers.map(lambda _, words=words: act(*words), range(3)))
        end_fault(servers[2], fault)
        told = [
            [line.split(" ", 2)[1:] for line in lines if line.startswith("saved ")]
            for _, lines in ends
        ]
        assert [len(pairs) for pairs in told] == [saves] * 3, ends
        heal(warm)
        wanted = check_equal(tmp_path, servers)
        if names == "overwrite":
            # The last one is the last of one of the processes.
            last = wanted[f"a/{number}.txt"]
            assert last.decode() in {pairs[-1][1] for pairs in told}
            confirmed[f"a/{number}.txt"] = last
        else:
            confirmed |= {name: content.encode() for pairs in told for name, content in pairs}
            assert len(confirmed) == 3 * saves * (number + 1)
        assert wanted == confirmed


@pytest.mark.drill
@pytest.mark.timeout(900)
def test_sigkill_at_random_moments_with_real_servers(tmp_path):
    """M1, M3, M4: thirty processes that save and delete, each killed in the middle."""
    chance = random.Random(20)
    with ExitStack() as stack:
        three = [stack.enter_context(running_nginx()) for _ in range(3)]
        urls = [server.url for server in three]
        warm = storage_at(tmp_path, urls)
        heal(warm)
        kept: dict[str, bytes] = {}
        gone: set[str] = set()
        for _ in range(30):
            lines = _killed_after(tmp_path, urls, chance.uniform(0.02, 0.3))
            for line in lines:
                word, name, *number = line.split()
                if word == "saved":
                    kept[name] = f"content {number[0]}".encode() * 50
                else:
                    gone.add(name)
            heal(warm)
        wanted = master_files(tmp_path)
        for server in three:
            assert _files(server) == wanted
        # A delete that was cut off may be done or not; one that was followed by
        # another save was confirmed.
        last = {name for name in gone if name in wanted}
        assert len(last) <= 30
        for name, content in kept.items():
            assert name in gone or wanted[name] == content
        assert len(kept) > 100


def _killed_after(folder: Path, urls: list[str], seconds: float) -> list[str]:
    words = [sys.executable, str(ACTOR), str(folder), ",".join(urls), "loop", "-1"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline()]  # it works
    time.sleep(seconds)
    child.kill()
    lines += child.stdout.readlines()
    child.wait(10)
    child.stdout.close()
    # The kill may have cut the last line: with PYTHONUNBUFFERED set, print writes
    # each of its words by itself.
    return [line for line in lines if line.endswith("\n")]


def _files(server: Nginx) -> dict[str, bytes]:
    return {
        str(path.relative_to(server.root)): path.read_bytes()
        for path in server.root.rglob("*")
        if path.is_file() and path.name != MASTER_ID
    }


# --- a server that freezes with a request in its buffers


def frozen_run(workers: int, *, undone: bool, late: bool) -> tuple[bool, bool]:
    """One run with an nginx of its own: whether the file came back at all, and in the end.

    The nginx is stopped before it has read the request; the whole PUT is sent and
    not answered; the file is deleted (or the save undone); then nginx goes on.
    With `late` one worker goes on first, answers the repairer and deletes; the one
    that holds the PUT thaws later. (Which one that is, is left to chance.)
    """
    with server_folder("outgrow-frozen-") as folder, MediaServer() as other:
        nginx = Nginx(folder, workers=workers)
        nginx.start()
        try:
            need = 2 if undone else 1
            urls = [nginx.url, other.url]
            storage = storage_at(folder / "master", urls, need=need, timeout=0.5)
            storage.transport.probe()
            nginx.pause()
            name = _saved_or_undone(storage, undone=undone)
            thaw = threading.Timer(1.5 if late else 0.0, nginx.resume)
            if late:
                resume_one_worker(nginx)
            thaw.start()
            came_back = _appears(nginx.root / name, 0.3)
            report = Repair(storage.replication).once()
            assert report.complete, report
            thaw.join()
            return came_back, _appears(nginx.root / name, 0.5)
        finally:
            nginx.stop()


def resume_one_worker(nginx: Nginx) -> None:
    """The master and its youngest worker go on; the oldest stays frozen."""
    assert nginx._process is not None
    master = psutil.Process(nginx._process.pid)
    for process in (master, max(master.children(), key=lambda child: child.pid)):
        process.resume()


def _saved_or_undone(storage: HybridStorage, *, undone: bool) -> str:
    if undone:
        with pytest.raises(NotEnoughServers) as raised:
            storage.save("zombie.bin", ContentFile(b"x" * 5000))
        return raised.value.name
    name = storage.save("zombie.bin", ContentFile(b"x" * 5000))
    storage.delete(name)
    return name


def _appears(path: Path, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if path.exists():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("undone", [False, True], ids=["deleted", "undone"])
def test_a_frozen_nginx_brings_no_deleted_file_back(record_property, undone):
    """M3, M5: after the next pass the file is gone, in 20 of 20 runs, and in 20 more."""
    binary()
    # Most of a run is waiting for the second look, ten seconds after the first.
    with ThreadPoolExecutor(10) as several:
        runs = list(
            several.map(
                lambda workers: frozen_run(workers, undone=undone, late=workers == 2), [1, 2] * 10
            )
        )
    came_back = sum(before for before, _ in runs)
    still_there = sum(after for _, after in runs)
    record_property("came back before the pass", came_back)
    print(f"came back before the pass: {came_back} of {len(runs)}; after it: {still_there}")
    assert came_back > 0, "the drill did not make the fault that it is about"
    assert still_there == 0
