"""The contract of a journal: what replication and repair rely on.

`IMPLEMENTATIONS` is the place for the next one; each is a function of a folder
and a clock.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models import F

from outgrow.errors import ConfigurationError, MasterError, SaveInterrupted
from outgrow.media import files
from outgrow.media.catalogue import Catalogue
from outgrow.media.directory import DirectoryJournal
from outgrow.media.journal import (
    ABANDONED,
    ATTEMPT_LIMIT,
    KEEP_HEARTBEATS,
    KEEP_TOMBSTONES,
    LOOKS,
    Attempt,
    Change,
    Journal,
    Kind,
    Wanted,
    field,
)
from outgrow.media.tables import Fact, File, Live
from outgrow.testing import FakeClock
from tests.live.postgres import OWN, SITE

DIRECTORIES = {
    "directory": lambda folder, clock: DirectoryJournal(folder, clock=clock, file_clock=clock),
    "directory, synced": lambda folder, clock: DirectoryJournal(
        folder, clock=clock, file_clock=clock, fsync=True
    ),
}
#: The aliases of the catalogue and of the site.
CATALOGUES = {"catalogue": ("outgrow", "default"), "catalogue, PostgreSQL": (OWN, SITE)}

in_database = pytest.mark.django_db(transaction=True, databases=["default", "outgrow"])
_CATALOGUES = [
    pytest.param(name, marks=in_database if "outgrow" in aliases else ())
    for name, aliases in CATALOGUES.items()
]
#: For what only a journal in a folder has: files, and names that are used again.
directory_only = pytest.mark.parametrize("journal", DIRECTORIES, indirect=True)
catalogue_only = pytest.mark.parametrize("journal", _CATALOGUES, indirect=True)

SERVERS = ("a", "b:8080", "[::1]:80")


class Clock(FakeClock):
    """Its time passes in a database, too."""

    alias = ""

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        if self.alias:
            back = timedelta(seconds=seconds)
            for table in (File, Fact):
                table.objects.using(self.alias).update(changed_at=F("changed_at") - back)


@pytest.fixture
def clock(tmp_path):
    return Clock(float(int(os.stat(tmp_path).st_mtime)))


@pytest.fixture(params=[*DIRECTORIES, *_CATALOGUES])
def journal(request, tmp_path, clock):
    made: Journal
    if request.param in DIRECTORIES:
        made = DIRECTORIES[request.param](tmp_path, clock)
    else:
        own, site = CATALOGUES[request.param]
        if own == OWN:
            request.getfixturevalue("postgres")
        clock.alias = own
        made = Catalogue(own, site=site, name="media", grace=3600, clock=clock)
    made.prepare()
    return made


def begun(journal, name="f.txt", content=b"x", change=Change.SAVE) -> Attempt:
    attempt = journal.attempt(name, change)
    journal.begin(attempt).write_bytes(content)
    return attempt


def commit(journal, attempt) -> None:
    journal.commit(attempt, journal.draft(attempt))


def bury(journal, name="f.txt") -> bool:
    """A delete, begun and ended."""
    attempt = journal.attempt(name, Change.DELETE)
    journal.begin(attempt)
    found = journal.bury(attempt)
    journal.settle(attempt, (), ())
    return found


def saved(journal, name="f.txt", content=b"x", change=Change.SAVE) -> Attempt:
    attempt = begun(journal, name, content, change)
    commit(journal, attempt)
    journal.accept(attempt)
    return attempt


#: Names of every length that a record must hold: the last are too long for a file's name.
NAMES = ["f.txt", "a/b/c.d.e", "ü/ü.jpg", "%2F=.owed.x", "x" * 250, "y/" * 200 + "z", "日" * 80]


def debts(journal, server="a"):
    return list(journal.debts(server))


# --- attempts


def test_an_attempt_is_on_record_until_it_is_settled(journal):
    attempt = begun(journal)
    commit(journal, attempt)
    assert list(journal.attempts()) == [attempt]
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
    first = journal.look("f.txt")
    second = begun(journal, content=b"and second")
    with pytest.raises(FileExistsError):
        commit(journal, second)
    renamed = journal.rename(second, "g.txt")
    commit(journal, renamed)
    assert journal.look("f.txt") == first
    assert journal.look("g.txt").size == 10


@directory_only
def test_a_draft_is_on_record_before_it_is_written(journal):
    attempt = begun(journal)
    assert list(journal.attempts()) == [attempt]


@directory_only
def test_a_commit_that_may_replace_can_be_taken_back(journal):
    saved(journal, content=b"first")
    second = saved(journal, content=b"second", change=Change.REPLACE)
    assert (journal.root / "f.txt").read_bytes() == b"second"
    assert journal.restore(second)
    assert (journal.root / "f.txt").read_bytes() == b"first"


@directory_only
def test_there_is_nothing_to_put_back_for_a_new_name(journal):
    assert not journal.restore(saved(journal, change=Change.REPLACE))
    assert not journal.restore(saved(journal, "g.txt"))


@directory_only
@pytest.mark.parametrize("change", [Change.SAVE, Change.REPLACE])
@pytest.mark.parametrize("name", NAMES[::4])
def test_a_withdrawn_attempt_can_t_commit(journal, name, change):
    attempt = begun(journal, name, change=change)
    assert journal.withdraw(attempt)
    with pytest.raises(SaveInterrupted, match=r"[Ss]ave it again"):
        commit(journal, attempt)
    assert journal.look(name).wanted is Wanted.UNHEARD


@directory_only
def test_a_delete_has_no_draft_to_withdraw(journal):
    attempt = journal.attempt("f.txt", Change.DELETE)
    journal.begin(attempt)
    assert journal.withdraw(attempt) is None


def test_names_that_look_like_others_have_records_of_their_own(journal):
    for name in NAMES:
        attempt = saved(journal, name)
        assert list(journal.attempts()) == [attempt]
        journal.settle(attempt, ["a"], ["b:8080"])
        bury(journal, name)
    assert {debt.name for debt in debts(journal)} == set(NAMES)
    assert {debt.name for debt in debts(journal, "b:8080")} == set(NAMES)
    assert {name for name, _ in journal.tombstones()} == set(NAMES)
    assert all(journal.look(name).wanted is Wanted.GONE for name in NAMES)


@pytest.mark.parametrize("old", NAMES[::3])
@pytest.mark.parametrize("new", NAMES[1::4])
def test_an_attempt_can_take_another_name(journal, old, new):
    attempt = journal.rename(begun(journal, old), new)
    commit(journal, attempt)
    assert list(journal.attempts()) == [attempt]
    assert journal.look(new).size == 1
    assert journal.look(old).wanted is Wanted.UNHEARD


# --- looking


def test_a_journal_that_was_never_used_is_empty_and_stays_so(tmp_path):
    journal = DirectoryJournal(tmp_path)
    assert [list(journal.attempts()), list(journal.tombstones()), debts(journal)] == [[], [], []]
    assert (journal.servers(), journal.claimed(), journal.summary("a")) == ([], [], (0, 0, None))
    assert journal.sweep() == 0
    assert not any(tmp_path.iterdir())


def test_a_look_tells_present_gone_and_unheard_apart(journal):
    assert journal.look("f.txt").wanted is Wanted.UNHEARD
    saved(journal, content=b"12345")
    look = journal.look("f.txt")
    assert (look.wanted, look.size) == (Wanted.PRESENT, 5)
    assert bury(journal, "f.txt")
    assert journal.look("f.txt").wanted is Wanted.GONE
    assert not bury(journal, "f.txt")
    assert journal.look("f.txt").wanted is Wanted.GONE


@directory_only
def test_another_file_of_the_same_name_is_seen(journal):
    saved(journal, content=b"one")
    look = journal.look("f.txt")
    saved(journal, content=b"two", change=Change.REPLACE)
    assert journal.look("f.txt") != look


@directory_only
def test_a_folder_is_neither_there_nor_buried(journal):
    saved(journal, "folder/f.txt")
    assert journal.look("folder").wanted is Wanted.UNHEARD
    with pytest.raises(IsADirectoryError):
        bury(journal, "folder")
    assert journal.look("folder/f.txt").wanted is Wanted.PRESENT


@directory_only
def test_a_tombstone_holds_no_content(journal):
    journal.settle(saved(journal, content=b"private"), (), ())
    bury(journal, "f.txt")
    contents = [path.read_bytes() for path in journal.folder.rglob("*") if path.is_file()]
    assert b"private" not in contents


@directory_only
def test_a_reader_goes_on_reading_what_is_deleted(journal):
    saved(journal, content=b"still read")
    with (journal.root / "f.txt").open("rb") as reader:
        bury(journal, "f.txt")
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


@pytest.mark.parametrize("name", NAMES[::4])
@pytest.mark.parametrize("change", [Change.SAVE, Change.REPLACE])
def test_a_dead_attempt_that_committed_is_owed_as_unknown(journal, clock, name, change):
    attempt = saved(journal, name, change=change)
    assert not journal.is_dead(attempt)
    clock.advance(ATTEMPT_LIMIT + 60)
    assert journal.is_dead(attempt)
    assert journal.convert(attempt, SERVERS)
    assert [debts(journal, server)[0].kind for server in SERVERS] == [Kind.UNKNOWN] * 3
    assert journal.look(name).wanted is Wanted.PRESENT
    assert list(journal.attempts()) == []


@directory_only
@pytest.mark.parametrize("name", NAMES[::4])
@pytest.mark.parametrize("change", [Change.SAVE, Change.REPLACE])
def test_a_dead_attempt_that_never_committed_leaves_nothing(journal, name, change):
    attempt = begun(journal, name, change=change)
    assert not journal.convert(attempt, SERVERS)
    assert list(journal.attempts()) == []
    assert debts(journal) == []
    assert not files.names(journal.folder / "new")


@directory_only
@pytest.mark.parametrize("name", NAMES[::4])
def test_a_save_that_died_between_its_commit_and_the_next_step_is_owed(journal, name):
    """Its draft may still be there, though the file is on the master."""
    attempt = begun(journal, name)
    (journal.root / name).parent.mkdir(parents=True, exist_ok=True)
    os.link(journal.begin(attempt), journal.root / name)
    assert journal.convert(attempt, SERVERS)
    assert len(debts(journal)) == 1


@directory_only
@pytest.mark.parametrize("name", NAMES[::4])
def test_a_delete_that_died_before_its_tombstone_was_emptied_is_ended(journal, name):
    journal.settle(saved(journal, name, b"private"), (), ())
    attempt = journal.attempt(name, Change.DELETE)
    journal.begin(attempt)
    tombstone = journal.folder / "gone" / field(name)
    os.rename(journal.root / name, tombstone)
    assert journal.convert(attempt, SERVERS)
    assert b"private" not in tombstone.read_bytes()
    assert [found for found, _ in journal.tombstones()] == [name]
    assert debts(journal)[0].name == name


def test_what_another_pass_took_over_is_left_to_it(journal):
    attempt = saved(journal)
    assert journal.convert(attempt, SERVERS)
    assert not journal.convert(attempt, SERVERS)
    assert len(debts(journal)) == 1


@directory_only
def test_a_withdrawn_attempt_is_taken_over_by_the_next_pass(journal):
    """A pass that died between its two looks left it so."""
    saved(journal)
    (attempt,) = journal.attempts()
    assert not journal.is_dead(attempt)
    void = journal.withdraw(attempt)
    assert list(journal.attempts()) == [void]
    assert journal.is_dead(void)
    assert journal.convert(void, SERVERS)
    assert len(debts(journal)) == 1


@directory_only
def test_the_attempt_of_a_process_that_died_here_is_dead_at_once(journal):
    child = multiprocessing.get_context("fork").Process(target=begun, args=(journal,))
    child.start()
    child.join()
    (attempt,) = journal.attempts()
    assert journal.is_dead(attempt)


def test_how_long_ago_an_attempt_moved_is_told_by_the_file_system(tmp_path):
    """Another machine's clock may be an hour behind, and the repairer's an hour ahead."""
    hour = 3600
    behind = DirectoryJournal(tmp_path, clock=lambda: time.time() - hour)
    ahead = DirectoryJournal(tmp_path, clock=lambda: time.time() + hour)
    attempts = [
        replace(behind.attempt(f"{change.value}.txt", change), owner="000000000000-1-1")
        for change in (Change.SAVE, Change.REPLACE, Change.DELETE)
    ]
    for attempt in attempts:
        path = behind.begin(attempt)
        if attempt.change is not Change.DELETE:
            path.write_bytes(b"x")
            os.utime(path, (1, 1))  # as a linked upload may be
        assert not ahead.is_dead(attempt)
    late = DirectoryJournal(tmp_path, file_clock=lambda: time.time() + ATTEMPT_LIMIT + 2)
    assert all(late.is_dead(attempt) for attempt in attempts)
    patient = DirectoryJournal(
        tmp_path, file_clock=lambda: time.time() + ATTEMPT_LIMIT + 2, attempt_limit=hour
    )
    assert not any(patient.is_dead(attempt) for attempt in attempts)


# --- sweeping


def test_no_tombstone_goes_while_a_server_is_owed_everything(journal, clock):
    """What it held when it went away is compared with the tombstones when it is back."""
    journal.settle(saved(journal), (), ())
    bury(journal, "f.txt")
    everything = journal.owe_all("a")
    clock.advance(KEEP_TOMBSTONES + 60)
    assert journal.is_owed_all("a")
    assert journal.sweep() == 0
    journal.forget(everything)
    assert not journal.is_owed_all("a")
    assert journal.sweep() == 1


@directory_only
def test_a_save_that_ends_while_drafts_are_swept_keeps_its_own(journal, clock):
    """An upload may have been written long ago, and linked only now."""
    attempt = begun(journal, change=Change.REPLACE)
    os.utime(journal.begin(attempt), (1, 1))
    assert journal.sweep() == 0
    journal.discard(replace(attempt, id="0" * 30))
    assert journal.draft(attempt).size == 1


# --- folders that somebody tidied, and what stands in the way


@directory_only
@pytest.mark.parametrize("part", ["new", "open", "owed", "gone", "claimed"])
def test_the_journals_folders_are_not_empty_for_those_who_tidy(journal, part):
    with pytest.raises(OSError, match="not empty"):
        (journal.folder / part).rmdir()
    journal.settle(saved(journal), (), ())
    shutil.rmtree(journal.folder / part)
    assert journal.restore_folders()
    assert not journal.restore_folders()
    journal.settle(saved(journal, "again.txt"), ["a"], ())
    assert len(debts(journal)) == 1


@directory_only
def test_a_burial_whose_place_was_removed_is_carried_out(journal):
    journal.settle(saved(journal), (), ())
    shutil.rmtree(journal.folder / "gone")
    assert bury(journal, "f.txt")
    assert journal.look("f.txt").wanted is Wanted.GONE


@directory_only
def test_a_journal_that_has_vanished_is_not_made_anew(journal):
    shutil.rmtree(journal.folder)
    with pytest.raises(MasterError, match="still mounted"):
        journal.restore_folders()
    with pytest.raises(MasterError, match="still mounted"):
        bury(journal, "f.txt")
    assert not journal.folder.exists()


@directory_only
@pytest.mark.parametrize("mode", [None, 0o755])
@pytest.mark.parametrize("way", ["a link that leads nowhere", "a file"])
def test_what_is_in_the_way_of_a_folder_is_named(journal, mode, way):
    place = journal.root / "album"
    if way == "a file":
        place.write_bytes(b"x")
    else:
        place.symlink_to("nowhere")
    attempt = begun(journal, "album/photo.jpg")
    with pytest.raises(MasterError, match=re.escape(str(place))):
        journal.commit(attempt, journal.draft(attempt), mode=mode)
    journal.discard(attempt)
    assert list(journal.attempts()) == []


@directory_only
def test_names_are_found_below_links_to_folders(journal, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "far.txt").write_bytes(b"x")
    (journal.root / "linked").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(journal.root)
    (journal.root / "broken").symlink_to("nowhere")
    (journal.root / "loop").symlink_to("loop")
    (journal.root / "near.txt").write_bytes(b"x")
    failed = []
    entries = journal.entries(lambda name, error: failed.append((name, error.errno)))
    found = {entry.name for entry in entries}
    assert found == {"near.txt", "linked/far.txt"}
    assert failed == [("loop", errno.ELOOP)]


def test_a_server_that_is_gone_for_good_is_forgotten(journal):
    journal.set_claimed("a")
    journal.owe("a", "f.txt")
    journal.owe_all("a")
    assert journal.claimed() == ["a"]
    assert journal.retire("a") == 2
    assert (journal.claimed(), journal.servers()) == ([], [])
    assert journal.retire("a") is None


# --- old records


def test_a_tombstone_is_kept_for_a_week_and_while_anything_is_open(journal, clock):
    journal.settle(saved(journal), (), ["a"])
    bury(journal, "f.txt")
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


@directory_only
def test_drafts_that_nobody_writes_are_swept(journal, clock):
    open_one = begun(journal, change=Change.REPLACE)
    left = journal.folder / "new" / "left"
    left.write_bytes(b"x")
    clock.advance(ABANDONED - 60)
    assert journal.sweep() == 0
    clock.advance(120)
    assert journal.sweep() == 1
    assert journal.begin(open_one).exists()
    assert not left.exists()


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


# --- transactions of the site: a catalogue


@catalogue_only
def test_what_a_transaction_commits_is_kept(journal):
    with transaction.atomic(journal.site):
        journal.settle(saved(journal), (), ())
        assert journal.reap(SERVERS) == []
    assert journal.reap(SERVERS) == []
    assert journal.look("f.txt").wanted is Wanted.PRESENT
    assert File.objects.using(journal.alias).get().is_live


class Rollback(Exception):
    """The site changes its mind."""


def rolled_back(journal, act) -> None:
    with suppress(Rollback), transaction.atomic(journal.site):
        act()
        raise Rollback


@catalogue_only
def test_what_a_transaction_rolls_back_is_reaped_and_owed_for_removal(journal, clock):
    rolled_back(journal, lambda: journal.settle(saved(journal), (), ()))
    if journal.alias != OWN:  # nobody can tell that it is over
        assert journal.reap(SERVERS) == []
        clock.advance(3601)
    assert journal.reap(SERVERS) == ["f.txt"]
    assert journal.look("f.txt").wanted is Wanted.GONE
    assert [debts(journal, server)[0].kind for server in SERVERS] == [Kind.OWED] * 3
    assert journal.reap(SERVERS) == []


@catalogue_only
def test_what_a_savepoint_rolls_back_is_reaped_after_the_commit(journal, clock):
    with transaction.atomic(journal.site):
        journal.settle(saved(journal, "kept.txt"), (), ())
        rolled_back(journal, lambda: journal.settle(saved(journal, "lost.txt"), (), ()))
        assert journal.reap(SERVERS) == []
    clock.advance(3601)
    assert journal.reap(SERVERS) == ["lost.txt"]
    assert journal.look("kept.txt").wanted is Wanted.PRESENT


@catalogue_only
def test_a_transaction_that_lasts_is_waited_for(journal, clock):
    """Where the database can tell; elsewhere the grace must be longer."""
    with transaction.atomic(journal.site):
        journal.settle(saved(journal), (), ())
        clock.advance(3500)
        assert journal.reap(SERVERS) == []
    assert journal.reap(SERVERS) == []


@catalogue_only
def test_a_deletion_in_a_transaction_is_known_when_it_is_committed(journal):
    journal.settle(saved(journal), (), ())
    assert journal.reap(SERVERS) == []
    rolled_back(journal, lambda: journal.revoke("f.txt"))
    journal.sweep()
    assert journal.look("f.txt").wanted is Wanted.PRESENT
    journal.set_claimed("a")
    with transaction.atomic(journal.site):
        journal.revoke("f.txt")
    # The process dies here, before it could delete the file itself.
    journal.sweep()
    assert journal.look("f.txt").wanted is Wanted.GONE
    assert [debt.name for debt in debts(journal)] == ["f.txt"]


@catalogue_only
def test_a_dead_save_that_was_not_made_live_is_taken_back(journal, clock):
    attempt = begun(journal)
    commit(journal, attempt)
    clock.advance(ATTEMPT_LIMIT + 60)
    assert journal.is_dead(attempt)
    assert journal.convert(attempt, SERVERS)
    assert journal.look("f.txt").wanted is Wanted.GONE
    assert [debts(journal, server)[0].kind for server in SERVERS] == [Kind.UNKNOWN] * 3
    # It only stood still, and goes on.
    with pytest.raises(SaveInterrupted, match=r"[Ss]ave it again"):
        journal.settle(attempt, (), ())
    assert not journal.begin(attempt).exists()


@catalogue_only
def test_a_save_that_is_deleted_meanwhile_stays_watched(journal):
    """The deleter takes over what may still be on its way."""
    journal.set_claimed("a")
    attempt = begun(journal)
    commit(journal, attempt)
    assert bury(journal)
    assert [(debt.id, debt.kind) for debt in debts(journal)] == [(attempt.id, Kind.UNKNOWN)]


@catalogue_only
def test_a_name_is_never_used_again(journal):
    journal.settle(saved(journal), (), ())
    bury(journal)
    with pytest.raises(FileExistsError):
        saved(journal)


@catalogue_only
def test_two_catalogues_in_one_database_know_nothing_of_each_other(journal):
    other = Catalogue(journal.alias, site=journal.site, name="avatars", grace=1)
    journal.settle(saved(journal), ["a"], ())
    journal.set_claimed("a")
    assert other.look("f.txt").wanted is Wanted.UNHEARD
    assert (other.servers(), other.claimed(), debts(other)) == ([], [], [])
    assert other.master_id != journal.master_id
    saved(other)


@catalogue_only
def test_many_names_are_read_in_pieces(journal, monkeypatch):
    monkeypatch.setattr("outgrow.media.catalogue.CHUNK", 3)
    names = [f"{number}.txt" for number in range(10)]
    for name in names:
        journal.settle(saved(journal, name), ["a"], ())
    assert sorted(debt.name for debt in debts(journal)) == names
    assert [entry.name for entry in journal.entries(lambda *_: None)] == names
    assert journal.reap(SERVERS) == []
    assert File.objects.using(journal.alias).filter(is_live=True).count() == 10
    for name in names:
        bury(journal, name)
    assert len(list(journal.tombstones())) == 10


@catalogue_only
def test_files_are_found_below_a_folder_whatever_the_database_folds(journal):
    for name in ("a/1.txt", "a/b/2.txt", "A/3.txt", "ab/4.txt", "a%/5.txt", "a_/6.txt"):
        journal.settle(saved(journal, name), (), ())
    assert sorted(journal.below("a/")) == ["a/1.txt", "a/b/2.txt"]
    assert sorted(journal.below("a_/")) == ["a_/6.txt"]
    assert len(list(journal.below(""))) == 6


@catalogue_only
def test_a_catalogue_in_a_transaction_is_refused(journal):
    with (
        transaction.atomic(journal.alias),
        pytest.raises(ConfigurationError, match="is in a transaction"),
    ):
        journal.look("f.txt")


@catalogue_only
def test_uploads_that_a_killed_process_left_are_swept(journal, tmp_path, settings):
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    left = journal.begin(journal.attempt("f.txt", Change.SAVE))
    left.write_bytes(b"x")
    journal.sweep()
    assert left.exists()


@catalogue_only
def test_a_dead_save_that_is_live_is_kept_for_good(journal, clock):
    attempt = saved(journal)
    clock.advance(ATTEMPT_LIMIT + 60)
    assert journal.convert(attempt, SERVERS)
    clock.advance(KEEP_TOMBSTONES + 60)
    assert journal.reap(SERVERS) == []
    journal.sweep()
    assert journal.look("f.txt").wanted is Wanted.PRESENT


@catalogue_only
def test_a_save_that_was_taken_for_dead_is_not_live(journal, clock):
    """It stood still before it told the site's database, and goes on then."""
    attempt = begun(journal)
    commit(journal, attempt)
    clock.advance(ATTEMPT_LIMIT + 60)
    assert journal.convert(attempt, SERVERS)
    journal.accept(attempt)
    with pytest.raises(SaveInterrupted):
        journal.settle(attempt, (), ())
    assert not Live.objects.using(journal.site).exists()
    # Or it dies right after it has told.
    Live(key=journal.key("f.txt")).save(using=journal.site, force_insert=True)
    journal.sweep()
    assert not Live.objects.using(journal.site).exists()


