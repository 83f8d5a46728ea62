"""The protocol, model-checked: savers, deleters and repairers interleaved in every order.

The journal is the real one, in a real folder. The servers are models: each may
take a request, refuse it, take it and not answer, or hold it in a buffer and
carry it out at any later moment. Any process may die between any two steps. In
the end everything comes back, what is in the buffers is carried out, a repairer
makes its passes, and then every server must equal the master.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from outgrow.answer import Response
from outgrow.download import Download
from outgrow.errors import (
    ConnectFailed,
    NotEnoughServers,
    SaveInterrupted,
    ServerError,
    TimedOut,
)
from outgrow.fanout import Outcome
from outgrow.http import FileBody
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import ATTEMPT_LIMIT, LOOKS
from outgrow.media.listing import Entry
from outgrow.media.repair import Pass, Repair, Report, Verb
from outgrow.media.replication import Pending, Replication, Saved, Upload
from outgrow.servers import Server
from outgrow.testing import FakeClock

UP, DOWN, MUTE, LATE = "up", "down", "mute", "late"

#: A moment that the models' clock starts at: files have real times.
HOUR = 3600.0


class Model:
    """A media server that may be late: its files, and requests in its buffers."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.mood = UP
        self.buffers: list[Callable[[], None]] = []

    def handle(self, change: Callable[[], None]) -> str:
        """Take one request; say "done", "failed" or "unknown"."""
        if self.mood == UP:
            change()
            return "done"
        if self.mood == DOWN:
            return "failed"
        if self.mood == MUTE:
            change()
        else:
            self.buffers.append(change)
        return "unknown"


class ModelTransport:
    """A transport to models."""

    def __init__(self, models: dict[Server, Model]) -> None:
        self.models = models
        self.servers = tuple(models)
        #: Called before each request is handled: what others do while it travels.
        self.meanwhile: Callable[[], None] = lambda: None

    def put(
        self, name: str, body: FileBody, *, servers: Iterable[Server], need: int, deadline: float
    ) -> Outcome:
        content = os.pread(body.descriptor, body.size, 0)
        return self._all(servers, lambda files: files.update({name: content}))

    def delete(
        self, name: str, *, servers: Iterable[Server], deadline: float, need: int = 0
    ) -> Outcome:
        return self._all(servers, lambda files: files.pop(name, None))

    def stat(self, name: str, *, servers: Iterable[Server], deadline: float) -> Outcome:
        raise NotImplementedError

    def put_all(
        self,
        bodies: Mapping[str, FileBody],
        servers: Mapping[str, Sequence[Server]],
        *,
        deadline: float,
    ) -> dict[str, Outcome]:
        return {
            name: self.put(name, body, servers=servers[name], need=0, deadline=deadline)
            for name, body in bodies.items()
        }

    def delete_all(
        self, servers: Mapping[str, Sequence[Server]], *, deadline: float
    ) -> dict[str, Outcome]:
        return {
            name: self.delete(name, servers=asked, deadline=deadline)
            for name, asked in servers.items()
        }

    def stat_all(
        self, servers: Mapping[str, Sequence[Server]], *, deadline: float
    ) -> dict[str, Outcome]:
        raise NotImplementedError

    def list(self, server: Server, prefix: str = "", *, digests: bool = False) -> Iterator[Entry]:
        model = self.models[server]
        if model.mood not in {UP, LATE}:  # it may freeze right after it was listed
            raise ConnectFailed(server.name, "down")
        return iter([Entry(name, len(model.files[name])) for name in sorted(model.files)])

    def get(self, name: str, server: Server, *, offset: int = 0) -> Download:
        raise NotImplementedError

    def probe(
        self, servers: Iterable[Server] | None = None, *, claim: bool = True
    ) -> dict[Server, ServerError | None]:
        raise NotImplementedError

    def _all(
        self, servers: Iterable[Server], change: Callable[[dict[str, bytes]], object]
    ) -> Outcome:
        outcome = Outcome()
        for server in servers:
            model = self.models[server]
            self.meanwhile()
            end = model.handle(lambda model=model: change(model.files))  # type: ignore[misc]
            if end == "done":
                outcome.done[server] = Response(204)
            elif end == "failed":
                outcome.failed[server] = ConnectFailed(server.name, "down")
            else:
                outcome.unknown[server] = TimedOut(server.name, "no answer")
        return outcome


