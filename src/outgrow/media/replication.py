"""Saving and deleting a file on the master and on every media server.

Plain web servers know PUT, GET, HEAD and DELETE. They can't compare versions, and
a request that was sent may be carried out long after everyone stopped waiting:
a frozen server that thaws puts a file after a DELETE was answered. So order
can't be left to requests. The laws of the protocol:

 1. A name is never used twice (`names="unique"`). Then a PUT can be repeated, a
    DELETE is final, and no two requests for a name carry different content.
 2. What is owed is recorded before anything changes, and forgotten only after a
    server has confirmed and the master was looked at again.
 3. Save: write the new file, which is the record of the attempt; commit it to the
    master in one exclusive step, send it, look again, keep what is still owed.
 4. Delete: record the attempt, move the file to a tombstone in one step, send
    the DELETEs, keep what is still owed. The tombstone outlives every attempt.
 5. What is to be sent is decided by looking at the master, never by a record:
    present means PUT, deleted means DELETE, neither means nothing at all.
 6. Every PUT is followed by a second look. If the name was deleted meanwhile, the
    DELETE follows now; if its file is another one, the servers are owed it.
 7. A request without an answer is *unknown*. It stays recorded, is looked at when
    its server answers again, and several times after that.
 8. A save that too few servers took is undone by law 4. Too few is fewer than `need`;
    and none at all, when a server says that it belongs to another master.
 9. What is copied from another storage is copied again if that fails, under the same name. So
    it is never undone by a deletion, which would use the name up: a master keeps it, and
    the servers are owed it; without a master it is forgotten (`Change.COPY`), and what
    servers have of it is the right content of a name that nobody asks for yet.

`save`, `delete` and `mend` are generators that stop between any two steps, and say
which step was taken. In a site they run to their end (`run`). Tests kill the
process at each step, and let several run interleaved in every order.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from outgrow import names
from outgrow.errors import (
    AnotherMaster,
    CatalogueUnavailable,
    ConnectFailed,
    FileCut,
    ForeignServer,
    MasterError,
    NotEnoughServers,
    OutOfTime,
    ServerDown,
    ServerError,
    UnexpectedStatus,
    UnsafeName,
)
from outgrow.fanout import DEADLINE, Outcome
from outgrow.http import FileBody
from outgrow.media.journal import (
    Attempt,
    Change,
    Debt,
    Journal,
    Kind,
    Look,
    Source,
    Wanted,
)
from outgrow.media.pace import Pace
from outgrow.media.transport import Transport
from outgrow.servers import Server

Result = TypeVar("Result")
Steps = Generator[str, None, Result]

#: Names that are tried for one file. Each but the first has random characters, so that so
#: many are taken means that something else is wrong.
OTHER_NAMES = 100

#: Bytes of files that a repair opens and sends together, at least one file.
PORTION = 1 << 24

#: Errors of servers to which nothing of a file was sent.
UNSENT: tuple[type[ServerError], ...] = (ConnectFailed, ServerDown, ForeignServer)


def run(steps: Steps[Result]) -> Result:
    """Take all steps and return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is to be saved.

    `write` makes it, exclusively, at a path; `another` gives another name for one that is
    taken. With `replace` a taken name is used all the same. `folder_mode` is for the
    folders that are made. `copied` says that it comes from another storage and will be
    saved again, under the same name and with the same content, if that fails now (law 9).
    """

    name: str
    write: Callable[[Path], None]
    another: Callable[[str], str]
    replace: bool = False
    folder_mode: int | None = None
    copied: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """What the master has and the servers have not been told yet.

    `look` is what was saved, and None for a delete. The record of the attempt stands
    until the change was sent; if this process dies, a repair pass takes it over.
    """

    attempt: Attempt
    look: Look | None


@dataclass(slots=True)
class Saved:
    """A save that held: the name that the file got, and what became of each server."""

    name: str
    outcome: Outcome


@dataclass(slots=True)
class Mended:
    """What one look at a name on several servers came to. `error`: nothing was sent."""

    name: str
    wanted: Wanted = Wanted.UNHEARD
    outcome: Outcome = field(default_factory=Outcome)
    error: OSError | UnsafeName | None = None


@dataclass(slots=True)
class _Mending:
    """One name on its way through `mend_all`."""

    mended: Mended
    found: Sequence[Debt]
    look: Look | None = None
    #: By server, the pairs of what was found and what it is now.
    claims: dict[str, list[tuple[Debt, Debt]]] = field(default_factory=dict)
    servers: Sequence[Server] = ()

    @property
    def name(self) -> str:
        return self.mended.name

    def wants(self, wanted: Wanted) -> bool:
        return bool(self.servers) and self.look is not None and self.look.wanted is wanted


def _portions(works: Sequence[_Mending]) -> Iterator[list[_Mending]]:
    """What is opened and sent together: some megabytes."""
    portion: list[_Mending] = []
    size = 0
    for work in works:
        assert work.look is not None  # it is wanted
        if portion and size + work.look.size > PORTION:
            yield portion
            portion, size = [], 0
        portion.append(work)
        size += work.look.size
    if portion:
        yield portion


class Replication:
    """The protocol over one journal and one transport. Thread-safe; holds no state.

    `source` gives a copy of a file that some servers lack: of the one that was looked at,
    or None when that is there no more. `reused` says that names may be used again
    (`names="keep"`). `clock` is the monotonic one, in seconds. `given_up` is called with each
    name that a repair pass has deleted because the site's transaction was rolled back.
    `deletes_need` is how many servers a delete waits for; the others can be told later.
    """

    def __init__(
        self,
        journal: Journal,
        transport: Transport,
        *,
        need: int,
        source: Source,
        reused: bool = False,
        deadline: float = DEADLINE,
        clock: Callable[[], float] = time.monotonic,
        given_up: Callable[[str], object] = lambda _: None,
        deletes_need: int = 0,
    ) -> None:
        self.journal = journal
        self.transport = transport
        self.need = need
        self.source = source
        self.reused = reused
        self.deadline = deadline
        self._clock = clock
        self.given_up = given_up
        self._deletes_need = deletes_need
        self._pace = Pace(0)

    def within(self, deadline: float) -> Replication:
        """The same, with at most so many seconds for each save, delete or mend."""
        hurried = copy.copy(self)
        hurried.deadline = min(self.deadline, deadline)
        return hurried

    def at(self, pace: Pace) -> Replication:
        """The same, that sends what is mended no faster than this."""
        slowed = copy.copy(self)
        slowed._pace = pace  # noqa: SLF001 - it is one of these
        return slowed

    # --- save

    def save(self, upload: Upload) -> Steps[Saved]:
        """Save a file on the master and on the servers.

        Raises `NotEnoughServers` when fewer than `need` servers took it; then, as
        after any other error, the file is on no server or owed for removal (but for law 9).
        """
        if upload.copied and self.journal.has_master:
            patient = copy.copy(self)
            patient.need = 0
            return (yield from patient._save(upload))  # noqa: SLF001 - it is one of these
        return (yield from self._save(upload))

    def _save(self, upload: Upload) -> Steps[Saved]:
        until = self._clock() + self.deadline
        attempt, look = yield from self._store(upload)
        try:
            yield "committed"
            outcome = yield from self._send(attempt, look, until)
            yield from self._judge(attempt, look, outcome)
        except (NotEnoughServers, GeneratorExit):
            # Undone already; or left between two steps, as by a process that dies.
            raise
        except BaseException:
            # Whatever it was (a full disk, a worker that is being stopped), the
            # caller learns that nothing was saved, so nothing may stay.
            if attempt.change is Change.COPY:
                self.journal.discard(attempt)
                raise
            self._take_back(attempt, look)
            self.journal.settle(attempt, (), self._everywhere())
            raise
        self.journal.finish(attempt)
        return Saved(attempt.name, outcome)

    def store(self, upload: Upload) -> Steps[Pending]:
        """Save a file on the master alone. `forward` does the rest, here or later."""
        attempt, look = yield from self._store(upload)
        yield "committed"
        return Pending(attempt, look)

    def forward(self, pending: Pending) -> Steps[Outcome]:
        """Tell the servers of a change that the master has. What they miss is owed to them."""
        until = self._clock() + self.deadline
        attempt, look = pending.attempt, pending.look
        if look is None:
            return (yield from self._send_delete(attempt, until))
        outcome = yield from self._send(attempt, look, until)
        yield from self._settle(attempt, look, outcome)
        self.journal.finish(attempt)
        return outcome

    def hand_over(self, pending: Pending) -> list[str]:
        """Owe a change to every server, for others to send. Returns the servers' names."""
        self.journal.settle(pending.attempt, self._everywhere(), ())
        self.journal.finish(pending.attempt)
        return [server.name for server in self.transport.servers]

    def _store(self, upload: Upload) -> Steps[tuple[Attempt, Look]]:
        """Steps 1 to 3 of a save: the draft, which is its record, and the commit."""
        journal = self.journal
        change = Change.REPLACE if upload.replace else Change.SAVE
        if upload.copied and not journal.has_master:
            change = Change.COPY
        attempt = journal.attempt(upload.name, change)
        try:
            self._write(upload, attempt)
            yield "recorded"
        except GeneratorExit:
            raise
        except BaseException:
            journal.discard(attempt)
            raise
        return self._commit(attempt, upload)

    def _write(self, upload: Upload, attempt: Attempt) -> None:
        """Make the draft. Somebody may have tidied the journal's empty folders away."""
        try:
            upload.write(self.journal.begin(attempt))
        except FileNotFoundError:
            if not self.journal.restore_folders():
                raise
            upload.write(self.journal.begin(attempt))

    def _commit(self, attempt: Attempt, upload: Upload) -> tuple[Attempt, Look]:
        """Give the draft its name; when that is taken, another one."""
        look: Look | None = None
        tried = 0
        try:
            while True:
                look = self.journal.draft(attempt)
                try:
                    self.journal.commit(attempt, look, mode=upload.folder_mode)
                    break
                except FileExistsError as error:
                    look = None  # what has the name is another's, be its content the same
                    tried += 1
                    if tried == OTHER_NAMES:
                        raise MasterError(
                            f"{upload.name!r} was not saved: {tried} names in a row were taken."
                        ) from error
                attempt = self.journal.rename(attempt, upload.another(attempt.name))
        except BaseException:
            self._abort(attempt, look)
            raise
        return attempt, look

    def _abort(self, attempt: Attempt, look: Look | None) -> None:
        """End a save that broke off around its commit, which may have been carried out.

        An error does not say that nothing has happened: a disk can fail at the fsync that
        follows, and a signal can come between the link and the next line.
        """
        copied = attempt.change is Change.COPY
        if copied or look is None or self.journal.look(attempt.name) != look:
            self.journal.discard(attempt)
            return
        self._take_back(attempt, look)
        self.journal.settle(attempt, self._everywhere(), ())

    def _send(self, attempt: Attempt, look: Look, until: float) -> Steps[Outcome]:
        """The fan-out of a save."""
        servers = self.transport.servers
        with self.journal.opened(attempt, look) as body:
            if body is None:  # deleted or replaced already, by another process
                outcome = Outcome()
            else:
                outcome = self.transport.put(
                    attempt.name, body, servers=servers, need=self.need, deadline=until
                )
        yield "sent"
        return outcome

    def _judge(self, attempt: Attempt, look: Look, outcome: Outcome) -> Steps[None]:
        """Undo a save that too few servers took; settle the others."""
        needed = self._needed(outcome)
        enough = len(outcome.done) >= needed
        if enough:
            self.journal.accept(attempt)
            yield "accepted"
        if enough or self.journal.look(attempt.name) != look:
            yield from self._settle(attempt, look, outcome)
            return
        if attempt.change is Change.COPY:
            self.journal.discard(attempt)
        else:
            yield from self._undo(attempt, look, outcome)
            self.journal.finish(attempt)
        done = tuple(server.name for server in outcome.done)
        missed = {server.name: error for server, error in outcome.missed.items()}
        raise NotEnoughServers(attempt.name, needed, done, missed)

    def _settle(self, attempt: Attempt, look: Look, outcome: Outcome) -> Steps[None]:
        """The second look (law 6), and what is still owed."""
        again = self.journal.look(attempt.name)
        if again != look:
            yield from self._overtaken(attempt, again, outcome)
            return
        owed = self._elsewhere() | _named(outcome.failed)
        self.journal.settle(attempt, owed, _named(outcome.unknown))
        yield "settled"

    def _needed(self, outcome: Outcome) -> int:
        """How many servers must have a file: `need`, unless this may be the wrong master."""
        wrong = any(isinstance(error, AnotherMaster) for error in outcome.missed.values())
        return max(self.need, int(wrong))

    def _overtaken(self, attempt: Attempt, look: Look, outcome: Outcome) -> Steps[None]:
        """The name was deleted or replaced while it was sent (law 6)."""
        owed = self._everywhere()
        if look.wanted is Wanted.GONE:
            until = self._clock() + self.deadline
            removed = self.transport.delete(
                attempt.name, servers=self.transport.servers, deadline=until
            )
            yield "removed"
            owed -= _named(removed.done)
        unknown = _named(outcome.unknown)
        self.journal.settle(attempt, owed - unknown, unknown)
        yield "settled"

    def _undo(self, attempt: Attempt, look: Look, outcome: Outcome) -> Steps[None]:
        """Take a save back (law 8).

        A server that was sent the file may have kept it, whatever it answered: 500 is
        also what one says that fails after it has stored the file. One that was not is
        owed the removal, too: a repair pass that compares everything may have found the
        file on the master in the meantime, and sent it there. Only another master's
        servers are spared: nobody of ours writes to them.
        """
        unknown = _named(outcome.unknown)
        owed = self._everywhere()
        if self._take_back(attempt, look):
            yield "buried"
            refused = [
                one for one, error in outcome.failed.items() if not isinstance(error, UNSENT)
            ]
            sent = [*outcome.done, *outcome.unknown, *refused]
            until = self._clock() + self.deadline
            removed = self.transport.delete(attempt.name, servers=sent, deadline=until)
            yield "removed"
            if self.journal.keeps_records:
                failed = outcome.failed.items()
                foreign = [one for one, error in failed if isinstance(error, ForeignServer)]
                owed -= _named(removed.done) | _named(foreign)
            else:  # and no pass of repair could have sent it
                owed = _named(removed.missed)
        self.journal.settle(attempt, owed - unknown, unknown)
        yield "settled"

    def _take_back(self, attempt: Attempt, look: Look) -> bool:
        """Undo a commit on the master; False when the name now holds something else.

        With names that are used again, what was replaced comes back, and what
        another process has saved since is left alone. (Between the look and the
        rename there is a race; see "Problematic parts" in docs/architecture.md.)
        """
        if self.journal.look(attempt.name) != look:
            return False
        if self.journal.restore(attempt):
            return False
        self.journal.bury(attempt)
        return True

    # --- delete

    def delete(self, name: str) -> Steps[Outcome]:
        """Delete `name` on the master and on all servers; those that miss it are owed it.

        Never raises for a server's sake.
        """
        pending = yield from self.bury(name)
        return (yield from self.forward(pending))

    def delete_unheard(self, name: str) -> Steps[Outcome | None]:
        """Delete on all servers what nobody has heard of; None when somebody has, by now.

        Unlike `delete` it never touches a file of the master: one that was saved a moment
        ago stays, and is owed to the servers.
        """
        attempt = self.journal.attempt(name, Change.DELETE)
        self.journal.begin(attempt)
        yield "recorded"
        if not self.journal.bury_unheard(attempt):
            self.journal.settle(attempt, (), ())
            return None
        yield "buried"
        return (yield from self.forward(Pending(attempt, None)))

    def bury(self, name: str) -> Steps[Pending]:
        """Delete `name` on the master alone. `forward` does the rest, here or later."""
        attempt = self.journal.attempt(name, Change.DELETE)
        self.journal.begin(attempt)
        yield "recorded"
        try:
            self.journal.bury(attempt)
        except BaseException:
            # It may have been carried out all the same; then it is owed to all.
            gone = self.journal.look(name).wanted is Wanted.GONE
            self.journal.settle(attempt, self._everywhere() if gone else (), ())
            raise
        yield "buried"
        return Pending(attempt, None)

    def _send_delete(self, attempt: Attempt, until: float) -> Steps[Outcome]:
        servers = self.transport.servers
        outcome = self.transport.delete(
            attempt.name, servers=servers, deadline=until, need=self._deletes_need
        )
        yield "sent"
        self.journal.settle(attempt, *self._still_owed(attempt.name, outcome))
        yield "settled"
        return outcome

    def _still_owed(self, name: str, outcome: Outcome) -> tuple[Iterable[str], Iterable[str]]:
        """What is owed and what is unknown after a DELETE."""
        if not self.reused:
            # A DELETE that is carried out late does no harm: the name is used up.
            return self._elsewhere() | _named(outcome.missed), ()
        unknown = _named(outcome.unknown)
        if self.journal.look(name).wanted is Wanted.PRESENT:
            return self._everywhere() - unknown, unknown
        return self._elsewhere() | _named(outcome.failed), unknown

    # --- repair

    def mend(self, name: str, found: Sequence[Debt]) -> Steps[Mended]:
        """`mend_all` for one name. Raises what is wrong with it."""
        (mended,) = yield from self.mend_all({name: found})
        if mended.error is not None:
            raise mended.error
        return mended

    def mend_all(self, batch: Mapping[str, Sequence[Debt]]) -> Steps[list[Mended]]:
        """Bring names on the servers of their debts to the master's state (law 5).

        Each debt is claimed before a request is sent for it, so that a process
        that dies here leaves an unknown attempt behind and not a finished one.
        What is wrong with one name (it is unsafe, its file can't be read) is in its
        `Mended` and holds up no other.
        """
        works = [_Mending(Mended(name), found) for name, found in batch.items()]
        for work in works:
            self._look_at(work)
        yield "looked"
        for work in works:
            self._claim_all(work)
        yield "claimed"
        for portion in _portions([one for one in works if one.wants(Wanted.PRESENT)]):
            yield from self._put_again(portion)
        self._delete_again([one for one in works if one.wants(Wanted.GONE)])
        yield "sent"
        for work in works:
            overtaken = bool(work.claims) and self._is_overtaken(work)
            self._account(work.claims, work.mended.outcome, overtaken=overtaken)
        yield "settled"
        return [work.mended for work in works]

    def bring(self, server: Server, wanted: Iterable[str]) -> Steps[list[Mended]]:
        """The same for names on a server that is owed everything.

        That debt is the record, and its claim the caller's: no name has one of its own
        before its request. What went wrong with a name has one afterwards.
        """
        works = [_Mending(Mended(name), ()) for name in wanted]
        for work in works:
            self._look_at(work)
            if work.look is not None:
                work.servers = (server,)
        yield "looked"
        for portion in _portions([one for one in works if one.wants(Wanted.PRESENT)]):
            yield from self._put_again(portion)
        self._delete_again([one for one in works if one.wants(Wanted.GONE)])
        yield "sent"
        for work in works:
            self._keep(server, work)
        yield "settled"
        return [work.mended for work in works]

    def _keep(self, server: Server, work: _Mending) -> None:
        """Record what a request without a record came to, if that is not its end."""
        if work.look is None or work.look.wanted is Wanted.UNHEARD:
            return
        outcome = work.mended.outcome
        if self._is_overtaken(work) or server in outcome.unknown:
            self.journal.owe(server.name, work.name, unknown=True)
        elif isinstance(outcome.failed.get(server), (UnexpectedStatus, FileCut, OutOfTime)):
            # The walk goes on. After any other error it ends, and its record stays.
            self.journal.owe(server.name, work.name)

    def _is_overtaken(self, work: _Mending) -> bool:
        """The second look (law 6): whether the name is another one now, or can't be looked at."""
        try:
            return self.journal.look(work.name) != work.look
        except (MasterError, CatalogueUnavailable):
            raise
        except OSError as error:
            work.mended.error = error
            return True

    def _look_at(self, work: _Mending) -> None:
        try:
            names.check(work.name)
            work.look = self.journal.look(work.name)
        except (MasterError, CatalogueUnavailable):
            raise  # nothing can be looked at
        except (OSError, UnsafeName) as error:
            work.mended.error = error
        else:
            work.mended.wanted = work.look.wanted

    def _claim_all(self, work: _Mending) -> None:
        """Claim what is to be sent; forget what needs nothing."""
        if work.look is None:
            return
        if work.look.wanted is Wanted.UNHEARD:
            self._drop_unheard(work.found)
            return
        due = [debt for debt in work.found if not self._needless(debt, work.look)]
        for debt in work.found:
            if debt not in due:
                self.journal.confirm(debt, debt)
        work.claims = self._claim(due)
        work.servers = [one for one in self.transport.servers if one.name in work.claims]

    def _needless(self, debt: Debt, look: Look) -> bool:
        """A late PUT of a name that is used once, and is there, changes nothing."""
        late = debt.kind is Kind.UNKNOWN and debt.looks > 0
        return late and look.wanted is Wanted.PRESENT and not self.reused

    def _claim(self, found: Iterable[Debt]) -> dict[str, list[tuple[Debt, Debt]]]:
        """Claim debts: by server, the pairs of what was found and what it is now."""
        claims: dict[str, list[tuple[Debt, Debt]]] = {}
        for debt in found:
            claimed = self.journal.claim(debt)
            if claimed is not None:
                claims.setdefault(debt.server, []).append((debt, claimed))
        return claims

    def _put_again(self, works: Sequence[_Mending]) -> Steps[None]:
        for work in works:
            if work.look is not None:
                self._pace.spend(work.look.size * len(work.servers))
        until = self._clock() + self.deadline
        with ExitStack() as stack:
            bodies = {}
            for work in works:
                body = self._open_source(work, stack)
                if body is not None:
                    bodies[work.name] = body
            wanting = {work.name: work.servers for work in works}
            outcomes = self.transport.put_all(bodies, wanting, deadline=until)
        yield "put"
        undone = []
        for work in works:
            if work.name not in outcomes:
                continue
            work.mended.outcome = outcomes[work.name]
            if self._is_overtaken(work) and self._is_gone(work.name):
                undone.append(work)
        # Law 6. What the DELETE confirms is still watched: the claims stay unknown.
        if undone:
            gone = {work.name: work.servers for work in undone}
            self.transport.delete_all(gone, deadline=self._clock() + self.deadline)

    def _is_gone(self, name: str) -> bool:
        try:
            return self.journal.look(name).wanted is Wanted.GONE
        except (MasterError, CatalogueUnavailable):
            raise
        except OSError:
            return False

    def _open_source(self, work: _Mending, stack: ExitStack) -> FileBody | None:
        """What is to be sent; None when it was deleted meanwhile, or can't be read."""
        assert work.look is not None  # it is wanted
        try:
            return stack.enter_context(self.source(work.name, work.look))
        except (MasterError, CatalogueUnavailable):
            self._release(work.claims)
            raise
        except OSError as error:
            self._release(work.claims)  # there is nothing to send
            work.claims = {}
            work.mended.error = error
            return None

    def _delete_again(self, works: Sequence[_Mending]) -> None:
        if not works:
            return
        until = self._clock() + self.deadline
        wanting = {work.name: work.servers for work in works}
        outcomes = self.transport.delete_all(wanting, deadline=until)
        for work in works:
            work.mended.outcome = outcomes[work.name]

    def _release(self, claims: dict[str, list[tuple[Debt, Debt]]]) -> None:
        for pairs in claims.values():
            for found, claimed in pairs:
                self.journal.release(found, claimed)

    def _account(
        self,
        claims: dict[str, list[tuple[Debt, Debt]]],
        outcome: Outcome,
        *,
        overtaken: bool,
    ) -> None:
        """Confirm, release or keep each claim, by what its server did.

        A claim whose name changed while it was mended stays unknown, and so is
        looked at again at once.
        """
        if overtaken:
            return
        done, failed = _named(outcome.done), _named(outcome.failed)
        for server, pairs in claims.items():
            for found, claimed in pairs:
                if server in done:
                    self.journal.confirm(found, claimed)
                elif server in failed:
                    self.journal.release(found, claimed)

    def _drop_unheard(self, found: Iterable[Debt]) -> None:
        """Give up what the master has not heard of for so long that no tombstone is left."""
        for debt in found:
            if self.journal.is_abandoned(debt):
                self.journal.forget(debt)

    # --- helpers

    def _everywhere(self) -> set[str]:
        """All servers of this master, by name."""
        return _named(self.transport.servers) | self._elsewhere()

    def _elsewhere(self) -> set[str]:
        """The servers that other processes know of and this one does not.

        While a new list of servers is rolled out, processes with the old one go on saving.
        """
        return set(self.journal.claimed()) - _named(self.transport.servers)


def _named(servers: Iterable[Server]) -> set[str]:
    return {server.name for server in servers}