# --- every file


def test_files_are_listed_in_order_with_their_sizes(journal):
    for name in ("b.txt", "a/z.txt", "a.txt", "a/b/c.txt"):
        journal.settle(saved(journal, name), ["a"], ())
    bury(journal, "b.txt")
    found = list(journal.entries(lambda *_: None))
    assert [entry.name for entry in found] == ["a.txt", "a/b/c.txt", "a/z.txt"]
    assert {entry.size for entry in found} == {journal.look("a.txt").size}
    assert [entry.name for entry in journal.entries(lambda *_: None, "a/")] == [
        "a/b/c.txt",
        "a/z.txt",
    ]
    assert [entry.name for entry in journal.entries(lambda *_: None, "a/b")] == ["a/b/c.txt"]
    assert [entry.name for entry in journal.entries(lambda *_: None, "A")] == []


@pytest.mark.parametrize("name", NAMES)
def test_whether_a_server_holds_a_name(journal, name):
    journal.set_claimed("a")
    journal.set_claimed("b")
    attempt = saved(journal, name)
    assert not journal.holds("a", name)  # it is just being sent
    journal.settle(attempt, ["b"], ())
    assert journal.holds("a", name)
    assert not journal.holds("b", name)
    assert not journal.holds("new", name)
    other = saved(journal, f"other.{name}" if len(name) < 200 else "other.txt")
    journal.settle(other, (), ())
    assert journal.holds("a", name)
    (debt,) = journal.debts("b", name)
    claimed = journal.claim(debt)
    assert not journal.holds("b", name)
    journal.confirm(debt, claimed)
    assert journal.holds("b", name)
    journal.owe("a", name, unknown=True)
    assert not journal.holds("a", name)
    (debt,) = journal.debts("a", name)
    journal.confirm(debt, journal.claim(debt))  # from now on it is watched
    assert journal.holds("a", name)
    everything = journal.owe_all("a")
    assert not journal.holds("a", name)
    claimed = journal.claim(everything)
    assert not journal.holds("a", name)
    journal.confirm(everything, claimed)
    assert journal.holds("a", name)


