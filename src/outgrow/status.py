"""What is known of every media server: one snapshot for the page, the command and alerts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.core.files.storage import storages

from outgrow.media.directory import DirectoryJournal
from outgrow.media.storages import HybridStorage, configured
from outgrow.servers import Server

#: Seconds for which what the watch wrote is believed, and it counts as running.
HEARTBEAT_FRESH: Final = 30.0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One media server. `oldest` is the age in seconds of what it is owed longest.

    `unknown` counts requests that were confirmed since, and are still watched.
    """

    name: str
    address: str
    up: bool
    since: datetime | None
    owed: int
    unknown: int
    oldest: float | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every media server of one storage, and when `media repair --watch` was last alive.

    `retired` names servers that have records and are not configured any more.
    """

    storage: str
    servers: tuple[ServerStatus, ...]
    in_progress: int
    watched_at: datetime | None
    watch_age: float | None
    retired: tuple[str, ...]

    @property
    def is_watched(self) -> bool:
        """Whether `media repair --watch` is running, as far as its heartbeat says."""
        return self.watch_age is not None and self.watch_age < HEARTBEAT_FRESH

    def problems(self, max_age: float) -> list[str]:
        """What an operator is to be woken for, in words. `max_age` is in seconds."""
        found = []
        if not self.is_watched:
            last = f"{self.watch_age:.0f} s ago" if self.watch_age is not None else "never"
            found.append(
                f"'manage.py outgrow media repair --watch' is not running (last seen: {last}). "
                "Start it: without it nothing is repaired."
            )
        for server in self.servers:
            if server.oldest is not None and server.oldest > max_age:
                why = f": {server.last_error}" if server.last_error else ""
                found.append(
                    f"{server.name} is owed {server.owed} files, the oldest for "
                    f"{server.oldest:.0f} s{why}"
                )
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


def media_storages() -> Iterator[tuple[str, HybridStorage]]:
    """The media storages among STORAGES, with their aliases."""
    for alias, _, _ in configured():
        storage = storages[alias]
        if isinstance(storage, HybridStorage):
            yield alias, storage


def snapshot(alias: str = "default", *, probe: bool = False) -> Snapshot:
    """What is known of the media servers of one storage.

    Takes what the watch wrote a moment ago; where there is no watch, or with
    `probe`, asks each server itself, for up to `transport.SMALL_REQUEST` seconds.
    Raises `TypeError` when the storage is not a media storage.
    """
    storage = storages[alias]
    if not isinstance(storage, HybridStorage):
        raise TypeError(f"STORAGES[{alias!r}] is {type(storage).__name__}, not a HybridStorage.")
    journal = storage.journal
    journal.prepare()
    beat = journal.read_heartbeat() or {}
    at = beat.get("at")
    age = time.time() - at if isinstance(at, (int, float)) else None
    seen = beat.get("servers") if age is not None and age < HEARTBEAT_FRESH else None
    known = dict(seen) if isinstance(seen, dict) else {}
    servers = storage.options.servers
    if probe or any(server.name not in known for server in servers):
        known |= _probe(storage, known)
    return Snapshot(
        storage=alias,
        servers=tuple(_status(server, journal, known[server.name]) for server in servers),
        in_progress=sum(1 for _ in journal.attempts()),
        watched_at=datetime.fromtimestamp(at, UTC) if isinstance(at, (int, float)) else None,
        watch_age=age,
        retired=tuple(_retired(journal, {server.name for server in servers})),
    )


def _probe(storage: HybridStorage, known: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for server, problem in storage.transport.probe().items():
        before = known.get(server.name, {})
        same = before.get("up") is (problem is None)
        found[server.name] = {
            "up": problem is None,
            "since": before.get("since") if same else None,
            "error": problem.reason if problem else before.get("error", ""),
        }
    return found


def _status(server: Server, journal: DirectoryJournal, seen: dict[str, Any]) -> ServerStatus:
    owed, watched, oldest = journal.summary(server.name)
    since = seen.get("since")
    return ServerStatus(
        name=server.name,
        address=server.address,
        up=bool(seen.get("up")),
        since=datetime.fromtimestamp(since, UTC) if isinstance(since, (int, float)) else None,
        owed=owed,
        unknown=watched,
        oldest=None if oldest is None else max(0.0, time.time() - oldest),
        last_error=str(seen.get("error", "")),
    )


def _retired(journal: DirectoryJournal, configured: set[str]) -> Iterator[str]:
    for name in journal.servers():
        if name not in configured and journal.count(name):
            yield name
