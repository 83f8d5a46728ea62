"""A release -> one target, in the order that promise P1 needs.

The record of the release first, then a look at the target (law 1 of `ledger`), then the assets
that are not there, then pages, then the pointer. Whoever is killed in between has changed
nothing that a visitor could miss: assets that no page names, or pages whose assets are all
there. To publish again goes on where it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from django.core.files.base import File

from outgrow.errors import AnotherPublication, PublishError
from outgrow.publish import ledger, survey
from outgrow.publish.difference import Difference, Known, difference
from outgrow.publish.forms import Form, copy_of
from outgrow.publish.ledger import Pointer, Record
from outgrow.publish.release import Kind, Release
from outgrow.publish.survey import Seen
from outgrow.publish.targets import Target

#: Requests at a time. In so many threads obstore sent 1,000 files of 4 KB to nginx with 0.35
#: seconds of processor time.
WORKERS: Final = 16

#: Pointers that are kept: to see what was when, and for listings that are a little old.
_POINTERS: Final = 10

#: Two clocks may differ so much; who deletes may still be believed to do so that much longer.
CLOCKS: Final = timedelta(minutes=1)


class Bodies(Protocol):
    """Where the contents of a release come from."""

    def open(self, form: Form) -> File[Any]:
        """The bytes of one form, encoded as it says.

        Raises SourceChanged where its file is not what it was when the release was made.
        """


#: Told of each file that was sent or deleted, with its bytes.
Told = Callable[[str, int], None]


@dataclass(frozen=True)
class Report:
    """What was done at one target.

    `sent` files with `bytes`, which were `plain_bytes` before they were compressed; `skipped`
    ones were there. `changed` are the keys of pages that have another content or are gone: a
    cache in between may still hold the old ones.
    """

    target: str
    release: str
    sent: int
    bytes: int
    plain_bytes: int
    skipped: int
    deleted: int
    has_moved: bool
    changed: tuple[str, ...] = ()


@dataclass
class _Work:
    """One publication under way."""

    seen: Seen
    difference: Difference
    bytes: int = 0


def _silent(_key: str, _size: int) -> None:
    pass


class Publisher:
    """Pushes one release to one target. For one thread; it starts others for the requests.

    Repeatable; the module says what a kill leaves. Besides what the methods name they raise
    SourceChanged, PublishError, and a ServerError where the target fails. `clock` gives the time
    now, in UTC; `sleep` waits for seconds.
    """

    def __init__(
        self,
        target: Target,
        release: Release,
        bodies: Bodies,
        *,
        workers: int = WORKERS,
        told: Told = _silent,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._target = target
        self._release = release
        self._bodies = bodies
        self._workers = workers
        self._told = told
        self._clock = clock
        self._sleep = sleep
        self._work: _Work | None = None

    @property
    def name(self) -> str:
        """The target's, for messages."""
        return self._target.name

    def plan(self) -> Difference:
        """What would be sent and deleted. Writes nothing."""
        return self._difference(survey.look(self._target))

    def publish(self) -> Report:
        """Push it, and serve it: `begin`, `send`, `finish`."""
        self.begin()
        self.send()
        return self.finish()

    def begin(self) -> Difference:
        """Write the record, and see what is to be done."""
        seen = self._begin()
        self._work = _Work(seen, self._difference(seen))
        return self._work.difference

    def send(self) -> None:
        """Send the assets, which no page names yet. To be called after `begin`."""
        work = self._begun()
        work.bytes += self._send(work.difference.assets)
        self._target.settle()

    def finish(self) -> Report:
        """Send the pages, and let the pointer point to this release. To be called after `send`.

        Raises AnotherPublication where somebody else served another release meanwhile.
        """
        work = self._begun()
        found, seen = work.difference, work.seen
        has_moved = bool(found) or seen.pointer.id != self._release.id
        if has_moved:
            self._refuse_another(seen)
            work.bytes += self._send(found.before_pages)
            work.bytes += self._send(found.pages)
            self._target.delete(found.gone)
            self._target.settle()
            self._move(seen)
        return self._report(work, has_moved=has_moved)

    def _begun(self) -> _Work:
        if self._work is None:
            raise PublishError("a publication is sent before it was begun: call begin() first.")
        return self._work

    def _begin(self) -> Seen:
        """The record is there, nobody is deleting what is needed; what is at the target."""
        pointer = survey.pointer(self._target)
        if pointer.id != self._release.id:
            self._note()
        seen = self._undisturbed(pointer)
        if self._release.id in seen.records:
            return seen
        self._note()  # a pointer whose record is lost
        return self._undisturbed(seen.pointer)

    def _note(self) -> None:
        record = Record(self._release, self._target.shape, self._clock())
        self._target.note(ledger.record_key(self._release.id), record.document())

    def _undisturbed(self, pointer: Pointer) -> Seen:
        """A look at the target while nobody deletes what this release has (law 3 of `ledger`)."""
        while True:
            seen = survey.look(self._target, pointer)
            if not self._is_deleted_now(seen):
                return seen
            self._sleep(1.0)

    def _is_deleted_now(self, seen: Seen) -> bool:
        deleting = [
            one.keys
            for one in seen.condemned.values()
            if one.deleting_until is not None and one.deleting_until + CLOCKS >= self._clock()
        ]
        if not deleting:
            return False
        mine = Record(self._release, self._target.shape, self._clock()).keys()
        return any(not keys.isdisjoint(mine) for keys in deleting)

    def _difference(self, seen: Seen) -> Difference:
        return difference(
            self._release,
            self._target.shape,
            self._known(seen),
            seen.files,
            seen.condemned_keys(),
        )

    def _known(self, seen: Seen) -> Known:
        """Read the records that tell what is at the target; one, in most cases."""
        mine, served = self._release.id, seen.pointer.id
        found = self._served(seen)
        again = mine != served and self._was_sent(seen, found)
        ids = (seen.records if again else seen.unfinished()) - {mine, served}
        others = (survey.record_if_any(self._target, one) for one in sorted(ids))
        return Known(found, tuple(one for one in others if one is not None), again)

    def _served(self, seen: Seen) -> Record | None:
        served = seen.pointer.id
        if served == self._release.id:
            return Record(self._release, self._target.shape, seen.pointer.since)
        return survey.record_if_any(self._target, served) if served else None

    def _was_sent(self, seen: Seen, served: Record | None) -> bool:
        """Whether assets lie there that the served release has not: by a push of this one, or
        of another that had them too.
        """
        others = served.shape.assets(served.release) if served else {}
        return any(
            key in seen.files and key not in others
            for key in self._target.shape.assets(self._release)
        )

    def _send(self, several: Iterable[Form]) -> int:
        """Send files, many at a time; returns their bytes. The first error ends it."""

        def one(form: Form) -> int:
            with self._bodies.open(form) as content:
                size = int(content.size)
                self._target.write(form, content)
            self._told(form.key, size)
            return size

        return in_threads(one, several, self._workers)

    def _refuse_another(self, seen: Seen) -> None:
        """Nobody has moved the pointer since."""
        if self._target.read(ledger.pointer_key(seen.pointer.number + 1)) is not None:
            raise self._another()

    def _move(self, seen: Seen) -> None:
        """Let the pointer point to this release, whose files are all there."""
        moved = seen.pointer.moved(
            self._release.id, self._clock(), seen.unfinished(), {*seen.records, self._release.id}
        )
        if not self._target.create(ledger.pointer_key(moved.number), moved.document()):
            raise self._another()
        self._target.delete(map(ledger.pointer_key, seen.pointers[: -(_POINTERS - 1)]))

    def _another(self) -> AnotherPublication:
        return AnotherPublication(
            f"Somebody else published at {self._target.name} at the same time. Every asset is "
            "there, but of the pages some may be his and some yours. See who it was, and publish "
            "again."
        )

    def _report(self, work: _Work, *, has_moved: bool) -> Report:
        found = work.difference
        sent = (*found.assets, *found.before_pages, *found.pages)
        changed = {form.entry.key for form in (*found.before_pages, *found.pages)}
        return Report(
            self._target.name,
            self._release.id,
            len(sent),
            work.bytes,
            sum(form.entry.size for form in sent),
            found.skipped,
            len(found.gone),
            has_moved,
            tuple(sorted(changed | set(found.gone))),
        )


