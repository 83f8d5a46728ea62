"""Whether the media servers have what they should: every name, every size, every byte.

A comparison tells what looks wrong. Each difference is then looked at again, on the master
and on the server, since the site goes on writing meanwhile; what is left is wrong, or
is owed already. Nothing is changed here but by `owe` and `remove_extra`.

The laws:

1. What is deleted here is deleted by the protocol: a tombstone first. A file that the
   master has never heard of is only removed when somebody asks for that, after a
   grace, and never many of them without more words.
2. A master's disk can rot, or lose the end of a file, as any other. Where its word is all
   there is, nothing is mended that it alone speaks for: bytes must be those of another
   server, too, and a file that is longer on a server is not cut. What is on record (a
   catalogue's sizes and digests) needs no witness.
3. Memory does not depend on the number of files; of what is wrong `SHOWN` are kept.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Final

from outgrow import names
from outgrow.errors import (
    CatalogueUnavailable,
    MasterError,
    NoListing,
    ServerError,
    UnexpectedStatus,
)
from outgrow.fanout import DEADLINE
from outgrow.media.comparison import BATCH, Comparison
from outgrow.media.journal import Look, Wanted
from outgrow.media.listing import Difference, Entry, pairs
from outgrow.media.pace import Pace
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
    #: What the server's bytes come to, and the master's, where that speaks against its disk.
    digest: str = ""
    expected: str = ""


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

    `unsafe` has names on the master that no server is sent, and `suspect` those for which the
    master may be wrong (law 2), with what speaks against it.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    unsafe: set[str] = field(default_factory=set)
    suspect: dict[str, str] = field(default_factory=dict)
    owed_now: int = 0
    removed: int = 0

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong but what is owed."""
        well = not self.unreadable and not self.unsafe
        return well and all(one.equal for one in self.verdicts)

    def failed(self, name: str, error: OSError) -> None:
        """Note what can't be read on the master."""
        if len(self.unreadable) < SHOWN:
            self.unreadable[name or "MEDIA_ROOT"] = error.strerror or str(error)

    def facts(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {**asdict(self), "unsafe": sorted(self.unsafe), "equal": self.equal}


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
        self._chosen: list[Entry] | None = None

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
        if not self.journal.has_digests:
            found.suspect = self._suspects(found.verdicts)
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
        while batch := list(islice(differences, BATCH)):
            self._look_again(server, batch, verdict, found)

    def _owed(self, server: Server) -> set[str]:
        """The names that a server is owed, or is just being told of; an empty one for all."""
        found = {debt.name for debt in self.journal.debts(server.name) if debt.looks == 0}
        return found | {attempt.name for attempt in self.journal.attempts()}

    def _look_again(
        self, server: Server, batch: list[Difference], verdict: Verdict, found: Verification
    ) -> None:
        """Note what is still wrong."""
        owed = self._owed(server)
        safe = [one for one in batch if names.is_safe(one.name)]
        unsafe = {one.name for one in batch if one.wanted >= 0} - {one.name for one in safe}
        found.unsafe.update(islice(unsafe, max(0, SHOWN - len(found.unsafe))))
        until = time.monotonic() + DEADLINE
        asked = {one.name: (server,) for one in safe}
        outcomes = self.replication.transport.stat_all(asked, deadline=until)
        for one in safe:
            outcome = outcomes[one.name]
            response = outcome.done.get(server)
            if response is None:
                error = outcome.missed[server]
                if not is_refusal(error):
                    raise error
            size = -1
            if response is not None and response.status == 200:
                length = response.headers.get("content-length", "")
                size = int(length) if length.isdecimal() else one.found
            try:
                look = self.journal.look(one.name)
            except (MasterError, CatalogueUnavailable):
                raise
            except OSError as error:
                found.failed(one.name, error)
                continue
            what = _judge(look, size)
            if not what:
                continue
            if what != EXTRA and not owed.isdisjoint({one.name, ""}):
                verdict.owed += 1
                continue
            modified = Entry(one.name, 0, one.date).modified
            wanted = look.size if look.wanted is Wanted.PRESENT else -1
            verdict.note(Finding(server.name, one.name, what, wanted, size, modified))

    # --- bytes

    def _hash_all(
        self,
        server: Server,
        verdict: Verdict,
        found: Verification,
        progress: Callable[[str], None],
    ) -> None:
        wanted = self.journal.entries(found.failed, self._prefix)
        told = {finding.name for finding in verdict.findings}
        for entry, digest in self._both(server, wanted):
            progress(entry.name)
            if entry.name in told or not names.is_safe(entry.name):
                continue
            try:
                self._check(server, entry, digest, verdict)
            except OSError as error:
                found.failed(entry.name, error)

    def _both(self, server: Server, wanted: Iterator[Entry]) -> Iterator[tuple[Entry, str]]:
        """The files to be hashed, each with the digest that the server has told, if any."""
        if self._sample is not None:
            if self._chosen is None:  # the same files on all servers, that they may be compared
                self._chosen = _chosen(wanted, self._sample, self._random)
            yield from ((entry, "") for entry in self._chosen)
            return
        if self._pace.rate:
            # A server that computes sums by itself knows no rate.
            yield from ((entry, "") for entry in wanted)
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
        if not self._owed(server).isdisjoint({entry.name, ""}):
            verdict.owed += 1
            return
        size = before.size
        # A digest that is on record speaks for itself; what a disk says may be what rots.
        against = ("", "") if entry.digest else (theirs, ours)
        verdict.note(Finding(server.name, entry.name, CONTENT, size, size, None, *against))

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
                self._pace.spend(len(data))
                running.update(data)
                offset += len(data)
        return running.hexdigest()

    # --- what is done about it

    def owe(self, found: Verification, *, force: bool = False) -> int:
        """Owe every server what is wrong on it, for a repair pass to mend. How much that is.

        Not what speaks against the master (law 2), unless by `force`, and nothing that is
        extra. Of a server with more than `SHOWN` findings those that were kept.
        """
        for verdict in found.verdicts:
            for finding in verdict.findings:
                suspect = finding.name in found.suspect and not force
                if finding.what == EXTRA or suspect:
                    continue
                self.journal.owe(verdict.server, finding.name)
                found.owed_now += 1
        return found.owed_now

    def _suspects(self, verdicts: Iterable[Verdict]) -> dict[str, str]:
        """The names for which the master's disk may be wrong, and why (law 2)."""
        found: dict[str, str] = {}
        lengths: set[tuple[str, int]] = set()
        witnesses: dict[str, set[str]] = {}
        for finding in (one for verdict in verdicts for one in verdict.findings):
            if finding.what == DIFFERENT:
                if finding.found > finding.wanted:
                    found[finding.name] = "it is shorter on the master than on a server"
                elif (finding.name, finding.found) in lengths:
                    found[finding.name] = "two servers have the same length, the master another"
                lengths.add((finding.name, finding.found))
            if finding.what == CONTENT and finding.name not in found:
                agreed = witnesses.setdefault(finding.name, self._witnesses(finding))
                if finding.server in agreed or not agreed:
                    found[finding.name] = "no other server has the master's bytes"
        return found

    def _witnesses(self, finding: Finding) -> set[str]:
        """The servers that have the bytes that the master has, as far as they can be asked."""
        agreed = set()
        for server in self.replication.transport.servers:
            with suppress(ServerError):
                if self._remote(server, finding.name) == finding.expected:
                    agreed.add(server.name)
        return agreed

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

    def strange(self, extras: Iterable[str]) -> list[str]:
        """The top folders of these files in which the master has nothing at all.

        One may be a volume that is not mounted, and then it is not the files that are wrong.
        """
        tops = {name.partition("/")[0] for name in extras if "/" in name}
        return [
            top
            for top in sorted(tops)
            if next(self.journal.entries(_ignore, f"{top}/"), None) is None
        ]

    def remove_extra(self, found: Verification, chosen: Iterable[str]) -> int:
        """Delete files that nobody has heard of, by the protocol (law 1). How many that were."""
        for name in chosen:
            # Somebody may have saved it since, or restored it.
            if run(self.replication.delete_unheard(name)) is not None:
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


def is_refusal(error: ServerError) -> bool:
    """Whether a server refuses one name, and goes on with the others."""
    return isinstance(error, UnexpectedStatus) and error.status in range(400, 429)


def _ignore(_: str, __: OSError) -> None:
    pass
