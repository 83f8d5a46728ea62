"""What each media server is owed: facts about names, never operations.

A `Journal` holds three kinds of facts: an attempt in progress (this name is being
changed on these servers), a debt (this server is to be looked at for this name) and a
tombstone (this name was deleted). None of them says what to send: that is decided by
looking at the master when the request is made. So facts can be repeated, kept too
long and read in any order, and two that are the same are one.

This module has the facts as values, how their files are called, and the interface.
`outgrow.media.directory` keeps them in a folder beside the master.
"""

from __future__ import annotations

import enum
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, unquote

from outgrow.media.listing import Entry

if TYPE_CHECKING:
    from outgrow.http import FileBody

#: Seconds after its first look at which an unknown attempt is looked at again.
LOOKS: Final = (10.0, 60.0, 600.0, 3600.0, 86400.0)

#: Seconds for which a tombstone is kept at least. Swift's reclaim_age.
KEEP_TOMBSTONES: Final = 7 * 86400.0

#: Records for one server past which it is owed everything instead.
RECORDS_LIMIT: Final = 100_000

#: Seconds after which an attempt that has not moved counts as dead, at least. Far above
#: any usual `deadline`; for a longer one the storage asks for more.
ATTEMPT_LIMIT: Final = 600.0

#: Seconds after which what never reached the master is given up (a stopped process).
ABANDONED: Final = 86400.0

#: Seconds for which a watch that has stopped is remembered, so that what it did last is
#: seen by all who look now and then. Far above any usual interval between two scrapes.
KEEP_HEARTBEATS: Final = 3600.0

#: Characters of a quoted name in a record's file name. With all that stands before it
#: the whole is below 255 bytes, the limit of every file system that we know.
FIELD_LIMIT: Final = 160


class Wanted(enum.Enum):
    """What the master says of a name."""

    PRESENT = "present"
    GONE = "gone"
    UNHEARD = "unheard"  # neither there nor deleted: nothing is ever sent for it


@dataclass(frozen=True, slots=True)
class Look:
    """The word on one name, and which file it is: device, inode and times, or a digest."""

    wanted: Wanted
    identity: tuple[int | str, ...] = ()
    size: int = 0


class Change(enum.Enum):
    """What an attempt does with its name."""

    SAVE = "save"
    REPLACE = "replace"  # the name may be in use; what it held is kept until the end
    DELETE = "delete"
    COPY = "copy"  # a save that is done again if it fails: its name is not used up
    VOID = "void"  # a save that a repair pass has withdrawn: it can't commit any more


@dataclass(frozen=True, slots=True)
class Attempt:
    """A save or a delete in progress. `owner` is the process: see `outgrow.media.owners`."""

    id: str
    name: str
    change: Change
    owner: str = ""

    @property
    def file(self) -> str:
        """The name of the record's file."""
        return f"{self.id}.{self.change.value}.{self.owner}.{field(self.name)}"

    @property
    def in_draft(self) -> bool:
        """Whether the draft of the new file is the record, so that one file does for both."""
        return self.change in {Change.SAVE, Change.VOID} and fits(self.name)

    @classmethod
    def read(cls, file: str, content: Callable[[], str]) -> Attempt | None:
        """The attempt that a record's file stands for, or None if it is no record's.

        `content` reads what is in the file, for a name that is too long for its name.
        """
        attempt_id, change, owner, text = _parts(file, 4)
        if not attempt_id or change not in {one.value for one in Change}:
            return None
        name = name_of(text, content)
        return cls(attempt_id, name, Change(change), owner) if name else None


