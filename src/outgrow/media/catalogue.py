"""The journal in a database: what a storage without a master knows of its files.

There is no folder to look at, so the catalogue itself says what is wanted: a name is
there, or it is gone for ever, or it was never heard of. The laws:

1. The catalogue has a connection of its own, in autocommit: what it says is committed
   when it is said, whatever the site's transaction does. No transaction is held open
   while a request is on its way.
2. A save is on record (name, size, digest; owed to all) before its first PUT, and one
   update narrows it to what is still owed.
3. A file is *live* by a row that the site's own transaction inserts. What was saved and
   never went live is removed, when no transaction is left that could make it so. Which
   one that is, PostgreSQL tells by its number (pg_xact_status, as exact as a lock that is
   held, and nothing can be left locked). Other databases don't tell: there it is the
   `grace`, which must be longer than the site's longest transaction.
4. A deletion is final, and on record before the first DELETE. It is the same row, so
   nobody who looks can see both.
5. Ages are told by the clock of the database.

The site deletes the live row in its own transaction, and the file goes after the commit.
A process that dies between the two leaves a file that was live and is not: a sweep, each
hour, finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from django.db import DatabaseError, IntegrityError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now

from outgrow.errors import CatalogueUnavailable, ConfigurationError, SaveInterrupted
from outgrow.http import FileBody
from outgrow.media import owners, spool
from outgrow.media.claims import Claims
from outgrow.media.journal import (
    ATTEMPT_LIMIT,
    KEEP_TOMBSTONES,
    Attempt,
    Change,
    Debt,
    Heartbeat,
    Kind,
    Look,
    Wanted,
    moment,
    remembered,
    started,
)
from outgrow.media.listing import Entry
from outgrow.media.tables import Fact, File, Live, Owed
from outgrow.media.walking import ordered

#: Rows that are read, or written, in one statement.
CHUNK: Final = 500

#: In `File.transaction`: the row was live when it was written, or nobody can ask.
COMMITTED, UNTOLD = "-", "?"


#: Ends the id of an attempt to copy.
_COPY: Final = "-copy"


class Catalogue(Claims):
    """A journal in the database `alias`, for files that transactions of `site` make live.

    `name` tells apart the catalogues of several storages. `grace` is in seconds. Safe for
    several threads, processes and machines. Nothing is asked before `prepare` or the first
    use. Each method raises `CatalogueUnavailable` when the database can't be reached.
    """

    has_digests = True
    keeps_records = True
    has_master = False

    def __init__(
        self,
        alias: str,
        *,
        site: str,
        name: str,
        grace: float,
        attempt_limit: float = ATTEMPT_LIMIT,
        clock: Callable[[], float] = time.time,
        token: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self.alias = alias
        self.site = site
        self.name = name
        self.grace = grace
        self.attempt_limit = attempt_limit
        self._clock = clock
        self._token = token
        self._master_id = ""
        #: What the saves of this process have said to the site's transaction.
        self._told: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Catalogue({self.alias!r}, name={self.name!r})"

    # --- the database

    @contextmanager
    def _reached(self, *, atomic: bool = False) -> Iterator[None]:
        """Around each use of the catalogue's own connection (law 1)."""
        connection = connections[self.alias]
        if connection.in_atomic_block:
            raise ConfigurationError(
                f"DATABASES[{self.alias!r}]",
                "is in a transaction, so nothing that the catalogue says would be committed.",
                "Use this alias for the catalogue alone, without ATOMIC_REQUESTS; in tests use a "
                "TransactionTestCase.",
            )
        try:
            with transaction.atomic(self.alias) if atomic else contextlib.nullcontext():
                yield
        except IntegrityError:
            raise
        except DatabaseError as error:
            raise self._unavailable(connection, error) from error

    @contextmanager
    def _site_reached(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise self._unavailable(connections[self.site], error) from error

    def _unavailable(
        self, connection: BaseDatabaseWrapper, error: DatabaseError
    ) -> CatalogueUnavailable:
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        text = " ".join(str(error).split())[:200]
        return CatalogueUnavailable(
            f"The catalogue in DATABASES[{connection.alias!r}] can't be used: {text}. Is the "
            f"database up, and was 'manage.py migrate --database {connection.alias}' run?"
        )

    def _files(self) -> models.QuerySet[File]:
        return File.objects.using(self.alias).filter(catalogue=self.name)

    def _debts(self) -> models.QuerySet[Owed]:
        return Owed.objects.using(self.alias).filter(catalogue=self.name)

    def _facts(self) -> models.QuerySet[Fact]:
        return Fact.objects.using(self.alias).filter(catalogue=self.name)

    def _lives(self) -> models.QuerySet[Live]:
        return Live.objects.using(self.site)

    def key(self, name: str) -> str:
        """The key of a name's row."""
        return hashlib.sha256(f"{self.name}\0{name}".encode()).hexdigest()

    @property
    def master_id(self) -> str:
        """The id that every media server of this catalogue holds."""
        if not self._master_id:
            self.prepare()
        return self._master_id

    def prepare(self) -> None:
        """Give the catalogue its id, once. Several processes may do this at once."""
        fresh = self._token(16)
        self._set_fact("master", fresh, replace_it=False)
        self._master_id = self._fact("master") or fresh

    def restore_folders(self) -> bool:
        """See `Journal`. There are none."""
        return False

    # --- attempts

    def attempt(self, name: str, change: Change) -> Attempt:
        """See `Journal`. Its id sorts by time."""
        new_id = f"{int(self._clock() * 1e6):014x}{self._token(8)}"
        mark = _COPY if change is Change.COPY else ""
        return Attempt(new_id + mark, name, change, owners.own())

    def begin(self, attempt: Attempt) -> Path:
        """See `Journal`. Nothing is on record before the commit, and nothing has happened."""
        return spool.path(attempt)

    def draft(self, attempt: Attempt) -> Look:
        """See `Journal`. Reads the file, for its digest."""
        return spool.look(attempt)

    def commit(self, attempt: Attempt, look: Look, *, mode: int | None = None) -> None:
        """See `Journal`. Law 2; `mode` is for folders, and there are none."""
        del mode
        (digest,) = look.identity
        row = File(
            key=self.key(attempt.name),
            catalogue=self.name,
            name=attempt.name,
            size=look.size,
            digest=digest,
            attempt=attempt.id,
            owner=attempt.owner,
            changed_at=Now(),
        )
        try:
            with self._reached():
                row.save(using=self.alias, force_insert=True)
        except IntegrityError as error:
            raise FileExistsError(attempt.name) from error

    def rename(self, attempt: Attempt, name: str) -> Attempt:
        """See `Journal`."""
        renamed = replace(self.attempt(name, attempt.change), owner=attempt.owner)
        os.rename(self.begin(attempt), self.begin(renamed))
        return renamed

    def restore(self, attempt: Attempt) -> bool:
        """See `Journal`. Names are never used again, so nothing was replaced."""
        del attempt
        return False

    @contextmanager
    def opened(self, attempt: Attempt, look: Look) -> Iterator[FileBody | None]:
        """See `Journal`. The upload, which is on this machine until the save ends."""
        with spool.opened(attempt, look) as body:
            yield body

    def accept(self, attempt: Attempt) -> None:
        """See `Journal`. The site's transaction, if there is one, makes the file live (law 3)."""
        connection = connections[self.site]
        # The transaction's number is asked for first: a row that nobody can place is reaped
        # at once.
        told = COMMITTED
        with self._site_reached():
            if connection.in_atomic_block or not connection.get_autocommit():
                told = _number(connection)
            Live(key=self.key(attempt.name)).save(using=self.site, force_insert=True)
        self._told[attempt.id] = told

    def settle(self, attempt: Attempt, owed: Iterable[str], unknown: Iterable[str]) -> None:
        """See `Journal`. Raises `SaveInterrupted` for a save that was deleted meanwhile.

        It may have been taken for dead. The site's transaction must not go on as if it had
        the file.
        """
        told = self._told.pop(attempt.id, UNTOLD)
        debts = [self._row(attempt, server, Kind.OWED) for server in owed]
        debts += [self._row(attempt, server, Kind.UNKNOWN) for server in unknown]
        with self._reached(atomic=bool(debts)):
            Owed.objects.using(self.alias).bulk_create(debts)
            changed = self._ours(attempt).update(attempt="", transaction=told, changed_at=Now())
        spool.remove(attempt)
        if not changed and attempt.change in {Change.SAVE, Change.COPY}:
            if not connections[self.site].in_atomic_block:
                self.revoke(attempt.name)
            raise SaveInterrupted(
                f"{attempt.name!r} was deleted before its save had ended, or given up by a repair "
                f"pass because it had not moved for {self.attempt_limit:g} s. Save it again."
            )

    def finish(self, attempt: Attempt) -> None:
        """See `Journal`."""

    def discard(self, attempt: Attempt) -> None:
        """See `Journal`."""
        spool.remove(attempt)
        with self._reached():
            self._ours(attempt).delete()

    def _ours(self, attempt: Attempt) -> models.QuerySet[File]:
        return self._files().filter(key=self.key(attempt.name), attempt=attempt.id)

    def _row(self, attempt: Attempt, server: str, kind: Kind) -> Owed:
        now = moment(self._clock())
        debt = Debt(server, attempt.id, kind, attempt.name, started(attempt.id), 0, now)
        return self._debt_row(debt)

    # --- deletions

    def bury_unheard(self, attempt: Attempt) -> bool:
        """See `Journal`. One insert, never an update."""
        row = File(
            key=self.key(attempt.name),
            catalogue=self.name,
            name=attempt.name,
            gone=True,
            attempt=attempt.id,
            owner=attempt.owner,
        )
        try:
            with self._reached():
                row.save(using=self.alias, force_insert=True)
        except IntegrityError:
            return False
        return True

    def bury(self, attempt: Attempt) -> bool:
        """See `Journal`. The tombstone is the record of the attempt, too (law 4)."""
        key = self.key(attempt.name)
        with self._reached(atomic=True):
            row = self._files().select_for_update().filter(key=key).first()
            if row is not None and row.attempt not in {"", attempt.id}:
                # A save is on its way. If its process dies, its requests are still watched.
                saver = Attempt(row.attempt, attempt.name, Change.SAVE)
                debts = [self._row(saver, server, Kind.UNKNOWN) for server in self._claimed()]
                Owed.objects.using(self.alias).bulk_create(debts)
            found = row is not None and not row.gone
            self._bury_row(key, attempt)
        if not connections[self.site].in_atomic_block:
            # In a transaction of the site's it is that which says what is live.
            with self._site_reached():
                self._lives().filter(key=key).delete()
        return found

    def revoke(self, name: str) -> None:
        """Let the site's transaction, if there is one, say that a file is live no more."""
        with self._site_reached():
            self._lives().filter(key=self.key(name)).delete()

    def _bury_row(self, key: str, attempt: Attempt) -> None:
        """Make a row a tombstone, or make one."""
        values = {"gone": True, "attempt": attempt.id, "owner": attempt.owner, "changed_at": Now()}
        if not self._files().filter(key=key).update(**values):
            row = File(key=key, catalogue=self.name, name=attempt.name, **values)
            row.save(using=self.alias, force_insert=True)

    def tombstones(self) -> Iterator[tuple[str, float]]:
        """The deleted names, each with the time of its deletion by the database's clock."""
        for row in self._chunks(self._files().filter(gone=True)):
            yield row.name, row.changed_at.timestamp()

    # --- what is found

    def look(self, name: str) -> Look:
        """See `Journal`."""
        with self._reached():
            row = self._files().filter(key=self.key(name)).first()
        if row is None:
            return Look(Wanted.UNHEARD)
        return Look(Wanted.GONE) if row.gone else Look(Wanted.PRESENT, (row.digest,), row.size)

    def saved_at(self, name: str) -> datetime | None:
        """When a file was saved, or None when it is not there."""
        with self._reached():
            return self._present(name).values_list("changed_at", flat=True).first()

    def size(self, name: str) -> int | None:
        """Bytes in a file, or None when it is not there."""
        with self._reached():
            return self._present(name).values_list("size", flat=True).first()

    def below(self, prefix: str) -> Iterator[str]:
        """The names that begin so, in no order."""
        for row in self._chunks(self._files().filter(gone=False, name__startswith=prefix)):
            # SQLite and MySQL fold case in that comparison.
            if row.name.startswith(prefix):
                yield row.name

    def _present(self, name: str) -> models.QuerySet[File]:
        return self._files().filter(key=self.key(name), gone=False)

    def debts(self, server: str, name: str | None = None) -> Iterator[Debt]:
        """See `Journal`."""
        rows = self._debts().filter(server=server)
        if name is not None:
            rows = rows.filter(key=self.key(name) if name else "")
        last: tuple[str, int] = ("", 0)
        while True:
            after = models.Q(attempt__gt=last[0]) | models.Q(attempt=last[0], pk__gt=last[1])
            with self._reached():
                found = list(rows.filter(after).order_by("attempt", "pk")[:CHUNK])
            for row in found:
                yield _debt(row)
            if len(found) < CHUNK:
                return
            last = (found[-1].attempt, found[-1].pk)

    def servers(self) -> list[str]:
        """The names of the servers that have records, configured or not."""
        with self._reached():
            return sorted(self._debts().values_list("server", flat=True).distinct())

    def count(self, server: str) -> int:
        """How many records a server has."""
        with self._reached():
            return self._debts().filter(server=server).count()

    def summary(self, server: str) -> tuple[int, int, float | None]:
        """See `DirectoryJournal.summary`."""
        watched = models.Q(kind=Kind.UNKNOWN.value, looks__gt=0)
        with self._reached():
            facts = (
                self._debts()
                .filter(server=server)
                .aggregate(
                    owed=models.Count("pk", filter=~watched),
                    watched=models.Count("pk", filter=watched),
                    oldest=models.Min("since", filter=~watched),
                )
            )
        return facts["owed"], facts["watched"], facts["oldest"]

    def attempts(self) -> Iterator[Attempt]:
        """The attempts in progress, or left by a process that died."""
        for row in self._chunks(self._files().exclude(attempt="")):
            copied = Change.COPY if row.attempt.endswith(_COPY) else Change.SAVE
            change = Change.DELETE if row.gone else copied
            yield Attempt(row.attempt, row.name, change, row.owner)

    def entries(self, failed: Callable[[str, OSError], None], prefix: str = "") -> Iterator[Entry]:
        """See `Journal`. Databases order texts in many ways, so they are sorted here.

        Without what is just being saved: no server may have it yet, and it has a record of
        its own.
        """
        del failed
        settled = self._files().filter(gone=False, attempt="", name__startswith=prefix)
        rows = self._chunks(settled)
        # SQLite's LIKE folds case.
        mine = (row for row in rows if row.name.startswith(prefix))
        found = (Entry(row.name, row.size, "", row.digest) for row in mine)
        return ordered(found, lambda row: Entry(*cast("Entry", row)))

    def _chunks(self, rows: models.QuerySet[File]) -> Iterator[File]:
        """All rows, some at a time, so that each statement is short and may change them."""
        last = ""
        while True:
            with self._reached():
                found = list(rows.filter(key__gt=last).order_by("key")[:CHUNK])
            yield from found
            if len(found) < CHUNK:
                return
            last = found[-1].key

    # --- repair

    def owe(self, server: str, name: str, *, unknown: bool = False) -> Debt:
        """Record one more debt: for a look at every name, request by request."""
        kind = Kind.UNKNOWN if unknown else Kind.OWED
        return self._owe(self._row(self.attempt(name, Change.SAVE), server, kind))

    def owe_all(self, server: str) -> Debt:
        """See `Journal`."""
        for debt in self.debts(server, ""):
            if debt.kind is Kind.ALL:  # no walk has begun since
                return debt
        return self._owe(self._row(self.attempt("", Change.SAVE), server, Kind.ALL))

    def _owe(self, row: Owed) -> Debt:
        with self._reached():
            row.save(using=self.alias, force_insert=True)
        return _debt(row)

    def is_owed_all(self, server: str) -> bool:
        """See `Journal`."""
        with self._reached():
            return self._debts().filter(server=server, key="", looks=0).exists()

    def forget(self, debt: Debt) -> None:
        """See `Journal`."""
        with self._reached():
            self._same(debt).delete()

    def _move(self, old: Debt, new: Debt) -> bool:
        with self._reached():
            values = {"kind": new.kind.value, "looks": new.looks, "at": new.at, "mark": new.mark}
            return bool(self._same(old).update(**values))

    def _same(self, debt: Debt) -> models.QuerySet[Owed]:
        return self._debts().filter(
            server=debt.server,
            attempt=debt.id,
            key=self.key(debt.name) if debt.name else "",
            kind=debt.kind.value,
            looks=debt.looks,
            mark=debt.mark,
        )

    def _debt_row(self, debt: Debt) -> Owed:
        return Owed(
            catalogue=self.name,
            server=debt.server,
            attempt=debt.id,
            kind=debt.kind.value,
            key=self.key(debt.name) if debt.name else "",
            name=debt.name,
            since=debt.since,
            looks=debt.looks,
            at=debt.at,
            mark=debt.mark,
        )

    def is_dead(self, attempt: Attempt) -> bool:
        """Whether the process of an attempt has died, or has stood still for `attempt_limit`."""
        if owners.lives(attempt.owner) is False:
            return True
        limit = timedelta(seconds=self.attempt_limit)
        with self._reached():
            return self._ours(attempt).filter(changed_at__lt=Now() - limit).exists()

    def convert(self, attempt: Attempt, servers: Iterable[str]) -> bool:
        """Take over a dead attempt: owe the servers what it may have sent, as unknown.

        A save that is live is kept. Any other is taken back: it was not settled, so its
        process never came to its commit. One that is copied is forgotten: the next copy takes
        the name again.
        """
        if attempt.change is Change.COPY:
            with self._reached():
                return bool(self._ours(attempt).delete()[0])
        if attempt.change is Change.DELETE:
            self.revoke(attempt.name)
        key = self.key(attempt.name)
        with self._site_reached():
            live = self._lives().filter(key=key).exists()
        with self._reached(atomic=True):
            values: dict[str, Any] = {"attempt": "", "changed_at": Now(), "is_live": live}
            values["transaction"] = COMMITTED
            if not live:
                values["gone"] = True
            if not self._ours(attempt).update(**values):
                return False  # it has ended meanwhile
            debts = [self._row(attempt, server, Kind.UNKNOWN) for server in servers]
            Owed.objects.using(self.alias).bulk_create(debts)
        return True

    def reap(self, servers: Iterable[str]) -> list[str]:
        """Delete what was saved and never went live (law 3); returns the names."""
        waiting = self._files().filter(gone=False, attempt="", is_live=False)
        return self._reap(waiting, tuple(servers))

    def _reap(self, waiting: models.QuerySet[File], servers: tuple[str, ...]) -> list[str]:
        reaped: list[str] = []
        last = ""
        while True:
            with self._reached():
                rows = list(waiting.filter(key__gt=last).order_by("key")[:CHUNK])
            # In this order: a transaction that is over has made live what it ever will.
            over = [row for row in rows if self._is_over(row)]
            live = self._live(row.key for row in rows)
            with self._reached():
                self._files().filter(key__in=live).update(is_live=True)
            lost = [row for row in over if row.key not in live]
            reaped += [row.name for row in lost if self._reap_one(row, servers)]
            if len(rows) < CHUNK:
                return reaped
            last = rows[-1].key

    def _live(self, keys: Iterable[str]) -> set[str]:
        with self._site_reached():
            return set(self._lives().filter(key__in=list(keys)).values_list("key", flat=True))

    def _is_over(self, row: File) -> bool:
        """Whether no transaction is left that could make a file live."""
        if row.is_live or row.transaction == COMMITTED:
            return True
        if row.transaction == UNTOLD:
            limit = timedelta(seconds=self.grace)
            with self._reached():
                old = self._files().filter(key=row.key, changed_at__lt=Now() - limit)
                return old.exists()
        with self._site_reached(), connections[self.site].cursor() as cursor:
            # NULL: so long ago that the server has forgotten how it ended.
            cursor.execute("SELECT pg_xact_status(%s::xid8)", [row.transaction])
            (status,) = cursor.fetchone() or (None,)
        return status != "in progress"

    def _reap_one(self, row: File, servers: tuple[str, ...]) -> bool:
        attempt = self.attempt(row.name, Change.DELETE)
        with self._reached(atomic=True):
            same = self._files().filter(key=row.key, gone=False, attempt="")
            if not same.update(gone=True, changed_at=Now()):
                return False
            debts = [self._row(attempt, server, Kind.OWED) for server in servers]
            Owed.objects.using(self.alias).bulk_create(debts)
        return True

    def sweep(self) -> int:
        """Remove what is of no use: old tombstones, uploads that nobody sends any more.

        And give up what was live once, and is not: its deletion was committed by a process
        that died then.
        """
        self._reap(self._files().filter(gone=False, attempt="", is_live=True), self._all())
        self._revoke_gone()
        removed = 0
        old = timedelta(seconds=KEEP_TOMBSTONES)
        owed = self._debts().filter(key=models.OuterRef("key"))
        with self._reached():
            if not self._debts().filter(key="").exists():
                rows = self._files().filter(gone=True, attempt="", changed_at__lt=Now() - old)
                keys = list(rows.filter(~models.Exists(owed)).values_list("key", flat=True))
                removed = self._remove(keys)
        return removed + self._sweep_heartbeats() + spool.sweep()

    def _sweep_heartbeats(self) -> int:
        """Forget the watches that stopped long ago."""
        found = self._heartbeats()
        kept = {one.watch for one in remembered(found)}
        old = [f"watch {one.watch}" for one in found if one.watch not in kept]
        with self._reached():
            return self._facts().filter(name__in=old).delete()[0]

    def _revoke_gone(self) -> None:
        """What is gone is not live: a save that was taken for dead may have said so since."""
        last = ""
        while True:
            rows = self._files().filter(gone=True, key__gt=last).order_by("key")
            with self._reached():
                keys = list(rows.values_list("key", flat=True)[:CHUNK])
            with self._site_reached():
                self._lives().filter(key__in=keys).delete()
            if len(keys) < CHUNK:
                return
            last = keys[-1]

    def _remove(self, keys: list[str]) -> int:
        """Remove tombstones, and what a transaction of the site left of them by mistake."""
        removed = 0
        for start in range(0, len(keys), CHUNK):
            some = keys[start : start + CHUNK]
            self._lives().filter(key__in=some).delete()
            removed += self._files().filter(key__in=some).delete()[0]
        return removed

    def _all(self) -> tuple[str, ...]:
        return tuple(self.claimed())

    # --- what the servers are known for

    def holds(self, server: str, name: str) -> bool:
        """See `Journal`. Three short queries."""
        key = self.key(name)
        with self._reached():
            if not self._files().filter(key=key, gone=False, attempt="").exists():
                return False
            if self._debts().filter(server=server, key__in=[key, ""], looks=0).exists():
                return False
        return self.is_claimed(server)

    def is_claimed(self, server: str) -> bool:
        """Whether this catalogue has put its id on the server once."""
        return self._fact(f"claimed {server}") is not None

    def set_claimed(self, server: str, *, claimed: bool = True) -> None:
        """Remember, or forget, that the server holds this catalogue's id."""
        if claimed:
            self._set_fact(f"claimed {server}", "", replace_it=False)
            return
        with self._reached():
            self._facts().filter(name=f"claimed {server}").delete()

    def claimed(self) -> list[str]:
        """See `Journal`."""
        with self._reached():
            return self._claimed()

    def _claimed(self) -> list[str]:
        found = self._facts().filter(name__startswith="claimed ")
        return sorted(name.partition(" ")[2] for name in found.values_list("name", flat=True))

    def retire(self, server: str) -> int | None:
        """Forget a server and what it was owed: how many records, or None if it is not known."""
        known = self.is_claimed(server)
        self.set_claimed(server, claimed=False)
        with self._reached():
            count, _ = self._debts().filter(server=server).delete()
        return count if known or count else None

    def write_heartbeat(self, watch: str, beat: dict[str, object]) -> None:
        """See `Journal`."""
        self._set_fact(f"watch {watch}", json.dumps(beat), replace_it=True)

    def heartbeats(self) -> list[Heartbeat]:
        """See `Journal`."""
        return remembered(self._heartbeats())

    def _heartbeats(self) -> list[Heartbeat]:
        age = models.ExpressionWrapper(
            Now() - models.F("changed_at"), output_field=models.DurationField()
        )
        with self._reached():
            rows = list(self._facts().filter(name__startswith="watch ").annotate(age=age))
        return [
            Heartbeat(
                row.name.partition(" ")[2], json.loads(row.value), max(0.0, row.age.total_seconds())
            )
            for row in rows
        ]

    def _fact(self, name: str) -> str | None:
        with self._reached():
            return self._facts().filter(name=name).values_list("value", flat=True).first()

    def _set_fact(self, name: str, value: str, *, replace_it: bool) -> None:
        with self._reached():
            if replace_it and self._facts().filter(name=name).update(value=value, changed_at=Now()):
                return
            row = Fact(catalogue=self.name, name=name, value=value, changed_at=Now())
            Fact.objects.using(self.alias).bulk_create([row], ignore_conflicts=True)


def _debt(row: Owed) -> Debt:
    kind = Kind(row.kind)
    return Debt(row.server, row.attempt, kind, row.name, row.since, row.looks, row.at, row.mark)


def _number(connection: BaseDatabaseWrapper) -> str:
    """The number of the transaction that is open on a connection, where that is told."""
    if connection.vendor != "postgresql":
        return UNTOLD
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text")
        (number,) = cursor.fetchone()
    return str(number)
