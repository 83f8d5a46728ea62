"""What each media server is owed: facts in a folder beside the master, never operations.

    MEDIA_ROOT/.outgrow/
        format            the version of this layout
        master            the id of this master, which each media server holds too
        new/<id>          files that are being written
        open/<id>         one record for an attempt in progress: its name, its servers
        owed/<server>/    what one server is owed:
            <id>.owed              look at this name: the server surely lacks the change
            <id>.unknown.<n>.<ms>.<mark>
                                   a request may still be carried out; looked at n times
            <id>.all               look at every name: a new server, or too many records
        gone/<name>       a tombstone: this name was deleted
        claimed/<server>  the server was given this master's id
        watch             the heartbeat of `media repair --watch`

The laws of the directory:

1. A record is written whole before what it speaks of changes. A record without
   its last byte belongs to an attempt that changed nothing yet.
2. A record is never rewritten. It is made (exclusively), renamed or removed, each
   in one step, so that readers on any machine that shares the folder see it
   whole, and two that act at once can't lose it: the second finds it gone.
3. Narrowing makes the new records before it removes the old one.
4. The bytes of a file enter the master by `link` from `new/`, which never
   replaces, or by `rename` where that was asked for. Who removes `new/<id>`
   first decides whether the attempt can still commit.
5. A deletion is a `rename` to `gone/`, and so is its record.

The folder is readable for its owner alone, and its names can't be guessed, so the
folder above it can be served. Only `rename`, `link` and exclusive creation are
used; there are no locks, and so none that a network file system breaks.
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
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from outgrow.errors import JournalTooNew, MasterError, SaveInterrupted
from outgrow.media import files, journal, owners
from outgrow.media.journal import (
    ABANDONED,
    ATTEMPT_LIMIT,
    KEEP_TOMBSTONES,
    Attempt,
    Debt,
    Kind,
    Look,
    Wanted,
    identity,
    started,
)
from outgrow.media.names import JOURNAL_FOLDER

#: The version of the layout above. A newer one is refused, an older one upgraded.
FORMAT: Final = 1


class DirectoryJournal:
    """The journal in a folder beside the master. See the module for its laws.

    Safe for several threads, processes and machines that share the folder. Holds
    no open file and no lock, so that it can be pickled and forked. Nothing is
    read or made before `prepare`. `clock` gives seconds since the epoch, `token`
    so many random bytes in hexadecimal.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        fsync: bool = False,
        clock: Callable[[], float] = time.time,
        token: Callable[[int], str] = secrets.token_hex,
    ) -> None:
        self.root = Path(root)
        self.folder = self.root / JOURNAL_FOLDER
        # The save path joins texts: Path objects were a fifth of a save's time.
        self._root_text, self._folder_text = os.fspath(self.root), os.fspath(self.folder)
        self.fsync = fsync
        self._clock = clock
        self._token = token
        self._master_id = ""

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
            for part in ("new", "open", "owed", "gone", "claimed"):
                (self.folder / part).mkdir(mode=0o700, exist_ok=True)
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
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        self._sync(self.folder)
        return path.read_text()

    # --- attempts

    def attempt(self, name: str, servers: Iterable[str], *, replaces: bool = False) -> Attempt:
        """A new attempt, of which nothing is recorded yet. Its id sorts by time."""
        if not self._master_id:
            self.prepare()
        return Attempt(self._new_id(), name, tuple(servers), replaces)

    def begin(self, attempt: Attempt) -> None:
        """See `Journal`. One file is made."""
        self._write(f"{self._folder_text}/open/{attempt.id}", self._record(attempt))
        self._sync(self.folder / "open")

    def rename(self, attempt: Attempt, name: str) -> Attempt:
        """The same attempt under another name, for a name that was taken."""
        renamed = replace(attempt, id=self._new_id(), name=name)
        self.begin(renamed)
        os.rename(self._draft(attempt), self._draft(renamed))
        files.remove(f"{self._folder_text}/open/{attempt.id}")
        return renamed

    def draft(self, attempt: Attempt) -> Path:
        """Where the new file of an attempt is written."""
        return Path(self._draft(attempt))

    def _draft(self, attempt: Attempt) -> str:
        return f"{self._folder_text}/new/{attempt.id}"

    def commit(self, attempt: Attempt, *, mode: int | None = None) -> Look:
        """See `Journal`. `mode` is for the folders that are made, as with `makedirs`."""
        draft, path = self._draft(attempt), f"{self._root_text}/{attempt.name}"
        while True:
            try:
                # The draft and what it becomes are one file: this is its identity.
                found = os.stat(draft)
                look = Look(Wanted.PRESENT, identity(found), found.st_size)
                self._place(attempt, draft, path)
                break
            except FileNotFoundError:
                if not os.path.exists(draft):
                    raise SaveInterrupted(
                        f"The save of {attempt.name!r} was given up by a repair pass, because "
                        "it had not moved for a day. Nothing was saved; save it again."
                    ) from None
                files.make_folders(Path(path).parent, mode)
                self._sync(Path(path).parent.parent)
        if self.fsync:
            files.sync_folder(Path(path).parent)
        files.remove(draft)
        return look

    def _place(self, attempt: Attempt, draft: str, path: str) -> None:
        """Give the draft its name (law 4)."""
        if not attempt.replaces:
            self._link(draft, path)
            return
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            os.link(path, self._replaced(attempt))
        os.replace(draft, path)

    def _replaced(self, attempt: Attempt) -> Path:
        return self.folder / "new" / f"{attempt.id}.replaced"

    def restore(self, attempt: Attempt) -> bool:
        """See `Journal`. One rename."""
        if not attempt.replaces:
            return False
        try:
            os.replace(self._replaced(attempt), self.root / attempt.name)
        except FileNotFoundError:
            return False
        return True

    def _link(self, draft: str, path: str) -> None:
        try:
            os.link(draft, path)
        except FileExistsError:
            # NFS may repeat a request whose answer was lost: the second one fails,
            # though the first has made the link (open(2), under O_EXCL).
            if not files.is_same(draft, path):
                raise

    def bury(self, attempt: Attempt) -> bool:
        """See `Journal`. The tombstone soon holds no content any more."""
        path, tombstone = self.root / attempt.name, self._tombstone(attempt.name)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "A folder is never deleted", str(path))
        found = True
        while True:
            try:
                os.rename(path, tombstone)
                break
            except FileNotFoundError:
                if tombstone.parent.exists():
                    found = False
                    break
                tombstone.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._empty(tombstone)
        if found:
            self._sync(path.parent)
        return found

    def _empty(self, tombstone: Path) -> None:
        """Put an empty file in a tombstone's place: the space is free, readers go on."""
        self._replace(tombstone, "")

    def settle(self, attempt: Attempt, owed: Iterable[str], unknown: Iterable[str]) -> None:
        """See `Journal`. Makes the narrower records, then removes the attempt's own."""
        for server in owed:
            self._owe(server, attempt, Kind.OWED)
        for server in unknown:
            self._owe(server, attempt, Kind.UNKNOWN)
        files.remove(f"{self._folder_text}/open/{attempt.id}")
        if attempt.replaces:
            files.remove(self._replaced(attempt))

    def discard(self, attempt: Attempt) -> None:
        """End an attempt that changed nothing. A draft without its record is swept."""
        files.remove(f"{self._folder_text}/open/{attempt.id}")
        files.remove(self._draft(attempt))

    def owe(self, server: str, name: str, *, unknown: bool = False) -> Debt:
        """Record one more debt: for a look at every name, request by request."""
        attempt = self.attempt(name, (server,))
        return self._owe(server, attempt, Kind.UNKNOWN if unknown else Kind.OWED)

    def owe_all(self, server: str) -> Debt:
        """Record that a server is owed everything: it is new, or owes too much to count."""
        return self._owe(server, self.attempt("", (server,)), Kind.ALL)

    def _owe(self, server: str, attempt: Attempt, kind: Kind) -> Debt:
        now = self._clock()
        debt = Debt(server, attempt.id, kind, attempt.name, started(attempt.id), 0, now)
        # Whole at once: a half record here would count as owed, and nobody could mend it.
        self._replace(self._owed(server) / debt.file, self._record(attempt))
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

    def debts(self, server: str) -> Iterator[Debt]:
        """See `Journal`. Reads one record at a time; those that vanish are skipped."""
        folder = self._owed(server)
        for file in sorted(files.names(folder)):
            debt = self._read_debt(server, folder, file)
            if debt is not None:
                yield debt

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
            attempt_id, _, kind = file.partition(".")
            if kind.startswith("unknown.") and not kind.startswith("unknown.0."):
                watched += 1
                continue
            owed += 1
            oldest = min(oldest or math.inf, started(attempt_id))
        return owed, watched, oldest

    def attempts(self) -> Iterator[tuple[Attempt, dict[str, object]]]:
        """The attempts in progress, or left by a process that died, with their records."""
        for file in sorted(files.names(self.folder / "open")):
            record = files.read(self.folder / "open" / file)
            if record is not None:
                servers = record.get("servers")
                names = tuple(map(str, servers)) if isinstance(servers, list) else ()
                yield Attempt(file, str(record.get("name", "")), names), record

    def tombstones(self) -> Iterator[tuple[str, float]]:
        """The deleted names, each with the time of its deletion."""
        top = str(self.folder / "gone")
        for folder, _, found in os.walk(top):
            for file in found:
                path = os.path.join(folder, file)
                with contextlib.suppress(FileNotFoundError):
                    parts = os.path.relpath(path, top).split(os.sep)
                    yield journal.tombstone_name(parts), os.stat(path).st_mtime

    def names(self) -> Iterator[str]:
        """Every name on the master, folder by folder."""
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if name == JOURNAL_FOLDER:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif entry.is_file():
                        yield name

    # --- repair

    def claim(self, debt: Debt) -> Debt | None:
        """See `Journal`. One rename; None when another process has it."""
        claimed = debt.claimed(self._clock(), self._token(4))
        return claimed if self._move(debt, claimed) else None

    def confirm(self, found: Debt, claimed: Debt) -> None:
        """See `Journal`. `found` is the record as it was read before the look."""
        watched = claimed.confirmed(found, self._clock())
        if watched is None:
            self.forget(claimed)
        else:
            self._move(claimed, watched)

    def release(self, found: Debt, claimed: Debt) -> None:
        """The server surely did not do it: the debt is what it was."""
        self._move(claimed, found)

    def is_abandoned(self, debt: Debt) -> bool:
        """Whether a debt for a name that the master never had, or lost, is given up."""
        return self._clock() - debt.since > KEEP_TOMBSTONES

    def forget(self, debt: Debt) -> None:
        """Remove a record that was read before the look that made it needless."""
        files.remove(self._owed(debt.server) / debt.file)

    def convert(self, attempt: Attempt) -> bool:
        """Take over a dead attempt: owe its servers what it may have sent, as unknown.

        False when it never reached the master, and so has nothing to be owed.
        """
        never = self.look(attempt.name).wanted is Wanted.UNHEARD and self.withdraw(attempt.id)
        # Looked at again: it may have committed just before it was withdrawn.
        if never and self.look(attempt.name).wanted is Wanted.UNHEARD:
            self.discard(attempt)
            return False
        self.settle(attempt, (), attempt.servers)
        return True

    def withdraw(self, attempt_id: str) -> bool:
        """Make sure that an attempt can't commit any more (law 4). False when it had no draft."""
        return files.remove(self.folder / "new" / attempt_id)

    def is_dead(self, attempt: Attempt, record: dict[str, object]) -> bool:
        """Whether the process of an attempt has died, or can't be asked and is overdue."""
        if self._clock() - started(attempt.id) > ATTEMPT_LIMIT:
            return True
        here = record.get("host") == owners.machine()
        return here and not owners.lives(record.get("process"), record.get("born"))

    def sweep(self) -> int:
        """Remove what is of no use: old tombstones, drafts that nobody writes any more.

        A tombstone goes after `KEEP_TOMBSTONES` if no attempt for its name is
        open, owed or unknown. Returns how many were removed.
        """
        now = self._clock()
        removed = 0
        old = {name for name, at in self.tombstones() if now - at > KEEP_TOMBSTONES}
        if old:
            old -= {attempt.name for attempt, _ in self.attempts()}
            for server in self.servers():
                old.difference_update(debt.name for debt in self.debts(server))
            for name in old:
                removed += files.remove(self._tombstone(name))
        return removed + sum(map(self._sweep_old, self._unfinished()))

    def _unfinished(self) -> Iterator[Path]:
        """Drafts without a record, and records that were never written to their end."""
        for file in files.names(self.folder / "new"):
            if not self._is_open(file):
                yield self.folder / "new" / file
        for file in files.names(self.folder / "open"):
            if files.read(self.folder / "open" / file) is None:
                yield self.folder / "open" / file

    def _sweep_old(self, path: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._clock() - path.stat().st_mtime > ABANDONED and files.remove(path)
        return False

    def _is_open(self, attempt_id: str) -> bool:
        return (self.folder / "open" / attempt_id).exists()

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

    def write_heartbeat(self, beat: dict[str, object]) -> None:
        """Replace the heartbeat of `media repair --watch`."""
        self._replace(self.folder / "watch", json.dumps(beat) + "\n")

    def read_heartbeat(self) -> dict[str, object] | None:
        """The last heartbeat, or None when there never was one."""
        return files.read(self.folder / "watch")

    # --- files

    def _new_id(self) -> str:
        return f"{int(self._clock() * 1e6):014x}{self._token(8)}"

    def _owed(self, server: str) -> Path:
        return self.folder / "owed" / _folder(server)

    def _tombstone(self, name: str) -> Path:
        return self.folder.joinpath("gone", *journal.tombstone_path(name))

    def _record(self, attempt: Attempt) -> str:
        record = {
            "name": attempt.name,
            "servers": attempt.servers,
            "host": owners.machine(),
            "process": os.getpid(),
            "born": owners.own_birth(os.getpid()),
        }
        return json.dumps(record) + "\n"

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
            if not (self.folder / "format").exists():
                raise MasterError(
                    f"The journal {self.folder} has vanished. Is MEDIA_ROOT still mounted?"
                ) from None
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.write(path, text, fsync=self.fsync)

    def _read_debt(self, server: str, folder: Path, file: str) -> Debt | None:
        record = files.read(folder / file)
        return None if record is None else Debt.read(server, file, str(record.get("name", "")))

    def _move(self, old: Debt, new: Debt) -> bool:
        folder = self._owed(old.server)
        try:
            os.rename(folder / old.file, folder / new.file)
        except FileNotFoundError:
            return False
        self._sync(folder)
        return True

    def _sync(self, folder: Path) -> None:
        if self.fsync:
            files.sync_folder(folder)


def _folder(server: str) -> str:
    """A server's name as a file name. A name may hold a colon, never a slash."""
    return quote(server, safe=":")
