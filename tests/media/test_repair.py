"""Repair: the plan as a value, a pass over real sockets, and the watch."""

from __future__ import annotations

import os
import socket
import time

import pytest
from django.core.files.base import ContentFile

from outgrow.errors import JournalTooNew
from outgrow.media import HybridStorage, journal
from outgrow.media import walking as folders
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import LOOKS, Change, Debt, Kind, Look, Wanted
from outgrow.media.pace import Pace
from outgrow.media.repair import Action, Pass, Repair, Report, Verb, plan
from outgrow.media.replication import Replication
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
    # They are sent at the same time: any of them may be the one.
    (refused,) = [name for _, name in report.errors]
    assert servers[1].files.keys() & set(names) == set(names) - {refused}


def spoil(storage, name: str) -> None:
    """Let the master fail for this one name, whoever asks (root may read all else)."""
    path = storage.journal.root / name
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def test_a_name_that_cannot_be_read_does_not_end_the_pass(storage, servers):
    servers[1].stop()
    names = [save(storage) for _ in range(3)]
    servers[1].start()
    spoil(storage, names[0])
    assert Verb.REPORT in {one.verb for one in Repair(storage.replication).plan()}
    report = Repair(storage.replication).once(settle=False)
    assert list(report.unreadable) == [names[0]]
    assert not report.complete
    assert set(names[1:]) <= servers[1].files.keys()


def test_what_cannot_be_read_does_not_end_a_comparison_of_everything(storage, servers):
    names = [save(storage) for _ in range(3)]
    spoil(storage, "loop")
    server = storage.options.servers[1]
    del servers[1].files[names[0]]
    storage.journal.owe_all(server.name)
    repair = Repair(storage.replication)
    report = repair.once(settle=False)
    assert list(report.unreadable) == ["loop"]
    assert names[0] in servers[1].files
    # It stays owed, and is not compared again at once.
    assert storage.journal.is_owed_all(server.name)
    before = len(servers[1].log)
    repair.once(settle=False)
    assert not [entry for entry in servers[1].log[before:] if entry[0] == "HEAD"]


def test_a_name_that_is_refused_in_a_comparison_is_owed_by_itself(storage, servers):
    names = [save(storage) for _ in range(3)]
    server = storage.options.servers[1]
    storage.journal.owe_all(server.name)
    del servers[1].files[names[0]]
    servers[1].answer_with(403, 1, method="PUT")
    report = Repair(storage.replication).once(settle=False)
    assert len(report.errors) == 1
    assert not storage.journal.is_owed_all(server.name)
    assert storage.journal.summary(server.name)[0] == 1
    assert Repair(storage.replication).once(settle=False).complete
    assert set(names) <= servers[1].files.keys()


def test_a_server_that_refuses_many_names_is_not_down(storage, servers):
    servers[1].stop()
    names = [save(storage) for _ in range(8)]
    servers[1].start()
    servers[1].answer_with(403, 5, method="PUT")
    report = Repair(storage.replication).once(settle=False)
    assert report.down == {}
    assert len(report.errors) == 5
    assert sum(name in servers[1].files for name in names) == 3


def test_a_pass_ends_when_it_is_told_to(storage, servers):
    servers[1].stop()
    for _ in range(5):
        save(storage)
    servers[1].start()
    storage.journal.owe_all(storage.options.servers[0].name)
    done = []
    report = Repair(storage.replication).once(
        settle=False, progress=done.append, go_on=lambda: len(done) < 2
    )
    # What was begun together is ended together.
    assert len(done) == report.put == 3
    assert storage.journal.is_owed_all(storage.options.servers[0].name)


def test_a_server_that_this_process_does_not_know_of_is_owed_its_changes(
    storage, servers, tmp_path
):
    """A new list of servers is rolled out; this process still has the old one."""
    with MediaServer() as third:
        urls = [server.url for server in (*servers, third)]
        new = HybridStorage(location=tmp_path, base_url="/", servers=urls)
        assert Repair(new.replication).once(settle=False).complete
        name, gone = save(storage), save(storage)
        storage.delete(gone)
        assert third.files.keys() == {"outgrow-master-id.txt"}
        # Two saves and a delete.
        assert storage.journal.summary(new.options.servers[2].name)[0] == 3
        assert Repair(new.replication).once(settle=False).complete
        assert third.files.keys() == {"outgrow-master-id.txt", name}


