"""What is known of every media server: one snapshot for the page, the command and alerts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.apps import apps
from django.core.files.storage import storages

from outgrow import conf
from outgrow.errors import ForeignServer
from outgrow.media.base import Replicated
from outgrow.media.journal import Heartbeat, Journal, started
from outgrow.media.storages import configured
from outgrow.servers import Server

#: Seconds for which what the watch wrote is believed, and it counts as running.
HEARTBEAT_FRESH: Final = 30.0

#: Seconds for which a file may be owed before someone is to be told, if nothing else is said.
MAX_AGE: Final = 600.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One media server. `oldest` is the age in seconds of what it is owed longest.

    `unknown` counts requests that were confirmed since, and are still watched. `owed_all`:
    a comparison of every file is still to be done. `foreign`: it holds another master's
    id, or has lost its own.
    """

    name: str
    address: str
    up: bool
    since: datetime | None
    owed: int
    owed_all: bool
    unknown: int
    oldest: float | None
    last_error: str
    foreign: bool = False

    def problems(self, max_age: float) -> Iterator[str]:
        """What an operator is to be woken for because of this server."""
        why = f": {self.last_error}" if self.last_error else ""
        if self.foreign:
            yield f"{self.name} is not written to{why}"
        elif self.oldest is not None and self.oldest > max_age:
            what = "everything" if self.owed_all else f"{self.owed} files"
            yield f"{self.name} is owed {what}, the oldest for {self.oldest:.0f} s{why}"


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """One `media repair --watch`: its host and process, and the seconds since its last sign.

    `totals` is what it has done since it began: "put", "deleted" and "errors". What others
    did (a pass of `media repair`, a job, a save) is not in it. One that has stopped stays
    for an hour.
    """

    name: str
    age: float
    totals: dict[str, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every media server of one storage, and when `media repair --watch` was last alive.

    `retired` names servers that have records and are not configured any more; `needed`
    is how many servers a save needs. `in_progress` counts saves and deletes that the servers
    have not been told of yet, or are just being told; `oldest_change` is the age in seconds
    of the first of them.
    """

    storage: str
    servers: tuple[ServerStatus, ...]
    needed: int
    in_progress: int
    oldest_change: float | None
    watched_at: datetime | None
    watch_age: float | None
    retired: tuple[str, ...]
    #: Whether there is anything that a watch could repair.
    has_journal: bool = True
    #: The watches, the one that was seen last first.
    watches: tuple[WatchStatus, ...] = ()

    @property
    def is_watched(self) -> bool:
        """Whether `media repair --watch` is running, as far as its heartbeat says."""
        return self.watch_age is not None and self.watch_age < HEARTBEAT_FRESH

    def problems(self, max_age: float) -> list[str]:
        """What an operator is to be woken for, in words. `max_age` is in seconds."""
        found = []
        if self.has_journal and not self.is_watched:
            last = f"{self.watch_age:.0f} s ago" if self.watch_age is not None else "never"
            found.append(
                f"'manage.py outgrow media repair --watch' is not running (last seen: {last}). "
                "Start it: without it nothing is repaired."
            )
        up = sum(server.up for server in self.servers)
        if up < self.needed:
            found.append(
                f"{up} of {len(self.servers)} servers are up, and a save needs {self.needed}: "
                "saves fail now."
            )
        if self.oldest_change is not None and self.oldest_change > max_age:
            found.append(
                f"{self.in_progress} saves and deletes wait for their turn, the first for "
                f"{self.oldest_change:.0f} s: the queue of this storage is too slow, or nobody "
                "works it off."
            )
        for server in self.servers:
            found += server.problems(max_age)
        return found

    def to_json(self) -> dict[str, Any]:
        """The snapshot as plain values; times as ISO 8601."""
        return {
            **asdict(self),
            "servers": [
                {**asdict(one), "since": one.since and one.since.isoformat()}
                for one in self.servers
            ],
            "watched_at": self.watched_at and self.watched_at.isoformat(),
            "is_watched": self.is_watched,
        }


def media_storages() -> Iterator[tuple[str, Replicated]]:
    """The media storages of the site: those of STORAGES, and those of single fields.

    Each comes with its alias, or with its field as ``app.Model.field``.
    """
    seen: set[int] = set()
    storage: object
    for alias, _, _ in configured():
        storage = storages[alias]
        if isinstance(storage, Replicated):
            seen.add(id(storage))
            yield alias, storage
    for model in apps.get_models():
        for one in model._meta.get_fields():  # noqa: SLF001 - Django's documented interface
            storage = getattr(one, "storage", None)
            storage = getattr(storage, "_wrapped", storage)  # default_storage is lazy
            if isinstance(storage, Replicated) and id(storage) not in seen:
                seen.add(id(storage))
                yield str(one), storage


def snapshot(alias: str = "default", *, probe: bool = False) -> Snapshot:
    """What is known of the media servers of one storage; changes nothing on them.

    `alias` is that of STORAGES, or a field as in `media_storages`. Takes what the watch
    wrote a moment ago; where there is no watch, or with `probe`, asks each server
    itself, for up to `transport.SMALL_REQUEST` seconds. Raises `TypeError` when the
    storage is not a media storage.
    """
    own = alias in conf.storages()
    storage: Any = storages[alias] if own else dict(media_storages()).get(alias)
    if not isinstance(storage, Replicated):
        kind = type(storage).__name__ if storage else "not there"
        raise TypeError(f"STORAGES[{alias!r}] is {kind}, no media storage of Outgrow.")
    return snapshot_of(alias, storage, probe=probe)


def snapshot_of(alias: str, storage: Replicated, *, probe: bool = False) -> Snapshot:
    """`snapshot`, for a storage at hand."""
    journal = storage.journal
    journal.prepare()
    beats = journal.heartbeats()
    age = beats[0].age if beats else None
    seen = beats[0].beat.get("servers") if beats and beats[0].age < HEARTBEAT_FRESH else None
    known = dict(seen) if isinstance(seen, dict) else {}
    servers = storage.options.servers
    begun = [started(attempt.id) for attempt in journal.attempts()]
    if probe or any(server.name not in known for server in servers):
        known |= _probe(storage, known)
    return Snapshot(
        storage=alias,
        servers=tuple(_status(server, journal, known[server.name]) for server in servers),
        needed=storage.options.need,
        in_progress=len(begun),
        oldest_change=max(0.0, time.time() - min(begun)) if begun else None,
        watched_at=None if age is None else datetime.fromtimestamp(time.time() - age, UTC),
        watch_age=age,
        retired=tuple(_retired(journal, {server.name for server in servers})),
        has_journal=storage.options.journal != "none",
        watches=tuple(_watch(one) for one in beats),
    )


def _watch(heartbeat: Heartbeat) -> WatchStatus:
    totals = heartbeat.beat.get("totals")
    return WatchStatus(
        heartbeat.watch, heartbeat.age, dict(totals) if isinstance(totals, dict) else {}
    )


def _probe(storage: Replicated, known: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for server, problem in storage.transport.probe(claim=False).items():
        before = known.get(server.name, {})
        same = before.get("up") is (problem is None)
        found[server.name] = {
            "up": problem is None,
            "since": before.get("since") if same else None,
            "error": problem.reason if problem else before.get("error", ""),
            "foreign": isinstance(problem, ForeignServer),
        }
    return found


def _status(server: Server, journal: Journal, seen: dict[str, Any]) -> ServerStatus:
    owed, watched, oldest = journal.summary(server.name)
    since = seen.get("since")
    return ServerStatus(
        name=server.name,
        address=server.address,
        up=bool(seen.get("up")),
        since=datetime.fromtimestamp(since, UTC) if isinstance(since, (int, float)) else None,
        owed=owed,
        owed_all=journal.is_owed_all(server.name),
        unknown=watched,
        oldest=None if oldest is None else max(0.0, time.time() - oldest),
        last_error=str(seen.get("error", "")),
        foreign=bool(seen.get("foreign")),
    )


def _retired(journal: Journal, configured: set[str]) -> Iterator[str]:
    for name in journal.servers():
        if name not in configured and journal.count(name):
            yield name
