"""The one function that puts rendered files on a disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from outgrow.topology.render import File


def write(files: Iterable[File], folder: Path, account: tuple[int, int] | None = None) -> None:
    """Write each file below `folder`, whole or not at all, and make the folders for it.

    What is private is the `account`'s, a user's and a group's id, or our own.
    """
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        with suppress(FileNotFoundError):  # it would keep its mode and its owner
            new.unlink()
        mode = 0o600 if file.private else 0o777 if file.executable else 0o666
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(handle, "w", encoding="utf-8") as stream:
            if file.private and account:
                os.fchown(handle, *account)
            stream.write(file.content)
        os.replace(new, path)
