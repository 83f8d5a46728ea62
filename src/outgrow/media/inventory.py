"""The listing of the embedded media server, a page at a time.

What a page holds was there when it was made: files come and go while the pages are
sent, and the reader asks again for what matters.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Generator
from typing import Final

from outgrow.media import listing
from outgrow.media.conditions import File
from outgrow.media.disk import Disk
from outgrow.media.listing import Entry
from outgrow.media.tombstones import Parts

#: Bytes of a page, about.
PAGE: Final = 65536

#: Seconds after which a page is sent though it is not full: a sign of life.
PATIENCE: Final = 1.0

#: Bytes that are hashed between two looks at the clock.
_PIECE: Final = 1 << 20


class Inventory:
    """The files below one folder. `digests`: with their SHA-256. `page` blocks."""

    def __init__(self, disk: Disk, folder: Parts, *, digests: bool) -> None:
        self._disk = disk
        self._digests = digests
        self._lines = self._produce(folder)
        # A page may still be made in its thread when nobody wants it any more.
        self._busy = threading.Lock()

    def page(self) -> bytes:
        """The next lines, or an empty one if there is none yet; nothing after the last.

        Raises `OSError` for a folder or a file that can't be read: without them the
        listing is not whole, and so must not have an end.
        """
        until = time.monotonic() + PATIENCE
        lines, size = [], 0
        with self._busy:
            for line in self._lines:
                lines.append(line)
                size += len(line)
                if size >= PAGE or time.monotonic() >= until:
                    return b"".join(lines) or b"\n"
        return b"".join(lines)

    def close(self) -> None:
        """Let go of what is open. Waits for a page that is being made."""
        with self._busy:
            self._lines.close()

    def _produce(self, folder: Parts) -> Generator[bytes, None, None]:
        count = 0
        for entry in self._disk.entries(folder):
            found = (yield from self._digested(entry)) if self._digests else entry
            if found is not None:
                count += 1
                yield listing.line(found)
        yield listing.end(count)

    def _digested(self, entry: Entry) -> Generator[bytes, None, Entry | None]:
        """The entry with its digest; None when the file has gone. Yields signs of life."""
        state, descriptor = self._disk.read(tuple(entry.name.split("/")))
        if not isinstance(state, File):
            return None
        running = hashlib.sha256()
        try:
            while data := os.read(descriptor, _PIECE):
                running.update(data)
                yield b""
        finally:
            os.close(descriptor)
        return Entry(entry.name, state.size, str(state.modified), running.hexdigest())