class Actor:
    """One process in the middle of something."""

    def __init__(self, steps: Generator[str, None, Any], kind: str, name: str = "") -> None:
        self.steps = steps
        self.kind = kind
        self.name = name
        self.content = b""


class Protocol(RuleBasedStateMachine):
    """What is checked with names that are used once."""

    reused = False
    need = 1

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="outgrow-model-"))
        # A replayed example must see the same fall due. Whole seconds, for the looks; and
        # later than any file's own time, which nobody can set: an attempt then began when
        # its id says, and its death does not hang on the fraction of a second at the start.
        self.clock = FakeClock(math.ceil(os.stat(self.folder).st_ctime) + HOUR)
        # Random ids would make an order that a failing example could not repeat.
        ids = itertools.count()
        self.journal = DirectoryJournal(
            self.folder,
            clock=self.clock,
            file_clock=self.clock,
            token=lambda size: f"{next(ids):0{2 * size}x}",
        )
        self.models = {Server(name, f"http://{name}/"): Model() for name in ("a", "b", "c")}
        self.transport = ModelTransport(self.models)
        self.transport.meanwhile = self.meanwhile
        self.replication = Replication(
            self.journal,
            self.transport,
            need=self.need,
            source=self.journal.copy,
            reused=self.reused,
            clock=FakeClock(),
        )
        self.actors: list[Actor] = []
        self.running: list[Actor] = []
        self.interludes: list[tuple[int, int]] = []
        self.saved: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.refused: set[str] = set()
        self.count = 0

    @initialize()
    def prepare(self) -> None:
        self.journal.prepare()

    # --- what may happen

    @rule(server=st.integers(0, 2), mood=st.sampled_from([UP, UP, DOWN, MUTE, LATE]))
    def mood(self, server: int, mood: str) -> None:
        list(self.models.values())[server].mood = mood

    @rule(server=st.integers(0, 2), which=st.integers(0, 5))
    def carry_out(self, server: int, which: int) -> None:
        """A server carries out one request that it held; which one is its own affair."""
        buffers = list(self.models.values())[server].buffers
        if buffers:
            buffers.pop(which % len(buffers))()

    @precondition(lambda self: sum(actor.kind == "save" for actor in self.actors) < 2)
    @rule(overwrite=st.booleans())
    def save(self, overwrite: bool) -> None:
        self.count += 1
        name, content = self.next_name(), f"content {self.count}".encode()
        upload = Upload(
            name,
            lambda path: path.write_bytes(content) and None,
            lambda _: self.fresh_name(),
            replace=self.reused and overwrite,
        )
        actor = Actor(self.steps_of_save(upload), "save", name)
        actor.content = content
        self.actors.append(actor)

    @precondition(lambda self: sum(actor.kind == "delete" for actor in self.actors) < 2)
    @rule(which=st.integers(0, 30))
    def delete(self, which: int) -> None:
        if self.saved:
            name = sorted(self.saved)[which % len(self.saved)]
            self.actors.append(Actor(self.steps_of_delete(name), "delete", name))

    @rule(server=st.integers(0, 2))
    def owe_everything(self, server: int) -> None:
        self.journal.owe_all(list(self.models)[server].name)

    @precondition(lambda self: sum(actor.kind == "repair" for actor in self.actors) < 2)
    @rule()
    def repair(self) -> None:
        self.actors.append(Actor(self.one_pass(), "repair"))

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, 5), count=st.integers(1, 8))
    def step(self, which: int, count: int) -> None:
        self.advance_by(self.actors[which % len(self.actors)], count)

    @precondition(lambda self: len(self.actors) > 1)
    @rule(
        which=st.integers(0, 5),
        count=st.integers(1, 8),
        interludes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), max_size=6),
    )
    def step_and_meanwhile(self, which: int, count: int, interludes: list[tuple[int, int]]) -> None:
        """Others take steps while this one's requests travel."""
        self.interludes = interludes
        self.advance_by(self.actors[which % len(self.actors)], count)
        self.interludes = []

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, 5))
    def die(self, which: int) -> None:
        """A process is killed where it stands: nothing of it runs any more."""
        self.actors.pop(which % len(self.actors)).steps.close()

    @rule(seconds=st.sampled_from([1.0, 11.0, 61.0, ATTEMPT_LIMIT + 1, HOUR]))
    def wait(self, seconds: float) -> None:
        """Attempts count as dead after a while, also those that are only slow."""
        self.clock.advance(seconds)

    # --- how it goes on

    def next_name(self) -> str:
        self.count += 1
        return f"name{self.count}"

    def steps_of_save(self, upload: Upload) -> Generator[str, None, Saved]:
        return self.replication.save(upload)

    def steps_of_delete(self, name: str) -> Generator[str, None, object]:
        return self.replication.delete(name)

    def one_pass(self) -> Generator[str, None, None]:
        """A pass of repair, cut between any two names and any two steps."""
        repair = Repair(self.replication, clock=self.clock)
        repair.take_over(Report())
        yield "taken over"
        for action in repair.plan(list(self.models)):
            if action.verb is not Verb.WATCH:
                yield from self.replication.mend(action.name, action.debts)
        work = Pass(Report(), lambda _: None, lambda _: True, lambda: True)
        for server in self.models:
            yield from repair.walk(server, work)
        self.journal.sweep()

    def fresh_name(self) -> str:
        self.count += 1
        return f"fresh{self.count}"

    def meanwhile(self) -> None:
        """While a request travels, others take steps; its sender waits."""
        if not self.interludes:
            return
        which, count = self.interludes.pop()
        others = [actor for actor in self.actors if actor not in self.running]
        if others and count:
            self.advance_by(others[which % len(others)], count)

    def advance_by(self, actor: Actor, count: int) -> None:
        for _ in range(count):
            if not self.advance(actor):
                return

    def advance(self, actor: Actor) -> bool:
        """One step; false when the actor has come to its end."""
        self.running.append(actor)
        try:
            return self.take_step(actor)
        finally:
            self.running.remove(actor)

    def take_step(self, actor: Actor) -> bool:
        try:
            next(actor.steps)
            return True
        except StopIteration as end:
            if actor.kind == "save":
                self.saved[end.value.name] = actor.content
            elif actor.kind == "delete":
                self.deleted.add(actor.name)
        except (NotEnoughServers, SaveInterrupted):
            self.refused.add(actor.name)
        self.actors.remove(actor)
        return False

    def finish(self, actor: Actor) -> None:
        while self.advance(actor):
            pass

    # --- the end

    def teardown(self) -> None:
        try:
            self.heal()
            self.check()
        finally:
            shutil.rmtree(self.folder)

    def heal(self) -> None:
        """Half of the processes come to their end, the rest die; the servers come back."""
        for place, actor in enumerate(list(self.actors)):
            if place % 2:
                actor.steps.close()
            else:
                self.finish(actor)
        self.actors.clear()
        for model in self.models.values():
            model.mood = UP
        self.clock.advance(ATTEMPT_LIMIT + 1)
        # The first look finds half of what was in the buffers carried out. The rest
        # comes after it; a later look finds that, the last one a day later.
        self.flush(half=True)
        self.finish(self.enlist())
        self.flush(half=False)
        for pause in LOOKS:
            self.clock.advance(pause + 1)
            self.finish(self.enlist())

    def enlist(self) -> Actor:
        actor = Actor(self.one_pass(), "repair")
        self.actors.append(actor)
        return actor

    def flush(self, *, half: bool) -> None:
        for model in self.models.values():
            count = len(model.buffers) // 2 if half else len(model.buffers)
            for _ in range(count):
                model.buffers.pop()()

    def check(self) -> None:
        master = {
            name: (self.folder / name).read_bytes()
            for name in os.listdir(self.folder)
            if name != ".outgrow"
        }
        for server, model in self.models.items():
            assert model.files == master, server
        self.check_promises(master)

    def check_promises(self, master: dict[str, bytes]) -> None:
        for name, content in self.saved.items():
            if name not in self.deleted and name in master:
                assert master[name] == content
        assert not self.deleted & master.keys(), "a deleted file came back"
        assert not self.refused & master.keys(), "a save that raised left its file"
        lost = self.saved.keys() - master.keys() - self.deleted
        # A delete that was killed may have buried its name.
        assert all((self.journal._tombstone(name)).exists() for name in lost)


