"""Whether the media servers have what they should: every name, every size, every byte.

A comparison tells what looks wrong. Each difference is then looked at again, on the master
and on the server, since the site goes on writing meanwhile; what is left is wrong, or
is owed already. Nothing is changed here but by `owe` and `remove_extra`.

The laws:

1. What is deleted here is deleted by the protocol: a tombstone first. A file that the
   master has never heard of is only removed when somebody asks for that, after a
   grace, and never many of them without more words.
2. Two servers that agree with each other and not with the master speak against the
   master. Then nothing is mended by itself.
3. Memory does not depend on the number of files; of what is wrong `SHOWN` are kept.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final

from outgrow.errors import NoListing, ServerError, UnexpectedStatus
from outgrow.fanout import DEADLINE
from outgrow.media import names
from outgrow.media.comparison import BATCH, Comparison
from outgrow.media.journal import Look, Wanted
from outgrow.media.listing import Difference, Entry, pairs
from outgrow.media.replication import Replication, run
from outgrow.servers import Server

#: Findings that are kept for each server; all are counted.
SHOWN: Final = 1000

#: Seconds for which a file that nobody has heard of is left alone: its upload may only
#: just have begun, or a backup may be about to be restored.
GRACE: Final = 86400.0

#: Files that are removed at once without `force`.
REMOVE_LIMIT: Final = 100

_PIECE: Final = 1 << 18

#: What can be wrong with a name on a server, in the order in which it is told.
MISSING, DIFFERENT, CONTENT, UNDELETED, EXTRA = WRONG = (
    "missing",
    "different",
    "content",
    "undeleted",
    "extra",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One name that is not on one server as it should be. Sizes are bytes, -1 for no file."""

    server: str
    name: str
    what: str
    wanted: int = -1
    found: int = -1
    #: When the server's file was changed last, in seconds since the epoch, if it says so.
    modified: float | None = None
    #: What the server's bytes come to, where that speaks against the master's disk.
    digest: str = ""


@dataclass(slots=True)
class Verdict:
    """What was found on one server. `counts` has each of `WRONG`.

    `owed` counts what is wrong and will be mended by itself, `hashed` the files whose bytes
    were compared; `listed`: the server has a listing. `down` is why it was not looked at, or not
    to the end.
    """

    server: str
    compared: int = 0
    owed: int = 0
    hashed: int = 0
    listed: bool = True
    down: str = ""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WRONG, 0))
    findings: list[Finding] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong but what is owed."""
        return not self.down and not any(self.counts.values())

    def note(self, finding: Finding) -> None:
        """Count a finding, and keep it if there is room."""
        self.counts[finding.what] += 1
        if len(self.findings) < SHOWN:
            self.findings.append(finding)


@dataclass(slots=True)
class Verification:
    """What was found on all servers. `unreadable`: names on the master, with the reason.

    `suspect` has the names whose bytes on the master are unlike those that two servers have.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    suspect: list[str] = field(default_factory=list)
    owed_now: int = 0
    removed: int = 0

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong but what is owed."""
        return not self.unreadable and all(one.equal for one in self.verdicts)

    def failed(self, name: str, error: OSError) -> None:
        """Note what can't be read on the master."""
        if len(self.unreadable) < SHOWN:
            self.unreadable[name or "MEDIA_ROOT"] = error.strerror or str(error)

    def facts(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "equal": self.equal}