def test_a_server_in_no_list_any_more_is_not_owed_without_end(storage, monkeypatch):
    monkeypatch.setattr("outgrow.media.repair.RECORDS_LIMIT", 5)
    storage.journal.set_claimed("retired")
    for _ in range(8):
        save(storage)
    assert storage.journal.count("retired") == 8
    Repair(storage.replication).once(settle=False)
    assert storage.journal.count("retired") == 1
    assert storage.journal.is_owed_all("retired")


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


def test_a_watch_outlives_a_master_that_is_away(storage, servers, tmp_path):
    """Its mount comes and goes; only a newer journal ends it."""
    waits, broken, reports = [], [], []
    away = tmp_path.with_name("away")

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 1:
            (tmp_path / ".outgrow").rename(away)
            (tmp_path / ".outgrow").write_text("in the way")
        if len(waits) == 3:
            (tmp_path / ".outgrow").unlink()
            away.rename(tmp_path / ".outgrow")
        return len(waits) == 4

    watch = Watch(Repair(storage.replication), wait=wait, interval=2.0, random=lambda: 0.5)
    watch.run(reports.append, broken.append)
    assert waits == [2.0, 4.0, 8.0, 2.0]
    assert (len(reports), len(broken)) == (2, 2)
    assert "can't be used" in str(broken[0])
    (tmp_path / ".outgrow" / "format").write_text("outgrow journal 999\n")
    with pytest.raises(JournalTooNew):
        watch.run()


def test_a_long_pass_beats_and_can_be_stopped(storage, servers, monkeypatch):
    monkeypatch.setattr("outgrow.media.repair.BATCH", 1)
    servers[1].stop()
    for _ in range(5):
        save(storage)
    servers[1].start()
    clock = FakeClock(NOW)
    beats = []

    class Beating(DirectoryJournal):
        def write_heartbeat(self, watch, beat):
            beats.append(beat["at"])
            super().write_heartbeat(watch, beat)

    storage.replication.journal = Beating(storage.journal.root)
    watch = Watch(
        Repair(storage.replication),
        wait=lambda _: True,
        stopped=lambda: clock.advance(4) or clock() > NOW + 18,
        clock=clock,
    )
    report = watch.once()
    # Names are mended at 4, 8, 12 and 16 s; the next is not begun.
    assert report.put == 4
    assert beats == [NOW, NOW + 8, NOW + 16, NOW + 20]


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
    (last,) = storage.journal.heartbeats()
    assert last.watch == f"{socket.gethostname()}:{os.getpid()}"
    assert last.beat["at"] == NOW
    assert 0 <= last.age < 10
    assert [one["up"] for one in last.beat["servers"].values()] == [True, True]


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_clock_that_is_an_hour_wrong_loses_nothing(storage, servers, skew):
    """One machine repairs with a clock that is an hour off; the others save by the right one."""
    servers[1].stop()
    missed, gone = save(storage), save(storage)
    storage.delete(gone)
    servers[1].start()
    servers[1].hang = "before-answer"
    late = save(storage)
    servers[1].thaw()
    open_attempt = storage.journal.attempt("busy.txt", Change.SAVE)
    storage.journal.begin(open_attempt).write_bytes(b"x")

    def wrong() -> float:
        return time.time() + skew

    journal = DirectoryJournal(storage.journal.root, clock=wrong)
    replication = Replication(journal, storage.transport, need=1, source=journal.copy)
    report = Repair(replication, clock=wrong).once(settle=False)
    assert {missed, late} <= servers[1].files.keys()
    assert gone not in servers[1].files
    # A save that has only just begun is nobody's to take over.
    assert report.taken_over == 0
    assert storage.journal.draft(open_attempt).size == 1
    # What the wrong clock wrote, the right one reads: nothing stays owed.
    assert Repair(storage.replication).once(settle=False).still_owed == 0


# --- walks that meet trouble


@pytest.fixture
def walking(storage):
    """A walk over one server, as its steps, by a repair of its own."""

    def walking(server: int = 0):
        work = Pass(Report(), lambda _: None, lambda _: True, lambda: True)
        return Repair(storage.replication).walk(storage.options.servers[server], work)

    return walking


