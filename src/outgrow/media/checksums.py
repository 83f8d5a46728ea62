"""The record of a file's checksum, kept with the file itself: an extended attribute.

It belongs to the inode. So it is there before the file has its name, it goes where the
file is moved to, and no crash can leave one without the other. It costs no file and, on
ext4, no block. `integrity` says what is in it.

Not every file system has room for such: tmpfs has since Linux 6.6, NFS since 5.9; macOS
has, but Python can't reach it there.
"""

from __future__ import annotations

import os
from contextlib import suppress

from outgrow.media.integrity import Record

ATTRIBUTE = "user.outgrow.sha256"


def are_kept(folder: int) -> bool:
    """Whether files in this folder, a descriptor, can have records."""
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(folder, ATTRIBUTE, b"")
        os.removexattr(folder, ATTRIBUTE)
    except OSError:
        return False
    return True


def read(descriptor: int) -> Record | None:
    """The record of an open file, if it has one."""
    try:
        return Record.unpack(os.getxattr(descriptor, ATTRIBUTE))
    except OSError:
        return None


def write(descriptor: int, record: Record) -> None:
    """Give an open file its record, in place of an older one. Raises OSError."""
    os.setxattr(descriptor, ATTRIBUTE, record.pack())


def try_to_write(descriptor: int, record: Record) -> None:
    """The same for an upload, which does not fail for it: a pass gives it one later."""
    with suppress(OSError):
        write(descriptor, record)