class Pace:
    """At most `rate` bytes a second; 0 is no limit. `sleep` waits."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0

    def spend(self, size: int) -> None:
        """Wait until the bytes before these have had their time."""
        if not self._rate:
            return
        now = self._clock()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        self._free_at = max(self._free_at, now) + size / self._rate


class Verify:
    """Compares servers with the master. One run at a time.

    `only` limits it to servers of these names, and `prefix` to files. With `digest` the
    bytes of all files are compared, or of `sample` random ones, at `rate` bytes a second.
    """

    def __init__(
        self,
        replication: Replication,
        *,
        only: Iterable[str] = (),
        prefix: str = "",
        digest: bool = False,
        sample: int | None = None,
        pace: Pace | None = None,
        choose: random.Random | None = None,
    ) -> None:
        self.replication = replication
        self.journal = replication.journal
        chosen = set(only)
        self.servers = [
            one for one in replication.transport.servers if not chosen or one.name in chosen
        ]
        self._prefix = prefix
        self._digest = digest or sample is not None
        self._sample = sample
        self._pace = pace or Pace(0)
        self._random = choose or random.Random()  # noqa: S311 - which files are looked at

    def run(self, progress: Callable[[str], None] = lambda _: None) -> Verification:
        """Compare. `progress` is called with each name, once for each server.

        Raises nothing for a server's or a file's sake; `MasterError`, or another `OSError`,
        when the journal can't be used.
        """
        found = Verification()
        problems = self.replication.transport.probe(self.servers, claim=False)
        for server in self.servers:
            verdict = Verdict(server.name)
            found.verdicts.append(verdict)
            problem = problems[server]
            try:
                if problem is not None:
                    raise problem
                if not self.journal.is_claimed(server.name):
                    verdict.down = (
                        "it is new, and has nothing yet. Run: manage.py outgrow media repair"
                    )
                    continue
                self._compare(server, verdict, found, progress)
                if self._digest:
                    self._hash_all(server, verdict, found, progress)
            except ServerError as error:
                verdict.down = error.reason
        found.suspect = _suspects(found.verdicts)
        return found

    # --- names and sizes

    def _compare(
        self,
        server: Server,
        verdict: Verdict,
        found: Verification,
        progress: Callable[[str], None],
    ) -> None:
        def seen(name: str) -> None:
            verdict.compared += 1
            progress(name)

        def unlisted(_: Server, error: ServerError) -> None:
            verdict.compared, verdict.listed = 0, False
            if not isinstance(error, NoListing):
                found.unreadable[f"the listing of {server.name}"] = error.reason

        comparison = Comparison(
            self.journal,
            self.replication.transport,
            prefix=self._prefix,
            failed=found.failed,
            progress=seen,
            unlisted=unlisted,
        )
        differences = comparison.differences(server)
        owed: frozenset[str] | None = None
        while batch := list(islice(differences, BATCH)):
            if owed is None:
                owed = frozenset(debt.name for debt in self.journal.debts(server.name))
            self._look_again(server, batch, owed, verdict)

    def _look_again(
        self, server: Server, batch: list[Difference], owed: frozenset[str], verdict: Verdict
    ) -> None:
        """Note what is still wrong. An empty name in `owed` stands for everything."""
        safe = [one for one in batch if names.is_safe(one.name)]
        until = time.monotonic() + DEADLINE
        asked = {one.name: (server,) for one in safe}
        outcomes = self.replication.transport.stat_all(asked, deadline=until)
        for one in safe:
            outcome = outcomes[one.name]
            response = outcome.done.get(server)
            if response is None and not isinstance(outcome.missed[server], UnexpectedStatus):
                raise outcome.missed[server]
            size = -1
            if response is not None and response.status == 200:
                length = response.headers.get("content-length", "")
                size = int(length) if length.isdecimal() else one.found
            what = _judge(self._look(one.name), size)
            if not what:
                continue
            if what != EXTRA and not owed.isdisjoint({one.name, ""}):
                verdict.owed += 1
                continue
            modified = Entry(one.name, 0, one.date).modified
            verdict.note(Finding(server.name, one.name, what, one.wanted, size, modified))

    def _look(self, name: str) -> Look:
        try:
            return self.journal.look(name)
        except OSError:
            return Look(Wanted.UNHEARD)  # the walk has told why

    # --- bytes

    def _hash_all(
        self,
        server: Server,
        verdict: Verdict,
        found: Verification,
        progress: Callable[[str], None],
    ) -> None:
        wanted = self.journal.entries(found.failed, self._prefix)
        for entry, digest in self._both(server, wanted):
            progress(entry.name)
            if not names.is_safe(entry.name):
                continue
            try:
                self._check(server, entry, digest, verdict)
            except OSError as error:
                found.failed(entry.name, error)

    def _both(self, server: Server, wanted: Iterator[Entry]) -> Iterator[tuple[Entry, str]]:
        """The files to be hashed, each with the digest that the server has told, if any."""
        if self._sample is not None:
            yield from ((entry, "") for entry in _chosen(wanted, self._sample, self._random))
            return
        try:
            listed = self.replication.transport.list(server, self._prefix, digests=True)
            for entry, other in pairs(wanted, listed):
                if entry is not None and other is not None:
                    yield entry, other.digest
        except NoListing:
            wanted = self.journal.entries(lambda *_: None, self._prefix)
            yield from ((entry, "") for entry in wanted)

    def _check(self, server: Server, entry: Entry, told: str, verdict: Verdict) -> None:
        """Compare the bytes of one file. One that changes meanwhile is left out."""
        before = self.journal.look(entry.name)
        if before.wanted is not Wanted.PRESENT:
            return
        theirs = told or self._remote(server, entry.name)
        ours = entry.digest or self._local(entry.name, before)
        if not theirs or not ours:
            return
        verdict.hashed += 1
        if theirs == ours or self.journal.look(entry.name) != before:
            return
        size = before.size
        # A digest that is on record speaks for itself; what a disk says may be what rots.
        against = "" if entry.digest else theirs
        verdict.note(Finding(server.name, entry.name, CONTENT, size, size, None, against))

    def _remote(self, server: Server, name: str) -> str:
        """The SHA-256 of a server's file; nothing when it has none."""
        running = hashlib.sha256()
        try:
            with self.replication.transport.get(name, server) as download:
                while data := download.read(_PIECE):
                    self._pace.spend(len(data))
                    running.update(data)
        except UnexpectedStatus:
            return ""  # the comparison has told
        return running.hexdigest()

    def _local(self, name: str, look: Look) -> str:
        """The SHA-256 of the master's file; nothing when it has changed."""
        running = hashlib.sha256()
        with self.replication.source(name, look) as body:
            if body is None:
                return ""
            offset = 0
            while data := os.pread(body.descriptor, _PIECE, offset):
                running.update(data)
                offset += len(data)
        return running.hexdigest()

    # --- what is done about it

    def owe(self, found: Verification) -> int:
        """Owe every server what is wrong on it, for a repair pass to mend. How much that is.

        Not what speaks against the master (law 2), and nothing that is extra. A server
        with more than `SHOWN` findings is owed everything.
        """
        for verdict in found.verdicts:
            if sum(verdict.counts.values()) > len(verdict.findings):
                self.journal.owe_all(verdict.server)
            for finding in verdict.findings:
                if finding.what == EXTRA or finding.name in found.suspect:
                    continue
                self.journal.owe(verdict.server, finding.name)
                found.owed_now += 1
        return found.owed_now

    def extras(self, found: Verification, now: float) -> list[str]:
        """The files that nobody has heard of, and that are older than `GRACE`."""
        old = {
            finding.name
            for verdict in found.verdicts
            for finding in verdict.findings
            if finding.what == EXTRA
            and finding.modified is not None
            and now - finding.modified > GRACE
        }
        return sorted(old)

    def remove_extra(self, found: Verification, chosen: Iterable[str]) -> int:
        """Delete files that nobody has heard of, by the protocol (law 1). How many that were."""
        for name in chosen:
            # Somebody may have saved it since, or restored it.
            if self.journal.look(name).wanted is Wanted.UNHEARD:
                run(self.replication.delete(name))
                found.removed += 1
        return found.removed


def _judge(look: Look, size: int) -> str:
    """What is wrong with a file of this size (-1: there is none) where this is wanted."""
    if look.wanted is Wanted.PRESENT:
        if size < 0:
            return MISSING
        return "" if size == look.size else DIFFERENT
    if size < 0:
        return ""
    return UNDELETED if look.wanted is Wanted.GONE else EXTRA


def _chosen(entries: Iterator[Entry], count: int, choose: random.Random) -> list[Entry]:
    """So many of them, each as likely as the others (Vitter's algorithm R)."""
    kept = list(islice(entries, count))
    for number, entry in enumerate(entries, count):
        place = choose.randint(0, number)
        if place < count:
            kept[place] = entry
    return sorted(kept)


def _suspects(verdicts: Iterable[Verdict]) -> list[str]:
    """Names for which two servers have the same bytes, and the master others."""
    seen: set[tuple[str, str]] = set()
    suspect = set()
    for verdict in verdicts:
        for finding in verdict.findings:
            if not finding.digest:
                continue
            if (finding.name, finding.digest) in seen:
                suspect.add(finding.name)
            seen.add((finding.name, finding.digest))
    return sorted(suspect)
