"""What is at a target: its files, and what its ledger says. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from outgrow.errors import PublishError
from outgrow.publish import ledger
from outgrow.publish.forms import PAGES
from outgrow.publish.ledger import Condemned, Pointer, Record
from outgrow.publish.targets import Target

_NONE: Final = Pointer()


@dataclass(frozen=True)
class Seen:
    """One look at a target.

    `files` are the keys with their bytes, without the ledger's documents; `records` the ids of
    the releases that have one; `pointers` the numbers of the pointers that are kept.
    """

    files: Mapping[str, int]
    records: frozenset[str]
    pointers: tuple[int, ...]
    pointer: Pointer
    condemned: Mapping[str, Condemned]

    def condemned_keys(self) -> frozenset[str]:
        """All keys that somebody wants to delete."""
        return frozenset().union(*(one.keys for one in self.condemned.values()))

    def unfinished(self) -> frozenset[str]:
        """The releases that were begun and never served, as far as nobody has seen to them."""
        seen = {self.pointer.id, *(one.id for one in self.pointer.former)}
        return self.records - seen


def pointer(target: Target) -> Pointer:
    """Which release is served: one short listing, and one document."""
    keys = (key for key, _size in target.listing(f"{ledger.FOLDER}/served"))
    numbers = [number for number in map(ledger.pointer_number, keys) if number is not None]
    return _pointer(target, numbers, _NONE)


def look(target: Target, known: Pointer = _NONE) -> Seen:
    """List a target whole, and read what the ledger says now.

    `known` is a pointer that was read a moment ago: it is not read again while it is the last.
    """
    files: dict[str, int] = {}
    records: set[str] = set()
    numbers: list[int] = []
    condemned: list[str] = []
    for key, size in target.listing():
        if not key.startswith(f"{ledger.FOLDER}/") or key.startswith(f"{PAGES}/"):
            files[key] = size
        elif identifier := ledger.record_id(key):
            records.add(identifier)
        elif number := ledger.pointer_number(key):
            numbers.append(number)
        elif ledger.is_condemned(key):
            condemned.append(key)
    return Seen(
        files,
        frozenset(records),
        tuple(sorted(numbers)),
        _pointer(target, numbers, known),
        _condemned(target, condemned),
    )


def releases(target: Target) -> frozenset[str]:
    """The ids of the releases that have a record: one short listing."""
    keys = (key for key, _size in target.listing(f"{ledger.FOLDER}/releases"))
    return frozenset(identifier for key in keys if (identifier := ledger.record_id(key)))


def record(target: Target, identifier: str) -> Record:
    """The record of one release. Raises PublishError where there is none."""
    found = record_if_any(target, identifier)
    if found is None:
        raise PublishError(
            f"{target.name} has no release {identifier}. It was never pushed there, or was pruned."
        )
    return found


def record_if_any(target: Target, identifier: str) -> Record | None:
    """The same; None where there is none any more."""
    key = ledger.record_key(identifier)
    content = target.read(key)
    return None if content is None else ledger.read_record(content, f"{target.name}: {key}")


def _pointer(target: Target, numbers: Iterable[int], known: Pointer) -> Pointer:
    # A listing may be older than what is there: what has been deleted meanwhile was too old.
    for number in sorted(numbers, reverse=True):
        if number == known.number:
            return known  # what has a number is never written over
        key = ledger.pointer_key(number)
        content = target.read(key)
        if content is not None:
            return ledger.read_pointer(content, f"{target.name}: {key}")
    return Pointer()


def _condemned(target: Target, keys: Iterable[str]) -> dict[str, Condemned]:
    found = {}
    for key in keys:
        content = target.read(key)
        if content is not None:
            found[key] = ledger.read_condemned(content, f"{target.name}: {key}")
    return found
