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
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import quote, unquote

#: Seconds after its first look at which an unknown attempt is looked at again.
LOOKS: Final = (10.0, 60.0, 600.0, 3600.0, 86400.0)

#: Seconds for which a tombstone is kept at least. Swift's reclaim_age.
KEEP_TOMBSTONES: Final = 7 * 86400.0

#: Records for one server past which it is owed everything instead.
RECORDS_LIMIT: Final = 100_000

#: Seconds after which an attempt whose process can't be asked counts as dead.
#: Far above any `deadline`, for a live one costs a needless look and no more.
ATTEMPT_LIMIT: Final = 600.0

#: Seconds after which what never reached the master is given up (a stopped process).
ABANDONED: Final = 86400.0

#: Characters of a tombstone's quoted name in one folder level. See `tombstone_path`.
_LEVEL: Final = 200


class Wanted(enum.Enum):
    """What the master says of a name."""

    PRESENT = "present"
    GONE = "gone"
    UNHEARD = "unheard"  # neither there nor deleted: nothing is ever sent for it


@dataclass(frozen=True, slots=True)
class Look:
    """The master's word on one name, and which file it is (device, inode, times)."""

    wanted: Wanted
    identity: tuple[int, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A save or a delete in progress: the record that it made first."""

    id: str
    name: str
    servers: tuple[str, ...]
    #: The name may be in use; what it held is kept until the attempt ends.
    replaces: bool = False


class Kind(enum.Enum):
    """What a record in `owed/` says."""

    OWED = "owed"
    UNKNOWN = "unknown"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Debt:
    """One server is owed a look at one name (or at all, for `Kind.ALL`).

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
        if self.kind is Kind.UNKNOWN:
            return f"{self.id}.unknown.{self.looks}.{self.at * 1000:.0f}.{self.mark}"
        return f"{self.id}.{self.kind.value}"

    @classmethod
    def read(cls, server: str, file: str, name: str) -> Debt | None:
        """The debt that a record's file stands for, or None if it is no record's."""
        attempt_id, _, rest = file.partition(".")
        kind, _, rest = rest.partition(".")
        looks, _, rest = rest.partition(".")
        at, _, mark = rest.partition(".")
        if not attempt_id or kind not in {one.value for one in Kind}:
            return None
        since = started(attempt_id)
        number = int(looks) if looks.isdigit() else 0
        sent = int(at) / 1000 if at.isdigit() else since
        return cls(server, attempt_id, Kind(kind), name, since, number, sent, mark)

    def claimed(self, now: float, mark: str) -> Debt:
        """What it is while a request is out for it: the request may become unknown."""
        return replace(self, kind=Kind.UNKNOWN, looks=0, at=now, mark=mark)

    def confirmed(self, found: Debt, now: float) -> Debt | None:
        """What becomes of this claim of `found` when its server has done it.

        None: nothing is owed any more. Otherwise an unknown request may still be
        carried out, and is looked at again.
        """
        if found.kind is Kind.OWED:
            return None
        first = found.at if found.looks else now
        looks = 1 + sum(now - first >= pause for pause in LOOKS)
        return None if looks > len(LOOKS) else replace(self, looks=looks, at=first)


class Journal(Protocol):
    """What the media storages need of a journal. `tests/contract` holds its contract."""

    def begin(self, attempt: Attempt) -> None:
        """Record that a name is to be looked at on its servers, before anything changes."""

    def commit(self, attempt: Attempt, *, mode: int | None = None) -> Look:
        """Make the new file the master's. Raises `FileExistsError`, `SaveInterrupted`."""

    def restore(self, attempt: Attempt) -> bool:
        """Put back what a replacing attempt replaced. False when that was nothing."""

    def bury(self, attempt: Attempt) -> bool:
        """Delete the name and leave a tombstone. False when it was not there."""

    def settle(self, attempt: Attempt, owed: Iterable[str], unknown: Iterable[str]) -> None:
        """End an attempt: keep what these servers are owed, forget the rest."""

    def look(self, name: str) -> Look:
        """What the master says of `name` now."""

    def debts(self, server: str) -> Iterator[Debt]:
        """What a server is owed, oldest first."""

    def claim(self, debt: Debt) -> Debt | None:
        """Before a request is sent for a debt: note that it may become unknown."""

    def confirm(self, found: Debt, claimed: Debt) -> None:
        """The server did it: forget the debt, or plan the next look at an unknown one."""


def identity(found: os.stat_result) -> tuple[int, ...]:
    """Which file this is, and whether it is still the same content."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def started(attempt_id: str) -> float:
    """When an attempt began, from its id: seconds since the epoch."""
    try:
        return int(attempt_id[:14], 16) / 1e6
    except ValueError:
        return 0.0


def tombstone_path(name: str) -> list[str]:
    """Where the tombstone of a name is, below the folder of all: folders and a file.

    The quoted name, cut into levels of `_LEVEL` characters. A file's name ends
    in "=", which quoting leaves nowhere else, so that no name's tombstone is
    another's folder. Most names are short and take one level.
    """
    quoted = quote(name, safe="")
    levels = [quoted[at : at + _LEVEL] for at in range(0, len(quoted), _LEVEL)]
    return [*levels[:-1], levels[-1] + "="]


def tombstone_name(path: Iterable[str]) -> str:
    """The name whose tombstone is there."""
    return unquote("".join(path).removesuffix("="))
