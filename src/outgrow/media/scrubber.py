"""The scrubber of the embedded media server: reads every file, again and again, slowly.

A disk may return other bytes than it was given, and nobody notices before the file is
asked for. So each file is compared with the checksum that it was stored with. The laws:

1. It never disturbs a request: it has a thread of its own, reads no faster than it is
   told, holds no lock while it reads, and leaves the system's cache as it was.
2. It reads the disk, and not what the system remembers of it.
3. A file is condemned after two readings, and only if it is still at its name then,
   unchanged and not deleted. It goes to the quarantine by one rename.
4. What can't be read is left where it is. A disk or a memory that breaks makes many
   files look bad: after `MANY` of them the pass ends.
5. One process scrubs a root at a time, and it can be killed at any step.

`integrity` decides, and says more.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from outgrow.errors import ConfigurationError
from outgrow.media import checksums, integrity
from outgrow.media.conditions import File
from outgrow.media.disk import Disk, describe
from outgrow.media.integrity import OVERHEAD, Progress, Record, Scrub, Throttle, Verdict
from outgrow.media.listing import Child
from outgrow.media.quarantine import FULL, Quarantine
from outgrow.media.tombstones import Parts
from outgrow.media.walking import walk
from outgrow.names import NAME_LIMIT

logger = logging.getLogger("outgrow.media.server")

#: Bad and unreadable files after which a pass is broken off.
MANY = 100

#: Seconds between two looks whether another process has stopped scrubbing.
RETRY = 60.0

#: Seconds after which the progress is written down.
SAVE_EVERY = 60.0


#: Errors of a process that has too much to do, and not of the disk: they pass.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class _Stopped(Exception):
    """The server stops."""


class _TooMany(Exception):
    """So many files are bad that it is not they."""


class Scrubber:
    """Goes over the files of `disk`, in the thread that calls `run`.

    `now` tells the time in seconds since 1970. `pause` waits so many seconds, and says
    whether the server stops; `stop` ends the one that is built in.
    """

    def __init__(
        self,
        disk: Disk,
        scrub: Scrub,
        *,
        now: Callable[[], float] = time.time,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self._disk = disk
        self._scrub = scrub
        self._now = now
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._quarantine = Quarantine(disk)
        self._throttle = Throttle(scrub.rate)
        self._progress = Progress()
        self._saved = 0.0
        self._bad = 0
        self._unwatched = 0

    def open(self) -> None:
        """Prepare. Raises ConfigurationError where files can't have checksums."""
        if not self._disk.keeps_records:
            raise ConfigurationError(
                "scrub",
                f"the file system of {self._disk.path} keeps no extended attributes, so there is "
                "no place for checksums.",
                "Start without --scrub, or put the folder on ext4, XFS, Btrfs or ZFS.",
            )
        self._quarantine.open()

    def close(self) -> None:
        """Let go of what `open` took. Harmless when closed."""
        self._quarantine.close()

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopping.set()

    def run(self) -> None:
        """Scrub until the server stops. Blocks."""
        with suppress(_Stopped):
            while not self._quarantine.lock():
                self._rest(RETRY)
            self._progress = self._quarantine.load()
            while True:
                self._rest(self._progress.wait(self._now(), self._scrub.every))
                self._attempt()

    def _rest(self, seconds: float) -> None:
        if self._pause(seconds):
            raise _Stopped

    def _attempt(self) -> None:
        """One pass, or what is left of it. An error of the disk puts the rest off."""
        try:
            self._go_over_all()
        except OSError as error:
            logger.error("The files can't be scrubbed now: %s", error)  # noqa: TRY400 - one line
            self._rest(RETRY)

    def _go_over_all(self) -> None:
        if not self._progress.position:
            self._progress = Progress(began=self._now())
        self._bad = self._unwatched = 0
        try:
            for entry in walk(self._children):
                self._look_at(entry.name)
                self._advance(entry.name)
        except _Stopped:
            self._save()
            raise
        except _TooMany:
            logger.error(  # noqa: TRY400 - one line
                "%d files are bad or can't be read. Look at the disk and the memory of this "
                "machine; its other files are not looked at before the next pass.",
                self._bad,
            )
        if self._unwatched:
            logger.warning(
                "%d files are not watched: the server's user may not read them, or write them.",
                self._unwatched,
            )
        self._progress = replace(self._progress, ended=self._now(), position="")
        self._save()

    def _advance(self, name: str) -> None:
        self._progress = replace(self._progress, position=name)
        if not 0 <= self._now() - self._saved < SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        self._quarantine.save(self._progress)
        self._saved = self._now()

    def _children(self, folder: str) -> Iterator[Child]:
        """What of a folder is still to be looked at. One that can't be read is left out."""
        try:
            for child in self._disk.children(folder):
                path = folder + child.name
                fits = len(path.encode()) <= NAME_LIMIT
                if fits and not integrity.is_behind(path, self._progress.position):
                    yield child
        except PermissionError:
            self._unwatched += 1
        except OSError as error:
            self._count(error, f"The folder {folder!r} can't be read: {error.strerror}")

    def _count(self, error: OSError | None, what: str) -> None:
        """Say what is wrong with the disk; there is an end to it (law 4)."""
        if error is not None and error.errno in _PASSING:
            raise error
        logger.error("%s", what)
        self._bad += 1
        if self._bad >= MANY:
            raise _TooMany

    def _look_at(self, name: str) -> None:
        parts = tuple(name.split("/"))
        self._slow_down(OVERHEAD)
        try:
            # A deleted name is no file here, whatever lies there.
            state, descriptor = self._disk.read(parts)
            if isinstance(state, File):
                self._check(parts, state, descriptor)
        except PermissionError:
            self._unwatched += 1
        except OSError as error:
            self._count(
                error,
                f"{name!r} can't be read: {error.strerror}. It is left where it is; remove it, "
                "and 'media verify --repair' puts a good copy there.",
            )

    def _check(self, parts: Parts, file: File, descriptor: int) -> None:
        try:
            verdict, digest = self._judge(file, descriptor)
            if verdict is Verdict.BAD:
                verdict, digest = self._judge(file, descriptor)
            if verdict is Verdict.GOOD or describe(os.fstat(descriptor)) != file:
                return
            if verdict is Verdict.BAD:
                self._condemn(parts, file)
            elif integrity.is_settled(file, self._now()):
                self._adopt(parts, Record.of(file, digest), descriptor, verdict)
        finally:
            os.close(descriptor)

    def _judge(self, file: File, descriptor: int) -> tuple[Verdict, bytes]:
        digest = self._digest(descriptor)
        return integrity.judge(checksums.read(descriptor), file, digest), digest

    def _digest(self, descriptor: int) -> bytes:
        """The SHA-256 of what is on the disk."""
        running = hashlib.sha256()
        position = 0
        _forget(descriptor)
        while data := os.pread(descriptor, self._scrub.piece, position):
            running.update(data)
            position += len(data)
            self._slow_down(len(data))
        _forget(descriptor)
        return running.digest()

    def _slow_down(self, size: int) -> None:
        self._rest(self._throttle.wait(size, self._now()))

    def _adopt(self, parts: Parts, record: Record, descriptor: int, verdict: Verdict) -> None:
        """Remember the bytes that a file has now."""
        try:
            checksums.write(descriptor, record)
        except OSError:
            self._unwatched += 1
            return
        if verdict is Verdict.CHANGED:
            logger.warning(
                "%r was changed on the disk after it was uploaded. It is kept as it is now.",
                "/".join(parts),
            )

    def _condemn(self, parts: Parts, file: File) -> None:
        what = f"{'/'.join(parts)!r} no longer has the bytes that it was stored with"
        try:
            if not self._quarantine.take(parts, file, int(self._now() * 1e9)):
                return
            removed = self._quarantine.shrink()
        except OSError as error:
            self._count(error, f"{what}, and can't be moved to the quarantine: {error.strerror}")
            return
        self._count(
            None,
            f"{what}. It was moved to the quarantine; "
            "'media verify --repair' puts a good copy there.",
        )
        if removed:
            logger.warning(FULL, removed)


def _forget(descriptor: int) -> None:
    """Let the system drop what it remembers of this file's bytes, if it can."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