class Kind(enum.Enum):
    """What a record in `owed/` says."""

    OWED = "owed"
    UNKNOWN = "unknown"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Debt:
    """One server is owed a look at one name; an empty name stands for every name.

    `since` is when it arose and `at` when the unknown request was sent or, once
    looked at, when that was first done: seconds since the epoch. `looks` counts
    the looks at an unknown one.
    """

    server: str
    id: str
    kind: Kind
    name: str = ""
    since: float = 0.0
    looks: int = 0
    at: float = 0.0
    #: Tells two claims of the same debt apart.
    mark: str = ""

    @property
    def due_at(self) -> float:
        """When it is to be looked at; 0 for as soon as the server answers."""
        if self.kind is not Kind.UNKNOWN or self.looks == 0:
            return 0.0
        return self.at + LOOKS[min(self.looks, len(LOOKS)) - 1]

    @property
    def file(self) -> str:
        """The name of the record's file."""
        kind = self.kind.value
        if self.kind is Kind.UNKNOWN:
            kind = f"{kind}.{self.looks}.{self.at * 1000:.0f}.{self.mark}"
        return f"{self.id}.{kind}.{field(self.name)}"

    @classmethod
    def read(cls, server: str, file: str, content: Callable[[], str]) -> Debt | None:
        """The debt that a record's file stands for, or None; `content` as for `Attempt.read`."""
        attempt_id, kind, rest = _parts(file, 3)
        if not attempt_id or kind not in {one.value for one in Kind}:
            return None
        looks, at, mark = "", "", ""
        if kind == Kind.UNKNOWN.value:
            looks, at, mark, rest = _parts(rest, 4)
        name = name_of(rest, content)
        if not name and (rest or kind == Kind.OWED.value):
            return None
        since = started(attempt_id)
        number = int(looks) if looks.isdigit() else 0
        sent = int(at) / 1000 if at.isdigit() else since
        return cls(server, attempt_id, Kind(kind), name, since, number, sent, mark)

    def claimed(self, now: float, mark: str) -> Debt:
        """What it is while a request is out for it: the request may become unknown."""
        return replace(self, kind=Kind.UNKNOWN, looks=0, at=moment(now), mark=mark)

    def confirmed(self, found: Debt, now: float) -> Debt | None:
        """What becomes of this claim of `found` when its server has done it.

        None: nothing is owed any more. Otherwise an unknown request may still be
        carried out, and is looked at again.
        """
        if found.kind is not Kind.UNKNOWN:
            return None
        first = found.at if found.looks else moment(now)
        looks = 1 + sum(now - first >= pause for pause in LOOKS)
        return None if looks > len(LOOKS) else replace(self, looks=looks, at=first)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a `media repair --watch` wrote last, and how many seconds ago. `watch` is its name."""

    watch: str
    beat: dict[str, object]
    age: float


class Journal(Protocol):
    """What replication, repair and the commands need of a journal.

    `tests/contract` holds its contract.
    """

    #: Seconds after which an attempt that has not moved counts as dead.
    attempt_limit: float
    #: Whether size and digest of a file are on record. Else the master's disk says them.
    has_digests: bool
    #: Whether what is owed is kept, for any process to repair.
    keeps_records: bool
    #: Whether it holds the files themselves, so that a server can be given one later.
    has_master: bool

    @property
    def master_id(self) -> str:
        """The id that every media server of this journal holds."""

    def prepare(self) -> None:
        """Make what is missing of the journal. Raises when it can't be used."""

    def attempt(self, name: str, change: Change) -> Attempt:
        """A new attempt, of which nothing is recorded yet."""

    def begin(self, attempt: Attempt) -> Path:
        """Record that a name is to be looked at on all servers, before anything changes.

        Returns where the new file is to be made, exclusively. Of an attempt that is
        `in_draft` nothing is recorded, and nothing has happened, before that is done.
        """

    def restore_folders(self) -> bool:
        """Make what is missing of the journal's own places. False when all was there."""

    def draft(self, attempt: Attempt) -> Look:
        """What the name will hold after the commit. Raises `SaveInterrupted`."""

    def commit(self, attempt: Attempt, look: Look, *, mode: int | None = None) -> None:
        """Give the draft, which `look` describes, its name.

        Raises `FileExistsError` for one that is taken, and `SaveInterrupted`.

        After any other error it may have been done all the same.
        """

    def rename(self, attempt: Attempt, name: str) -> Attempt:
        """The same attempt under another name, for a name that was taken."""

    def restore(self, attempt: Attempt) -> bool:
        """Put back what a replacing attempt replaced. False when that was nothing."""

    def accept(self, attempt: Attempt) -> None:
        """Enough servers have the file: let the site have it."""

    def opened(self, attempt: Attempt, look: Look) -> AbstractContextManager[FileBody | None]:
        """The content of a save; None when it was deleted or replaced meanwhile."""

    def bury_unheard(self, attempt: Attempt) -> bool:
        """Leave a tombstone for a name that nobody has heard of. False when it is there now."""

    def bury(self, attempt: Attempt) -> bool:
        """Delete the attempt's name and leave a tombstone. False when it was not there.

        After an error it may have been done all the same.
        """

    def settle(self, attempt: Attempt, owed: Iterable[str], unknown: Iterable[str]) -> None:
        """End an attempt: keep what these servers are owed, forget the rest."""

    def finish(self, attempt: Attempt) -> None:
        """Forget what a settled attempt replaced: from now on it can't be taken back."""

    def discard(self, attempt: Attempt) -> None:
        """End an attempt that changed nothing."""

    def look(self, name: str) -> Look:
        """What the master says of `name` now."""

    def debts(self, server: str, name: str | None = None) -> Iterator[Debt]:
        """What a server is owed, oldest first; with `name`, of that name alone."""

    def claimed(self) -> list[str]:
        """The names of all servers of this master, also of those that others configured."""

    def claim(self, debt: Debt) -> Debt | None:
        """Before a request is sent for a debt: note that it may become unknown.

        None when another process has it.
        """

    def confirm(self, found: Debt, claimed: Debt) -> None:
        """The server did it: forget the debt, or plan the next look at an unknown one.

        `found` is the record as it was read before the look.
        """

    def release(self, found: Debt, claimed: Debt) -> None:
        """The server surely did not do it: the debt is what it was."""

    def forget(self, debt: Debt) -> None:
        """Remove a record that was read before the look that made it needless."""

    def is_abandoned(self, debt: Debt) -> bool:
        """Whether a debt for a name that nobody has heard of is given up."""

    # --- for repair and the commands

    def attempts(self) -> Iterator[Attempt]:
        """The attempts in progress, or left by a process that died."""

    def is_dead(self, attempt: Attempt) -> bool:
        """Whether the process of an attempt has died, or has stood still for too long."""

    def convert(self, attempt: Attempt, servers: Iterable[str]) -> bool:
        """Take over a dead attempt: owe the servers what it may have sent, as unknown.

        False when it came to nothing, and so has nothing to be owed.
        """

    def reap(self, servers: Iterable[str]) -> list[str]:
        """Delete what was saved and was given up by the site; returns the names."""

    def sweep(self) -> int:
        """Remove what is of no use any more; returns how much."""

    def entries(self, failed: Callable[[str, OSError], None], prefix: str = "") -> Iterator[Entry]:
        """Every file that is wanted and whose name begins so, in order of the names.

        `failed` is called with what can't be read. Raises `OSError` without room to sort.
        """

    def tombstones(self) -> Iterator[tuple[str, float]]:
        """The deleted names, each with the time of its deletion."""

    def servers(self) -> list[str]:
        """The names of the servers that have records, configured or not."""

    def count(self, server: str) -> int:
        """How many records a server has."""

    def summary(self, server: str) -> tuple[int, int, float | None]:
        """How many debts a server surely or perhaps lacks, how many are only watched,
        and when the oldest of the first arose.
        """

    def holds(self, server: str, name: str) -> bool:
        """Whether a server surely has what is wanted of a name. For each link of a page: cheap."""

    def owe(self, server: str, name: str, *, unknown: bool = False) -> Debt:
        """Record one more debt."""

    def owe_all(self, server: str) -> Debt:
        """Record that a server is owed everything, from this moment on.

        One record is enough until a walk claims it: the walk looks at all after that.
        """

    def is_owed_all(self, server: str) -> bool:
        """Whether a server is owed everything, or just being sent it."""

    def is_claimed(self, server: str) -> bool:
        """Whether the server was given the id once."""

    def set_claimed(self, server: str, *, claimed: bool = True) -> None:
        """Remember, or forget, that it was."""

    def retire(self, server: str) -> int | None:
        """Forget a server and its records: how many, or None if it is not known."""

    def write_heartbeat(self, watch: str, beat: dict[str, object]) -> None:
        """Replace the heartbeat of one `media repair --watch`; `watch` is its name."""

    def heartbeats(self) -> list[Heartbeat]:
        """The last heartbeat of each watch, the youngest first.

        Of those that have stopped, the last one is there in any case, and others for
        `KEEP_HEARTBEATS`.
        """


