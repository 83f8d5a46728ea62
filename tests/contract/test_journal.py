"""The contract of a journal: what replication and repair rely on.

`IMPLEMENTATIONS` is the place for the next one; each is a function of a folder
and a clock.
"""

from __future__ import annotations

import json
import multiprocessing
import os

import pytest

from outgrow.errors import SaveInterrupted
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import (
    ABANDONED,
    ATTEMPT_LIMIT,
    KEEP_TOMBSTONES,
    LOOKS,
    Attempt,
    Kind,
    Wanted,
)
from outgrow.testing import FakeClock

IMPLEMENTATIONS = {
    "directory": lambda folder, clock: DirectoryJournal(folder, clock=clock),
    "directory, synced": lambda folder, clock: DirectoryJournal(folder, clock=clock, fsync=True),
}

SERVERS = ("a", "b:8080", "[::1]:80")


@pytest.fixture
def clock(tmp_path):
    return FakeClock(float(int(os.stat(tmp_path).st_mtime)))


@pytest.fixture(params=IMPLEMENTATIONS)
def journal(request, tmp_path, clock):
    made = IMPLEMENTATIONS[request.param](tmp_path, clock)
    made.prepare()
    return made


def begun(journal, name="f.txt", content=b"x", **options) -> Attempt:
    attempt = journal.attempt(name, SERVERS, **options)
    journal.draft(attempt).write_bytes(content)
    journal.begin(attempt)
    return attempt


def saved(journal, name="f.txt", content=b"x", **options) -> Attempt:
    attempt = begun(journal, name, content, **options)
    journal.commit(attempt)
    return attempt


def debts(journal, server="a"):
    return list(journal.debts(server))


# --- attempts


def test_an_attempt_is_on_record_until_it_is_settled(journal):
    attempt = begun(journal)
    assert [one for one, _ in journal.attempts()] == [attempt]
    journal.commit(attempt)
    journal.settle(attempt, (), ())
    assert list(journal.attempts()) == []
    assert [debts(journal, server) for server in SERVERS] == [[], [], []]


def test_settling_keeps_what_is_owed_and_what_is_unknown(journal):
    attempt = saved(journal)
    journal.settle(attempt, ["a"], ["b:8080"])
    (owed,), (unknown,) = debts(journal, "a"), debts(journal, "b:8080")
    assert (owed.kind, owed.name) == (Kind.OWED, "f.txt")
    assert (unknown.kind, unknown.name, unknown.looks) == (Kind.UNKNOWN, "f.txt", 0)
    assert debts(journal, "[::1]:80") == []


def test_a_commit_never_replaces(journal):
    saved(journal, content=b"first")
    second = begun(journal, content=b"second")
    with pytest.raises(FileExistsError):
        journal.commit(second)
    renamed = journal.rename(second, "g.txt")
    journal.commit(renamed)
    assert (journal.root / "f.txt").read_bytes() == b"first"
    assert (journal.root / "g.txt").read_bytes() == b"second"


def test_a_commit_that_may_replace_can_be_taken_back(journal):
    saved(journal, content=b"first")
    second = saved(journal, content=b"second", replaces=True)
    assert (journal.root / "f.txt").read_bytes() == b"second"
    assert journal.restore(second)
    assert (journal.root / "f.txt").read_bytes() == b"first"


def test_there_is_nothing_to_put_back_for_a_new_name(journal):
    assert not journal.restore(saved(journal, replaces=True))
    assert not journal.restore(saved(journal, "g.txt"))


def test_a_withdrawn_attempt_can_t_commit(journal):
    attempt = begun(journal)
    assert journal.withdraw(attempt.id)
    with pytest.raises(SaveInterrupted, match="save it again"):
        journal.commit(attempt)
    assert journal.look("f.txt").wanted is Wanted.UNHEARD


def test_names_that_look_like_others_have_tombstones_of_their_own(journal):
    names = ["a", "a/b", "a=", "a%2Fb".replace("%", "_"), "ü/ü.jpg", "x" * 250, "y/" * 300 + "z"]
    for name in names:
        journal.bury(journal.attempt(name, SERVERS))
    assert {name for name, _ in journal.tombstones()} == set(names)
    assert all(journal.look(name).wanted is Wanted.GONE for name in names)


