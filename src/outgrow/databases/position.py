"""What a database server has written or replayed, as a value that travels in a cookie.

Who wrote is given the position of the primary after his write. A replica that has
replayed up to there may serve him. Each vendor counts in its own way, so there are
four kinds of positions.

The laws:

1. `reached_by` says True only for what is surely there. None means that the two can't
   be compared; for the reader that is as good as False.
2. Among positions that can be compared `reached_by` is a partial order, and `merged` is
   the least of those that have reached both.
3. `str` gives the text of a position and `parse` reads it back: ASCII without spaces.
   What comes from outside costs bounded work and ends as a position or a ValueError.
4. Equal positions are one value: sets are kept sorted, and their intervals merged.

Nothing here asks a server. `native` is the text that the server itself would write, and
`of` reads that.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

#: Characters that `parse` looks at; about what a cookie can hold.
MAX_LENGTH: Final = 4096

#: PostgreSQL 19 pads the second half with zeros.
_LSN: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_TIMELINE: Final = re.compile(r"[1-9][0-9]{0,9}")
#: One source's transactions: a UUID, then intervals; a tag stands before its intervals. The
#: quantifiers are possessive: what does not match is known at once.
_SOURCE: Final = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"(?:(?::[a-z_][a-z0-9_]{0,31})?+(?::[1-9][0-9]{0,18}(?:-[1-9][0-9]{0,18})?+)++)++"
)
_DOMAIN_GTID: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,20})")
_COUNT: Final = re.compile(r"([0-9A-Za-z_.-]{1,64}):([0-9]{1,20})")
_PRINTABLE: Final = re.compile(r"[!-~]*")

#: First and last of some transactions, both of them included.
Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Lsn:
    """A place in PostgreSQL's log, in bytes since its beginning, on one timeline.

    Each fail-over begins a new timeline, and places on two of them are not compared: where
    they part is not known here.
    """

    timeline: int
    value: int

    @classmethod
    def of(cls, timeline: int, text: str) -> Lsn:
        """The place that PostgreSQL writes as `text`, such as 0/16B3748; or ValueError."""
        high, low = _matched(_LSN, text).groups()
        return cls(timeline, int(high, 16) << 32 | int(low, 16))

    @property
    def native(self) -> str:
        """As PostgreSQL reads it; the timeline is lost."""
        return f"{self.value >> 32:X}/{self.value & 0xFFFFFFFF:X}"

    def __str__(self) -> str:
        return f"pg:{self.timeline}:{self.native}"

    def reached_by(self, other: Position) -> bool | None:
        """Whether a server at `other` has all that is before this place; None: unknown."""
        if not isinstance(other, Lsn) or other.timeline != self.timeline:
            return None
        return self.value <= other.value

    def merged(self, other: Position) -> Lsn | None:
        """The later one of the two; None if they can't be compared."""
        if not isinstance(other, Lsn) or other.timeline != self.timeline:
            return None
        return max(self, other, key=lambda one: one.value)


@dataclass(frozen=True, slots=True)
class GtidSet:
    """The transactions that a MySQL server has executed.

    `intervals` has for each source, "UUID" or "UUID:TAG", the numbers of its transactions.
    Sources and intervals are sorted, and neither overlap nor touch: `of` sees to that.
    """

    intervals: tuple[tuple[str, tuple[Interval, ...]], ...]

    @classmethod
    def of(cls, text: str) -> GtidSet:
        """The set that MySQL writes as `text`, such as @@GLOBAL.gtid_executed; or ValueError.

        Tags (MySQL 8.3) stand before the intervals that they are for.
        """
        found: dict[str, list[Interval]] = {}
        for member in text.split(",") if text else ():
            uuid, *words = _matched(_SOURCE, member.strip().lower()).group().split(":")
            source = uuid
            for word in words:
                if word[0].isdigit():
                    found.setdefault(source, []).append(_interval(word))
                else:
                    source = f"{uuid}:{word}"
        return _gtid_set(found)

    @property
    def native(self) -> str:
        """As MySQL reads it, without spaces."""
        text: list[str] = []
        last = None
        for source, intervals in self.intervals:
            uuid, _, tag = source.partition(":")
            if uuid != last:
                text.append(f",{uuid}")
                last = uuid
            text.extend([f":{tag}"] if tag else [])
            text.extend(
                f":{first}" if first == end else f":{first}-{end}" for first, end in intervals
            )
        return "".join(text)[1:]

    def __str__(self) -> str:
        return f"my:{self.native}"

    def reached_by(self, other: Position) -> bool | None:
        """Whether a server at `other` has executed all of these; None: another kind."""
        if not isinstance(other, GtidSet):
            return None
        theirs = dict(other.intervals)
        return all(
            _holds(theirs.get(source, ()), intervals) for source, intervals in self.intervals
        )

    def merged(self, other: Position) -> GtidSet | None:
        """The transactions of both; None: another kind."""
        if not isinstance(other, GtidSet):
            return None
        found = {source: list(intervals) for source, intervals in self.intervals}
        for source, intervals in other.intervals:
            found.setdefault(source, []).extend(intervals)
        return _gtid_set(found)


