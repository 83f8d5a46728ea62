"""What the scrubber decides, as values: no disk, no clock."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.media.conditions import File
from outgrow.media.integrity import (
    REST,
    SETTLED,
    Progress,
    Record,
    Scrub,
    Throttle,
    Verdict,
    is_behind,
    is_settled,
    judge,
    label,
    surplus,
)

DAY = 86400.0
FILE = File(inode=255, size=1000, mtime_ns=1_700_000_000_900_000_000)
DIGEST = bytes(range(32))
RECORD = Record.of(FILE, DIGEST)

NAMES = st.lists(st.text("ab.0", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join)


# Records and verdicts


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**63), st.integers(-(2**62), 2**62))
def test_a_record_comes_back_from_few_bytes(digest: bytes, size: int, mtime_ns: int) -> None:
    record = Record(digest, size, mtime_ns)
    assert len(record.pack()) == 48
    assert Record.unpack(record.pack()) == record


@pytest.mark.parametrize("data", [b"", b"x" * 47, b"x" * 49])
def test_what_is_no_record(data: bytes) -> None:
    assert Record.unpack(data) is None


def test_a_file_is_bad_only_when_nobody_wrote_to_it() -> None:
    other = bytes(32)
    touched = dataclasses.replace(FILE, mtime_ns=FILE.mtime_ns + 1)
    longer = dataclasses.replace(FILE, size=1001)
    moved = dataclasses.replace(FILE, inode=1)
    assert judge(None, FILE, DIGEST) is Verdict.NEW
    assert judge(RECORD, FILE, DIGEST) is Verdict.GOOD
    assert judge(RECORD, moved, DIGEST) is Verdict.GOOD
    assert judge(RECORD, FILE, other) is Verdict.BAD
    for file in (touched, longer):
        assert judge(RECORD, file, DIGEST) is Verdict.CHANGED
        assert judge(RECORD, file, other) is Verdict.CHANGED


def test_a_file_that_was_just_changed_may_still_be_written_to() -> None:
    changed = FILE.mtime_ns / 1e9
    assert not is_settled(FILE, changed)
    assert not is_settled(FILE, changed + SETTLED - 0.1)
    assert is_settled(FILE, changed + SETTLED + 0.1)
    assert is_settled(FILE, changed - 3600)


# Pace


@pytest.mark.parametrize(
    ("rate", "piece"), [(1, 4096), (100_000, 25_000), (10**6, 250_000), (10**9, 262_144)]
)
def test_pieces_are_small(rate: int, piece: int) -> None:
    assert Scrub(rate).piece == piece


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(0, 10**7), st.floats(0, 100)), max_size=40),
)
def test_no_more_than_the_rate(rate: int, reads: list[tuple[int, float]]) -> None:
    throttle = Throttle(rate)
    now = total = 0.0
    for size, took in reads:
        now += took
        now += throttle.wait(size, now)
        total += size
    assert total <= rate * (now + Throttle.SLACK) * 1.001 + 1


def test_no_less_than_the_rate() -> None:
    throttle = Throttle(1000)
    throttle.wait(1000, 0.0)
    waits = [throttle.wait(100, 0.0 + step / 10) for step in range(10)]
    assert waits == pytest.approx([0.1] * 10)


def test_a_long_wait_is_no_leave_to_hurry() -> None:
    throttle = Throttle(1000)
    throttle.wait(1, 0.0)
    assert throttle.wait(1000, 3600.0) == pytest.approx(0.0)
    assert throttle.wait(1000, 3600.0) == pytest.approx(1.0)


# Passes


def test_when_the_next_pass_begins() -> None:
    week = 7 * DAY
    assert Progress().wait(1e9, week) == 0
    short = Progress(began=1e9, ended=1e9 + 3600)
    assert short.wait(1e9 + 3600, week) == week - 3600
    assert short.wait(1e9 + week + 1, week) == 0
    # A pass that took longer than the time between two: it rests all the same.
    long = Progress(began=1e9, ended=1e9 + 10 * DAY)
    assert long.wait(1e9 + 10 * DAY, week) == REST
    # Broken off: it goes on at once.
    assert Progress(began=1e9, position="a/b").wait(1e9 + 1, week) == 0


@pytest.mark.parametrize("every", [DAY, 7 * DAY])
def test_a_clock_that_was_wrong_puts_it_off_by_one_turn_at_most(every: float) -> None:
    assert Progress(began=9e9, ended=9e9).wait(1e9, every) == every


@given(st.floats(0, 1e11), st.floats(0, 1e11), st.text())
def test_progress_comes_back(began: float, ended: float, position: str) -> None:
    progress = Progress(began, ended, position)
    assert Progress.load(progress.dump()) == progress


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", '{"began":"x"}', '{"began":[]}', "{"])
def test_what_is_no_progress_is_a_new_beginning(text: str) -> None:
    assert Progress.load(text) == Progress()


@given(st.sets(NAMES), NAMES)
def test_a_pass_goes_on_behind_its_position(names: set[str], position: str) -> None:
    left = {name for name in names if not is_behind(name, position)}
    assert left == {name for name in names if name > position}
    # No folder is left out that one of them is in.
    for name in left:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            assert not is_behind("/".join(parts[:depth]) + "/", position)


def test_folders_that_are_done_are_not_read_again() -> None:
    assert is_behind("a/", "a0")
    assert is_behind("a/", "b/c")
    assert not is_behind("a/", "a/b")
    assert not is_behind("a/", "")


# The quarantine


@given(st.text(min_size=1, max_size=300), st.integers(0, 10**19))
def test_a_label_is_one_short_name(name: str, now_ns: int) -> None:
    try:
        found = label(name, FILE, now_ns)
    except UnicodeEncodeError:
        return  # no name of a file that is served
    assert "/" not in found
    assert not found.startswith(".")
    assert len(found.encode()) <= 255


def test_a_label_shows_the_name_and_sorts_by_time() -> None:
    assert label("a/b c.jpg", FILE, 5) == "00000000000000000005-ff-a%2Fb%20c.jpg"
    assert label("z", FILE, 10**18) < label("a", FILE, 10**18 + 1)


def test_the_oldest_leave_the_quarantine() -> None:
    held = [("3", 10), ("1", 10), ("4", 10), ("2", 10)]
    assert list(surplus(held, files=4, size=40)) == []
    assert list(surplus(held, files=3, size=40)) == ["1"]
    assert list(surplus(held, files=9, size=25)) == ["2", "1"]
    assert list(surplus([], files=0, size=0)) == []


def test_the_newest_stays_however_large_it_is() -> None:
    assert list(surplus([("1", 1), ("2", 10**12)], files=5, size=100)) == ["1"]