def test_two_walks_at_once_are_one(storage, servers, walking):
    name = save(storage)
    del servers[0].files[name]
    one = storage.options.servers[0].name
    storage.journal.owe_all(one)
    first, second = walking(), walking()
    claim, journal = storage.journal.claim, storage.journal

    def slow(debt):
        del journal.claim
        next(first)  # the other one is quicker
        return claim(debt)

    journal.claim = slow
    assert list(second) == []
    assert name not in servers[0].files
    assert list(first)
    assert name in servers[0].files
    assert list(journal.debts(one)) == []


def test_a_disk_that_is_replaced_during_a_walk_is_filled(storage, servers, walking, tmp_path):
    names = [save(storage) for _ in range(3)]
    one = storage.options.servers[0].name
    del servers[0].files[names[0]]
    storage.journal.owe_all(one)
    walk = walking()
    assert [next(walk), next(walk)] == ["claimed", "compared"]
    servers[0].files.clear()
    storage.journal.set_claimed(one, claimed=False)  # repair --adopt, in another process
    other = HybridStorage(location=tmp_path, base_url="/", servers=[s.url for s in servers])
    other.transport.probe()
    list(walk)
    assert Repair(other.replication).once(settle=False).complete
    assert set(names) <= servers[0].files.keys()


def test_what_one_walk_could_not_read_another_one_owes_too(storage, servers):
    """The name is among the unreadable already, because it is owed by itself as well."""
    name = save(storage)
    storage.journal.owe(storage.options.servers[0].name, name)
    del servers[1].files[name]
    storage.journal.owe_all(storage.options.servers[1].name)
    content = (storage.journal.root / name).read_bytes()
    spoil(storage, name)
    Repair(storage.replication).once(settle=False)
    (storage.journal.root / name).unlink()
    (storage.journal.root / name).write_bytes(content)
    assert storage.journal.is_owed_all(storage.options.servers[1].name)


def test_what_cannot_be_read_holds_up_no_other_server(storage, servers):
    names = [save(storage) for _ in range(3)]
    for server in servers:
        del server.files[names[0]]
    spoil(storage, "loop")
    for one in storage.options.servers:
        storage.journal.owe_all(one.name)
    Repair(storage.replication).once(settle=False)
    assert all(names[0] in server.files for server in servers)


def test_a_name_that_cannot_be_looked_at_afterwards_stays_owed(storage, servers):
    names = [save(storage) for _ in range(3)]
    one = storage.options.servers[0].name
    for name in names:
        storage.journal.owe(one, name)
        del servers[0].files[name]

    def drive(steps):
        try:
            while True:
                if next(steps) == "put":
                    spoil(storage, names[0])
        except StopIteration as end:
            return end.value

    report = Repair(storage.replication, drive=drive).once(settle=False)
    assert list(report.unreadable) == [names[0]]
    assert storage.journal.summary(one)[0] == 1
    assert set(names) <= servers[0].files.keys()


def test_a_file_of_the_kernel_is_no_fault_of_the_server(storage, servers):
    """Its length is not what can be read of it, as with a file that is cut while it is sent."""
    (storage.journal.root / "a.txt").symlink_to("/sys/kernel/uevent_seqnum")
    for number in range(100):
        (storage.journal.root / f"f{number}.txt").write_bytes(b"x")
    storage.journal.owe_all(storage.options.servers[0].name)
    report = Repair(storage.replication).once(settle=False)
    assert report.down == {}
    assert list(report.unreadable) == ["a.txt"]
    assert sum(name.startswith("f") for name in servers[0].files) == 100


def test_a_server_that_is_slow_is_not_down(storage, servers):
    for number in range(60):
        (storage.journal.root / f"f{number:02}.txt").write_bytes(b"x")
    one = storage.options.servers[0].name
    storage.journal.owe_all(one)
    storage.replication.deadline = 0.5
    servers[0].delay = 0.1
    report = Repair(storage.replication).once(settle=False)
    assert report.down == {}
    assert all(error.endswith("the time was over") for error in report.errors.values())
    servers[0].delay = 0.0
    assert Repair(storage.replication).once(settle=False).complete
    assert len(servers[0].files) == 61


def test_a_file_that_is_deleted_during_the_walk_is_no_trouble(storage, servers, monkeypatch):
    name, kept = save(storage), save(storage)
    child = folders._child

    def slow(entry, folder, failed):
        if entry.name == name and os.path.exists(entry.path):
            storage.delete(name)
        return child(entry, folder, failed)

    monkeypatch.setattr(folders, "_child", slow)
    del servers[0].files[kept]
    storage.journal.owe_all(storage.options.servers[0].name)
    assert Repair(storage.replication).once(settle=False).complete
    assert kept in servers[0].files


