"""What clients saw, and what is there -> which promises were broken. Values alone."""

from __future__ import annotations

import pytest

from outgrow.drills.judge import (
    DELETE,
    READ,
    READ_BACK,
    UPLOAD,
    WRITE,
    Broken,
    Found,
    Request,
    expected,
    judge,
    until_normal,
    without_writes,
)


def wrote(id_: str, *, at: float = 0.0, ok: bool = True) -> Request:
    return Request(at, WRITE, id_, ok)


def uploaded(name: str, digest: str = "d", *, ok: bool = True) -> Request:
    return Request(0.0, UPLOAD, "u", ok, name=name, digest=digest)


def deleted(name: str, *, ok: bool = True) -> Request:
    return Request(0.0, DELETE, "x", ok, name=name)


def test_all_is_well():
    found = Found({"a": 1}, {"media1": {"f": "d"}, "media2": {"f": "d"}})
    requests = [wrote("a"), uploaded("f"), uploaded("g"), deleted("g")]
    assert judge(requests, found) == Broken()
    assert not judge(requests, found)


def test_an_acknowledged_row_that_is_not_there_is_lost():
    assert judge([wrote("a"), wrote("b"), wrote("c", ok=False)], Found({"b": 1})).lost == {"a"}


def test_a_write_that_was_carried_out_twice_counts_whether_or_not_it_was_acknowledged():
    requests = [wrote("a"), wrote("b", ok=False), wrote("c", ok=False)]
    assert judge(requests, Found({"a": 2, "b": 3, "c": 1})).twice == {"a", "b"}


def test_a_file_is_missing_on_the_server_that_has_none_or_another():
    files = {"media1": {"f": "d"}, "media2": {"f": "other"}, "media3": {}}
    requests = [uploaded("f"), uploaded("g", ok=False)]
    assert judge(requests, Found(files=files)).missing == {"media2: f", "media3: f"}


def test_a_deleted_file_that_is_still_there():
    files = {"media1": {"f": "d"}, "media2": {}}
    assert judge([uploaded("f"), deleted("f")], Found(files=files)) == Broken(
        undeleted=frozenset({"media1: f"})
    )


def test_a_deletion_without_an_answer_promises_nothing():
    requests = [uploaded("f"), deleted("f", ok=False)]
    for files in ({"media1": {"f": "d"}}, {"media1": {}}):
        assert not judge(requests, Found(files=files))
    assert expected(requests).kept == {}
    assert expected(requests).gone == frozenset()


def test_a_stale_read():
    stale = Request(0.0, READ_BACK, "a", ok=True, stale=True)
    assert judge([wrote("a"), stale], Found({"a": 1})).stale == {"a"}


def test_a_drill_is_not_blamed_for_what_was_broken_before():
    before = Broken(lost=frozenset("a"), stale=frozenset("s"))
    now = Broken(lost=frozenset("ab"), stale=frozenset("s"), missing=frozenset("m"))
    assert now - before == Broken(lost=frozenset("b"), missing=frozenset("m"))
    assert before | (now - before) == now


@pytest.mark.parametrize("promise", ["lost", "twice", "missing", "undeleted", "stale"])
def test_each_promise_counts(promise):
    assert Broken(**{promise: frozenset("x")})


@pytest.mark.parametrize(
    ("failures", "seconds"), [([], 0), ([1.0], 0), ([2.0], 1), ([2.9], 1), ([2.1, 6.5], 5)]
)
def test_normal_is_after_the_last_failure_since_the_fault(failures, seconds):
    requests = [Request(at, READ, "r", ok=False) for at in failures]
    requests.append(Request(60.0, READ, "r", ok=True))
    assert until_normal(requests, 2.0) == seconds


def test_seconds_without_writes_are_those_in_which_none_succeeded():
    requests = [
        wrote("before", at=0.5, ok=False),
        wrote("a", at=1.1, ok=False),
        wrote("b", at=1.9, ok=True),
        wrote("c", at=2.0, ok=False),
        wrote("d", at=2.5, ok=False),
        wrote("e", at=4.0, ok=True),
        wrote("f", at=4.1, ok=False),
        Request(3.5, READ, "r", ok=False),
    ]
    assert without_writes(requests, 1.0) == 1
