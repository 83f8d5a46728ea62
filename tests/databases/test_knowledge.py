"""What is known of a cluster: tables of events, with a clock that the tests turn."""

from __future__ import annotations

import math

import pytest

from outgrow.databases.knowledge import FORGOTTEN, SAMPLES, Knowledge
from outgrow.databases.position import Lsn, Position
from outgrow.databases.probe import Sighting
from outgrow.databases.route import PIN, Wanted

ONE = "one"


def primary(value: int, timeline: int = 1, *, writable: bool = True) -> Sighting:
    return Sighting("p", writable, Lsn(timeline, value))


def replica(value: int | None, timeline: int = 1, incarnation: str = "r") -> Sighting:
    position: Position | None = None if value is None else Lsn(timeline, value)
    return Sighting(incarnation, writable=False, position=position)


def knowledge() -> Knowledge:
    return Knowledge(check_every=5, max_lag=10)


def test_nothing_is_known_of_who_was_never_seen() -> None:
    known = knowledge()
    assert not known.is_fresh(ONE, 0)
    assert known.age(ONE, 0) == math.inf
    assert known.replica(ONE) is None
    assert known.last_seen(ONE) == -math.inf
    known.note_replica(ONE, replica(1), 7)
    assert known.last_seen(ONE) == 7
    known.forget_replica(ONE)
    assert not known.has_replayed(ONE, "r", Wanted((Lsn(1, 1),)))


def test_a_replica_is_as_old_as_the_newest_sample_that_it_has() -> None:
    known = knowledge()
    for at, value in ((0, 100), (5, 200), (10, 300)):
        known.note_primary(primary(value), at)
    for replayed, lag in ((300, 1), (299, 6), (200, 6), (100, 11), (99, math.inf)):
        known.note_replica(ONE, replica(replayed, incarnation=str(replayed)), 11)
        assert known.replica(ONE).lag == lag
        assert known.is_fresh(ONE, 11) is (lag <= 10)
        assert known.age(ONE, 13) == lag + 2


def test_an_answer_that_was_overtaken_by_another_thread_says_nothing() -> None:
    """Requests that write at the same time note what the primary said in any order."""
    known = knowledge()
    known.note_primary(primary(100), 0)
    known.note_replica(ONE, replica(150), 1)
    known.note_primary(primary(300), 2)
    known.note_primary(primary(200), 1.9)
    assert known.is_fresh(ONE, 2)
    assert known.primary is not None
    assert known.primary.at == 2
    # Another incarnation that stands further back has another history.
    known.note_primary(Sighting("again", writable=True, position=Lsn(1, 200)), 3)
    assert not known.is_fresh(ONE, 3)


def test_many_writes_in_a_short_time_push_nothing_out() -> None:
    known = knowledge()
    for number in range(10 * SAMPLES):
        known.note_primary(primary(100 + number), number / 1000)
    known.note_replica(ONE, replica(100 + 2000), 5)
    found = known.replica(ONE)
    assert found is not None
    assert found.lag is not None
    assert 2.99 <= found.lag <= 3.3


def test_a_replica_that_can_be_written_to_is_none() -> None:
    """It was promoted: what it has is of another history, whatever its position says."""
    known = knowledge()
    known.note_primary(primary(100), 0)
    known.note_replica(ONE, Sighting("r", writable=True, position=Lsn(1, 500)), 1)
    assert not known.is_fresh(ONE, 1)
    assert known.is_promoted(ONE)
    assert not known.is_promoted("another")
    assert not known.has_replayed(ONE, "r", Wanted((Lsn(1, 100),)))
    blind = knowledge()
    blind.note_primary(Sighting("p", writable=True, position=None), 0)
    blind.note_replica(ONE, Sighting("r", writable=True, position=None), 0)
    assert not blind.is_fresh(ONE, 0)


def test_who_is_known_to_be_behind_is_waited_for_by_nobody() -> None:
    known = knowledge()
    assert not known.is_behind(ONE, 0)
    for at, value in ((0, 100), (11, 200)):
        known.note_primary(primary(value), at)
    for replayed, behind in ((200, False), (100, True), (99, False), (None, False)):
        known.note_replica(ONE, replica(replayed, incarnation=str(replayed)), 11)
        assert known.is_behind(ONE, 11) is behind
    known.note_replica(ONE, replica(100, incarnation="again"), 11)
    # What was seen long ago says nothing.
    assert not known.is_behind(ONE, 11 + 5 * FORGOTTEN + 0.1)
    blind = knowledge()
    blind.note_primary(Sighting("p", writable=True, position=None), 0)
    blind.note_replica(ONE, replica(None), 0)
    assert not blind.is_behind(ONE, 0)


def test_an_idle_primary_is_no_lag_and_paused_replay_on_a_quiet_site_is() -> None:
    known = knowledge()
    known.note_primary(primary(100), 0)
    known.note_replica(ONE, replica(100), 0)
    for at in range(5, 1000, 5):
        known.note_primary(primary(100), at)
        known.note_replica(ONE, replica(100), at)
        known.note_replica("paused", replica(99), at)
        assert known.replica(ONE).lag == 0
        assert not known.is_fresh("paused", at)


