"""What clients saw, and what is found afterwards -> which promises were broken.

A value in, a value out. Names of broken promises are the columns of the report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

READ: Final = "read"
#: A read by who has written a moment ago, of what he wrote.
READ_BACK: Final = "read back"
WRITE: Final = "write"
UPLOAD: Final = "upload"
DELETE: Final = "delete"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as its client saw it.

    `at` is when it was sent, and `took` how long it was until its end, in seconds. `ok` means
    that the whole answer came and says that it was done; else `problem` says what came. `id` is
    that of a write, for its read back too; `name` and `digest` (SHA-256) are a file's.
    """

    at: float
    kind: str
    id: str
    ok: bool
    took: float = 0.0
    name: str = ""
    digest: str = ""
    stale: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What is there in the end.

    `executions` counts the rows of each request; `files` has for each server the digests of the
    files that were asked for, and nothing for those that it does not have.
    """

    executions: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broken:
    """Promises that were not kept: ids of requests, and "server: name" of files."""

    lost: frozenset[str] = frozenset()
    twice: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    undeleted: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()

    def __sub__(self, other: Self) -> Broken:
        """What is broken here and was not there: a later drill is not blamed for an earlier one."""
        return Broken(
            self.lost - other.lost,
            self.twice - other.twice,
            self.missing - other.missing,
            self.undeleted - other.undeleted,
            self.stale - other.stale,
        )

    def __or__(self, other: Self) -> Broken:
        return Broken(
            self.lost | other.lost,
            self.twice | other.twice,
            self.missing | other.missing,
            self.undeleted | other.undeleted,
            self.stale | other.stale,
        )

    def __bool__(self) -> bool:
        return any((self.lost, self.twice, self.missing, self.undeleted, self.stale))


@dataclass(frozen=True, slots=True)
class Expected:
    """Files that must be there, with their digests, and files that must not be."""

    kept: Mapping[str, str]
    gone: frozenset[str]


def expected(requests: Iterable[Request]) -> Expected:
    """What acknowledgements promise of files.

    One whose deletion was asked for, and not acknowledged, may be there or not.
    """
    kept: dict[str, str] = {}
    asked, gone = set(), set()
    for request in requests:
        if request.kind == UPLOAD and request.ok:
            kept[request.name] = request.digest
        elif request.kind == DELETE:
            asked.add(request.name)
            if request.ok:
                gone.add(request.name)
    return Expected({n: d for n, d in kept.items() if n not in asked}, frozenset(gone))


def judge(requests: Iterable[Request], found: Found) -> Broken:
    """Which promises were broken."""
    requests = tuple(requests)
    files = expected(requests)
    acknowledged = {one.id for one in requests if one.kind == WRITE and one.ok}
    return Broken(
        lost=frozenset(acknowledged - found.executions.keys()),
        twice=frozenset(id_ for id_, times in found.executions.items() if times > 1),
        missing=frozenset(
            f"{server}: {name}"
            for server, has in found.files.items()
            for name, digest in files.kept.items()
            if has.get(name) != digest
        ),
        undeleted=frozenset(
            f"{server}: {name}"
            for server, has in found.files.items()
            for name in files.gone & has.keys()
        ),
        stale=frozenset(one.id for one in requests if one.stale),
    )


def until_normal(requests: Iterable[Request], fault: float) -> int:
    """Whole seconds from the fault until the first after which all requests succeed."""
    last = max((one.at for one in requests if not one.ok and one.at >= fault), default=None)
    return 0 if last is None else math.floor(last - fault) + 1


def without_writes(requests: Iterable[Request], fault: float) -> int:
    """Whole seconds since the fault in which writes were sent, and none of them succeeded."""
    sent: dict[int, bool] = {}
    for one in requests:
        if one.kind == WRITE and one.at >= fault:
            second = math.floor(one.at - fault)
            sent[second] = sent.get(second, False) or one.ok
    return sum(not succeeded for succeeded in sent.values())
