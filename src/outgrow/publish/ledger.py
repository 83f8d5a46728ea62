"""What a target remembers of releases, in documents of its own below ``outgrow-publish/``.

``releases/ID.json``  a record: a release that somebody began to push here, and when
``served/NUMBER.json`` the pointer: which release is served, and which ones were, until when; the
                      highest number counts
``condemned/*.json``  keys that a prune will delete, or is deleting

The laws:

1. A record is written before anything of its release, and before the target is looked at. So
   whoever deletes sees it, or is seen (law 3).
2. The pointer moves when everything that it points to is there: the next number is written, on
   condition that nobody else has written it. (All engines know "if there is none"; "if it is
   still this one" fails on Swift and on older Cephs.)
3. Who deletes says so first (`deleting_until`), then reads the records, and deletes nothing after
   that moment. Who publishes writes his record, then reads the condemned: either he sees the
   deletion, and waits for its end, or it sees his record, and spares his keys. It is the way
   by which two processes exclude each other with reads and writes alone (Dekker).
4. The age of a release counts from when it was last served; of one that never was, from when it
   was last begun.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from outgrow.errors import PublishError
from outgrow.publish import forms, release
from outgrow.publish.forms import Shape
from outgrow.publish.release import FORMAT, Release, canonical

FOLDER: Final = "outgrow-publish"
_SERVED: Final = f"{FOLDER}/served/"
_RELEASES: Final = f"{FOLDER}/releases/"
_CONDEMNED: Final = f"{FOLDER}/condemned/"


@dataclass(frozen=True)
class Record:
    """A release that somebody began to push, and in which shape."""

    release: Release
    shape: Shape
    written: datetime

    def keys(self) -> set[str]:
        """Every key that it may have written, pages and their copies too."""
        return {*self.shape.assets(self.release), *self.shape.pages(self.release)}

    def document(self) -> bytes:
        """For `read_record`."""
        return canonical(
            {
                "format": FORMAT,
                "written": moment(self.written),
                "siblings": self.shape.document(),
                "release": self.release.document(),
            }
        )


@dataclass(frozen=True, slots=True)
class Served:
    """A release that was served here, or was begun and given up; until when."""

    id: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which release is served; empty before the first. The former ones, the latest first."""

    id: str = ""
    number: int = 0
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    former: tuple[Served, ...] = ()

    def moved(
        self, to: str, now: datetime, unfinished: Iterable[str], known: Iterable[str]
    ) -> Pointer:
        """The pointer that points to another release.

        `unfinished` were begun and never served: what they wrote was looked at. Of the former
        ones those without a record are forgotten; `known` are the ids of all records.
        """
        left = [one.id for one in self.former]
        gone = [Served(self.id, now)] if self.id and self.id != to else []
        gone += [Served(one, now) for one in sorted(unfinished) if one != to and one not in left]
        former = tuple(one for one in self.former if one.id != to)
        kept = set(known)
        everyone = tuple(one for one in (*gone, *former) if one.id in kept)
        return Pointer(to, self.number + 1, now, everyone)

    def until(self, identifier: str) -> datetime | None:
        """When a former release was last served."""
        return next((one.until for one in self.former if one.id == identifier), None)

    def document(self) -> bytes:
        """For `read_pointer`."""
        return canonical(
            {
                "format": FORMAT,
                "release": self.id,
                "number": self.number,
                "since": moment(self.since),
                "former": [[one.id, moment(one.until)] for one in self.former],
            }
        )


@dataclass(frozen=True)
class Condemned:
    """Keys that nothing which is kept refers to, and the releases that go with them.

    `deleting_until` is the moment up to which somebody may be deleting them; None before that.
    """

    at: datetime
    releases: frozenset[str]
    keys: frozenset[str]
    deleting_until: datetime | None = None

    def deleting(self, until: datetime) -> Condemned:
        """The same, while it is carried out."""
        return replace(self, deleting_until=until)

    def document(self) -> bytes:
        """For `read_condemned`."""
        until = self.deleting_until
        return canonical(
            {
                "format": FORMAT,
                "at": moment(self.at),
                "releases": sorted(self.releases),
                "keys": sorted(self.keys),
                "deleting_until": moment(until) if until else None,
            }
        )


def moment(when: datetime) -> str:
    """A moment as it stands in the documents."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _when(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def pointer_key(number: int) -> str:
    """Where the pointer of a number lies."""
    return f"{_SERVED}{number:08}.json"


def pointer_number(key: str) -> int | None:
    """The number of the pointer that lies at a key; None for all other keys."""
    digits = key.removeprefix(_SERVED).removesuffix(".json")
    return int(digits) if key == f"{_SERVED}{digits}.json" and digits.isdecimal() else None


def record_key(identifier: str) -> str:
    """Where a record lies."""
    return f"{_RELEASES}{identifier}.json"


def record_id(key: str) -> str | None:
    """The release whose record lies at a key; None for all other keys."""
    if key.startswith(_RELEASES) and key.endswith(".json"):
        return key[len(_RELEASES) : -len(".json")]
    return None


def condemned_key(mark: str) -> str:
    """Where condemned keys are noted; `mark` is unique."""
    return f"{_CONDEMNED}{mark}.json"


def is_condemned(key: str) -> bool:
    """Whether condemned keys are noted at this key."""
    return key.startswith(_CONDEMNED) and key.endswith(".json")


def read_record(content: bytes, source: str) -> Record:
    """From its document. Raises PublishError, which names `source`."""
    found = _document(content, source)
    try:
        when, shape = _when(found["written"]), forms.shape(found["siblings"])
        inside = found["release"]
    except (KeyError, TypeError, ValueError) as error:
        raise PublishError(f"{source} is no record of a release: {error!r}.") from error
    return Record(release.parse(inside, source), shape, when)


def read_pointer(content: bytes, source: str) -> Pointer:
    """From its document. Raises PublishError, which names `source`."""
    found = _document(content, source)
    try:
        former = tuple(Served(str(one), _when(until)) for one, until in found["former"])
        number = int(found["number"])
        return Pointer(str(found["release"]), number, _when(found["since"]), former)
    except (KeyError, TypeError, ValueError) as error:
        raise PublishError(f"{source} is no pointer to a release: {error!r}.") from error


def read_condemned(content: bytes, source: str) -> Condemned:
    """From its document. Raises PublishError, which names `source`."""
    found = _document(content, source)
    try:
        until = found["deleting_until"]
        return Condemned(
            _when(found["at"]),
            frozenset(map(str, found["releases"])),
            frozenset(map(str, found["keys"])),
            _when(until) if until else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PublishError(f"{source} is no list of condemned keys: {error!r}.") from error


def _document(content: bytes, source: str) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise PublishError(f"{source} is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise PublishError(f"{source} is no document of Outgrow.")
    if found.get("format") != FORMAT:
        raise PublishError(
            f"{source} has the format {found.get('format')!r}; this Outgrow knows {FORMAT}. "
            "Was it written by a newer one?"
        )
    return found