def remembered(found: Iterable[Heartbeat]) -> list[Heartbeat]:
    """Those that count, the youngest first; what else is there may be removed."""
    ordered = sorted(found, key=lambda one: one.age)
    return [*ordered[:1], *(one for one in ordered[1:] if one.age <= KEEP_HEARTBEATS)]


#: Gives a copy of a name to send again: see `Replication`.
Source = Callable[[str, Look], "AbstractContextManager[FileBody | None]"]


def identity(found: os.stat_result) -> tuple[int, ...]:
    """Which file this is, and whether it is still the same content."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def moment(now: float) -> float:
    """The millisecond that `now` lies in: what a file's name can hold."""
    return math.floor(now * 1000) / 1000


def started(attempt_id: str) -> float:
    """When an attempt began, from its id: seconds since the epoch."""
    try:
        return int(attempt_id[:14], 16) / 1e6
    except ValueError:
        return 0.0


@lru_cache(maxsize=1024)
def field(name: str) -> str:
    """A name as the last part of a record's file name.

    Quoted, if that fits. Otherwise "=" (which quoting leaves nowhere) and a digest; then
    the record's content is the name.
    """
    quoted = quote(name, safe="")
    if len(quoted) <= FIELD_LIMIT:
        return quoted
    return "=" + hashlib.sha256(name.encode()).hexdigest()[:40]


def fits(name: str) -> bool:
    """Whether a name can be part of a file's name, quoted. Most can."""
    return not field(name).startswith("=")


def content(name: str) -> str:
    """What a record for a name contains: nothing, or what its file's name has no room for."""
    return "" if fits(name) else name


def name_of(text: str, content: Callable[[], str]) -> str:
    """The name that a field stands for; empty when it can't be read (any more)."""
    if not text.startswith("="):
        return unquote(text)
    name = content()
    return name if field(name) == text else ""


def _parts(text: str, count: int) -> list[str]:
    """So many parts of a text, divided by dots; the last takes the rest, missing ones are empty."""
    parts = text.split(".", count - 1)
    return parts + [""] * (count - len(parts))
