"""Two listings -> what a copy has to do.

The laws:

1. What the source has and the target has not is copied.
2. What both have with as many bytes is left alone, or compared, if that was asked for, or if
   nobody says how many bytes it has.
3. What both have with other bytes is looked at again: the newer one is never replaced.
4. What the target alone has is told of. Whether it is deleted is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

#: Bytes of a file whose storage does not tell them in its listing.
UNKNOWN: Final = -1


class Found(NamedTuple):
    """A file in a listing, and its bytes; or `UNKNOWN`."""

    name: str
    size: int = UNKNOWN


class Verb(StrEnum):
    """What is to be done with a name."""

    COPY = "copy"
    COMPARE = "compare"
    REPLACE = "replace"
    EXTRA = "extra"


class Action(NamedTuple):
    """One name, what is to be done, and the bytes of its file; or `UNKNOWN`."""

    verb: Verb
    name: str
    size: int


def plan(
    source: Iterable[Found], target: Iterable[Found], *, verify: bool = False
) -> Iterator[Action | None]:
    """Both listings in the order of names -> what is to be done with each name, in order.

    None stands for a name that needs nothing. A name that a listing has twice counts once.
    """
    left, right = _once(source), _once(target)
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.name < other.name):
            assert one is not None
            yield Action(Verb.COPY, one.name, one.size)
            one = next(left, None)
        elif one is None or other.name < one.name:
            yield Action(Verb.EXTRA, other.name, other.size)
            other = next(right, None)
        else:
            yield _both(one, other, verify=verify)
            one, other = next(left, None), next(right, None)


def _both(source: Found, target: Found, *, verify: bool) -> Action | None:
    if UNKNOWN in {source.size, target.size}:
        return Action(Verb.COMPARE, source.name, source.size)
    if source.size != target.size:
        return Action(Verb.REPLACE, source.name, source.size)
    return Action(Verb.COMPARE, source.name, source.size) if verify else None


def _once(listing: Iterable[Found]) -> Iterator[Found]:
    last = ""
    for found in listing:
        if found.name != last:
            yield found
        last = found.name