# --- looking


def test_a_look_tells_present_gone_and_unheard_apart(journal):
    assert journal.look("f.txt").wanted is Wanted.UNHEARD
    attempt = saved(journal, content=b"12345")
    look = journal.look("f.txt")
    assert (look.wanted, look.size) == (Wanted.PRESENT, 5)
    assert journal.bury(attempt)
    assert journal.look("f.txt").wanted is Wanted.GONE
    assert not journal.bury(attempt)
    assert journal.look("f.txt").wanted is Wanted.GONE


def test_another_file_of_the_same_name_is_seen(journal):
    saved(journal, content=b"one")
    look = journal.look("f.txt")
    saved(journal, content=b"two", replaces=True)
    assert journal.look("f.txt") != look


def test_a_folder_is_neither_there_nor_buried(journal):
    saved(journal, "folder/f.txt")
    assert journal.look("folder").wanted is Wanted.UNHEARD
    with pytest.raises(IsADirectoryError):
        journal.bury(journal.attempt("folder", SERVERS))
    assert journal.look("folder/f.txt").wanted is Wanted.PRESENT


def test_a_tombstone_holds_no_content(journal):
    journal.bury(saved(journal, content=b"private"))
    contents = [path.read_bytes() for path in journal.folder.rglob("*") if path.is_file()]
    assert b"private" not in contents


def test_a_reader_goes_on_reading_what_is_deleted(journal):
    attempt = saved(journal, content=b"still read")
    with (journal.root / "f.txt").open("rb") as reader:
        journal.bury(attempt)
        assert reader.read() == b"still read"


# --- repair


def test_a_claim_becomes_unknown_and_only_one_has_it(journal):
    journal.settle(saved(journal), ["a"], ())
    (found,) = debts(journal)
    claimed = journal.claim(found)
    assert claimed.kind is Kind.UNKNOWN
    assert journal.claim(found) is None
    assert debts(journal)[0].file == claimed.file


def test_a_confirmed_debt_is_forgotten(journal):
    journal.settle(saved(journal), ["a"], ())
    (found,) = debts(journal)
    journal.confirm(found, journal.claim(found))
    assert debts(journal) == []


def test_a_released_claim_is_what_it_was(journal):
    journal.settle(saved(journal), ["a"], ())
    (found,) = debts(journal)
    journal.release(found, journal.claim(found))
    assert debts(journal) == [found]


def test_an_unknown_debt_is_looked_at_for_a_day(journal, clock):
    journal.settle(saved(journal), (), ["a"])
    pauses = []
    begin = clock()
    while found := debts(journal):
        clock.now = max(clock(), found[0].due_at)
        pauses.append(clock() - begin)
        journal.confirm(found[0], journal.claim(found[0]))
    assert pauses == [0.0, *LOOKS]


def test_a_late_look_counts_for_those_it_missed(journal, clock):
    journal.settle(saved(journal), (), ["a"])
    (found,) = debts(journal)
    journal.confirm(found, journal.claim(found))
    clock.advance(LOOKS[2] + 1)
    (found,) = debts(journal)
    journal.confirm(found, journal.claim(found))
    assert debts(journal)[0].due_at == found.at + LOOKS[3]


def test_summaries_count_without_reading(journal):
    journal.settle(saved(journal), ["a"], ())
    journal.settle(saved(journal, "g.txt"), (), ["a"])
    owed, watched, oldest = journal.summary("a")
    assert (owed, watched) == (2, 0)
    assert oldest is not None
    found = next(debt for debt in debts(journal) if debt.kind is Kind.UNKNOWN)
    journal.confirm(found, journal.claim(found))
    assert journal.summary("a")[:2] == (1, 1)
    assert journal.summary("never seen") == (0, 0, None)


# --- attempts of processes that died