@dataclass(frozen=True, slots=True)
class DomainGtids:
    """The last transaction of each domain of a MariaDB server: (domain, server, sequence).

    Sorted, with one for each domain: `of` sees to that. In a domain the sequence only grows,
    whichever server writes. The same number from two servers means that each has written
    alone: such positions are not compared.
    """

    gtids: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, text: str) -> DomainGtids:
        """What MariaDB writes as `text`, such as @@GLOBAL.gtid_slave_pos; or ValueError."""
        found: dict[int, tuple[int, int]] = {}
        for member in text.split(",") if text else ():
            domain, server, sequence = map(int, _matched(_DOMAIN_GTID, member.strip()).groups())
            if domain in found:
                raise ValueError(f"domain {domain} has two positions in {text[:80]!r}")
            found[domain] = (server, sequence)
        return cls(_domain_gtids(found))

    @property
    def native(self) -> str:
        """As MariaDB reads it, without spaces."""
        return ",".join("-".join(map(str, gtid)) for gtid in self.gtids)

    def __str__(self) -> str:
        return f"ma:{self.native}"

    def reached_by(self, other: Position) -> bool | None:
        """Whether a server at `other` has come as far in each domain; None: unknown."""
        theirs = self._comparable(other)
        if theirs is None:
            return None
        return all(
            domain in theirs and sequence <= theirs[domain][1] for domain, _, sequence in self.gtids
        )

    def merged(self, other: Position) -> DomainGtids | None:
        """The later position of each domain; None if they can't be compared."""
        found = self._comparable(other)
        if found is None:
            return None
        for domain, server, sequence in self.gtids:
            if domain not in found or found[domain][1] < sequence:
                found[domain] = (server, sequence)
        return DomainGtids(_domain_gtids(found))

    def _comparable(self, other: Position) -> dict[int, tuple[int, int]] | None:
        """The domains of `other`; None where one number stands for two transactions."""
        if not isinstance(other, DomainGtids):
            return None
        theirs = {domain: (server, sequence) for domain, server, sequence in other.gtids}
        for domain, server, sequence in self.gtids:
            theirs_server, theirs_sequence = theirs.get(domain, (server, sequence))
            if theirs_sequence == sequence and theirs_server != server:
                return None
        return theirs


@dataclass(frozen=True, slots=True)
class Count:
    """A number that grows with each write: what stands in for a position with SQLite.

    `run` names who counts, in up to 64 ASCII letters, digits, "_", "." and "-". After a
    restart that is another one, and nothing can be compared.
    """

    run: str
    number: int

    def __post_init__(self) -> None:
        _matched(_COUNT, f"{self.run}:{self.number}")

    @classmethod
    def of(cls, text: str) -> Count:
        """What `native` has written; or ValueError."""
        run, number = _matched(_COUNT, text).groups()
        return cls(run, int(number))

    @property
    def native(self) -> str:
        """The run and the number."""
        return f"{self.run}:{self.number}"

    def __str__(self) -> str:
        return f"sq:{self.native}"

    def reached_by(self, other: Position) -> bool | None:
        """Whether `other` has counted as far; None: another kind or run."""
        if not isinstance(other, Count) or other.run != self.run:
            return None
        return self.number <= other.number

    def merged(self, other: Position) -> Count | None:
        """The larger one of the two; None: another kind or run."""
        if not isinstance(other, Count) or other.run != self.run:
            return None
        return max(self, other, key=lambda one: one.number)


Position = Lsn | GtidSet | DomainGtids | Count


def parse(text: str) -> Position:
    """The position that `str` has written as `text`; ValueError for anything else.

    A text of more than 4096 characters is refused, also if `str` has written it: a set
    with very many gaps is no cookie.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a position of {len(text)} characters is too long")
    kind, _, rest = text.partition(":")
    of = _KINDS.get(kind)
    if of is None or not _PRINTABLE.fullmatch(rest):
        raise ValueError(f"not a position: {text[:80]!r}")
    return of(rest)


def normalised_insert(value: int, block_size: int, segment_size: int) -> int:
    """The end of the last record, from where PostgreSQL will insert the next one.

    pg_current_wal_insert_lsn() stands behind a page's header when the last record filled the
    page before to its end, and a standby that has replayed everything stands at the border:
    it would seem to be behind until the next record. No record ends right behind a header,
    for then no byte of it would be on that page; so this is exact.

    Headers have 24 bytes, and 40 at the start of a segment (xlog_internal.h, where pointers
    have 64 bits). All arguments are in bytes: wal_block_size and wal_segment_size.
    """
    if value % segment_size == 40:
        return value - 40
    if value % block_size == 24:
        return value - 24
    return value


def _lsn(text: str) -> Lsn:
    timeline, _, place = text.partition(":")
    number = int(_matched(_TIMELINE, timeline).group())
    return Lsn.of(number, place)


_KINDS: Final[dict[str, Callable[[str], Position]]] = {
    "pg": _lsn,
    "my": GtidSet.of,
    "ma": DomainGtids.of,
    "sq": Count.of,
}


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"not a part of a position: {text[:80]!r}")
    return match


def _interval(text: str) -> Interval:
    first, _, last = text.partition("-")
    interval = int(first), int(last or first)
    if interval[0] > interval[1]:
        raise ValueError(f"an interval ends before it begins: {text!r}")
    return interval


def _gtid_set(found: dict[str, list[Interval]]) -> GtidSet:
    return GtidSet(tuple((source, _joined(found[source])) for source in sorted(found)))


def _joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The same numbers, in intervals that are sorted and don't touch."""
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return tuple(joined)


def _holds(theirs: tuple[Interval, ...], mine: tuple[Interval, ...]) -> bool:
    # What touches is joined, so an interval of mine has to lie within one of theirs.
    for first, last in mine:
        at = bisect_right(theirs, first, key=itemgetter(0))
        if at == 0 or theirs[at - 1][1] < last:
            return False
    return True


def _domain_gtids(found: dict[int, tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((domain, *found[domain]) for domain in sorted(found))