class Reused(Protocol):
    """The same with names that are used again: equal after the passes."""

    reused = True

    def next_name(self) -> str:
        self.count += 1
        return f"name{self.count % 2}"

    def check_promises(self, master: dict[str, bytes]) -> None:
        return


class Strict(Protocol):
    """Every server is needed, so that many saves are undone."""

    need = 3


class Background(Protocol):
    """The master first, and the servers later: by this process, another one, or nobody.

    What is handed over may be sent in any order, so that a delete overtakes its save.
    """

    need = 0

    def steps_of_save(self, upload: Upload) -> Generator[str, None, Saved]:
        pending = yield from self.replication.store(upload)
        self.saved[pending.attempt.name] = (self.folder / pending.attempt.name).read_bytes()
        yield from self.later(pending)
        return Saved(pending.attempt.name, Outcome())

    def steps_of_delete(self, name: str) -> Generator[str, None, object]:
        pending = yield from self.replication.bury(name)
        self.deleted.add(name)
        yield from self.later(pending)

    def later(self, pending: Pending) -> Generator[str, None, None]:
        """Forwarded by the process itself, or owed and mended by jobs."""
        if self.count % 2:
            yield "waiting"
            yield from self.replication.forward(pending)
            return
        for server in self.replication.hand_over(pending):
            yield "queued"
            debts = list(self.journal.debts(server, pending.attempt.name))
            if debts:
                yield from self.replication.mend(pending.attempt.name, debts)


