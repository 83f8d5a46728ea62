"""Whether the bytes that were read are those of the file that was saved.

A length says little: a disk can lose what is in a file and keep its size, and a read that
is continued from another server may join two different files. The catalogue has the
SHA-256 of each file, so what is read from the beginning can be compared with it.

How far depends on the size, because a sum costs more time than the read itself:

1. A file of up to `SMALL` bytes is compared before the first byte is handed out.
2. One of up to `SUMMED` bytes is summed while it is read, and compared before its last
   piece is handed out.
3. Of a larger one its first `SMALL` bytes are summed. Only if it is continued from another
   server, that one's bytes behind them are, too: then the sum says whether the beginning and
   the end are of one file, and of the right one.

Bytes that are read again, after a seek, are not summed twice; a read that leaves out a
part of the file proves nothing, and is let go.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection
from typing import Final

#: Bytes of a file that is held in memory until it is proved.
SMALL: Final = 1 << 18

#: Bytes of a file that is summed in any case.
SUMMED: Final = 1 << 24


class Proof:
    """The sum of one file of `size` bytes, as it is read. `digests` are the right ones."""

    def __init__(self, size: int, digests: Collection[object]) -> None:
        self.size = size
        self.digests = digests
        self._sum = hashlib.sha256()
        self._limit = size if size <= SUMMED else SMALL
        #: Bytes from the beginning that are in the sum, and that were handed out.
        self.summed = 0
        self._handed = 0

    @property
    def is_small(self) -> bool:
        """Whether the file is to be proved before the first byte is handed out."""
        return self.size <= SMALL

    def add(self, offset: int, data: bytes) -> None:
        """Take in what is about to be handed out."""
        if offset <= self._handed:
            self._handed = max(self._handed, offset + len(data))
        if offset <= self.summed < self._limit:
            fresh = memoryview(data)[self.summed - offset :]
            self._sum.update(fresh)
            self.summed += len(fresh)

    def resume(self, offset: int) -> Proof | None:
        """The same for a read that is continued from another server at `offset`.

        That one is to be read from `summed` on. None when a part was left out before.
        """
        if offset > self._handed:
            return None
        again = copy.copy(self)
        again._sum = self._sum.copy()  # noqa: SLF001 - it is one of these
        again._limit = self.size  # noqa: SLF001
        return again

    @property
    def refuted(self) -> bool:
        """Whether all is summed, and is not what was saved."""
        return self.summed == self.size and self._sum.hexdigest() not in self.digests
