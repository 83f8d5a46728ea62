"""An uploaded file -> a new file on the disk: linked, copied by the kernel, or written.

The caller's file is left as it is, and where it is, so that it can be saved again.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from django.core.files.base import File
from django.core.files.images import ImageFile
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile


def fill(path: Path, content: File[Any], mode: int = 0o666) -> None:
    """Put the content into a new file, with this mode less the umask."""
    if not _link(content, path):
        _copy(path, content, mode)


def _copy(path: Path, content: File[Any], mode: int) -> None:
    # Like FileSystemStorage: 0o666 less the umask, text or bytes as they come.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    target: IO[Any] | None = None
    try:
        if _copy_in_kernel(content, descriptor):
            return
        for chunk in content.chunks():
            if target is None:
                target = os.fdopen(descriptor, "wb" if isinstance(chunk, bytes) else "wt")
            target.write(chunk)
    finally:
        if target is not None:
            target.close()
        else:
            os.close(descriptor)


def _link(content: File[Any], path: Path) -> bool:
    """Link an upload that lies in a file of its own. False when that can't be done."""
    source: Callable[[], str] | None = getattr(content, "temporary_file_path", None)
    if source is None:
        return False
    flush: Callable[[], None] | None = getattr(content, "flush", None)
    if flush is not None:
        flush()
    try:
        os.link(source(), path)
    except OSError as error:
        # Another file system; a file of another user (protected_hardlinks); a file
        # system without links. The upload is copied instead.
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}:
            return False
        raise
    return True


def _copy_in_kernel(content: File[Any], target: int) -> bool:
    """Copy an open file without reading it. False when that can't be done.

    Only for Django's own classes over a plain binary file: a subclass may give other
    chunks than its file holds. Leaves the position of the file where it was.
    """
    if not hasattr(os, "copy_file_range"):  # macOS
        return False
    plain = type(content) in {File, ImageFile, UploadedFile, TemporaryUploadedFile}
    source: Any = getattr(content.file, "file", content.file)  # tempfile wraps its file
    if not plain or type(getattr(source, "raw", source)) is not io.FileIO:
        return False  # it has no descriptor: it is read from a server, say
    content.flush()
    offset, size = 0, os.fstat(source.fileno()).st_size
    if not size:
        return False  # it is empty, or does not tell its size, as in /proc
    while offset < size:
        try:
            copied = os.copy_file_range(source.fileno(), target, size - offset, offset, offset)
        except OSError as error:
            # Two file systems, or one that can't.
            if offset or error.errno not in _NO_COPY:
                raise
            return False
        if not copied and not offset:
            return False  # some file systems say so of what they can't copy
        if not copied:
            raise OSError(
                errno.EIO, f"The upload ended after {offset} of {size} bytes. Nothing was saved"
            )
        offset += copied
    return True


_NO_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}