# --- one story, told in full: a server that is owed everything


@pytest.fixture
def told():
    machine = Protocol()
    machine.prepare()
    yield machine
    machine.teardown()


@pytest.mark.parametrize("killed", [True, False])
def test_what_a_walk_has_sent_may_arrive_after_its_file_was_deleted(
    told: Protocol, *, killed: bool
) -> None:
    """The walker is killed after it has sent a file, or hears nothing. The server is late."""
    (told.folder / "f").write_bytes(b"content")
    late, model = next(iter(told.models.items()))
    told.journal.owe_all(late.name)
    model.mood = LATE
    walker = told.enlist()
    while model.buffers == []:
        assert told.advance(walker)
    if killed:
        told.actors.remove(walker)
        walker.steps.close()
    else:
        told.finish(walker)
    model.mood = UP
    told.finish(told.enlist())
    remover = Actor(told.replication.delete("f"), "delete", "f")
    told.actors.append(remover)
    told.finish(remover)
    told.finish(told.enlist())  # all looks well
    model.buffers.pop()()
    assert "f" in model.files


def test_a_walk_has_sent_what_a_save_takes_back_and_never_sent_there() -> None:
    """The server goes down after a walk has sent it the file, and before the save's own PUT."""
    machine = Strict()
    machine.prepare()
    server, model = list(machine.models.items())[-1]
    machine.save(overwrite=False)
    (saver,) = machine.actors
    assert machine.advance(saver)
    assert machine.advance(saver)  # it is committed
    machine.journal.owe_all(server.name)
    machine.finish(machine.enlist())
    assert model.files
    model.mood = DOWN
    machine.finish(saver)
    assert machine.refused == {saver.name}
    model.mood = UP
    machine.finish(machine.enlist())
    assert model.files == {}
    machine.teardown()


def _case(machine: type[Protocol]) -> Any:
    case = machine.TestCase
    long = os.environ.get("OUTGROW_LONG") == "1"
    case.settings = settings(
        max_examples=4000 if long else 500,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return pytest.mark.timeout(3600 if long else 900)(case)


TestProtocol = _case(Protocol)
TestReused = _case(Reused)
TestStrict = _case(Strict)
TestBackground = _case(Background)
