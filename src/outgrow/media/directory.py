"""The journal in a folder beside the master: records that are file names.

    MEDIA_ROOT/.outgrow/
        format            the version of this layout
        master            the id of this master, which each media server holds too
        open/<id>.<change>.<owner>.<name>
                          an attempt in progress; of a save it is the new file itself
        owed/<server>/    what one server is owed:
            <id>.owed.<name>       look at this name: the server surely lacks the change
            <id>.unknown.<n>.<ms>.<mark>.<name>
                                   a request may still be carried out; looked at n times
            <id>.all.              look at every name: a new server, or too many records
            <id>.unknown.<n>.<ms>.<mark>.
                                   the same, for requests for any name
        gone/<name>       a tombstone: this name was deleted
        claimed/<server>  the server was given this master's id
        new/              what is made aside, and then linked or renamed into its place
        watches/<watch>   the heartbeat of one `media repair --watch`
        clock             touched to learn the time of the file system's own clock

The laws of the directory:

1. A record is made before what it speaks of changes. What it says is its file's name,
   so it is whole from its first moment. (A name that is too long for that is the
   content of the record, which is made aside and renamed into its place.)
2. A record is never rewritten. It is made (exclusively), renamed or removed, each
   in one step, so that readers on any machine that shares the folder see it
   whole, and two that act at once can't lose it: the second finds it gone.
3. Narrowing makes the new records before it removes the old one.
4. The bytes of a file enter the master by `link`, which never replaces, or by
   `rename` where that was asked for. Who takes the draft away first decides whether
   the attempt can still commit.
5. A deletion is a `rename` to `gone/`, and so is its record.
6. How old a record is, is told by the clock of the file system alone: machines that
   share the folder may disagree by hours.

The folder is readable for its owner alone. Whoever serves the folder above it as that
owner must refuse dotfiles, as the rendered configurations do. Only `rename`, `link` and
exclusive creation are used; there are no locks, and so none that a network file system
breaks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from outgrow.errors import JournalTooNew, MasterError, SaveInterrupted
from outgrow.http import FileBody
from outgrow.media import files, journal, owners
from outgrow.media.claims import Claims
from outgrow.media.journal import (
    ABANDONED,
    ATTEMPT_LIMIT,
    KEEP_TOMBSTONES,
    Attempt,
    Change,
    Debt,
    Heartbeat,
    Kind,
    Look,
    Wanted,
    identity,
    moment,
    started,
)
from outgrow.media.listing import Entry
from outgrow.media.walking import walk_disk
from outgrow.names import JOURNAL_FOLDER

#: The version of the layout above. A newer one is refused, an older one upgraded.
FORMAT: Final = 1

#: The folders of the journal, and the file that keeps each from being tidied when empty.
_PARTS: Final = ("new", "open", "owed", "gone", "claimed")
_KEEP: Final = ".keep"

#: Nanoseconds in which two changes of a folder may have the same time. ext4 has ticks of
#: 1 to 10 ms, NFS passes on those of its server.
_TICK: Final = 2_000_000_000

#: Times that a folder is made for a file while others remove it.
_TRIES: Final = 10


class DirectoryJournal(Claims):
    """The journal in a folder beside the master. See the module for its laws.

    Safe for several threads, processes and machines that share the folder. Holds
    no open file and no lock, so that it can be pickled and forked. Nothing is
    read or made before `prepare`. An attempt that has not moved for `attempt_limit`
    seconds counts as dead. `clock` gives seconds since the epoch, `token` so many random
    bytes in hexadecimal, and `file_clock` the time of the file system; without it a file
    is touched to learn that (law 6).
    """

    has_digests = False
    keeps_records = True
    has_master = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fsync: bool = False,
        attempt_limit: float = ATTEMPT_LIMIT,
        clock: Callable[[], float] = time.time,
        token: Callable[[int], str] = secrets.token_hex,
        file_clock: Callable[[], float] | None = None,
    ) -> None:
        self.root = Path(root)
        self.folder = self.root / JOURNAL_FOLDER
        # The save path joins texts: Path objects were a fifth of a save's time.
        self._root_text, self._folder_text = os.fspath(self.root), os.fspath(self.folder)
        self.fsync = fsync
        self.attempt_limit = attempt_limit
        self._clock = clock
        self._token = token
        self._file_clock = file_clock or self._touch
        self._master_id = ""
        #: What was in a folder, and when that was changed last.
        self._listings: dict[str, tuple[tuple[int, int], frozenset[str]]] = {}

    # --- the folder

    @property
    def master_id(self) -> str:
        """The id of this master; makes the folder at its first use."""
        if not self._master_id:
            self.prepare()
        return self._master_id

    def prepare(self) -> None:
        """Make the folder, or check the one that is there.

        Raises `MasterError` when it can't be used, `JournalTooNew` when a newer
        Outgrow wrote it. Several processes may do this at once.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_parts()
            version = self._once("format", f"outgrow journal {FORMAT}\n")
            self._check_version(version)
            self._master_id = self._once("master", self._token(16) + "\n").strip()
        except OSError as error:
            if isinstance(error, MasterError):
                raise
            raise MasterError(
                f"The journal {self.folder} can't be used: {error.strerror or error}. "
                "Is MEDIA_ROOT mounted, and may this process write there?"
            ) from error

    def _make_parts(self) -> bool:
        """Make the folders that are missing, each with a file that keeps it from being tidied."""
        missing = [part for part in _PARTS if not (self.folder / part / _KEEP).exists()]
        for part in missing:
            (self.folder / part).mkdir(mode=0o700, exist_ok=True)
            (self.folder / part / _KEEP).touch(mode=0o600)
        return bool(missing)

    def restore_folders(self) -> bool:
        """See `Journal`. Raises `MasterError` when the whole journal has vanished."""
        if not (self.folder / "format").exists():
            raise MasterError(
                f"The journal {self.folder} has vanished. Is MEDIA_ROOT still mounted?"
            )
        return self._make_parts()

    def _check_version(self, text: str) -> None:
        number = text.rpartition(" ")[2].strip()
        if not number.isdigit():
            raise MasterError(
                f"{self.folder / 'format'} holds {text[:40]!r}, which no Outgrow wrote. "
                "Restore it from a backup."
            )
        if int(number) > FORMAT:
            raise JournalTooNew(
                f"The journal {self.folder} has format {number}; this Outgrow knows "
                f"{FORMAT}. Upgrade Outgrow on this machine."
            )

    def _once(self, file: str, text: str) -> str:
        """The text of a file that is written once, by whoever comes first."""
        path = self.folder / file
        with contextlib.suppress(FileNotFoundError):
            return path.read_text()
        draft = self.folder / "new" / f"{file}-{self._token(8)}"
        self._write(draft, text)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError as error:
            raise _explained(error, path) from error
        finally:
            draft.unlink()
        self._sync(self.folder)
        return path.read_text()

    # --- attempts

    def attempt(self, name: str, change: Change) -> Attempt:
        """See `Journal`. Its id sorts by time."""
        if not self._master_id:
            self.prepare()
        return Attempt(self._new_id(), name, change, owners.own())

    def begin(self, attempt: Attempt) -> Path:
        """See `Journal`. One file is made; none for an attempt that is `in_draft`."""
        if not attempt.in_draft:
            self._make(self._record(attempt), journal.content(attempt.name))
        return Path(self._draft(attempt))

    def rename(self, attempt: Attempt, name: str) -> Attempt:
        """See `Journal`. The new record is there before the old one goes."""
        renamed = replace(attempt, id=self._new_id(), name=name)
        os.rename(self._draft(attempt), self.begin(renamed))
        files.remove(self._record(attempt))
        return renamed

    def _record(self, attempt: Attempt) -> str:
        return f"{self._folder_text}/open/{attempt.file}"

    def _draft(self, attempt: Attempt) -> str:
        return (
            self._record(attempt) if attempt.in_draft else f"{self._folder_text}/new/{attempt.id}"
        )

    def draft(self, attempt: Attempt) -> Look:
        """See `Journal`. The draft and what it becomes are one file: this is its identity."""
        try:
            found = os.stat(self._draft(attempt))
        except FileNotFoundError:
            raise self._interrupted(attempt) from None
        return Look(Wanted.PRESENT, identity(found), found.st_size)

    def commit(self, attempt: Attempt, look: Look, *, mode: int | None = None) -> None:
        """See `Journal`. `mode` is for the folders that are made, as with `makedirs`."""
        del look  # the draft is the file
        draft, path = self._draft(attempt), f"{self._root_text}/{attempt.name}"
        for _ in range(_TRIES):
            try:
                self._place(attempt, draft, path)
                break
            except FileNotFoundError:
                if not os.path.exists(draft):
                    raise self._interrupted(attempt) from None
                self._make_folders(Path(path).parent, mode)
        else:
            raise MasterError(
                f"{attempt.name!r} was not saved: its folder {Path(path).parent} was removed "
                "each time it was made."
            )
        if self.fsync:
            files.sync_folder(Path(path).parent)
        if not attempt.in_draft:
            files.remove(draft)

    def _interrupted(self, attempt: Attempt) -> SaveInterrupted:
        return SaveInterrupted(
            f"The save of {attempt.name!r} was given up by a repair pass, because it "
            f"had not moved for {self.attempt_limit:g} s. Nothing was saved; save it again."
        )

    def _make_folders(self, folder: Path, mode: int | None) -> None:
        try:
            files.make_folders(folder, mode)
        except (FileExistsError, NotADirectoryError) as error:
            raise MasterError(
                f"{error.filename or folder} is in the way of the folder {folder}: it is a file, "
                "or a link that leads nowhere. Remove it, or mount what it points to."
            ) from error
        self._sync(folder.parent)

    def _place(self, attempt: Attempt, draft: str, path: str) -> None:
        """Give the draft its name (law 4)."""
        try:
            if attempt.change is Change.REPLACE:
                with contextlib.suppress(FileNotFoundError, FileExistsError):
                    os.link(path, self._replaced(attempt))
                os.replace(draft, path)
            else:
                self._link(draft, path)
        except OSError as error:
            raise _explained(error, path) from error

    def _replaced(self, attempt: Attempt) -> Path:
        return self.folder / "new" / f"{attempt.id}.replaced"

    def restore(self, attempt: Attempt) -> bool:
        """See `Journal`. One rename."""
        path = self.root / attempt.name
        try:
            os.replace(self._replaced(attempt), path)
        except FileNotFoundError:
            return False
        self._sync(path.parent)
        return True

    def _link(self, draft: str, path: str) -> None:
        try:
            os.link(draft, path)
        except FileExistsError:
            # NFS may repeat a request whose answer was lost: the second one fails,
            # though the first has made the link (open(2), under O_EXCL).
            if not files.is_same(draft, path):
                raise

    def bury_unheard(self, attempt: Attempt) -> bool:
        """See `Journal`. Nothing of the master is touched."""
        if os.path.lexists(self.root / attempt.name):
            return False
        self._empty(attempt.name)
        return True

    def bury(self, attempt: Attempt) -> bool:
        """See `Journal`. The tombstone soon holds nothing of the file any more."""
        name = attempt.name
        path, tombstone = self.root / name, self._tombstone(name)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "A folder is never deleted", str(path))
        found = self._rename(path, tombstone) or (
            # The file was there, and the place for its tombstone was not.
            self.restore_folders() and self._rename(path, tombstone)
        )
        if found:
            self._sync(path.parent)
            self._sync(tombstone.parent)
            # A tombstone that could not be emptied (the disk is full) is one all the same.
            with contextlib.suppress(OSError):
                self._empty(name)
        else:
            self._empty(name)
        return found

    def _rename(self, path: Path, tombstone: Path) -> bool:
        try:
            os.rename(path, tombstone)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _explained(error, path) from error
        return True

    def _empty(self, name: str) -> None:
        """Put another file in a tombstone's place: the space is free, readers go on."""
        self._replace(self._tombstone(name), journal.content(name))

    def accept(self, attempt: Attempt) -> None:
        """See `Journal`. Whoever looks at the master sees the file already."""

    def reap(self, servers: Iterable[str]) -> list[str]:
        """See `Journal`. What is on the master is wanted."""
        del servers
        return []

    @contextlib.contextmanager
    def opened(self, attempt: Attempt, look: Look) -> Iterator[FileBody | None]:
        """See `Journal`. The master's file, if it is still the one that was looked at."""
        with self.copy(attempt.name, look) as body:
            yield body

    @contextlib.contextmanager
    def copy(self, name: str, look: Look) -> Iterator[FileBody | None]:
        """The master's file, if it is still the one that was looked at."""
        try:
            descriptor = os.open(f"{self._root_text}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        try:
            found = os.fstat(descriptor)
            same = identity(found) == look.identity
            yield FileBody(descriptor, found.st_size) if same else None
        finally:
            os.close(descriptor)

    def settle(self, attempt: Attempt, owed: Iterable[str], unknown: Iterable[str]) -> None:
        """See `Journal`. Makes the narrower records, then removes the attempt's own."""
        for server in owed:
            self._owe(server, attempt.id, attempt.name, Kind.OWED)
        for server in unknown:
            self._owe(server, attempt.id, attempt.name, Kind.UNKNOWN)
        files.remove(self._record(attempt))

    def finish(self, attempt: Attempt) -> None:
        """See `Journal`. What can't be removed is swept later."""
        if attempt.change is Change.REPLACE:
            with contextlib.suppress(OSError):
                os.unlink(self._replaced(attempt))

    def discard(self, attempt: Attempt) -> None:
        """See `Journal`. A draft without its record is swept."""
        files.remove(self._record(attempt))
        files.remove(self._draft(attempt))
        self.finish(attempt)

    def owe(self, server: str, name: str, *, unknown: bool = False) -> Debt:
        """Record one more debt: for a look at every name, request by request."""
        if not self._master_id:
            self.prepare()
        return self._owe(server, self._new_id(), name, Kind.UNKNOWN if unknown else Kind.OWED)

    def owe_all(self, server: str) -> Debt:
        """See `Journal`."""
        self.prepare()
        for debt in self.debts(server, ""):
            if debt.kind is Kind.ALL:  # no walk has begun since
                return debt
        return self._owe(server, self._new_id(), "", Kind.ALL)

    def is_owed_all(self, server: str) -> bool:
        """See `Journal`."""
        return any(debt.looks == 0 for debt in self.debts(server, ""))

    def _owe(self, server: str, attempt_id: str, name: str, kind: Kind) -> Debt:
        debt = Debt(server, attempt_id, kind, name, started(attempt_id), 0, moment(self._clock()))
        self._make(self._debt(debt), journal.content(name))
        return debt

    # --- what is found

    def look(self, name: str) -> Look:
        """See `Journal`. Opens the file, since NFS answers a mere stat from its cache."""
        try:
            path = f"{self._root_text}/{name}"
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            gone = self._tombstone(name).exists()
            return Look(Wanted.GONE if gone else Wanted.UNHEARD)
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return Look(Wanted.UNHEARD)
        return Look(Wanted.PRESENT, identity(found), found.st_size)

    def debts(self, server: str, name: str | None = None) -> Iterator[Debt]:
        """See `Journal`. Reads names, and only where one is too long a record."""
        folder = self._owed(server)
        # A quoted name may hold dots, so this finds too many; the name decides.
        end = "" if name is None else f".{journal.field(name)}"
        for file in sorted(file for file in files.names(folder) if file.endswith(end)):
            debt = Debt.read(server, file, partial(files.text, folder / file))
            if debt is not None and name in {None, debt.name}:
                yield debt

    def holds(self, server: str, name: str) -> bool:
        """See `Journal`. Three looks at folders, which are read again when they have changed."""
        if _folder(server) not in self._listed("claimed"):
            return False
        end = f".{journal.field(name)}"
        if any(file.endswith(end) for file in self._listed("open")):
            return False
        # A record without a name ends in a dot, and stands for every name.
        owed = self._listed(f"owed/{_folder(server)}")
        return not any(_is_lacking(file) for file in owed if file.endswith((end, ".")))

    def _listed(self, part: str) -> frozenset[str]:
        """What is in one of the journal's folders."""
        path = f"{self._folder_text}/{part}"
        try:
            found = os.stat(path)
            known = self._listings.get(part)
            stamp = (found.st_ino, found.st_mtime_ns)
            if known is not None and known[0] == stamp:
                return known[1]
            names = frozenset(name for name in os.listdir(path) if not name.startswith("."))
        except FileNotFoundError:
            return frozenset()
        # What has changed a moment ago may change again with the same time.
        if time.time_ns() - found.st_mtime_ns > _TICK:
            self._listings[part] = (stamp, names)
        return names

    def servers(self) -> list[str]:
        """The names of the servers that have records, configured or not."""
        return sorted(unquote(file) for file in files.names(self.folder / "owed"))

    def count(self, server: str) -> int:
        """How many records a server has."""
        return len(files.names(self._owed(server)))

    def summary(self, server: str) -> tuple[int, int, float | None]:
        """How many debts a server surely or perhaps lacks, how many are only watched,
        and when the oldest of the first arose. Reads names, not records.
        """
        owed, watched, oldest = 0, 0, None
        for file in files.names(self._owed(server)):
            if not _is_lacking(file):
                watched += 1
                continue
            owed += 1
            oldest = min(oldest or math.inf, started(file.partition(".")[0]))
        return owed, watched, oldest

    def attempts(self) -> Iterator[Attempt]:
        """The attempts in progress, or left by a process that died."""
        folder = self.folder / "open"
        for file in sorted(files.names(folder)):
            attempt = Attempt.read(file, partial(files.text, folder / file))
            if attempt is not None:
                yield attempt

    def tombstones(self) -> Iterator[tuple[str, float]]:
        """The deleted names, each with the time of its deletion by the file system's clock."""
        for entry in files.entries(self.folder / "gone"):
            with contextlib.suppress(FileNotFoundError):
                name = journal.name_of(entry.name, partial(files.text, entry.path))
                if name:
                    yield name, entry.stat().st_ctime

    def entries(self, failed: Callable[[str, OSError], None], prefix: str = "") -> Iterator[Entry]:
        """See `Journal`. Folder by folder, also below links to folders.

        `failed` is called with each folder that can't be read, and each file.
        """
        return walk_disk(self.root, failed, prefix, skip=JOURNAL_FOLDER)

    # --- repair

    def forget(self, debt: Debt) -> None:
        """Remove a record that was read before the look that made it needless."""
        files.remove(self._debt(debt))

    def convert(self, attempt: Attempt, servers: Iterable[str]) -> bool:
        """Take over a dead attempt: owe the servers what it may have sent, as unknown.

        False when it never reached the master, and so has nothing to be owed.
        """
        withdrawn = self.withdraw(attempt)
        if attempt.in_draft and withdrawn is None:
            return False  # its process, or another pass, has ended it meanwhile
        # It may have committed before it was withdrawn. One that replaces has not, for
        # its draft would have gone.
        wanted = self.look(attempt.name).wanted
        never = wanted is Wanted.UNHEARD or attempt.change is Change.REPLACE
        if withdrawn is not None and never:
            self.discard(withdrawn)
            return False
        if wanted is Wanted.GONE:
            self._empty(attempt.name)
        # What it replaced is kept a while: its process may only have stood still, and undo.
        self.settle(withdrawn or attempt, (), servers)
        return True

    def withdraw(self, attempt: Attempt) -> Attempt | None:
        """Make sure that an attempt can't commit any more (law 4); what its record is now.

        None when it had no draft: a delete, or a save that was committed by renaming.
        """
        if not attempt.in_draft:
            return attempt if files.remove(self._draft(attempt)) else None
        void = replace(attempt, change=Change.VOID)
        try:
            os.rename(self._record(attempt), self._record(void))
        except FileNotFoundError:
            return None
        return void

    def is_dead(self, attempt: Attempt) -> bool:
        """Whether the process of an attempt has died, or has stood still for `attempt_limit`."""
        if attempt.change is Change.VOID or owners.lives(attempt.owner) is False:
            return True
        now = self._file_clock()
        moved = [
            at
            for path in {self._record(attempt), self._draft(attempt)}
            if (at := files.changed_at(path)) is not None
        ]
        if not moved:
            return False  # it has just ended
        begun = started(attempt.id)
        # By the clock of its own machine, so it counts for life alone.
        latest = max(*moved, begun if begun <= now else 0.0)
        return now - latest > self.attempt_limit

    def _touch(self) -> float:
        """The time by the clock of the file system (law 6)."""
        mark = self.folder / "clock"
        mark.touch(mode=0o600)
        return mark.stat().st_mtime

    def sweep(self) -> int:
        """Remove what is of no use: old tombstones, drafts that nobody writes any more.

        A tombstone goes after `KEEP_TOMBSTONES` if no attempt for its name is
        open, owed or unknown, and no server is owed everything. Returns how many
        were removed.
        """
        removed = 0
        if not self.folder.exists():
            return 0
        now = self._file_clock()
        old = {name for name, at in self.tombstones() if now - at > KEEP_TOMBSTONES}
        if old and not any(any(self.debts(server, "")) for server in self.servers()):
            old -= {attempt.name for attempt in self.attempts()}
            for server in self.servers():
                old.difference_update(debt.name for debt in self.debts(server))
            for name in old:
                removed += files.remove(self._tombstone(name))
        return removed + self._sweep_drafts(now) + self._sweep_heartbeats()

    def _sweep_heartbeats(self) -> int:
        """Forget the watches that stopped long ago."""
        found = self._heartbeats()
        kept = {one.watch for one in journal.remembered(found)}
        old = (one.watch for one in found if one.watch not in kept)
        return sum(files.remove(self.folder / "watches" / _folder(watch)) for watch in old)

    def _sweep_drafts(self, now: float) -> int:
        """Remove what was made aside and never came to its place."""
        # In this order: an attempt that ends between the two has a young draft.
        drafts = files.names(self.folder / "new")
        alive = {attempt.id for attempt in self.attempts()}
        removed = 0
        for file in drafts:
            path = self.folder / "new" / file
            changed = files.changed_at(path)
            old = changed is not None and now - changed > ABANDONED
            if old and file.partition(".")[0] not in alive:
                removed += files.remove(path)
        return removed

    # --- what the servers are known for

    def is_claimed(self, server: str) -> bool:
        """Whether this master has put its id on the server once."""
        return (self.folder / "claimed" / _folder(server)).exists()

    def set_claimed(self, server: str, *, claimed: bool = True) -> None:
        """Remember, or forget, that the server holds this master's id."""
        path = self.folder / "claimed" / _folder(server)
        if not claimed:
            files.remove(path)
            return
        with contextlib.suppress(FileExistsError):
            self._write(path, "")

    def claimed(self) -> list[str]:
        """The names of all servers that were given this master's id."""
        return sorted(unquote(file) for file in files.names(self.folder / "claimed"))

    def retire(self, server: str) -> int | None:
        """Forget a server and what it was owed: how many records, or None if it is not known."""
        folder, known = self._owed(server), self.is_claimed(server)
        self.set_claimed(server, claimed=False)
        if not folder.is_dir():
            return 0 if known else None
        count = sum(files.remove(folder / file) for file in files.names(folder))
        with contextlib.suppress(OSError):  # a process that still knows it owed it more
            folder.rmdir()
        return count

    def write_heartbeat(self, watch: str, beat: dict[str, object]) -> None:
        """See `Journal`."""
        self._replace(self.folder / "watches" / _folder(watch), json.dumps(beat) + "\n")

    def heartbeats(self) -> list[Heartbeat]:
        """See `Journal`."""
        return journal.remembered(self._heartbeats())

    def _heartbeats(self) -> list[Heartbeat]:
        found = []
        folder = self.folder / "watches"
        files_there = files.names(folder)
        now = self._file_clock() if files_there else 0.0
        for file in files_there:
            with contextlib.suppress(FileNotFoundError):  # swept just now
                beat, at = files.read(folder / file) or {}, (folder / file).stat().st_mtime
                found.append(Heartbeat(unquote(file), beat, max(0.0, now - at)))
        return found

    # --- files

    def _new_id(self) -> str:
        return f"{int(self._clock() * 1e6):014x}{self._token(8)}"

    def _debt(self, debt: Debt) -> str:
        return f"{self._folder_text}/owed/{_folder(debt.server)}/{debt.file}"

    def _owed(self, server: str) -> Path:
        return self.folder / "owed" / _folder(server)

    def _tombstone(self, name: str) -> Path:
        return self.folder / "gone" / journal.field(name)

    def _make(self, path: str | Path, text: str) -> None:
        """Make a record, whole at once. It may be there already: then it says the same."""
        if text:
            self._replace(Path(path), text)
            return
        with contextlib.suppress(FileExistsError):
            self._write(path, text)
        if self.fsync:
            self._sync(Path(path).parent)

    def _replace(self, path: Path, text: str) -> None:
        """Put a whole file in a place where none, or another, is now."""
        draft = self.folder / "new" / f"{path.name[:100]}-{self._token(8)}"
        self._write(draft, text)
        try:
            os.replace(draft, path)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(draft, path)
        self._sync(path.parent)

    def _write(self, path: str | Path, text: str) -> None:
        """Make a record exclusively; its folder too, if it is the first of its kind."""
        try:
            files.write(path, text, fsync=self.fsync)
        except FileNotFoundError:
            self.restore_folders()
            Path(path).parent.mkdir(mode=0o700, exist_ok=True)
            files.write(path, text, fsync=self.fsync)

    def _move(self, old: Debt, new: Debt) -> bool:
        try:
            os.rename(self._debt(old), self._debt(new))
        except FileNotFoundError:
            return False
        if self.fsync:
            self._sync(self._owed(old.server))
        return True

    def _sync(self, folder: Path) -> None:
        if self.fsync:
            files.sync_folder(folder)


def _explained(error: OSError, path: str | Path) -> OSError:
    """The error, or a clearer one, for a file that can't be put where it belongs."""
    if error.errno == errno.EXDEV:
        return MasterError(
            f"{path} lies on another file system than {JOURNAL_FOLDER} in MEDIA_ROOT, so a file "
            "can't get its name there in one step. All of MEDIA_ROOT must be one file system."
        )
    if error.errno in {errno.EPERM, errno.ENOTSUP}:
        return MasterError(
            f"{path} can't be linked: {error.strerror}. The file system of MEDIA_ROOT must have "
            "hard links. A bucket that is mounted as a folder has none: use ObjectStorage for it."
        )
    if isinstance(error, NotADirectoryError):
        return MasterError(
            f"{path} can't be made: one of the folders above it is a file. Remove that file, or "
            "choose another name."
        )
    return error


def _is_lacking(file: str) -> bool:
    """Whether a record says that its server may lack something; else it is only watched."""
    _, kind, looks = (*file.split(".", 3), "", "")[:3]
    return kind != Kind.UNKNOWN.value or looks == "0"


@lru_cache(maxsize=256)
def _folder(server: str) -> str:
    """A server's name as a file name. A name may hold a colon, never a slash."""
    return quote(server, safe=":")
