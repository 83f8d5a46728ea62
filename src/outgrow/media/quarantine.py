"""Files of the embedded media server whose bytes have gone bad, out of everybody's sight.

They lie in `.outgrow-bad/`, which can't be asked for and is not listed. The laws:

1. A file that the scrubber finds comes in by one rename: it is at its name or here, and
   never half of it.
2. A file that an upload replaces comes in by a second name here, before the upload takes
   the first. Killed between the two it is at both, and comes in no second time.
3. There is an end to it: the oldest files go first, and only files that came in here.
4. It says in `progress.json` how far the scrubber is. That may be lost: a pass begins anew.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress

from outgrow.media.conditions import File
from outgrow.media.disk import Disk
from outgrow.media.integrity import Progress, label, surplus
from outgrow.media.tombstones import Parts
from outgrow.names import PROBE_PREFIX

logger = logging.getLogger("outgrow.media.server")

#: Where they are, in the root.
BAD_FOLDER = ".outgrow-bad"

#: What is logged when old files had to go.
FULL = "The quarantine was full: its %d oldest files were removed."

_PROGRESS = "progress.json"
_LABEL = re.compile(r"[0-9]{20}-[0-9a-f]+-.*")
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Quarantine:
    """The quarantine of one disk. `open` it before use and `close` it after."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._folder = -1

    def open(self) -> None:
        """Take hold of the folder. The disk must be open. Raises OSError."""
        self._folder = self._disk.own_folder(BAD_FOLDER)

    def close(self) -> None:
        """Let go of the folder, and of the lock. Harmless when closed."""
        if self._folder >= 0:
            os.close(self._folder)
        self._folder = -1

    def lock(self) -> bool:
        """Whether this process is the one that scrubs this root, from now until it ends.

        Raises OSError when the file system knows no locks.
        """
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def take(self, parts: Parts, file: File, now_ns: int) -> bool:
        """Move a file in, if it still is this one at the name; say whether it was."""
        name = label("/".join(parts), file, now_ns)
        return self._disk.withdraw(parts, file, self._folder, name)

    def hold(self, above: int, parts: Parts, file: File, now_ns: int) -> None:
        """Give the file in the folder `above` a second name here, unless it has one.

        The disk's lock is held: nobody in this process replaces the file meanwhile.
        """
        if any(found.st_ino == file.inode for _, found in self._held()):
            return  # a process was killed before it had replaced it
        name = label("/".join(parts), file, now_ns)
        os.link(parts[-1], name, src_dir_fd=above, dst_dir_fd=self._folder, follow_symlinks=False)
        # It is on the disk here before it is nowhere else.
        self._disk.sync(self._folder)

    def shrink(self) -> int:
        """Remove what is too much; the number of files."""
        count = 0
        for name in surplus((name, found.st_size) for name, found in self._held()):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
                count += 1
        return count

    def _held(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                # Whoever keeps the machine may take something out meanwhile.
                with suppress(FileNotFoundError):
                    if _LABEL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        yield entry.name, entry.stat(follow_symlinks=False)

    def load(self) -> Progress:
        """How far the scrubber is."""
        with suppress(OSError):
            descriptor = os.open(_PROGRESS, _READ, dir_fd=self._folder)
            with open(descriptor, encoding="utf-8", errors="replace") as file:
                return Progress.load(file.read())
        return Progress()

    def save(self, progress: Progress) -> None:
        """Remember it. Raises OSError."""
        new = f"{_PROGRESS}.new"
        descriptor = os.open(new, _WRITE, 0o600, dir_fd=self._folder)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(progress.dump())
        os.rename(new, _PROGRESS, src_dir_fd=self._folder, dst_dir_fd=self._folder)


class Replaced:
    """Keeps what uploads replace with other bytes: `keep` is for a `Disk`.

    That is rare, so nothing is held open for it.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def keep(self, above: int, parts: Parts, file: File) -> None:
        """Hold this file of the folder `above`, which is about to be replaced (law 2).

        It never keeps the upload from its name: a good copy is worth more than a bad one.
        """
        if any(part.startswith(PROBE_PREFIX) for part in parts):
            return  # it tries out what becomes of a file that is replaced
        name = "/".join(parts)
        quarantine = Quarantine(self._disk)
        try:
            quarantine.open()
            quarantine.hold(above, parts, file, time.time_ns())
            removed = quarantine.shrink()
        except OSError as error:
            logger.error(  # noqa: TRY400 - one line
                "%r had other bytes than what was uploaded now, and could not be kept in the "
                "quarantine: %s",
                name,
                error.strerror,
            )
            return
        finally:
            quarantine.close()
        logger.error(
            "%r had other bytes than what was uploaded now. It was moved to the quarantine, and "
            "replaced.",
            name,
        )
        if removed:
            logger.warning(FULL, removed)