def test_a_dead_attempt_that_committed_is_owed_as_unknown(journal, clock):
    attempt = saved(journal)
    ((_, record),) = journal.attempts()
    assert not journal.is_dead(attempt, record)
    clock.advance(ATTEMPT_LIMIT + 1)
    assert journal.is_dead(attempt, record)
    assert journal.convert(attempt)
    assert [debts(journal, server)[0].kind for server in SERVERS] == [Kind.UNKNOWN] * 3


def test_a_dead_attempt_that_never_committed_leaves_nothing(journal):
    attempt = begun(journal)
    assert not journal.convert(attempt)
    assert list(journal.attempts()) == []
    assert debts(journal) == []
    assert not journal.draft(attempt).exists()


def test_the_attempt_of_a_process_that_died_here_is_dead_at_once(journal):
    child = multiprocessing.get_context("fork").Process(target=begun, args=(journal,))
    child.start()
    child.join()
    ((attempt, record),) = journal.attempts()
    assert journal.is_dead(attempt, record)


def test_the_attempt_of_another_machine_is_given_time(journal, clock):
    attempt = begun(journal)
    path = journal.folder / "open" / attempt.id
    record = json.loads(path.read_text()) | {"host": "elsewhere", "process": 1}
    assert not journal.is_dead(attempt, record)
    clock.advance(ATTEMPT_LIMIT + 1)
    assert journal.is_dead(attempt, record)


def test_a_record_without_its_last_byte_is_no_record(journal):
    attempt = begun(journal)
    path = journal.folder / "open" / attempt.id
    for text in ("", path.read_text()[:-1], "\0" * 40, "{not json}\n"):
        path.write_text(text)
        assert list(journal.attempts()) == []


# --- sweeping


def test_a_tombstone_is_kept_for_a_week_and_while_anything_is_open(journal, clock):
    attempt = saved(journal)
    journal.bury(attempt)
    journal.settle(attempt, (), ["a"])
    clock.advance(KEEP_TOMBSTONES - 60)
    journal.sweep()
    assert journal.look("f.txt").wanted is Wanted.GONE
    clock.advance(120)
    journal.sweep()
    assert journal.look("f.txt").wanted is Wanted.GONE, "a request is still unknown"
    (found,) = debts(journal)
    journal.forget(found)
    assert journal.sweep() >= 1
    assert journal.look("f.txt").wanted is Wanted.UNHEARD


def test_drafts_that_nobody_writes_are_swept(journal, clock):
    open_one, left = begun(journal), journal.attempt("g.txt", SERVERS)
    journal.draft(left).write_bytes(b"x")
    clock.advance(ABANDONED + 60)
    journal.sweep()
    assert journal.draft(open_one).exists()
    assert not journal.draft(left).exists()


def test_a_record_that_was_never_finished_is_swept(journal, clock):
    half = journal.folder / "open" / journal.attempt("f.txt", SERVERS).id
    half.touch()
    assert list(journal.attempts()) == []
    clock.advance(ABANDONED - 60)
    journal.sweep()
    assert half.exists(), "its process may be stopped and go on"
    clock.advance(120)
    assert journal.sweep() == 1
    assert not half.exists()


# --- several processes


def claim_all(folder, queue):
    journal = DirectoryJournal(folder)
    found = list(journal.debts("a"))
    queue.put(sum(journal.claim(debt) is not None for debt in found))


def test_two_processes_never_claim_the_same_record(tmp_path):
    journal = DirectoryJournal(tmp_path)
    for number in range(200):
        journal.owe("a", f"f{number}.txt")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=claim_all, args=(tmp_path, queue)) for _ in range(2)]
    for one in both:
        one.start()
    claims = queue.get(timeout=20) + queue.get(timeout=20)
    for one in both:
        one.join()
    queue.close()
    assert len(debts(journal)) == 200
    # Whoever lists a record that was claimed already may claim it once more.
    assert claims >= 200


def prepare(folder, queue):
    queue.put(DirectoryJournal(folder).master_id)


def test_processes_that_begin_at_once_agree_on_the_master(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    several = [context.Process(target=prepare, args=(tmp_path / "m", queue)) for _ in range(6)]
    for one in several:
        one.start()
    ids = {queue.get(timeout=20) for _ in several}
    for one in several:
        one.join()
    queue.close()
    assert len(ids) == 1