def in_threads(work: Callable[[Any], int], items: Iterable[Any], workers: int) -> int:
    """Do it with each, and add up what comes back; the first error ends all, and is raised."""
    with ThreadPoolExecutor(workers, thread_name_prefix="outgrow-publish") as pool:
        try:
            futures = [pool.submit(work, item) for item in items]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # After an error, and after Ctrl-C: what is under way ends, the rest is not begun.
            pool.shutdown(wait=True, cancel_futures=True)
    failed = [one for one in futures if not one.cancelled() and one.exception()]
    if failed:
        raise failed[0].exception() or PublishError("a thread ended without an answer")
    return sum(one.result() for one in futures)


def publish_together(
    publishers: Sequence[Publisher],
    shown: Callable[[int], AbstractContextManager[object]] = lambda _count: nullcontext(),
) -> list[Report]:
    """Publish at several targets: the assets at all of them before any has new pages.

    `shown` is given the number of files, and its context lasts while they are sent. Raises what
    a `Publisher` raises.
    """
    differences = [publisher.begin() for publisher in publishers]
    with shown(sum(one.count for one in differences)):
        for publisher in publishers:
            publisher.send()
        return [publisher.finish() for publisher in publishers]


def serve_again(
    target: Target,
    identifier: str,
    *,
    told: Told = _silent,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
    workers: int = WORKERS,
) -> Report:
    """Roll back: serve a former release, whose files are all there still.

    Raises PublishError, and changes nothing that is served, where one is missing.
    """
    release = survey.record(target, identifier).release
    copies = _Copies(target, release, identifier)
    publisher = Publisher(
        target, release, copies, told=told, clock=clock, sleep=sleep, workers=workers
    )
    copies.refuse_missing(survey.look(target))
    return publisher.publish()


class _Copies:
    """The contents of a former release: what lies at the target."""

    def __init__(self, target: Target, release: Release, identifier: str) -> None:
        self._target = target
        self._sources: dict[tuple[str, str], str] = {}
        for entry in release:
            if entry.kind is Kind.PLAIN:
                raise PublishError(
                    f"{target.name}: {identifier} has files that keep their names, without copies: "
                    "it can't be served again. Publish it from its sources."
                )
            where = copy_of(entry) if entry.kind is Kind.PAGE else entry.key
            for form in target.shape.forms(entry, where):
                self._sources[entry.name, form.encoding] = form.key

    def refuse_missing(self, seen: Seen) -> None:
        """Everything is there. Raises PublishError."""
        missing = sorted(key for key in self._sources.values() if key not in seen.files)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise PublishError(
                f"{self._target.name} can't serve this release again: {', '.join(missing[:3])}"
                f"{more} {'are' if len(missing) > 1 else 'is'} not there. Publish it from its "
                "sources."
            )

    def open(self, form: Form) -> File[Any]:
        """See Bodies."""
        source = self._sources[form.entry.name, form.encoding]
        try:
            return self._target.open(source)
        except FileNotFoundError as error:
            raise PublishError(f"{self._target.name} has lost {source} meanwhile.") from error
