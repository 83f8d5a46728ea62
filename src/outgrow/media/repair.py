"""Making every media server equal to the master, from what the journal says is owed.

A *plan* says for each name what will be done, and is a value: `--dry-run` prints
it. To *apply* it is to `mend` name after name; the protocol itself stands in
`replication`. A pass can run at any time, in several processes at once, be
killed at any step and be repeated (promise M4).

One pass:

1. takes over the attempts of processes that died;
2. asks every server for a sign of life;
3. mends what the servers that answered are owed and what is due;
4. walks over everything for servers that are owed everything;
5. looks a second time at requests of unknown outcome, after `LOOKS[0]`: a server
   that has just thawed may still carry out what it held in its buffers;
6. sweeps up tombstones and drafts that are of no use any more.
"""

from __future__ import annotations

import enum
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any, ClassVar, Final

from outgrow import names
from outgrow.errors import (
    CatalogueUnavailable,
    FileCut,
    MasterError,
    OutOfTime,
    ServerError,
    UnexpectedStatus,
    UnsafeName,
)
from outgrow.media.comparison import Comparison
from outgrow.media.journal import (
    LOOKS,
    RECORDS_LIMIT,
    Debt,
    Journal,
    Kind,
    Look,
    Wanted,
)
from outgrow.media.listing import Wrong
from outgrow.media.replication import Mended, Replication, Steps, run
from outgrow.servers import Server

#: Names in a row for which a server may answer 5xx before it counts as down.
FAILURES_LIMIT: Final = 3

#: Names that are mended together: so many requests are on their way at once as the
#: transport thinks fit, and so many records are claimed meanwhile.
BATCH: Final = 64

#: Seconds before everything is compared again, after a folder that could not be read.
WALK_AGAIN: Final = 600.0


#: Errors that end a pass: the journal itself can't be used.
_FATAL: Final = (MasterError, CatalogueUnavailable)


class Verb(enum.Enum):
    """What a plan wants to do with one name."""

    PUT = "put"
    DELETE = "delete"
    WATCH = "watch"  # a request may still arrive; its next look is not due
    REPORT = "report"  # neither on the master nor deleted: nothing is sent


@dataclass(frozen=True, slots=True)
class Action:
    """One name, what is to be done with it, and the debts that ask for it."""

    verb: Verb
    name: str
    debts: tuple[Debt, ...]

    @property
    def servers(self) -> tuple[str, ...]:
        """The names of the servers that are owed this."""
        return tuple(debt.server for debt in self.debts)


def plan(debts: Iterable[Debt], look: Callable[[str], Look], now: float) -> Iterator[Action]:
    """What is owed -> what is to be done, lazily and in order.

    Debts of one attempt that stand next to each other become one action, so that
    several servers are sent the file at once.
    """
    for (_, name), group in groupby(debts, key=lambda debt: (debt.id, debt.name)):
        together = tuple(group)
        due = tuple(debt for debt in together if debt.due_at <= now)
        waiting = tuple(debt for debt in together if debt.due_at > now)
        if waiting:
            yield Action(Verb.WATCH, name, waiting)
        if due:
            yield Action(_verb(name, look), name, due)


def _verb(name: str, look: Callable[[str], Look]) -> Verb:
    try:
        wanted = look(name).wanted
    except OSError:
        return Verb.REPORT  # who applies it finds out why
    return {
        Wanted.PRESENT: Verb.PUT,
        Wanted.GONE: Verb.DELETE,
        Wanted.UNHEARD: Verb.REPORT,
    }[wanted]


