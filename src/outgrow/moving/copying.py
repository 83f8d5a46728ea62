"""Carries out a plan: files go from one storage to the other, several at a time.

The laws:

1. A file appears at the target whole, or not at all: `places.save_as`.
2. After a file was written the source is looked at again. What was deleted there meanwhile is
   deleted at the target. A storage that deletes on both (`MovingStorage`) does it at the
   source first; so either this look sees it, or that delete comes after the write.
3. The name is on record while this goes on, for a copy that is killed: `unfinished`.
4. Nothing of the target is replaced that is newer than what would take its place.
5. What fails is told, and does not stop the others; a target that takes nothing does.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from django.core.files.storage import Storage
from django.db import connections

from outgrow.errors import OutgrowError
from outgrow.media.pace import Pace
from outgrow.moving import places
from outgrow.moving.plan import UNKNOWN, Action, Verb, plan
from outgrow.moving.unfinished import Unfinished

#: How many files are copied at a time; of those above LARGE bytes, of which several parts
#: may be in memory, fewer.
THREADS: Final = 8
LARGE: Final = 16 << 20
LARGE_THREADS: Final = 2

#: Files in a row that fail before the copy is given up.
GIVE_UP: Final = 25

#: Failures that a report keeps. All are told, and counted.
KEPT: Final = 1000

#: Of a name that media servers were told to delete.
_USED_UP: Final = (
    "the target had a file of this name that was deleted, and takes the name again only when "
    "the record of that is gone, 7 days after"
)

#: Bytes that are read at a time to compare two files.
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one name: `what` is a word of `Report.counts`, `reason` for failures."""

    what: str
    name: str
    size: int = 0
    reason: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether somebody must look at it."""
        return self.what in {"failed", "conflict"}


@dataclass(slots=True)
class Report:
    """What a copy came to.

    `counts`, by word: "same" (both have it), "copied", "replaced" (it was older), "gone" (from
    the source, before or after it was written), "extra" (the target alone has it), "deleted"
    (it was extra), "conflict" (it differs, and the target's is not older), "failed".
    """

    counts: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    failures: list[Done] = field(default_factory=list)
    stopped: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether the target has everything that the source had."""
        return not (self.counts["failed"] or self.counts["conflict"] or self.stopped)

    def add(self, done: Done) -> None:
        """Count it."""
        self.counts[done.what] += 1
        if done.what in {"copied", "replaced"}:
            self.bytes += done.size
        if done.is_failure and len(self.failures) < KEPT:
            self.failures.append(done)


class Plan:
    """What is to be done, in a temporary file. Its memory does not depend on its length."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.counts: Counter[str] = Counter()
        self.bytes = 0
        self.same = 0
        self.listed = 0  # names at the source

    def add(self, action: Action | None) -> None:
        """Write one action; None for a name that needs nothing."""
        self.listed += action is None or action.verb is not Verb.EXTRA
        if action is None:
            self.same += 1
            return
        self.counts[action.verb] += 1
        if action.verb is not Verb.EXTRA:
            self.bytes += max(0, action.size)
        self._file.write(json.dumps(action) + "\n")

    def __len__(self) -> int:
        return self.counts.total()

    def __iter__(self) -> Iterator[Action]:
        self._file.seek(0)
        for line in self._file:
            verb, name, size = json.loads(line)
            yield Action(Verb(verb), name, size)


class Copy:
    """One copy from a storage to another. Opens and sends nothing before it is used.

    `prefix`: only names that begin so. `verify`: compare the bytes of what both have, and of
    what was copied. `delete_extra`: delete what the target alone has. `rate`: bytes a second
    at most; 0 is as fast as can be. `told` is called with what became of each name, by one
    thread at a time.
    """

    def __init__(
        self,
        source: Storage,
        target: Storage,
        unfinished: Unfinished,
        *,
        prefix: str = "",
        verify: bool = False,
        delete_extra: bool = False,
        threads: int = THREADS,
        rate: float = 0,
        told: Callable[[Done], None] = lambda _: None,
    ) -> None:
        self.source = source
        self.target = target
        self._unfinished = unfinished
        self._prefix = prefix
        self._verify = verify
        self._delete_extra = delete_extra
        self._threads = threads
        self._pace = Pace(rate)
        self._told = told
        self._busy, self._pacing = threading.Lock(), threading.Lock()
        self._large = threading.Semaphore(LARGE_THREADS)
        self._stop = threading.Event()
        self._broken: list[BaseException] = []
        self._in_a_row = 0
        self.report = Report()

    @contextmanager
    def planned(self, seen: Callable[[str], None] = lambda _: None) -> Iterator[Plan]:
        """Compare both listings. `seen` is called with each name; changes nothing."""
        with tempfile.TemporaryFile("w+", encoding="ascii") as file:
            found = Plan(file)
            for action in plan(
                places.listing(self.source, self._prefix, self._unreadable),
                places.listing(self.target, self._prefix, self._unreadable, everywhere=True),
                verify=self._verify,
            ):
                found.add(action)
                seen("" if action is None else action.name)
            self.report.counts["same"] += found.same
            yield found

    def _unreadable(self, name: str, error: Exception) -> None:
        if isinstance(error, FileNotFoundError):
            return  # deleted a moment ago; or a folder that the target has not yet
        self._add(Done("failed", name, reason=f"it can't be listed: {_text(error)}"))

    # --- apply

    def stop(self) -> None:
        """Begin no more files. Those that are under way are ended."""
        self._stop.set()
        self.report.stopped = self.report.stopped or "it was stopped"

    def settle(self) -> None:
        """Look at what a copy that was killed was at work on. Before a new one begins."""
        places.prepare(self.target)
        for path, note in self._unfinished.left():
            self._look_again(note.name, note.size)
            path.unlink(missing_ok=True)

    def apply(self, actions: Plan) -> Report:
        """Carry it out. Returns the report; raises only what is no file's fault."""
        places.tidy(self.target)
        left = _Shared(iter(actions))
        threads = [threading.Thread(target=self._work, args=(left,)) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self.stop()
            for thread in threads:
                thread.join()
            raise
        places.tidy(self.target)
        if self._broken:
            raise self._broken[0]
        return self.report

    def _work(self, actions: Iterator[Action]) -> None:
        try:
            for action in actions:
                if self._stop.is_set():
                    return
                self._add(self._one(action))
        except BaseException as error:  # noqa: BLE001 - `apply` raises it: no thread ends unseen
            self._broken.append(error)
            self.stop()
        finally:
            connections.close_all()  # this thread's, of a catalogue

    def _one(self, action: Action) -> Done:
        try:
            return self._done(action)
        except (OutgrowError, OSError, ValueError) as error:
            return Done("failed", action.name, reason=_text(error))
        except Exception as error:  # noqa: BLE001 - a storage of somebody else's raises its own
            return Done("failed", action.name, reason=f"{type(error).__name__}: {error}")

    def _done(self, action: Action) -> Done:
        if action.verb is Verb.EXTRA:
            return self._extra(action)
        if action.verb is Verb.COPY:
            return self._copy(action.name, action.size, replace=False)
        if action.verb is Verb.COMPARE and self._is_same(action.name):
            return Done("same", action.name)
        return self._replace(action)

    def _copy(self, name: str, size: int, *, replace: bool) -> Done:
        with self._pacing:
            self._pace.spend(max(0, size))
        with self._allowed(size):
            try:
                content = self.source.open(name)
            except FileNotFoundError:
                return Done("gone", name)
            with content:
                size = content.size if size == UNKNOWN else size
                note = self._unfinished.note(name, size)
                try:
                    places.save_as(self.target, name, content, replace=replace)
                except FileExistsError:
                    note.unlink()
                    return self._taken(name)
        gone = self._look_again(name, size)
        note.unlink()
        if gone:
            return Done("gone", name)
        if self._verify and not self._has_same_bytes(name):
            return Done("failed", name, reason="it was copied, and has other bytes at the target")
        return Done("replaced" if replace else "copied", name, size)

    def _allowed(self, size: int) -> AbstractContextManager[Any]:
        return self._large if size == UNKNOWN or size > LARGE else nullcontext()

    def _taken(self, name: str) -> Done:
        """Somebody else has put it there since it was listed: another copy, or the site."""
        if not self.target.exists(name):
            return Done("failed", name, reason=_USED_UP)
        if self._is_same(name):
            return Done("same", name)
        return Done("conflict", name, reason="the target has another file of this name")

    def _look_again(self, name: str, size: int) -> bool:
        """Whether the source has lost a file meanwhile; then the target has lost it, too."""
        if self.source.exists(name):
            return False
        # What the site has saved there since under the same name is not ours to delete.
        with suppress(FileNotFoundError):
            if self.target.size(name) == size:
                self.target.delete(name)
        return True

    def _is_same(self, name: str) -> bool:
        try:
            if self.source.size(name) != self.target.size(name):
                return False
        except FileNotFoundError:
            return not self.source.exists(name)  # nothing is left to be copied
        return not self._verify or self._has_same_bytes(name)

    def _has_same_bytes(self, name: str) -> bool:
        return _digest(self.source, name) == _digest(self.target, name)

    def _replace(self, action: Action) -> Done:
        """Another file is there under this name; the newer one wins (law 4)."""
        name = action.name
        try:
            newer = self.source.get_modified_time(name) > self.target.get_modified_time(name)
        except FileNotFoundError:
            return self._copy(name, action.size, replace=False)  # one was deleted meanwhile
        if not newer and places.is_overwriting(self.target):
            return Done("newer", name)  # a save of the site's has replaced it
        if not newer:
            reason = "the target has another file of this name, and the source's is not newer"
            return Done("conflict", name, reason=reason)
        return self._copy(name, action.size, replace=True)

    def _extra(self, action: Action) -> Done:
        if not self._delete_extra or self.source.exists(action.name):
            return Done("extra" if not self._delete_extra else "same", action.name)
        self.target.delete(action.name)
        return Done("deleted", action.name)

    def _add(self, done: Done) -> None:
        with self._busy:
            self.report.add(done)
            self._in_a_row = self._in_a_row + 1 if done.what == "failed" else 0
            if self._in_a_row == GIVE_UP:
                self._stop.set()
                self.report.stopped = f"{GIVE_UP} files in a row failed"
            self._told(done)


class _Shared(Iterator[Action]):
    """An iterator for several threads."""

    def __init__(self, source: Iterator[Action]) -> None:
        self._source = source
        self._busy = threading.Lock()

    def __next__(self) -> Action:
        with self._busy:
            return next(self._source)


def _digest(storage: Storage, name: str) -> bytes:
    found = hashlib.sha256()
    with storage.open(name) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.digest()


def _text(error: Exception) -> str:
    """What is wrong, for people; the name of the file stands beside it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def state_folder(base: Path, *facts: str) -> Path:
    """Where the notes of one copy lie: of this site, and these two storages."""
    return base / "copy" / hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]
