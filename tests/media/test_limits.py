"""The pace of a body, as arithmetic: no server, no clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outgrow.media.limits import Limits, Pace

LIMITS = Limits(min_rate=1000, body_timeout=10.0)


def test_a_drip_is_found_at_the_end_of_the_window() -> None:
    pace = Pace(LIMITS)
    assert [pace.keeps_up(1, 1.0) for _ in range(10)] == [True] * 9 + [False]


def test_each_window_is_judged_by_itself() -> None:
    pace = Pace(LIMITS)
    assert pace.keeps_up(10**9, 10.0)
    assert not pace.keeps_up(9_999, 10.0)
    assert pace.keeps_up(10_000, 10.0)


def test_a_pause_within_a_window_is_no_offence() -> None:
    pace = Pace(LIMITS)
    assert pace.keeps_up(20_000, 0.1)
    assert pace.keeps_up(0, 9.8)
    assert pace.keeps_up(1, 5.0)


def test_without_a_floor_something_must_move() -> None:
    pace = Pace(Limits(min_rate=0, body_timeout=10.0))
    assert pace.keeps_up(1, 10.0)
    assert not pace.keeps_up(0, 10.0)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), max_size=30))
def test_who_is_always_fast_enough_is_never_cut(parts: list[tuple[int, float]]) -> None:
    pace = Pace(LIMITS)
    assert all(pace.keeps_up(size + int(1000 * waited) + 1, waited) for size, waited in parts)


def test_every_connection_has_descriptors() -> None:
    assert Limits(max_connections=1000).max_files > 2000
    assert Limits(max_connections=0).max_files > 2000