@dataclass(slots=True)
class Report:
    """What a pass did.

    `down` has the servers that were not repaired, with the reason; `errors` the
    servers and names that were refused. `unheard` has the names that are neither
    on the master nor deleted, `unsafe` those that may not be sent, `unreadable` the
    names and folders that could not be looked at, with the reason. `given_up` counts the
    files of transactions of the site that were rolled back.
    """

    put: int = 0
    deleted: int = 0
    watched: int = 0
    taken_over: int = 0
    given_up: int = 0
    swept: int = 0
    still_owed: int = 0
    unheard: list[str] = field(default_factory=list)
    unsafe: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    down: dict[str, str] = field(default_factory=dict)

    #: Names that a report lists at most.
    SHOWN: ClassVar = 1000

    @property
    def complete(self) -> bool:
        """Whether every server is equal to the master now."""
        return not (self.down or self.errors or self.still_owed or self.unreadable)


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass: what it has done so far, and what its caller has to say to it."""

    report: Report
    progress: Callable[[str], None]
    want: Callable[[Debt], bool]
    go_on: Callable[[], bool]


class _Stopped(Exception):
    """The caller of a pass has had enough, in the middle of a comparison."""


class Repair:
    """Passes over one journal. Thread-safe in the sense that any number may run at once.

    `only` limits it to servers of these names. `clock` gives seconds since the
    epoch; `sleep` waits. `drive` takes the steps of one mend; tests break there.
    """

    def __init__(
        self,
        replication: Replication,
        *,
        only: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        drive: Callable[[Steps[Any]], Any] = run,
    ) -> None:
        self.replication = replication
        self.journal: Journal = replication.journal
        chosen = set(only)
        self.servers = tuple(
            server
            for server in replication.transport.servers
            if not chosen or server.name in chosen
        )
        self._clock = clock
        self._sleep = sleep
        self._drive = drive
        self._failures: Counter[str] = Counter()
        #: Names that are mended together: few at first, and after a failure, so that a
        #: server that fails for every name is not sent dozens of them.
        self._size = FAILURES_LIMIT
        #: By server, when a walk that met what can't be read is to be tried again.
        self._walk_at: dict[str, float] = {}

    # --- the plan

    def plan(self, servers: Iterable[Server] | None = None) -> Iterator[Action]:
        """What these servers (all, without an argument) are owed, name by name."""
        asked = self.servers if servers is None else tuple(servers)
        streams = [self.journal.debts(server.name) for server in asked]
        debts = heapq.merge(*streams, key=lambda debt: debt.id)
        single = (debt for debt in debts if debt.name)
        return plan(single, self.journal.look, self._clock())

    def everything(self) -> list[str]:
        """The servers that are owed everything."""
        return [one.name for one in self.servers if self.journal.is_owed_all(one.name)]

    def dead(self) -> list[str]:
        """The names of attempts whose process has died: the next pass takes them over."""
        return [one.name for one in self.journal.attempts() if self.journal.is_dead(one)]

    # --- one pass

    def once(
        self,
        *,
        settle: bool = True,
        sweep: bool = True,
        progress: Callable[[str], None] = lambda _: None,
        want: Callable[[Debt], bool] = lambda _: True,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Report:
        """One pass. Returns what it did; raises nothing for a server's or a file's sake.

        With `settle` it waits for the second look of step 5, up to `LOOKS[0]` s.
        `progress` is called with each name; `want` may leave debts for later; when
        `go_on` says no, the rest is left. Raises `MasterError`, or another `OSError`,
        when the journal can't be used.
        """
        work = Pass(Report(), progress, want, go_on)
        report = work.report
        self._failures.clear()
        self._size = min(BATCH, FAILURES_LIMIT)
        self.take_over(report)
        up = self._probe(report)
        self._compact()
        self._apply(self.plan(up), work)
        self._walk_all(up, work)
        if settle:
            self._look_again(up, work)
        if sweep:
            report.swept = self.journal.sweep()
        report.still_owed = sum(self.journal.summary(one.name)[0] for one in self.servers)
        return report

    def take_over(self, report: Report) -> None:
        """Step 1 of a pass."""
        # A server that another process's list has, and this one's has not, was claimed.
        configured = {server.name for server in self.replication.transport.servers}
        servers = sorted(configured.union(self.journal.claimed()))
        for attempt in list(self.journal.attempts()):
            try:
                if self.journal.is_dead(attempt) and self.journal.convert(attempt, servers):
                    report.taken_over += 1
            except _FATAL:
                raise
            except OSError as error:
                self._unreadable(report, attempt.name, error)
        given_up = self.journal.reap(servers)
        report.given_up = len(given_up)
        for name in given_up:
            self.replication.given_up(name)

    def _probe(self, report: Report) -> list[Server]:
        problems = self.replication.transport.probe(self.servers)
        report.down = {
            server.name: problem.reason for server, problem in problems.items() if problem
        }
        return [server for server, problem in problems.items() if problem is None]

    def _compact(self) -> None:
        """Owe everything to a server that has more records than can be counted quickly."""
        # Also to one that is in no list any more: nobody else would ever count.
        for server in {*self.journal.servers(), *(one.name for one in self.servers)}:
            if self.journal.count(server) <= RECORDS_LIMIT:
                continue
            # Read first: what is recorded from now on may come after another's walk.
            debts = list(self.journal.debts(server))
            self.journal.owe_all(server)
            for debt in debts:
                # An unknown request must be watched, whatever else is owed.
                if debt.kind is Kind.OWED:
                    self.journal.forget(debt)

    def _apply(self, actions: Iterator[Action], work: Pass) -> None:
        batch: dict[str, list[Debt]] = {}
        for action in actions:
            if action.verb is Verb.WATCH:
                work.report.watched += len(action.debts)
                continue
            wanted = [debt for debt in action.debts if work.want(debt)]
            if not wanted:
                continue
            batch.setdefault(action.name, []).extend(wanted)
            if len(batch) >= self._size:
                if not work.go_on():
                    return
                self._mend(batch, work)
                batch = {}
        if batch and work.go_on():
            self._mend(batch, work)

    def _mend(self, batch: Mapping[str, Iterable[Debt]], work: Pass) -> None:
        report = work.report
        asked = {}
        for name, debts in batch.items():
            # A server that failed earlier in this pass is left alone until the next.
            up = [debt for debt in debts if debt.server not in report.down]
            if up:
                asked[name] = up
        if not asked:
            return
        self._count_all(self._drive(self.replication.mend_all(asked)), work)

    def _count_all(self, batch: Iterable[Mended], work: Pass) -> None:
        well = True
        for mended in batch:
            self._count(mended, work.report)
            work.progress(mended.name)
            well = well and mended.error is None and not mended.outcome.missed
        self._size = min(BATCH, 2 * self._size if well else FAILURES_LIMIT)

    def _count(self, mended: Mended, report: Report) -> None:
        if isinstance(mended.error, UnsafeName):
            self._note(report.unsafe, mended.name)
            return
        if mended.error is not None:
            self._unreadable(report, mended.name, mended.error)
            return
        if mended.wanted is Wanted.UNHEARD:
            self._note(report.unheard, mended.name)
            return
        if mended.wanted is Wanted.PRESENT:
            report.put += len(mended.outcome.done)
        else:
            report.deleted += len(mended.outcome.done)
        for server in mended.outcome.done:
            self._failures[server.name] = 0
        for server, problem in mended.outcome.missed.items():
            self._missed(server, mended.name, problem, report)

    def _missed(self, server: Server, name: str, error: ServerError, report: Report) -> None:
        """Note a failure: of this name, or of the server if it is not the name's fault.

        A server that answers 5xx to one name may take the others. One that answers 4xx
        is never down for that, or hostile names could keep it from being repaired.
        """
        if isinstance(error, FileCut):
            self._unreadable(report, name, OSError(error.reason))
            return
        if isinstance(error, OutOfTime):
            # It was slow, or others before it were: the next batch has a time of its own.
            self._refused(server, name, error, report)
            return
        if not isinstance(error, UnexpectedStatus) or error.status in {429, 503, 507}:
            report.down[server.name] = error.reason
            return
        self._failures[server.name] = self._failures[server.name] + 1 if error.status >= 500 else 0
        if self._failures[server.name] >= FAILURES_LIMIT:
            report.down[server.name] = error.reason
        self._refused(server, name, error, report)

    @staticmethod
    def _refused(server: Server, name: str, error: ServerError, report: Report) -> None:
        if len(report.errors) < Report.SHOWN:
            report.errors[server.name, name] = error.reason

    @staticmethod
    def _unreadable(report: Report, name: str, error: OSError) -> None:
        if len(report.unreadable) < Report.SHOWN:
            report.unreadable[name or "MEDIA_ROOT"] = error.strerror or str(error)

    @staticmethod
    def _note(listed: list[str], name: str) -> None:
        if len(listed) < Report.SHOWN:
            listed.append(name)

    # --- everything

    def _walk_all(self, servers: Iterable[Server], work: Pass) -> None:
        """Step 4 of a pass."""
        for server in servers:
            due = self._clock() >= self._walk_at.get(server.name, 0.0)
            if due and server.name not in work.report.down:
                self._drive(self.walk(server, work))

    def walk(self, server: Server, work: Pass) -> Steps[None]:
        """Compare everything on a server that is owed that, and mend what is not as it should be.

        The record is claimed meanwhile, as that of a single name is, so that a process
        that dies here leaves behind that requests may still be carried out. A name that
        the server refuses is owed by itself from then on. What can't be read here may
        hold anything, so the record stays for another walk, in a while.
        """
        now = self._clock()
        found = [debt for debt in self.journal.debts(server.name, "") if debt.due_at <= now]
        if not found or not work.go_on():
            return
        claims = [(debt, claimed) for debt in found if (claimed := self.journal.claim(debt))]
        if not claims:
            return  # another pass was quicker
        yield "claimed"
        troubles: list[str] = []
        whole = yield from self._bring_all(server, work, troubles)
        if troubles:
            self._walk_at[server.name] = self._clock() + WALK_AGAIN
            whole = False
        for debt, claimed in claims:
            if whole:
                self.journal.confirm(debt, claimed)
            else:
                self.journal.release(debt, claimed)
        yield "walked"

    def _bring_all(self, server: Server, work: Pass, troubles: list[str]) -> Steps[bool]:
        """Mend every name that is not as it should be. False when it broke off.

        `troubles` gets what could not be looked at, or some of it.
        """
        suspects = self._suspects(server, work, troubles)
        while True:
            try:
                batch = list(islice(suspects, self._size))
            except _Stopped:
                return False
            except ServerError as error:
                work.report.down[server.name] = error.reason
                return False
            except _FATAL:
                raise
            except OSError as error:
                # No room to sort what it says that it has, say.
                work.report.down[server.name] = f"it can't be compared: {error}"
                return False
            if not batch:
                return True
            yield "compared"
            mended = yield from self.replication.bring(server, batch)
            troubles += [one.name for one in mended if isinstance(one.error, OSError)][:1]
            self._count_all(mended, work)
            if server.name in work.report.down or not work.go_on():
                return False

    def _suspects(self, server: Server, work: Pass, troubles: list[str]) -> Iterator[str]:
        """The names that are not as they should be on a server, or may not be."""

        def failed(folder: str, error: OSError) -> None:
            troubles[:] = [folder]
            self._unreadable(work.report, folder, error)

        if self.replication.reused:
            # A name that is used again may hold other bytes of the same number.
            yield from (entry.name for entry in self.journal.entries(failed))
            yield from (name for name, _ in self.journal.tombstones())
            return

        def progress(name: str) -> None:
            work.progress(name)
            if not work.go_on():
                raise _Stopped

        transport = self.replication.transport
        comparison = Comparison(self.journal, transport, failed=failed, progress=progress)
        for one in comparison.differences(server):
            if one.kind is not Wrong.EXTRA or self._is_gone(one.name, failed):
                yield one.name

    def _is_gone(self, name: str, failed: Callable[[str, OSError], None]) -> bool:
        """Whether what a server has was deleted. What is unsafe was never ours."""
        try:
            return names.is_safe(name) and self.journal.look(name).wanted is Wanted.GONE
        except _FATAL:
            raise
        except OSError as error:
            failed(name, error)
            return False

    # --- the second look

    def _look_again(self, servers: list[Server], work: Pass) -> None:
        """Step 5 of a pass: wait for the second looks that are due soon, and take them."""
        up = [server for server in servers if server.name not in work.report.down]
        now = self._clock()
        debts = (debt for one in up for debt in self.journal.debts(one.name))
        due = [debt.due_at for debt in debts if self._soon(debt, now)]
        if due:
            self._sleep(max(0.0, max(due) - now))
            again = replace(work, want=lambda _: True)
            self._apply(self.plan(up), again)
            self._walk_all(up, again)

    @staticmethod
    def _soon(debt: Debt, now: float) -> bool:
        second = debt.kind is Kind.UNKNOWN and debt.looks == 1
        # A second more: clocks are read twice, and a record holds whole milliseconds.
        return second and debt.due_at <= now + LOOKS[0] + 1
