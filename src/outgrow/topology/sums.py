"""A sum as a value: what a server needs of one thing, in numbers and in words.

The laws:

1. The text of a sum is made of the same numbers as its total, so the two agree.
2. A limit is one that is met by an error: a database that refuses a connection, a process that
   may open no file more, a server whose memory the file names. What only waits its turn is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from outgrow.topology.capacity import Term, total
from outgrow.topology.model import Host

#: What a sum is of.
PROCESSES: Final = "processes"
MEMORY: Final = "memory"
CONNECTIONS: Final = "connections"
FILES: Final = "open files of a process"
DISK: Final = "disk"
INODES: Final = "inodes"

#: Megabytes, 10^6 bytes.
MB: Final = "MB"

#: What has no plural of its own.
_UNCOUNTED: Final = ("to spare", "above them", "kept")


@dataclass(frozen=True, slots=True)
class Sum:
    """What one server needs of one thing in one role, or in all of them if that is "".

    `more` is what comes on top and has no number. With a `limit`, `limited_by` says what sets it
    and `remedy` what to do when it is too low.
    """

    role: str
    what: str
    terms: tuple[Term, ...] = ()
    unit: str = ""
    more: str = ""
    limit: int | None = None
    limited_by: str = ""
    remedy: str = ""

    @property
    def total(self) -> int | None:
        """What the terms come to, rounded up; None where there is no number."""
        return total(self.terms) if self.terms else None

    @property
    def exceeds(self) -> bool:
        """Whether it is more than the limit."""
        return self.limit is not None and (self.total or 0) > self.limit

    @property
    def text(self) -> str:
        """The sum in words and numbers."""
        added = [" x ".join(_counted(*factor) for factor in term) for term in self.terms]
        return " + ".join([*added, *([self.more] if self.more else [])])


@dataclass(frozen=True, slots=True)
class Need:
    """All that one server needs."""

    host: Host
    sums: tuple[Sum, ...]

    @property
    def exceeded(self) -> tuple[Sum, ...]:
        """The sums that are more than their limit."""
        return tuple(one for one in self.sums if one.exceeds)


# --- for people and machines


def facts(found: Iterable[Need]) -> list[dict[str, Any]]:
    """Every sum for JSON."""
    return [
        {
            "server": one.host.name,
            "role": each.role,
            "what": each.what,
            "sum": each.text,
            "total": each.total,
            "unit": each.unit,
            "more": each.more,
            "limit": each.limit,
            "limited_by": each.limited_by,
            "exceeds": each.exceeds,
        }
        for one in found
        for each in one.sums
    ]


def named(one: Sum, several: bool) -> str:
    """What a sum is of, with the role on a server that has several."""
    return f"{one.what} ({one.role or 'all'})" if several else one.what


def shown(one: Sum) -> str:
    """A total for people; "" where there is none."""
    if one.total is None:
        return ""
    return f"{one.total:,} {one.unit}".strip()


def shown_limit(one: Sum) -> str:
    """A limit for people, and what sets it; "" where there is none."""
    return "" if one.limit is None else f"{_number(one.limit)} ({one.limited_by})"


def warnings(found: Iterable[Need]) -> Iterator[str]:
    """A sentence for each sum that is more than its limit."""
    for one in found:
        for each in one.exceeded:
            sentence = f"{one.host.name}: {each.what}: {shown(each)} is more than"
            yield f"{sentence} {shown_limit(each)}. {each.remedy}".strip()


def _counted(number: float, noun: str) -> str:
    if number == 1 or noun in _UNCOUNTED or noun.startswith(MB):
        return f"{_number(number)} {noun}"
    return f"{_number(number)} {noun}{'es' if noun.endswith('s') else 's'}"


def _number(number: float) -> str:
    return f"{number:,g}" if number < 1 else f"{number:,.0f}"
