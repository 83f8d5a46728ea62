"""Files and folders beside the master: made whole, read whole, removed once.

Nothing here knows what is in a file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path


def write(path: str | Path, text: str, *, fsync: bool = False) -> None:
    """Make a file exclusively, for its owner alone.

    Raises `FileExistsError`, or another `OSError` after the file was removed again.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if text:
            _write_all(descriptor, text.encode())
        if text and fsync:
            os.fsync(descriptor)
    except OSError:
        remove(path)
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) < len(data):  # a disk that had room for a part
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def text(path: str | Path) -> str:
    """What is in a file; nothing when it has vanished, or is no text."""
    try:
        return Path(path).read_text("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def read(path: Path) -> dict[str, object] | None:
    """What a JSON file says; None when it has vanished or is not whole."""
    try:
        found = json.loads(text(path))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def remove(path: str | Path) -> bool:
    """Remove a file. False when somebody else was quicker."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def changed_at(path: str | Path) -> float | None:
    """When a file was made, written, linked or renamed; None when it is not there.

    The time of change of its inode: a linked upload brings any other with it. In seconds
    since the epoch, by the clock of the file system.
    """
    try:
        return os.stat(path).st_ctime
    except FileNotFoundError:
        return None


def names(folder: Path) -> list[str]:
    """What is in a folder, but dotfiles; nothing when it is not there."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """As `names`, one by one, for folders that may hold very many."""
    try:
        found = os.scandir(folder)
    except FileNotFoundError:
        return
    with found:
        yield from (entry for entry in found if not entry.name.startswith("."))


def sync_folder(folder: Path) -> None:
    """Wait until the entries of a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, mode: int | None) -> None:
    """As Django's FileSystemStorage does: with `mode`, whatever the umask."""
    if mode is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    # The same steps as `FileSystemStorage._save`: the mode counts for each folder
    # that is made, which os.makedirs alone gives to the last only.
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):
            one.mkdir()
            one.chmod(mode)


def is_same(one: str, other: str) -> bool:
    """Whether both paths are the same file now."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(one), os.lstat(other))
    return False