def test_one_record_says_that_a_server_is_owed_everything_until_a_walk_begins(journal):
    record = journal.owe_all("a")
    assert journal.owe_all("a") == record
    claimed = journal.claim(record)
    again = journal.owe_all("a")  # what the walk has looked at may have changed since
    assert again.id != record.id
    journal.confirm(record, claimed)
    assert journal.is_owed_all("a")
    assert debts(journal) == [again]


def test_a_tombstone_for_what_nobody_has_heard_of(journal):
    unheard = journal.attempt("unheard.txt", Change.DELETE)
    journal.begin(unheard)
    assert journal.bury_unheard(unheard)
    journal.settle(unheard, (), ())
    assert journal.look("unheard.txt").wanted is Wanted.GONE
    journal.settle(saved(journal), (), ())
    before = journal.look("f.txt")
    known = journal.attempt("f.txt", Change.DELETE)
    journal.begin(known)
    assert not journal.bury_unheard(known)
    journal.settle(known, (), ())
    assert journal.look("f.txt") == before
    assert list(journal.attempts()) == []


@catalogue_only
def test_what_is_just_being_saved_is_not_listed(journal):
    attempt = saved(journal)
    assert list(journal.entries(lambda *_: None)) == []
    journal.settle(attempt, ["a"], ())
    assert [entry.name for entry in journal.entries(lambda *_: None)] == ["f.txt"]


