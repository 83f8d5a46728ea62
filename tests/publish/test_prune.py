"""What is kept and what goes (P3), and two who exclude each other without a lock."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outgrow.errors import PublishError
from outgrow.publish import ledger, prune, survey
from outgrow.publish.encodings import Encoding
from outgrow.publish.forms import Shape
from outgrow.publish.ledger import Pointer, Record, Served
from outgrow.publish.prune import Plan, Policy, Prune
from outgrow.publish.push import Publisher, serve_again
from outgrow.publish.release import Entry, Release
from tests.publish.sites import FILES, Clock, built, publish, write
from tests.publish.subjects import Place, folder_place
from tests.publish.test_push import broken, child, plain

DAY = timedelta(days=1)
NONE = Policy(keep=1, older=timedelta(0))


def version(source: Path, number: int) -> Path:
    return write(source, {**FILES, "img/back.png": b"\x89PNG version %d" % number})


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Site:
    """A target with some releases, a day apart."""

    def __init__(self, place: Place, source: Path, clock: Clock) -> None:
        self.place, self.source, self.clock = place, source, clock
        self.releases: list[str] = []

    def publish(self, number: int) -> str:
        report = publish(self.place.target(), version(self.source, number), clock=self.clock)
        self.releases.append(report.release)
        self.clock.go(days=1)
        return report.release

    def prune(self, policy: Policy = NONE, **options: int) -> Plan:
        return Prune(self.place.target(), policy, clock=self.clock, **options).apply()

    def pictures(self) -> set[str]:
        return {key for key in self.place.files() if plain(key) == "img/back.png"}


@pytest.fixture
def site(place: Place, source: Path, clock: Clock) -> Site:
    found = Site(place, source, clock)
    for number in range(3):
        found.publish(number)
    return found


def test_first_condemned_then_a_day_later_deleted(site: Site) -> None:
    before = site.place.files()
    plan = site.prune()
    assert plan.kept == {site.releases[2]}
    assert plan.releases == {*site.releases[:2]}
    assert {plain(key).split("/")[0] for key in plan.condemn} <= {"img", "css", "outgrow-publish"}
    assert plan.delete == frozenset()
    assert site.place.files() == before
    site.clock.go(hours=23)
    assert site.prune() == Plan(frozenset(), frozenset(), frozenset(), plan.kept)
    assert site.place.files() == before
    site.clock.go(hours=2)
    done = site.prune()
    assert done.delete == plan.condemn
    after = site.place.files()
    assert set(before) - set(after) == {one for one in plan.condemn if one in before}
    assert len(site.pictures()) == 1
    assert broken(site.place) == []
    # Nothing is left of them, in the ledger neither.
    seen = survey.look(site.place.target())
    assert seen.records == {site.releases[2]}
    assert seen.condemned == {}
    assert site.prune() == Plan(frozenset(), frozenset(), frozenset(), plan.kept)


def test_foreign_keys_stay(site: Site) -> None:
    """Promise P3, even where their names look like ours."""
    from django.core.files.base import ContentFile

    from outgrow.publish.forms import Form

    target = site.place.target()
    foreign = {"mine.txt", "img/back.0123456789ab.png", "outgrow-publish/pages/mine", "css/mine"}
    for key in foreign:
        entry = Entry(key, key, "", 4, "identity", ())
        target.write(Form(key, entry, Encoding.IDENTITY, ()), ContentFile(b"mine"))
    for _ in range(3):
        site.prune()
        site.clock.go(days=2)
    held = site.place.held()
    assert {key: held[key] for key in foreign} == dict.fromkeys(foreign, b"mine")
    assert len(site.pictures()) == 2  # ours that is served, and his


def test_both_must_allow_it(site: Site) -> None:
    # Served last one day and two days ago; the third is served.
    first, second, third = site.releases
    plan = Prune(site.place.target(), Policy(keep=1, older=1.5 * DAY), clock=site.clock).plan()
    assert plan.kept == {second, third}
    plan = Prune(site.place.target(), Policy(keep=3, older=timedelta(0)), clock=site.clock).plan()
    assert plan.kept == {first, second, third}
    plan = Prune(site.place.target(), Policy(keep=2, older=timedelta(0)), clock=site.clock).plan()
    assert plan.kept == {second, third}
    assert plan.releases == {first}


def test_a_plan_writes_nothing(site: Site) -> None:
    before = site.place.held()
    plan = Prune(site.place.target(), NONE, clock=site.clock).plan()
    assert plan.condemn
    assert site.place.held() == before
    site.prune()
    site.clock.go(days=2)
    plan = Prune(site.place.target(), NONE, clock=site.clock).plan()
    assert plan.delete
    assert Prune(site.place.target(), NONE, clock=site.clock).apply().delete == plan.delete


def test_the_limit(site: Site) -> None:
    before = site.place.held()
    with pytest.raises(PublishError, match=r"would condemn \d+ files, and the limit is 1"):
        site.prune(most=1)
    assert site.place.held() == before
    site.prune()
    site.clock.go(days=2)
    before = site.place.held()
    with pytest.raises(PublishError, match=r"would delete \d+ files, and the limit is 1"):
        site.prune(most=1)
    assert site.place.held() == before


def test_a_release_that_is_taken_up_again_stays(site: Site) -> None:
    site.prune()
    serve_again(site.place.target(), site.releases[0], clock=site.clock)
    site.clock.go(days=2)
    plan = site.prune(Policy(keep=2, older=timedelta(0)))
    old = survey.record(site.place.target(), site.releases[0]).release.entries
    assert old["img/back.png"].key in site.place.files()
    assert old["img/back.png"].key not in plan.delete
    assert broken(site.place) == []
    with pytest.raises(PublishError, match="has no release"):
        survey.record(site.place.target(), site.releases[1])


def test_condemned_keys_are_uploaded_again(site: Site) -> None:
    site.prune()
    told: list[str] = []
    publish(
        site.place.target(),
        version(site.source, 0),
        clock=site.clock,
        told=lambda key, _size: told.append(key),
    )
    assert "img/back.png" in map(plain, told)
    site.clock.go(days=2)
    site.prune()
    assert broken(site.place) == []


def test_a_publisher_waits_for_who_is_deleting(site: Site) -> None:
    """Law 3 of the ledger, the first half: he sees the deletion."""
    site.prune()
    target = site.place.target()
    [(key, condemned)] = survey.look(target).condemned.items()
    target.note(key, condemned.deleting(site.clock() + timedelta(seconds=30)).document())
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        site.clock.go(seconds=10)

    build = built(version(site.source, 0))
    Publisher(target, build.release, build, clock=site.clock, sleep=sleep).publish()
    # Until that moment, and as much longer as two clocks may differ.
    assert 8 <= len(waited) <= 10
    # Who needs none of it does not wait.
    waited.clear()
    target.note(key, condemned.deleting(site.clock() + timedelta(seconds=30)).document())
    build = built(version(site.source, 9))
    assert condemned.keys.isdisjoint(Record(build.release, target.shape, site.clock()).keys())
    Publisher(target, build.release, build, clock=site.clock, sleep=sleep).publish()
    assert waited == []


def test_who_deletes_sees_who_has_begun(site: Site) -> None:
    """Law 3 of the ledger, the second half: between the note and the deletion he reads again."""
    site.prune()
    site.clock.go(days=2)
    target = site.place.target()
    build = built(version(site.source, 0))
    publisher = Publisher(target, build.release, build, clock=site.clock)

    class Between:
        """A target at which somebody begins a publication right after the note."""

        def __getattr__(self, name: str) -> object:
            return getattr(target, name)

        def note(self, key: str, content: bytes) -> None:
            publisher._note()
            target.note(key, content)

    plan = Prune(Between(), NONE, clock=site.clock).apply()  # type: ignore[arg-type]
    needed = Record(build.release, target.shape, site.clock()).keys()
    assert plan.delete.isdisjoint(needed)
    assert needed & site.place.held().keys()


def test_a_deletion_that_takes_too_long_goes_on_the_next_time(site: Site) -> None:
    site.prune()
    site.clock.go(days=2)
    before = site.place.files()

    class Slow:
        """A target whose listing takes four minutes."""

        def __init__(self) -> None:
            self._target = site.place.target()

        def __getattr__(self, name: str) -> object:
            if name == "listing":
                site.clock.go(minutes=4)
            return getattr(self._target, name)

    assert Prune(Slow(), NONE, clock=site.clock).apply().delete == frozenset()  # type: ignore[arg-type]
    assert site.place.files() == before
    site.clock.go(hours=1)
    assert site.prune().delete
    assert len(site.pictures()) == 1


def ahead(place: Place, days: float) -> None:
    """A prune some days from now."""
    Prune(place.target(), NONE, clock=lambda: datetime.now(UTC) + days * DAY).apply()


@pytest.mark.parametrize("days", ["0", "2"])
def test_a_kill_at_each_step(tmp_path: Path, source: Path, days: str) -> None:
    """Condemning and deleting may be killed anywhere, and be repeated."""
    for step in range(1, 60):
        with folder_place(tmp_path / f"target{step}") as place:
            for number in range(3):
                publish(place.target(), version(source, number))
            if days == "2":
                ahead(place, 0)
            ended = child(place, source, step, "prune", days) == 0
            assert broken(place, "site.css") == []
            for later in (0.1, 3, 6):
                ahead(place, later)
            assert broken(place) == []
            assert len({key for key in place.files() if plain(key) == "img/back.png"}) == 1
            assert survey.look(place.target()).condemned == {}
            if ended:
                assert step > 4
                return
    raise AssertionError("it never ended")


def test_half_files_go_when_nobody_can_be_writing_them(tmp_path: Path, source: Path) -> None:
    with folder_place(tmp_path / "target") as place:
        publish(place.target(), source)
        old, new = (tmp_path / "target/css" / f".outgrow-writing-{one}" for one in ("old", "new"))
        old.touch()
        new.touch()
        os.utime(old, (0, 0))
        Prune(place.target(), NONE).apply()
        assert not old.exists()
        assert new.exists()


# --- as values


def entry(name: str) -> Entry:
    return Entry(name, f"{name}.1", name, 1, "identity", ())


def record(*names: str, written: datetime) -> Record:
    return Record(Release(map(entry, names)), Shape(), written)


NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_which_releases_stay() -> None:
    records = {
        "served": record("a", written=NOW - 90 * DAY),
        "before": record("b", written=NOW - 80 * DAY),
        "old": record("c", written=NOW - 70 * DAY),
        "older": record("d", written=NOW - 100 * DAY),
        "begun": record("e", written=NOW - 1 * DAY),
        "given up": record("f", written=NOW - 60 * DAY),
    }
    former = (
        Served("before", NOW - DAY),
        Served("old", NOW - 30 * DAY),
        Served("older", NOW - 40 * DAY),
    )
    pointer = Pointer("served", 4, NOW, former)
    kept = prune.kept(records, pointer, Policy(keep=3, older=14 * DAY), NOW)
    assert kept == {"served", "before", "old", "begun"}
    kept = prune.kept(records, pointer, Policy(keep=1, older=35 * DAY), NOW)
    assert kept == {"served", "before", "old", "begun"}
    kept = prune.kept(records, pointer, Policy(keep=0, older=timedelta(0)), NOW)
    assert kept == {"served"}


def test_which_keys_may_go() -> None:
    records = {
        "one": record("a", "b", written=NOW),
        "two": record("b", "c", written=NOW),
    }
    assert prune.condemnable(records, ["two"], ["a.1", "b.1", "c.1", "mine"]) == {"a.1"}
    assert prune.condemnable(records, ["two"], ["b.1", "mine"]) == frozenset()
    assert ledger.record_id(ledger.record_key("x")) == "x"