def test_who_was_not_seen_for_long_is_forgotten() -> None:
    known = knowledge()
    known.note_primary(primary(100), 0)
    known.note_replica(ONE, replica(100), 0)
    assert known.is_fresh(ONE, 5 * FORGOTTEN)
    assert not known.is_fresh(ONE, 5 * FORGOTTEN + 0.1)
    known.forget_replica(ONE)
    assert not known.is_fresh(ONE, 0)


def test_a_replica_that_was_seen_before_the_primary() -> None:
    known = knowledge()
    known.note_replica(ONE, replica(100), 1)
    assert known.replica(ONE).lag == math.inf
    known.note_primary(primary(100), 2)
    # It had at 1 what the primary had at 2.
    assert known.replica(ONE).lag == 0


def test_that_the_primary_is_away_makes_nobody_younger() -> None:
    """Others may go on writing to it: that this process can't ask it proves nothing."""
    known = knowledge()
    known.note_primary(primary(100), 0)
    known.note_primary(primary(200), 5)
    known.note_primary_failed("refused")
    known.note_replica(ONE, replica(200), 10)
    known.note_replica("behind", replica(150), 10)
    assert known.replica(ONE).lag == 5
    assert known.age("behind", 12) == 12
    known.note_replica(ONE, replica(200), 16)
    assert not known.is_fresh(ONE, 16)
    assert known.primary_failure == "refused"
    known.note_primary(primary(200), 17)
    assert known.primary_failure == ""
    known.note_primary_failed("")
    assert known.primary_failure


def test_a_primary_that_does_not_answer_is_away_before_all_replicas_are_behind() -> None:
    known = knowledge()
    known.note_primary(primary(100), 0)
    known.note_replica(ONE, replica(100), 0)
    assert not known.primary_is_away(6.25)
    known.note_primary_asked(6.25)
    assert not known.primary_is_away(8)
    assert known.primary_is_away(8.2)
    known.note_replica(ONE, replica(100), 8.2)
    assert known.is_fresh(ONE, 8.2)
    assert known.primary_failure == ""
    known.note_primary(primary(100), 9)
    assert not known.primary_is_away(100)
    known.note_primary_asked(9)
    known.note_primary_failed("refused")
    assert known.primary_is_away(9)


def test_fresh_is_what_a_note_covers() -> None:
    known = knowledge()
    known.note_primary(primary(100), 0)
    known.note_replica(ONE, replica(100), 9)
    # max_lag + 2 * check_every, as the check of `pin_for` has it.
    assert known.is_fresh(ONE, 20)
    assert not known.is_fresh(ONE, 20.1)


def test_another_timeline_makes_the_samples_of_before_worthless() -> None:
    known = knowledge()
    known.note_primary(primary(1000), 0)
    known.note_replica(ONE, replica(1000), 0)
    known.note_primary(primary(500, timeline=2), 5)
    known.note_replica(ONE, replica(1000), 6)
    assert not known.is_fresh(ONE, 6)
    known.note_replica(ONE, replica(500, timeline=2, incarnation="new"), 7)
    assert known.is_fresh(ONE, 7)


def test_without_positions_nobody_can_be_called_behind() -> None:
    known = knowledge()
    known.note_primary(Sighting("p", writable=True, position=None), 0)
    known.note_replica(ONE, replica(None), 0)
    assert known.is_fresh(ONE, 0)
    assert known.age(ONE, 0) == math.inf
    assert not known.has_replayed(ONE, "r", Wanted((Lsn(1, 1),)))
    # The primary has positions, and the replica tells none: it may be anywhere.
    known.note_primary(primary(100), 1)
    assert not known.is_fresh(ONE, 1)


def test_a_primary_that_is_read_only_gives_no_samples() -> None:
    """Its alias leads to a standby, say: then nobody knows how old anybody is."""
    known = knowledge()
    known.note_primary(primary(100, writable=False), 0)
    known.note_replica(ONE, replica(100), 0)
    assert not known.is_fresh(ONE, 0)


def test_what_one_incarnation_has_replayed_is_kept_for_it_alone() -> None:
    known = knowledge()
    known.note_primary(primary(100), 0)
    wanted = Wanted((Lsn(1, 100),))
    known.note_replica(ONE, replica(100), 1)
    # Asked over a connection that was slower.
    known.note_replica(ONE, replica(90), 2)
    assert known.has_replayed(ONE, "r", wanted)
    assert not known.has_replayed(ONE, "r", Wanted((Lsn(1, 101),)))
    assert not known.has_replayed(ONE, "r", PIN)
    assert not known.has_replayed(ONE, "another", wanted)
    assert not known.has_replayed(ONE, "", wanted)
    known.note_replica(ONE, replica(90, incarnation="another"), 3)
    assert not known.has_replayed(ONE, "r", wanted)
    assert not known.has_replayed(ONE, "another", wanted)
    known.note_replica(ONE, replica(95, incarnation="another"), 4)
    assert known.replica(ONE).sighting.position == Lsn(1, 95)


def test_memory_is_bounded() -> None:
    known = knowledge()
    for at in range(SAMPLES + 100):
        known.note_primary(primary(at + 1), at)
    known.note_replica(ONE, replica(50), SAMPLES + 100)
    assert known.replica(ONE).lag == math.inf
    known.note_replica(ONE, replica(150), SAMPLES + 100)
    assert known.replica(ONE).lag == pytest.approx(SAMPLES + 100 - 149)