# --- the watches


def beats(journal) -> dict[str, object]:
    return {one.watch: one.beat["n"] for one in journal.heartbeats()}


def test_each_watch_has_a_heartbeat_of_its_own(journal, clock):
    assert journal.heartbeats() == []
    clock.advance(10)
    beat(journal, clock, "app1:7", 1)
    beat(journal, clock, "app2:7", 2)
    beat(journal, clock, "app1:7", 3)
    assert beats(journal) == {"app1:7": 3, "app2:7": 2}
    assert all(0 <= one.age < 60 for one in journal.heartbeats())


def test_a_watch_that_has_stopped_leaves_and_the_last_one_stays(journal, clock):
    clock.advance(60)
    beat(journal, clock, "app1:7", 1)
    clock.advance(KEEP_HEARTBEATS - 600)
    beat(journal, clock, "app2:7", 2)
    assert [one.watch for one in journal.heartbeats()] == ["app2:7", "app1:7"]
    journal.sweep()
    assert beats(journal) == {"app1:7": 1, "app2:7": 2}
    clock.advance(1200)
    assert beats(journal) == {"app2:7": 2}
    assert journal.sweep() >= 1
    assert kept(journal) == 1
    clock.advance(10 * KEEP_HEARTBEATS)
    assert journal.sweep() == 0
    (last,) = journal.heartbeats()
    assert (last.watch, last.age > 9 * KEEP_HEARTBEATS) == ("app2:7", True)


def beat(journal, clock, watch: str, number: int) -> None:
    journal.write_heartbeat(watch, {"n": number})
    if isinstance(journal, DirectoryJournal):  # files are stamped by the real clock
        os.utime(journal.folder / "watches" / watch, (clock(), clock()))


def kept(journal) -> int:
    """The heartbeats that are stored, whether they count or not."""
    if isinstance(journal, Catalogue):
        return Fact.objects.using(journal.alias).filter(name__startswith="watch ").count()
    return len(list((journal.folder / "watches").iterdir()))
