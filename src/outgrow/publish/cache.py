"""Results by the hash of what they were made of, in a folder, for the next publication.

An entry is written aside and renamed, and holds a checksum of itself: one that is damaged is as
good as none, and is never used. Several processes may share a folder. What was used longest ago
goes first when it grows too large. A folder that can't be written is no reason to stop: nothing
is kept then, and `problem` says why.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Bytes of a checksum before an entry's content.
_CHECKSUM: Final = 16

#: An entry's time is set again when it is used, but not more often than so many seconds.
_FRESH: Final = 3600

#: One in so many entries that are written looks at the size of a folder, of 256 there are.
_LOOK: Final = 64

#: Half files that nobody ends, seconds after which they are removed.
_ABANDONED: Final = 86_400


def default_folder() -> Path | None:
    """Where results are kept if nothing else is said (the XDG Base Directory Specification).

    None for a user without a home, as in some containers.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative path is to be ignored, as the specification says.
        home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "outgrow" / "publish"


class Cache:
    """A folder of results. Thread-safe, and safe between processes; opens nothing when made.

    `folder` None: nothing is kept. `limit` is how many bytes there may be, about.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, *, limit: int = 1 << 30) -> None:
        self._folder = None if folder is None else Path(folder)
        self._limit = limit
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0
        #: Why nothing is kept; empty as long as all is well.
        self.problem = ""

    def get(self, key: str) -> bytes | None:
        """What is kept for a key (hexadecimal digits), or None."""
        found = self._read(key)
        with self._lock:
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
        return found

    def _read(self, key: str) -> bytes | None:
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            with path.open("rb") as file:
                used = os.fstat(file.fileno()).st_mtime
                content = file.read()
        except OSError:
            return None  # not there, or not to be read: it is made anew
        if content[:_CHECKSUM] != _checksum(memoryview(content)[_CHECKSUM:]):
            return None
        if time.time() - used > _FRESH:
            with suppress(OSError):
                os.utime(path)
        return content[_CHECKSUM:]

    def put(self, key: str, content: bytes) -> None:
        """Keep a result. Where that fails, `problem` says so, and all goes on."""
        if self._folder is None or self.problem:
            return
        path = self._path(key)
        aside = path.parent / f".{secrets.token_hex(8)}"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                aside.write_bytes(_checksum(content) + content)
                os.replace(aside, path)
            finally:
                with suppress(FileNotFoundError):
                    aside.unlink()
            if secrets.randbelow(_LOOK) == 0:
                self._tidy(path.parent)
        except OSError as error:
            self.problem = f"{self._folder}: {error.strerror}; nothing is kept for the next time."

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / key[2:]

    def _tidy(self, folder: Path) -> None:
        """Keep one of the 256 folders below its share: hashes fill them alike."""
        share, now = self._limit // 256, time.time()
        entries: list[tuple[float, int, Path]] = []
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if entry.name.startswith("."):
                    if now - found.st_mtime > _ABANDONED:
                        os.unlink(entry.path)
                    continue
                entries.append((found.st_mtime, found.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= share:
                return
            with suppress(FileNotFoundError):
                path.unlink()
            total -= size


def _checksum(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM]
