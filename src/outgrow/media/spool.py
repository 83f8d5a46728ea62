"""Uploads on their way to media servers, where there is no master to hold them.

They lie in Django's folder for uploads, on the machine of the process that saves them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outgrow import conf
from outgrow.errors import SaveInterrupted
from outgrow.http import FileBody
from outgrow.media import files
from outgrow.media.journal import ABANDONED, Attempt, Look, Wanted

#: Begins their names.
SPOOL: Final = "outgrow-upload-"


def folder() -> Path:
    """Where they are."""
    return Path(conf.upload_folder() or tempfile.gettempdir())


def path(attempt: Attempt) -> Path:
    """Where the upload of this attempt is."""
    return folder() / f"{SPOOL}{attempt.id}"


def look(attempt: Attempt) -> Look:
    """What is to be saved, with its digest. Reads the file. Raises `SaveInterrupted`."""
    try:
        with path(attempt).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise SaveInterrupted(
            f"The upload of {attempt.name!r} has vanished from {folder()} before it was sent. "
            "Nothing was saved; save it again."
        ) from None
    return Look(Wanted.PRESENT, (digest,), size)


@contextlib.contextmanager
def opened(attempt: Attempt, found: Look) -> Iterator[FileBody]:
    """The upload's content."""
    with path(attempt).open("rb") as file:
        yield FileBody(file.fileno(), found.size)


def remove(attempt: Attempt) -> None:
    """Forget an upload. Harmless when it is not there."""
    files.remove(path(attempt))


def sweep() -> int:
    """Remove what processes of this machine left when they were killed. How many that were."""
    removed, now = 0, time.time()
    for entry in folder().glob(f"{SPOOL}*"):
        changed = files.changed_at(entry)
        if changed is not None and now - changed > ABANDONED:
            with contextlib.suppress(PermissionError):  # another user's
                removed += files.remove(entry)
    return removed
