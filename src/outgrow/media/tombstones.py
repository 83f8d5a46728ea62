"""Names that were deleted from the embedded media server.

A PUT may arrive after the DELETE that was sent after it: one was held up on its
way, or in a process that was stopped. So a deletion is remembered. The laws:

1. A tombstone *is* the deletion, and the file goes after it. A name that has one is
   gone, whatever the disk still holds there: it is neither read nor written. So
   it does not matter where between the two a process dies.
2. A tombstone is made in one step and is never half there: it is a symbolic link in
   `.outgrow-gone/`. What it is called is a checksum of the name, what it points to
   is the name. It is never followed, and that folder can't be asked for.
3. A DELETE that finds no file leaves one too: its PUT may still be on its way.
4. A PUT looks for a tombstone before it gives a file its name, and again after that.
   So of a PUT and a DELETE by two processes one sees the other: the tombstone
   comes before the look, or the file before the removal.
5. A tombstone is kept for `KEEP` seconds at least, counted from the first DELETE.
   Then a sweep removes first what lies at the name, and the tombstone after it.
   Nobody else removes one, and one process sweeps at a time: what a sweep finds
   at the name can't have been put there after the tombstone went.
6. Names that are used again have none. Those made before they were so are swept
   whatever their age; of their files the newer ones are not touched.
7. A full disk may have no room for one. Then the file goes first, and makes room;
   a process that dies between the two has not answered, and will be asked again.

A writer of fixed names is told by 410 that it is one; see `--names`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from outgrow.names import MASTER_ID_FILE

#: Where they are, in the root.
GONE_FOLDER = ".outgrow-gone"

#: Seconds: a week, as on the master.
KEEP = 7 * 86400

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: A name, or a folder's: the parts of a path.
Parts = tuple[str, ...]

#: Says that every name may be used again.
EVERYTHING: Parts = ()


@dataclass(frozen=True, slots=True)
class Expired:
    """A tombstone that may go. `before`: of the files at its name only those up to then.

    It is a time as `st_mtime_ns` has it; None means any file.
    """

    parts: Parts
    before: int | None


class Tombstones:
    """The tombstones of one root. `reused`: folders, or files, whose names are used again."""

    def __init__(self, reused: Iterable[Parts] = ()) -> None:
        # A server may be given another master's id.
        self._reused = ((MASTER_ID_FILE,), *reused)
        self.descriptor = -1

    def open(self, root: int) -> None:
        """Take hold of the folder. `root` is a descriptor. Raises OSError."""
        with suppress(FileExistsError):
            os.mkdir(GONE_FOLDER, 0o700, dir_fd=root)
        self.descriptor = os.open(GONE_FOLDER, _FOLDER, dir_fd=root)

    def close(self) -> None:
        """Let go of the folder. Harmless when closed."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def cover(self, parts: Parts) -> bool:
        """Whether this name is never used again (law 6)."""
        return not any(parts[: len(folder)] == folder for folder in self._reused)

    def has(self, parts: Parts) -> bool:
        """Whether this name was deleted."""
        if not self.cover(parts):
            return False
        try:
            os.stat(_key(_name(parts)), dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def make(self, parts: Parts) -> bool:
        """Delete this name for good, and say whether it is covered. Harmless when repeated."""
        if not self.cover(parts):
            return False
        name = _name(parts)
        with suppress(FileExistsError):
            os.symlink(name, _key(name), dir_fd=self.descriptor)
        return True

    def remove(self, parts: Parts) -> None:
        """Forget the deletion: law 5 says when."""
        os.unlink(_key(_name(parts)), dir_fd=self.descriptor)

    def expired(self, now: float) -> Iterator[Expired]:
        """The tombstones that may go. `now` is in seconds since 1970.

        Lazy: their number does not matter. What is no tombstone is left alone.
        """
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                parts = self._read(entry.name)
                if parts is None:
                    continue
                made = entry.stat(follow_symlinks=False)
                if not self.cover(parts):
                    yield Expired(parts, made.st_mtime_ns)
                elif now - made.st_mtime >= KEEP:
                    yield Expired(parts, None)

    def _read(self, key: str) -> Parts | None:
        try:
            name = os.readlink(key.encode(), dir_fd=self.descriptor)
        except OSError:
            return None
        parts = tuple(name.decode("utf-8", "replace").split("/"))
        safe = not any(part in {"", ".", ".."} for part in parts)
        return parts if safe and key.encode() == _key(_name(parts)) else None

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Whether this process is the only one that sweeps, for so long."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Another one sweeps, or the file system knows no locks.
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)


def _name(parts: Parts) -> bytes:
    return "/".join(parts).encode()


def _key(name: bytes) -> bytes:
    return hashlib.sha256(name).hexdigest().encode()
