"""What browsers have uploaded and nobody claimed, and the marks of what was: found, removed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from outgrow.objects.direct import FOLDER
from outgrow.objects.storages import ObjectStorage


class Arrived(NamedTuple):
    """An object of a direct upload; `size` is in bytes."""

    name: str
    size: int
    modified: datetime


def older_than(storage: ObjectStorage, age: timedelta) -> Iterator[Arrived]:
    """What arrived so long ago that no form will claim it any more, and its marks.

    An age below two hours would remove marks while their uploads can still be sent again:
    raises ValueError.
    """
    if age < timedelta(hours=2):
        raise ValueError("what is younger than two hours may still be claimed")
    before = datetime.now(UTC) - age
    for name, size, modified in storage.walk(FOLDER):
        if modified <= before:
            yield Arrived(name, size, modified)
