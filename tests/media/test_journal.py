"""The facts of the journal as values: their files, their next look, their tombstones."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.media.journal import (
    FIELD_LIMIT,
    KEEP_HEARTBEATS,
    LOOKS,
    Attempt,
    Change,
    Debt,
    Heartbeat,
    Kind,
    Look,
    Wanted,
    content,
    field,
    fits,
    identity,
    moment,
    name_of,
    remembered,
    started,
)

ID = f"{1_700_000_000_000_000:014x}0123456789abcdef"

DEBTS = [
    Debt("a", ID, Kind.OWED, "f.txt", 1.7e9, 0, 1.7e9),
    Debt("a", ID, Kind.ALL, "", 1.7e9, 0, 1.7e9),
    Debt("b:80", ID, Kind.UNKNOWN, "f.txt", 1.7e9, 3, 1.7e9 + 12.345, "c0ffee00"),
]


@pytest.mark.parametrize("debt", DEBTS, ids=lambda debt: debt.kind.value)
def test_a_debt_is_read_from_its_files_name(debt):
    assert Debt.read(debt.server, debt.file, str) == debt


@pytest.mark.parametrize(
    "file", ["", ".owed.swp", f"{ID}.lost.f", ID, ".nfs0001", f"{ID}.owed~", f"{ID}.owed."]
)
def test_a_file_of_another_kind_is_no_debt(file):
    assert Debt.read("a", file, str) is None


def test_a_debt_of_an_unknown_time_is_one_all_the_same():
    debt = Debt.read("a", "x.unknown.?.?.m.f.txt", str)
    assert debt == Debt("a", "x", Kind.UNKNOWN, "f.txt", 0.0, 0, 0.0, "m")


def test_what_is_owed_is_due_at_once_and_forgotten_when_done():
    claimed = DEBTS[0].claimed(1.7e9 + 5, "m")
    assert (claimed.kind, claimed.looks, claimed.at) == (Kind.UNKNOWN, 0, 1.7e9 + 5)
    assert DEBTS[0].due_at == claimed.due_at == 0.0
    assert claimed.confirmed(DEBTS[0], 1.7e9 + 6) is None


def test_an_unknown_request_is_looked_at_later_and_later():
    debt = Debt("a", ID, Kind.UNKNOWN, "f.txt", 1.7e9, 0, 1.7e9, "m")
    now, due = 2e9, []
    while debt is not None:
        found, claimed = debt, debt.claimed(now, "n")
        debt = claimed.confirmed(found, now)
        if debt is not None:
            due.append(debt.due_at - 2e9)
            now = debt.due_at
    assert due == list(LOOKS)


def test_one_that_was_not_looked_at_for_a_day_needs_one_look():
    debt = Debt("a", ID, Kind.UNKNOWN, "f.txt", 1.7e9, 1, 1.7e9, "m")
    late = 1.7e9 + LOOKS[-1]
    assert debt.claimed(late, "n").confirmed(debt, late) is None


def test_one_whose_first_look_was_left_counts_as_never_looked_at():
    """However old: its server may have been frozen all the time."""
    debt = Debt("a", ID, Kind.UNKNOWN, "f.txt", 1.7e9, 0, 1.7e9, "m")
    late = 1.7e9 + 30 * 86400
    left = debt.claimed(late, "n").confirmed(debt, late)
    assert left is not None
    assert left.due_at == late + LOOKS[0]


@given(st.floats(1e9, 5e9))
def test_a_moment_fits_a_files_name(now):
    assert abs(now - moment(now)) <= 0.0011
    found = Debt("a", ID, Kind.UNKNOWN, "f.txt", 1.7e9, 0, 1.7e9, "m")
    watched = found.claimed(now, "n").confirmed(found, now)
    assert Debt.read("a", watched.file, str) == watched


def test_ids_tell_when_they_were_made():
    assert started(ID) == 1.7e9
    assert started("not a number") == 0.0


TEXTS = st.text(min_size=1, max_size=300).filter(str.isprintable)


@given(TEXTS)
def test_every_name_has_a_field_of_its_own(name):
    text = field(name)
    assert 0 < len(text) <= FIELD_LIMIT
    assert text.isascii()
    assert "/" not in text
    assert name_of(text, lambda: content(name)) == name
    assert fits(name) is (content(name) == "")


@given(TEXTS, st.sampled_from(Change))
def test_an_attempt_is_read_from_its_file(name, change):
    attempt = Attempt(ID, name, change, "0123456789ab-4194304-18446744073709551615")
    assert len(attempt.file) <= 255
    assert Attempt.read(attempt.file, lambda: content(name)) == attempt


def test_a_name_is_no_others_field():
    """A file that is called like the field of a long name is quoted."""
    long = "x" * 1000
    assert field(field(long)) != field(long)
    assert name_of(field(long), lambda: "another name") == ""
    assert name_of(field(long), lambda: "") == ""


@pytest.mark.parametrize("file", ["", f"{ID}.save.o", f"{ID}.lost.o.f", ".save.o.f", "README"])
def test_a_file_of_another_kind_is_no_attempt(file):
    assert Attempt.read(file, str) is None


@pytest.mark.parametrize(
    ("change", "name", "both"),
    [
        (Change.SAVE, "f", True),
        (Change.VOID, "f", True),
        (Change.REPLACE, "f", False),
        (Change.DELETE, "f", False),
        (Change.SAVE, "f" * 200, False),
    ],
)
def test_one_file_does_for_record_and_draft(change, name, both):
    assert Attempt(ID, name, change).in_draft is both


def test_a_file_is_known_by_where_it_is_and_when_it_was_written(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"one")
    first = identity(os.stat(file))
    assert first == identity(os.stat(file))
    file.write_bytes(b"three")
    assert first != identity(os.stat(file))
    assert Look(Wanted.PRESENT, first, 3) != Look(Wanted.PRESENT, identity(os.stat(file)), 5)


def test_the_last_watch_is_remembered_and_others_for_an_hour():
    young, late, old, older = (
        Heartbeat(name, {}, age)
        for name, age in (
            ("a", 1.0),
            ("b", KEEP_HEARTBEATS),
            ("c", KEEP_HEARTBEATS + 1),
            ("d", 1e9),
        )
    )
    assert remembered([]) == []
    assert remembered([older, late, young, old]) == [young, late]
    assert remembered([older, old]) == [old]
