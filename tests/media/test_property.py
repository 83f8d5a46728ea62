"""Random saves, overwrites, deletes, crashes, dead and frozen servers; then all is equal.

The storage, the journal, the protocol and the connections are the real ones; the
servers are `outgrow.testing.MediaServer`, over real sockets. The clock of the
journal moves when it is told to, so that a day of looks takes no time.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.utils.functional import cached_property
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outgrow.errors import NotEnoughServers, SaveInterrupted
from outgrow.media import HybridStorage
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import ATTEMPT_LIMIT, LOOKS
from outgrow.media.repair import Repair
from outgrow.media.replication import Steps
from outgrow.testing import FakeClock, MediaServer

MASTER_ID = "outgrow-master-id.txt"


class Died(Exception):
    """The process of a save or a delete ended between two steps."""


class Storage(HybridStorage):
    """A storage that can die after some steps, with a clock that is told the time."""

    clock: FakeClock
    steps_left = -1

    @cached_property
    def journal(self) -> DirectoryJournal:
        return DirectoryJournal(self.location, clock=self.clock, file_clock=self.clock)

    def drive(self, steps: Steps[Any]) -> Any:
        while True:
            if self.steps_left == 0:
                self.steps_left = -1
                steps.close()
                raise Died
            self.steps_left -= 1
            try:
                next(steps)
            except StopIteration as end:
                self.steps_left = -1
                return end.value


SERVER = st.integers(0, 2)
OPERATION = st.one_of(
    st.tuples(st.just("save"), st.integers(0, 3), st.integers(-1, 7)),
    st.tuples(st.just("save"), st.integers(0, 3), st.just(-1)),
    st.tuples(st.just("delete"), st.integers(0, 9), st.integers(-1, 4)),
    st.tuples(st.just("stop"), SERVER, st.just(0)),
    st.tuples(st.just("start"), SERVER, st.just(0)),
    st.tuples(st.just("answer"), SERVER, st.sampled_from([500, 503, 507, 403])),
    st.tuples(st.just("well"), SERVER, st.just(0)),
    st.tuples(st.just("freeze"), SERVER, st.just(0)),
    st.tuples(st.just("repair"), st.just(0), st.just(0)),
)


class World:
    """One site: a master, three servers, and what was confirmed."""

    def __init__(self, stack: ExitStack, *, names: str) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        self.master = Path(folder) / "master"
        self.servers = [stack.enter_context(MediaServer()) for _ in range(3)]
        self.clock = FakeClock(float(int(Path(folder).stat().st_mtime)))
        self.storage = Storage(
            location=self.master,
            base_url="/media/",
            servers=[server.url for server in self.servers],
            names=names,
            allow_overwrite=names == "keep",
            timeout=0.15,
            downtime=0.05,
        )
        self.storage.clock = self.clock
        self.saved: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.count = 0

    def save(self, which: int, steps: int) -> None:
        self.count += 1
        content = f"content {self.count}".encode()
        self.storage.steps_left = steps
        try:
            name = self.storage.save(f"folder/{which}.bin", ContentFile(content))
        except (Died, NotEnoughServers, SaveInterrupted):
            return
        self.saved[name] = content
        self.deleted.discard(name)

    def delete(self, which: int, steps: int) -> None:
        if not self.saved:
            return
        name = sorted(self.saved)[which % len(self.saved)]
        self.storage.steps_left = steps
        try:
            self.storage.delete(name)
        except Died:
            self.saved.pop(name)  # it may be deleted or not; only equality is promised
            return
        self.saved.pop(name)
        self.deleted.add(name)

    def stop(self, server: int, _: int) -> None:
        self.servers[server].stop()

    def start(self, server: int, _: int) -> None:
        self.servers[server].stop()
        self.servers[server].start()

    def answer(self, server: int, status: int) -> None:
        self.servers[server].answer_with(status)

    def well(self, server: int, _: int) -> None:
        self.servers[server].answer_with(None)
        self.servers[server].hang = None
        self.servers[server].thaw()

    def freeze(self, server: int, _: int) -> None:
        self.servers[server].hang = "before-answer"

    def repair(self, _: int, __: int) -> None:
        Repair(self.storage.replication, clock=self.clock).once(settle=False)

    def heal(self) -> None:
        for number, server in enumerate(self.servers):
            self.well(number, 0)
            server.stop()  # what it held has been carried out, or never will be
            server.start()
        self.clock.advance(ATTEMPT_LIMIT + 1)
        repair = Repair(self.storage.replication, clock=self.clock, sleep=self.clock.advance)
        report = repair.once()
        for _ in range(2):  # a name that changed under a pass is left to the next
            report = repair.once()
        assert report.complete, report
        self.clock.advance(LOOKS[-1] + 1)
        assert repair.once().complete

    def check(self, *, names: str) -> None:
        wanted = {
            str(path.relative_to(self.master)): path.read_bytes()
            for path in self.master.rglob("*")
            if path.is_file() and ".outgrow" not in path.relative_to(self.master).parts
        }
        for server in self.servers:
            found = {name: data for name, data in server.files.items() if name != MASTER_ID}
            assert found == wanted
        if names == "unique":
            assert self.saved.items() <= wanted.items()
            assert not self.deleted & wanted.keys()


def play(operations: list[tuple[str, int, int]], names: str) -> None:
    with ExitStack() as stack:
        world = World(stack, names=names)
        for verb, which, how in operations:
            getattr(world, verb)(which, how)
        world.heal()
        world.check(names=names)


COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
OPERATIONS = st.lists(OPERATION, min_size=10, max_size=40)

FROZEN = [("save", 0, -1), ("freeze", 0, 0), ("save", 1, -1), ("delete", 1, -1), ("well", 0, 0)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("names", ["unique", "keep"])
@settings(COMMON, max_examples=50)
@example(operations=FROZEN)
@given(operations=OPERATIONS)
def test_after_healing_every_server_equals_the_master(names, operations):
    play(operations, names)


#: Each part of the long run plays at least so many operations: ten thousand in all.
PARTS, ENOUGH = 4, 2_500


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_same_over_ten_thousand_operations(part):
    """In parts, which several processes can play. Each draws operations of its own."""
    played = 0

    @settings(COMMON, max_examples=110)
    @given(operations=st.lists(OPERATION, min_size=20, max_size=40))
    def one_part(operations):
        nonlocal played
        play(operations, "unique")
        played += len(operations)

    one_part()
    print(f"part {part}: {played} operations")
    assert played >= ENOUGH
