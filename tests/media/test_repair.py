"""Repair: the plan as a value, a pass over real sockets, and the watch."""

from __future__ import annotations

import os

import pytest
from django.core.files.base import ContentFile

from outgrow.media import HybridStorage, journal
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import LOOKS, Debt, Kind, Look, Wanted
from outgrow.media.repair import Action, Repair, Verb, plan
from outgrow.media.watch import RETRY, Watch
from outgrow.testing import FakeClock, MediaServer
from tests.live.processes import wait_until

NOW = 1_000_000.0


def owed(server: str, attempt: str = "1", name: str = "f") -> Debt:
    return Debt(server, attempt, Kind.OWED, name)


def unknown(server: str, looks: int, at: float) -> Debt:
    return Debt(server, "1", Kind.UNKNOWN, "f", looks=looks, at=at)


LOOK = {
    "there": Look(Wanted.PRESENT),
    "gone": Look(Wanted.GONE),
    "lost": Look(Wanted.UNHEARD),
    "f": Look(Wanted.PRESENT),
}.__getitem__


@pytest.mark.parametrize(("debts", "actions"), [
    ([], []),
    ([owed("a", "1", "there")], [(Verb.PUT, "there", "a")]),
    ([owed("a", "1", "gone")], [(Verb.DELETE, "gone", "a")]),
    ([owed("a", "1", "lost")], [(Verb.REPORT, "lost", "a")]),
    # One attempt on two servers is one action; two attempts are two.
    ([owed("a"), owed("b")], [(Verb.PUT, "f", "ab")]),
    ([owed("a", "1"), owed("a", "2")], [(Verb.PUT, "f", "a"), (Verb.PUT, "f", "a")]),
    # An unknown one that was never looked at is due; later ones when their time comes.
    ([unknown("a", 0, NOW)], [(Verb.PUT, "f", "a")]),
    ([unknown("a", 1, NOW - LOOKS[0] + 1)], [(Verb.WATCH, "f", "a")]),
    ([unknown("a", 1, NOW - LOOKS[0])], [(Verb.PUT, "f", "a")]),
    (
        [unknown("a", 5, NOW - LOOKS[4] + 1), owed("b")],
        [(Verb.WATCH, "f", "a"), (Verb.PUT, "f", "b")],
    ),
])  # fmt: skip
def test_a_plan_is_a_value(debts, actions):
    found = [(one.verb, one.name, "".join(one.servers)) for one in plan(debts, LOOK, NOW)]
    assert found == actions


def test_a_plan_is_lazy():
    def endless():
        number = 0
        while True:
            number += 1
            yield owed("a", str(number))

    assert isinstance(next(plan(endless(), LOOK, NOW)), Action)


# --- passes


@pytest.fixture
def servers():
    with MediaServer() as one, MediaServer() as two:
        yield [one, two]


@pytest.fixture
def storage(tmp_path, servers):
    urls = [server.url for server in servers]
    made = HybridStorage(location=tmp_path, base_url="/", servers=urls, downtime=0.05, timeout=0.5)
    Repair(made.replication).once(settle=False)
    return made


def save(storage, name="f.txt", content=b"x") -> str:
    return storage.save(name, ContentFile(content))


def test_past_the_limit_a_server_is_owed_everything_instead(storage, servers, monkeypatch):
    monkeypatch.setattr("outgrow.media.repair.RECORDS_LIMIT", 5)
    servers[1].stop()
    names = [save(storage) for _ in range(8)]
    servers[1].start()
    server = storage.options.servers[1].name
    assert storage.journal.count(server) == 8
    report = Repair(storage.replication).once(settle=False)
    assert report.complete
    assert storage.journal.count(server) == 0
    assert set(names) <= servers[1].files.keys()


def test_everything_includes_what_was_deleted(storage, servers):
    gone, kept = save(storage), save(storage)
    held = servers[1].files[gone]
    storage.delete(gone)
    servers[1].files[gone] = held  # a disk from before comes back
    del servers[1].files[kept]
    storage.journal.owe_all(storage.options.servers[1].name)
    assert Repair(storage.replication).once(settle=False).complete
    assert gone not in servers[1].files
    assert kept in servers[1].files


def test_a_file_of_another_size_is_sent_again(storage, servers):
    name = save(storage, content=b"whole")
    servers[0].files[name] = b"who"
    storage.journal.owe_all(storage.options.servers[0].name)
    Repair(storage.replication).once(settle=False)
    assert servers[0].files[name] == b"whole"


