"""The facts of a request, and the blocks around: in values, without a site."""

from __future__ import annotations

import contextvars

from outgrow.databases.position import Count, Lsn
from outgrow.databases.route import (
    NOTHING,
    PIN,
    PRIMARY,
    REPLICA,
    Leg,
    Route,
    Wanted,
    active,
    current,
    enter,
    forget,
    leave,
    mode,
    override,
    resumed,
)


def test_what_is_wanted_grows_to_have_both() -> None:
    low, high, other = Lsn(1, 1), Lsn(1, 2), Lsn(2, 1)
    assert not NOTHING
    assert PIN
    assert Wanted((low,)).merged(Wanted((high,))) == Wanted((high,))
    assert Wanted((high,)).merged(Wanted((low,))) == Wanted((high,))
    assert Wanted((high,)).merged(Wanted((other,))) == Wanted((high, other))
    assert Wanted((high,)).merged(PIN) == Wanted((high,), pin=True)
    assert NOTHING.merged(NOTHING) == NOTHING


def test_who_has_what_is_wanted() -> None:
    wanted = Wanted((Lsn(1, 5),))
    assert wanted.reached_by(Lsn(1, 5))
    assert not wanted.reached_by(Lsn(1, 4))
    assert not wanted.reached_by(Lsn(2, 9))
    assert not wanted.reached_by(Count("x", 9))
    assert not wanted.reached_by(None)
    assert NOTHING.reached_by(None)
    assert not PIN.reached_by(Lsn(1, 5))
    assert not Wanted((Lsn(1, 1), Lsn(2, 1))).reached_by(Lsn(1, 9))


def test_reports_want_nothing() -> None:
    leg = Leg(PIN, wrote=True)
    assert leg.report().wanted is NOTHING
    assert leg.report() is leg.report()


def test_a_route_is_current_until_it_is_closed() -> None:
    assert current() is None
    with active(Route(REPLICA)) as route:
        assert current() is route
        assert mode(route, "default") == REPLICA
        route.defaults["other"] = PRIMARY
        assert mode(route, "other") == PRIMARY
        with active(Route()) as inner:
            assert current() is inner
        assert current() is route
        route.close()
        assert current() is None
    with resumed(Route(REPLICA)):
        assert mode(current(), "default") == REPLICA
    assert current() is None


def test_legs_have_what_the_client_wrote() -> None:
    route = Route(wanted={"default": PIN})
    assert route.leg("default").wanted is PIN
    assert route.leg("other").wanted is NOTHING
    route.leg("other").wrote = True
    assert route.written() == ["other"]


def test_blocks_for_all_clusters_and_for_some() -> None:
    with active(Route(REPLICA)) as route:
        enter(PRIMARY)
        enter(REPLICA, ["other"], stale=True)
        assert mode(route, "default") == PRIMARY
        assert mode(route, "other") == REPLICA
        assert override("other").stale
        assert not override("default").stale
        leave()
        assert mode(route, "other") == PRIMARY
        leave()
        assert override("default") is None
        assert mode(route, "other") == REPLICA


def test_a_block_outside_of_any_route_has_its_own() -> None:
    enter(PRIMARY, ["default"])
    leave()
    with active(Route(REPLICA)) as outer:
        enter(PRIMARY)
        outer.close()
        # Its request is over: what was said there is no matter of this block.
        enter(REPLICA, ["other"])
        assert current() is not outer
        assert override("other").mode == REPLICA
        assert override("default") is None
        leave()
        assert current() is None
        leave()
    leave()


def test_a_block_is_ended_by_its_owner() -> None:
    """A generator that was left in the middle of its block ends within another's."""
    generator, function = object(), object()
    with active(Route(REPLICA)) as route:
        enter(REPLICA, owner=generator)
        enter(PRIMARY, owner=function)
        leave(generator)
        assert mode(route, "default") == PRIMARY
        leave(object())
        assert mode(route, "default") == PRIMARY
        leave(function)
        assert override("default") is None


def test_blocks_are_left_by_value_in_any_context() -> None:
    """asgiref#534: a token can't be reset in another context."""
    with active(Route(REPLICA)) as route:
        enter(PRIMARY)
        contextvars.copy_context().run(leave)
        assert mode(route, "default") == PRIMARY
        leave()
        assert mode(route, "default") == REPLICA


def test_the_end_of_a_block_takes_no_others_route_away() -> None:
    enter(PRIMARY)
    with resumed(Route(REPLICA)):
        leave()
        assert current() is not None
    assert current() is None


def test_a_worker_forgets_what_an_interrupted_task_has_left() -> None:
    def work() -> None:
        route = Route(wait=3)
        with active(route):
            enter(REPLICA)
            assert route.leg("default").wait == 3
            assert route.leg("default").report().wait == 3
            forget()
            assert current() is None
            assert override("default") is None

    contextvars.copy_context().run(work)
