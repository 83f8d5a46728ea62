"""What the scrubber of the embedded media server decides, as plain values.

Nothing here does I/O or reads a clock: `scrubber` goes over the files, `checksums` keeps
their records, and `quarantine` holds those that are bad. The laws:

1. A file is bad when its bytes have changed and its size and time have not. Whoever
   writes to a file changes its time; a disk that forgets does not.
2. A file that somebody has changed is his own affair: it is said once, and its new
   bytes are those to be kept.
3. Passes begin `every` so many seconds, and rest for `REST` at least. One that was broken
   off by the end of its process goes on where it was.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from urllib.parse import quote

from outgrow.media.conditions import File

#: Seconds between the end of a pass and the next one, at least.
REST = 86400.0

#: Seconds since its last change for which a file may still be being written.
SETTLED = 2.0

#: Bytes that a file counts for beside its own: its inode and its place in the folder.
OVERHEAD = 4096

#: What the quarantine holds at most.
KEEP_FILES = 1000
KEEP_BYTES = 10 << 30

_FORMAT = struct.Struct(">32sQq")

#: Characters of a file's name that its name in the quarantine shows.
_SHOWN = 150


@dataclass(frozen=True, slots=True)
class Scrub:
    """How often and how fast. `rate`: bytes a second. `every`: seconds between two beginnings."""

    rate: int
    every: float = 7 * 86400.0

    @property
    def piece(self) -> int:
        """Bytes that are read at once: a quarter of a second's, and no more than 256 KB."""
        return min(max(self.rate // 4, 4096), 256 * 1024)


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a file: the SHA-256 of its bytes, when they were those of `File`.

    `size` is in bytes, `mtime_ns` as `os.stat` has it.
    """

    digest: bytes
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: File, digest: bytes) -> Record:
        """The record of a file with these bytes."""
        return cls(digest, file.size, file.mtime_ns)

    @classmethod
    def unpack(cls, data: bytes) -> Record | None:
        """The record from its 48 bytes; None for anything else."""
        return cls(*_FORMAT.unpack(data)) if len(data) == _FORMAT.size else None

    def pack(self) -> bytes:
        """The record as 48 bytes: digest, size, time; the numbers big-endian.

        They are so few that ext4 has room for them in the inode itself.
        """
        return _FORMAT.pack(self.digest, self.size, self.mtime_ns)


class Verdict(enum.Enum):
    """What a file is, compared with its record."""

    GOOD = "has its bytes"
    NEW = "has no record yet"
    CHANGED = "was changed by somebody"
    BAD = "has other bytes, and nobody has written to it"


def judge(record: Record | None, file: File, digest: bytes) -> Verdict:
    """Compare what is there with what is remembered (laws 1 and 2)."""
    if record is None:
        return Verdict.NEW
    if (record.size, record.mtime_ns) != (file.size, file.mtime_ns):
        return Verdict.CHANGED
    return Verdict.GOOD if record.digest == digest else Verdict.BAD


def is_settled(file: File, now: float) -> bool:
    """Whether its time tells the file from what may be written to it now.

    A clock of a file system ticks some hundred times a second: two writes within one
    tick look like one. A time in the future tells nothing, and is believed.
    """
    return not 0 <= now - file.mtime_ns / 1e9 < SETTLED


class Throttle:
    """Keeps a stream below `rate` bytes a second. Times are in seconds, of one clock."""

    #: Seconds' worth that may be caught up after a wait that was too long.
    SLACK = 1.0

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._due = float("-inf")

    def wait(self, size: int, now: float) -> float:
        """Seconds to wait now, after `size` bytes."""
        self._due = max(self._due, now - self.SLACK) + size / self._rate
        return max(0.0, self._due - now)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the passes are. Times are in seconds since 1970, and 0 for never.

    `position` is the last name that was looked at, and empty between two passes.
    """

    began: float = 0.0
    ended: float = 0.0
    position: str = ""

    @classmethod
    def load(cls, text: str) -> Progress:
        """From JSON; what can't be read is no progress."""
        try:
            found = json.loads(text)
            began, ended = float(found["began"]), float(found["ended"])
            return cls(began, ended, str(found["position"]))
        except (ValueError, TypeError, KeyError):
            return cls()

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def wait(self, now: float, every: float) -> float:
        """Seconds until the next pass begins, or goes on (law 3)."""
        if self.position:
            return 0.0
        due = max(self.began + every, self.ended + REST) if self.ended else 0.0
        # A clock that was in the future must not put it off for ever.
        return min(max(0.0, due - now), max(every, REST))


def is_behind(path: str, position: str) -> bool:
    """Whether a pass at `position` is through with a file, or with all of a folder (``a/``)."""
    return path <= position and not (path.endswith("/") and position.startswith(path))


def label(name: str, file: File, now_ns: int) -> str:
    """What a file is called in the quarantine: one name a file, and the oldest sorts first."""
    return f"{now_ns:020}-{file.inode:x}-{quote(name, safe='')[-_SHOWN:]}"


def surplus(
    held: Iterable[tuple[str, int]], files: int = KEEP_FILES, size: int = KEEP_BYTES
) -> Iterator[str]:
    """What must leave the quarantine: the oldest. `held` are labels and bytes.

    The newest one stays, however large it is.
    """
    total = 0
    for count, (name, length) in enumerate(sorted(held, reverse=True), 1):
        total += length
        if count > 1 and (count > files or total > size):
            yield name
