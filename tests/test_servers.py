"""Health and choice: tables of events, with a clock that moves when told to."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgrow.servers import DOWNTIME, JITTER, Condition, Health, Server, ServerSet
from outgrow.testing import FakeClock

ONE = Server("one", "http://one/")
TWO = Server("two", "http://two/")
THREE = Server("three", "http://three/")

Event = Callable[[Health, FakeClock], object]


def ok(health: Health, _clock: FakeClock) -> None:
    health.ok(ONE)


def read(health: Health, _clock: FakeClock) -> None:
    health.ok(ONE, writes=False)


def failed(health: Health, _clock: FakeClock) -> None:
    health.failed(ONE, "refused")


def full(health: Health, _clock: FakeClock) -> None:
    health.failed(ONE, "disk full", writes_only=True)


def due(health: Health, _clock: FakeClock) -> None:
    assert health.due(ONE)


def not_due(health: Health, _clock: FakeClock) -> None:
    assert not health.due(ONE)


def after(seconds: float) -> Event:
    return lambda _health, clock: clock.advance(seconds)


def made(jitter: float = 0.0) -> tuple[Health, FakeClock]:
    clock = FakeClock()
    return Health(clock, random=lambda: jitter), clock


@pytest.mark.parametrize(
    ("events", "up", "writes"),
    [
        ([], True, True),
        ([ok], True, True),
        ([ok, ok], True, True),
        ([failed], False, False),
        ([ok, failed], False, False),
        ([failed, ok], True, True),
        # Time alone makes nothing up again: only an answer does.
        ([failed, after(10 * DOWNTIME)], False, False),
        ([failed, after(10 * DOWNTIME), due], False, False),
        ([failed, after(10 * DOWNTIME), due, ok], True, True),
        # A full disk stops writes only, and reads that go well don't bring them back.
        ([full], True, False),
        ([full, read], True, False),
        ([full, after(10 * DOWNTIME), read], True, False),
        ([full, after(10 * DOWNTIME), due, ok], True, True),
        ([full, ok], True, True),
        ([read], True, True),
        ([failed, read], True, True),
        # What is down stays down when a disk is said to be full as well.
        ([failed, full], False, False),
        ([full, failed], False, False),
        # The right to probe.
        ([not_due], True, True),
        ([ok, after(1e6), not_due], True, True),
        ([failed, not_due], False, False),
        ([failed, after(DOWNTIME - 1), not_due], False, False),
        ([failed, after(DOWNTIME), due, not_due], False, False),
        ([failed, after(DOWNTIME), due, after(DOWNTIME), due], False, False),
        ([failed, after(DOWNTIME), due, failed, after(DOWNTIME - 1), not_due], False, False),
        ([failed, after(DOWNTIME - 1), failed, after(DOWNTIME - 1), not_due], False, False),
        ([full, after(DOWNTIME), due, not_due], True, False),
    ],
)
def test_events(events: list[Event], up: bool, writes: bool) -> None:
    health, clock = made()
    for event in events:
        event(health, clock)
    assert health.is_up(ONE) is up
    assert health.is_up(ONE, writes=True) is writes
    assert health.is_up(TWO)
    assert health.is_up(TWO, writes=True)


def test_a_condition_says_since_when_and_why() -> None:
    health, clock = made(jitter=0.5)
    start = clock.now
    clock.advance(5)
    assert health.condition(ONE) == Condition(since=start)
    health.failed(ONE, "refused")
    first = clock.now
    clock.advance(5)
    health.failed(ONE, "no answer")
    expected = Condition(
        up=False,
        writes=False,
        since=first,
        retry_at=clock.now + DOWNTIME * (1 + JITTER / 2),
        reason="no answer",
    )
    assert health.condition(ONE) == expected
    clock.advance(5)
    health.ok(ONE)
    assert health.condition(ONE) == Condition(since=clock.now)


def test_granting_a_probe_keeps_what_is_known() -> None:
    health, clock = made()
    health.failed(ONE, "disk full", writes_only=True)
    before = health.condition(ONE)
    clock.advance(DOWNTIME)
    assert health.due(ONE)
    now = health.condition(ONE)
    assert (now.up, now.writes, now.since, now.reason) == (True, False, before.since, "disk full")
    assert now.retry_at == clock.now + DOWNTIME


def test_a_server_says_itself_for_how_long() -> None:
    health, clock = made()
    health.failed(ONE, "busy", pause=5)
    clock.advance(4.9)
    assert not health.due(ONE)
    clock.advance(0.1)
    assert health.due(ONE)
    # Who asks next waits for the usual time.
    clock.advance(DOWNTIME - 1)
    assert not health.due(ONE)


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1 - 2**-53])
def test_the_downtime_has_jitter(jitter: float) -> None:
    health, clock = made(jitter)
    health.failed(ONE)
    downtime = health.condition(ONE).retry_at - clock.now
    assert downtime == pytest.approx(DOWNTIME * (1 + JITTER * jitter))
    assert DOWNTIME <= downtime <= DOWNTIME * (1 + JITTER)


def test_the_real_clock_and_random_numbers_are_the_defaults() -> None:
    health = Health(downtime=1000)
    health.failed(ONE)
    health.failed(TWO)
    assert health.condition(ONE).retry_at != health.condition(TWO).retry_at
    assert not health.due(ONE)


def in_threads(count: int, work: Callable[[], object]) -> list[object]:
    barrier = threading.Barrier(count)
    results: list[object] = []

    def run() -> None:
        barrier.wait(10)
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(results) == count
    return results


def test_one_thread_only_is_given_the_right_to_probe() -> None:
    health, clock = made()
    for _ in range(50):
        health.failed(ONE)
        clock.advance(DOWNTIME)
        assert in_threads(8, lambda: health.due(ONE)).count(True) == 1


class ClockThatIsRead(FakeClock):
    """Lets another caller act between a look at the clock and what follows."""

    meanwhile: Callable[[], object] | None = None

    def __call__(self) -> float:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().__call__()


@pytest.mark.parametrize("what", ["due", "ok"])
def test_who_looked_too_late_is_not_given_the_right(what: str) -> None:
    clock = ClockThatIsRead()
    health = Health(clock, random=lambda: 0.0)
    health.failed(ONE)
    clock.advance(DOWNTIME)
    clock.meanwhile = lambda: getattr(health, what)(ONE)
    assert not health.due(ONE)


# --- the order


def a_set(*servers: Server, seed: int = 1) -> ServerSet:
    return ServerSet(servers, Health(FakeClock()), random=random.Random(seed).random)


def test_a_set_is_its_servers() -> None:
    servers = a_set(ONE, TWO)
    assert list(servers) == [ONE, TWO]
    assert len(servers) == 2
    assert str(ONE) == "one"
    assert list(a_set().ranked()) == []


def test_each_server_comes_once_and_those_that_are_down_do_not() -> None:
    servers = a_set(ONE, TWO, THREE)
    assert sorted(servers.ranked(), key=str) == [ONE, THREE, TWO]
    servers.health.failed(TWO)
    assert sorted(servers.ranked("key"), key=str) == [ONE, THREE]
    servers.health.failed(ONE)
    servers.health.failed(THREE)
    assert list(servers.ranked()) == []


def test_a_server_that_refuses_writes_still_serves_reads() -> None:
    servers = a_set(ONE)
    servers.health.failed(ONE, writes_only=True)
    assert list(servers.ranked()) == [ONE]
    assert list(servers.ranked(where=lambda one: servers.health.is_up(one, writes=True))) == []


@pytest.mark.parametrize("key", [None, "photo.jpg"])
@pytest.mark.parametrize("reported", [ONE, TWO, THREE])
def test_what_the_caller_has_just_reported_is_skipped(key: str | None, reported: Server) -> None:
    servers = a_set(ONE, TWO, THREE)
    ranked = servers.ranked(key)
    first = next(ranked)
    servers.health.failed(reported)
    assert set(ranked) == {ONE, TWO, THREE} - {first, reported}


def test_the_filter_is_asked_as_late_as_health() -> None:
    servers = a_set(ONE, TWO, THREE)
    asked: list[Server] = []

    def where(server: Server) -> bool:
        asked.append(server)
        return True

    ranked = servers.ranked("key", where)
    assert asked == []
    first = next(ranked)
    assert asked == [first]
    assert len(list(islice(ranked, 1))) == 1
    assert len(asked) == 2


def test_without_a_key_the_load_is_spread_by_weight() -> None:
    heavy, light, none = (Server("h", "", weight=3), Server("l", ""), Server("n", "", weight=0))
    servers = a_set(none, light, heavy)
    first = Counter(next(servers.ranked()) for _ in range(20_000))
    assert first[heavy] / 20_000 == pytest.approx(0.75, abs=0.02)
    assert first[none] == 0
    assert list(servers.ranked())[-1] == none


def test_a_random_number_of_zero_is_no_error() -> None:
    servers = ServerSet([ONE, TWO], Health(FakeClock()), random=lambda: 0.0)
    assert len(list(servers.ranked())) == 2


def test_with_a_key_the_order_is_the_same_everywhere() -> None:
    # Written down: it must be the same in every process, version and machine.
    assert list(a_set(ONE, TWO, THREE).ranked("photo.jpg")) == [ONE, TWO, THREE]
    assert list(a_set(THREE, ONE, TWO, seed=9).ranked("photo.jpg")) == [ONE, TWO, THREE]
    assert list(a_set(ONE, TWO, THREE).ranked("d.jpg")) == [THREE, ONE, TWO]


NAMES = st.lists(st.text("abcdefgh0123456789-", min_size=1, max_size=8), min_size=2, unique=True)


@given(NAMES, st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20), st.data())
def test_a_server_that_leaves_moves_its_own_keys_only(
    names: list[str], keys: list[str], data: st.DataObject
) -> None:
    weights = st.integers(0, 5)
    servers = [Server(name, "", weight=data.draw(weights)) for name in names]
    gone = data.draw(st.sampled_from(servers))
    everyone = a_set(*servers)
    left = a_set(*(one for one in servers if one != gone))
    for key in keys:
        assert [one for one in everyone.ranked(key) if one != gone] == list(left.ranked(key))


def test_keys_are_shared_out_by_weight() -> None:
    servers = a_set(*(Server(f"s{weight}", "", weight=weight) for weight in (0, 1, 2, 5)))
    first = Counter(next(servers.ranked(f"photo{number}.jpg")).weight for number in range(16_000))
    assert first[0] == 0
    for weight in (1, 2, 5):
        assert first[weight] / 16_000 == pytest.approx(weight / 8, abs=0.015)


def test_a_forked_child_waits_for_no_lock_of_its_parents_threads():
    health = Health()
    with health._lock:
        health.forked()
        health.failed(ONE, "refused")
    assert not health.is_up(ONE)
