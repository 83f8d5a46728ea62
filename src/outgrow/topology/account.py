"""Whom a program runs as that refuses to be root's, and where it may have its files."""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from outgrow.errors import ProcessFailed

#: Nobody's ids where nobody has a name.
_NOBODY: Final = (65534, 65534)

#: What outlives a restart of the machine, and everybody can reach.
_SHARED: Final = Path("/var/tmp")  # noqa: S108 - a folder there is checked by `own`


def account() -> tuple[int, int] | None:
    """Nobody's user and group when we are root, else None: ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return _NOBODY
    return nobody.pw_uid, nobody.pw_gid


def elsewhere(folder: Path) -> Path:
    """A folder for what the account has, instead of one below `folder`; always the same."""
    return _SHARED / f"outgrow-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def can_reach(path: Path, account: tuple[int, int] | None) -> bool:
    """Whether the account may look into every folder above `path` that is there."""
    if account is None:
        return True
    return all(_may_enter(folder, account) for folder in path.parents if folder.is_dir())


def own(folder: Path, account: tuple[int, int] | None) -> None:
    """Make `folder` the account's alone. Raises `ProcessFailed` when it is another's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(folder)
    user, group = account or (os.geteuid(), os.getegid())
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), user}:
        raise ProcessFailed(f"{folder} belongs to somebody else. Remove it.")
    os.chown(folder, user, group)
    os.chmod(folder, 0o700)


def _may_enter(folder: Path, account: tuple[int, int]) -> bool:
    found = os.stat(folder)
    user, group = account
    if found.st_uid == user:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == group:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
