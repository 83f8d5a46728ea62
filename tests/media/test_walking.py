"""Walks in order, over more than fits in memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.media.listing import BadListing, Child, Entry
from outgrow.media.walking import ordered, walk

ROWS = st.lists(st.builds(Entry, st.text(), st.integers(0, 2**63)))


@given(ROWS, st.integers(1, 12))
def test_any_number_of_rows(rows, limit):
    found = list(ordered(rows, lambda row: Entry(*row), limit=limit))
    assert [row.name for row in found] == sorted(row.name for row in rows)
    assert sorted(found) == sorted(rows)


def test_names_that_are_no_utf_8_come_back():
    rows = [Entry("\udcff\n", 1), Entry("a", 2), Entry("\u2028", 3)]
    assert list(ordered(rows, lambda row: Entry(*row), limit=1)) == [rows[1], rows[2], rows[0]]


@pytest.mark.parametrize("count", [60_000])
def test_memory_does_not_grow_with_their_number(count):
    rows = (Entry(f"{n * 7919 % count:07}-{'x' * 60}", n) for n in range(count))
    tracemalloc.start()
    try:
        last, seen = "", 0
        for row in ordered(rows, lambda row: Entry(*row), limit=2000):
            assert last < row.name
            last, seen = row.name, seen + 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == count
    assert peak < 5e6


TREE = {
    "": ["a.txt", "a0", "a-b", "a/", "empty/"],
    "a/": ["z", "b/"],
    "a/b/": ["c"],
    "empty/": [],
}


def test_a_walk_in_depth_is_in_order():
    found = [one.name for one in walk(lambda folder: iter(map(Child, TREE[folder])))]
    assert found == sorted(found) == ["a-b", "a.txt", "a/b/c", "a/z", "a0"]
    assert [one.name for one in walk(lambda folder: iter(map(Child, TREE[folder])), "a/")] == [
        "a/b/c",
        "a/z",
    ]


def test_folders_without_end():
    with pytest.raises(BadListing, match="too deep"):
        list(walk(lambda _: iter([Child("again/")])))
