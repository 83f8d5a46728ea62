"""The names that a copy is at work on, in files that survive it being killed.

Between the moment when a file is written to the target and the look whether the source still
has it, the site may delete it, and the copy may be killed. Nobody would remove the target's
then. So each name is noted before its file is written, and the next copy looks at what is
noted.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from outgrow.errors import CopyUnderWay


class Note(NamedTuple):
    """A name that was being copied, and the bytes of its file."""

    name: str
    size: int


class Unfinished:
    """Notes in a folder of one copy's own. Thread-safe; for one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other copies of this pair of storages out. Raises `CopyUnderWay`."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self.folder / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CopyUnderWay(str(self.folder)) from error
            yield

    def note(self, name: str, size: int) -> Path:
        """Write that a name is being copied; returns the note, to be removed."""
        path = self.folder / f"{secrets.token_hex(12)}.json"
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps([name, size]), encoding="ascii")
        os.rename(draft, path)  # a note is never half a note
        return path

    def left(self) -> Iterator[tuple[Path, Note]]:
        """What a copy that was killed has left."""
        for path in sorted(self.folder.glob("*.new")):
            path.unlink(missing_ok=True)  # nothing was written yet for this name
        for path in sorted(self.folder.glob("*.json")):
            with suppress(FileNotFoundError):
                yield path, Note(*json.loads(path.read_text(encoding="ascii")))