def test_a_folder_that_is_too_deep_is_told(storage, servers):
    name = save(storage)
    del servers[0].files[name]
    folder = os.open(storage.journal.root, os.O_DIRECTORY)
    for _ in range(6):
        os.mkdir("x" * 200, dir_fd=folder)
        below = os.open("x" * 200, os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    storage.journal.owe_all(storage.options.servers[0].name)
    report = Repair(storage.replication).once(settle=False)
    assert "name too long" in "".join(report.unreadable.values())
    assert name in servers[0].files


def test_a_server_that_wants_folders_and_one_file_that_needs_none(tmp_path):
    with MediaServer(missing_parent_409=True) as server:
        storage = HybridStorage(location=tmp_path, base_url="/", servers=[server.url], need=0)
        Repair(storage.replication).once(settle=False)
        server.stop()
        for name in ("f.txt", "a/f.txt", "a/b/f.txt"):
            storage.save(name, ContentFile(b"x"))
        server.start()
        assert Repair(storage.replication).once(settle=False).complete
        assert len(server.files) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_wants_to_be_left_alone_is(tmp_path, status):
    with MediaServer(listing=False) as server:
        storage = HybridStorage(location=tmp_path, base_url="/", servers=[server.url])
        Repair(storage.replication).once(settle=False)
        for number in range(300):
            (tmp_path / f"f{number}.txt").write_bytes(b"x")
        storage.journal.owe_all(storage.options.servers[0].name)
        server.answer_with(status, method="HEAD")
        report = Repair(storage.replication).once(settle=False)
        assert str(status) in report.down[storage.options.servers[0].name]
        assert sum(method == "HEAD" for method, _, _ in server.log) <= 64


@pytest.mark.parametrize(
    "line", [b'["a\\ud800.jpg",1,""]', b'["back\\\\slash",1,""]', b'["a%20b",1,""]']
)
def test_what_others_have_put_on_a_server_holds_up_nothing(storage, servers, line):
    name = save(storage)
    one = storage.options.servers[0].name
    servers[0]._list = lambda _: line + b'\n{"count":1}\n'
    del servers[0].files[name]
    storage.journal.owe_all(one)
    assert Repair(storage.replication).once(settle=False).complete
    assert name in servers[0].files


def test_an_endless_listing_names_its_server(storage, servers, monkeypatch):
    monkeypatch.setattr("outgrow.media.lister.MOST", 5000)
    name = save(storage)
    del servers[1].files[name]
    lines = b"".join(b'["n%06d",1,""]\n' % number for number in range(6000))
    servers[0]._list = lambda _: lines + b'{"count":6000}\n'
    for one in storage.options.servers:
        storage.journal.owe_all(one.name)
    assert Repair(storage.replication).once(settle=False).complete
    assert name in servers[1].files


def test_a_repair_is_no_faster_than_it_is_told(storage, servers):
    names = [storage.save("f.txt", ContentFile(b"x" * 10_000)) for _ in range(4)]
    for name in names:
        del servers[0].files[name]
    storage.journal.owe_all(storage.options.servers[0].name)
    clock = FakeClock(0)
    pace = Pace(1000, clock, clock.advance)
    assert Repair(storage.replication.at(pace)).once(settle=False).complete
    assert set(names) <= servers[0].files.keys()
    assert clock() == 30  # the last one goes without a wait behind it


def test_what_is_recorded_while_records_are_exchanged_for_one_stays(storage, monkeypatch):
    """Another pass may have compared everything by then, without this file."""
    monkeypatch.setattr("outgrow.media.repair.RECORDS_LIMIT", 2)
    one, journal = storage.options.servers[0].name, storage.journal
    for _ in range(3):
        journal.owe(one, save(storage))
    owe_all = journal.owe_all

    def slow(server):
        record = owe_all(server)
        journal.owe(server, "saved-meanwhile.txt")
        return record

    monkeypatch.setattr(journal, "owe_all", slow)
    Repair(storage.replication)._compact()
    assert {debt.name for debt in journal.debts(one)} == {"", "saved-meanwhile.txt"}