def test_what_only_a_server_has_is_left_alone(storage, servers):
    servers[0].files["by-hand.txt"] = b"x"
    storage.journal.owe_all(storage.options.servers[0].name)
    assert Repair(storage.replication).once(settle=False).complete
    assert servers[0].files["by-hand.txt"] == b"x"


def test_what_was_removed_by_hand_is_reported_and_nothing_is_sent(storage, servers):
    servers[1].stop()
    name = save(storage)
    os.unlink(storage.path(name))
    servers[1].start()
    before = len(servers[1].log)
    report = Repair(storage.replication).once(settle=False)
    assert report.unheard == [name]
    assert not report.complete
    assert [entry for entry in servers[1].log[before:] if entry[0] != "GET"] == []


def test_unsafe_names_on_the_master_are_reported(storage, servers):
    (storage.journal.root / ".htaccess").write_text("old")
    storage.journal.owe_all(storage.options.servers[0].name)
    report = Repair(storage.replication).once(settle=False)
    assert report.unsafe == [".htaccess"]
    assert ".htaccess" not in servers[0].files


def test_one_refused_name_does_not_hold_up_the_others(storage, servers):
    servers[1].stop()
    names = [save(storage) for _ in range(3)]
    servers[1].start()
    servers[1].answer_with(403, 1, method="PUT")
    report = Repair(storage.replication).once(settle=False)
    assert [name for _, name in report.errors] == [names[0]]
    assert set(names[1:]) <= servers[1].files.keys()


def test_a_server_that_fails_for_every_name_is_left_alone(storage, servers):
    servers[1].stop()
    for _ in range(10):
        save(storage)
    servers[1].start()
    servers[1].answer_with(500, method="PUT")
    before = len(servers[1].log)
    report = Repair(storage.replication).once(settle=False)
    assert storage.options.servers[1].name in report.down
    sent = [entry for entry in servers[1].log[before:] if entry[0] == "PUT"]
    assert len(sent) == 3


def test_a_pass_looks_again_at_unknown_requests(storage, servers, tmp_path):
    clock = FakeClock(float(int(tmp_path.stat().st_mtime)))
    servers[1].hang = "before-answer"
    name = save(storage)
    storage.delete(name)
    servers[1].hang = None
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)
        servers[1].thaw()
        wait_until(lambda: name in servers[1].files, "the late PUT was not carried out")

    own = DirectoryJournal(tmp_path, clock=clock, file_clock=clock)
    storage.replication.journal = own
    assert Repair(storage.replication, clock=clock, sleep=sleep).once().complete
    assert slept == [pytest.approx(LOOKS[0], abs=0.01)]
    assert name not in servers[1].files


def test_old_tombstones_are_swept(storage, tmp_path):
    name = save(storage)
    storage.delete(name)
    clock = FakeClock(tmp_path.stat().st_mtime + journal.KEEP_TOMBSTONES + 60)
    storage.replication.journal = DirectoryJournal(tmp_path, clock=clock, file_clock=clock)
    report = Repair(storage.replication, clock=clock).once(settle=False)
    assert report.swept >= 1
    assert list(storage.replication.journal.tombstones()) == []


# --- the watch


def test_a_refused_name_is_tried_again_later_and_later(storage, servers):
    servers[1].stop()
    save(storage)
    servers[1].start()
    servers[1].answer_with(403, method="PUT")
    clock = FakeClock(NOW)
    watch = Watch(Repair(storage.replication), wait=lambda _: True, clock=clock, random=lambda: 0.0)

    def tries() -> int:
        before = len(servers[1].log)
        watch.once()
        return sum(entry[0] == "PUT" for entry in servers[1].log[before:])

    assert tries() == 1
    for pause in (RETRY, 2 * RETRY, 4 * RETRY):
        clock.advance(pause - 1)
        assert tries() == 0
        clock.advance(1)
        assert tries() == 1


def test_the_watch_ends_when_told_and_leaves_a_heartbeat(storage):
    waits = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 3

    clock = FakeClock(NOW)
    reports = []
    Watch(
        Repair(storage.replication), wait=wait, interval=2.0, clock=clock, random=lambda: 0.5
    ).run(reports.append)
    assert waits == [2.0] * 3
    assert len(reports) == 3
    beat, age = storage.journal.read_heartbeat()
    assert beat["at"] == NOW
    assert 0 <= age < 10
    assert [one["up"] for one in beat["servers"].values()] == [True, True]
