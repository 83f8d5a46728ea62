"""What a copy needs of a storage, of any kind: what is there, and saving under one name.

Our own storages have both. Of Django's FileSystemStorage this knows enough to do it well:
a file appears whole. Others are asked by Django's own API.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, Storage
from django.core.files.utils import validate_file_name

from outgrow.media import uploads
from outgrow.media.base import Replicated
from outgrow.media.listing import Child
from outgrow.media.repair import Repair, Report
from outgrow.media.walking import ordered, walk, walk_disk
from outgrow.moving.plan import Found
from outgrow.objects import ObjectStorage
from outgrow.objects.direct import FOLDER

Failed = Callable[[str, Exception], None]

#: Where files lie in a folder while they are copied. It is no name that a site gives.
COPYING: Final = ".outgrow-copy"

#: Seconds after which a half file in it is nobody's any more.
_ABANDONED: Final = 86_400


def is_unique(storage: Storage) -> bool:
    """Whether a storage gives each name once, so that two files of one name are the same."""
    if isinstance(storage, ObjectStorage):
        return storage.options.is_unique
    return isinstance(storage, Replicated) and storage.options.names == "unique"


def is_overwriting(storage: Storage) -> bool:
    """Whether a save takes the place of the file that has its name."""
    if isinstance(storage, ObjectStorage):
        return storage.options.overwrite
    return bool(getattr(storage, "_allow_overwrite", False))


def is_local(storage: Storage) -> bool:
    """Whether to ask if a file is there is a look at a disk, and no request."""
    return isinstance(storage, FileSystemStorage)


def identity(alias: str, storage: Storage) -> str:
    """Where a storage's files are, as far as it tells; else what the site calls it."""
    if isinstance(storage, ObjectStorage):
        place = storage.options.location
        return f"{storage.options.endpoint} {place.scheme}://{place.bucket}/{place.prefix}"
    if isinstance(storage, FileSystemStorage):
        return f"file://{os.path.realpath(storage.location)}"
    if isinstance(storage, Replicated):
        servers = sorted(server.address for server in storage.options.servers)
        return f"{storage.options.catalogue} {' '.join(servers)}"
    return f"{type(storage).__module__}.{type(storage).__qualname__} {alias}"


def listing(
    storage: Storage, prefix: str, failed: Failed, *, everywhere: bool = False
) -> Iterator[Found]:
    """The files whose names begin so, in order. `failed` is told of what can't be read.

    Memory does not depend on their number: many go through temporary files. With `everywhere`
    what one of several servers lacks, and nothing would give it, counts as missing.
    """
    if isinstance(storage, ObjectStorage):
        # A store may list in another order than this; a folder does.
        folder = prefix.rpartition("/")[0]
        found = (Found(name, size) for name, size, _ in storage.walk(folder))
        mine = (one for one in found if one.name.startswith(prefix) and not _is_arriving(one.name))
        return ordered(mine, lambda row: Found(*row))  # type: ignore[arg-type]
    if isinstance(storage, Replicated):
        entries = storage.entries(failed, prefix, everywhere=everywhere)
        return (Found(one.name, one.size) for one in entries)
    if isinstance(storage, FileSystemStorage):
        files = walk_disk(Path(storage.location), failed, prefix)
        skipped = f"{COPYING}/"
        return (Found(one.name, one.size) for one in files if not one.name.startswith(skipped))
    return _asked(storage, prefix, failed)


def _is_arriving(name: str) -> bool:
    """Whether it is an upload that a browser has sent, which is no file of the site's yet."""
    return name.startswith(f"{FOLDER}/")


def _asked(storage: Storage, prefix: str, failed: Failed) -> Iterator[Found]:
    """By listdir, which tells no sizes."""

    def read(folder: str) -> Iterator[Child]:
        try:
            folders, files = storage.listdir(folder.rstrip("/"))
        except FileNotFoundError:
            return  # deleted a moment ago
        yield from (Child(f"{one}/") for one in folders if one)
        yield from (Child(one) for one in files if one)

    start = prefix[: prefix.rfind("/") + 1]
    for one in walk(read, start, too_deep=failed):
        if one.name.startswith(prefix):
            yield Found(one.name)


def save_as(storage: Storage, name: str, content: File[Any], *, replace: bool = False) -> None:
    """Save a file under exactly this name.

    Raises FileExistsError for a name that is taken, unless `replace`; what the storage
    raises; nothing is there under the name then, or what was.
    """
    if isinstance(storage, (ObjectStorage, Replicated)):
        storage.save_as(name, content, replace=replace)
    elif isinstance(storage, FileSystemStorage):
        _save_on_disk(storage, name, content, replace=replace)
    else:
        _save_elsewhere(storage, name, content, replace=replace)


def _save_elsewhere(storage: Any, name: str, content: File[Any], *, replace: bool) -> None:
    if storage.exists(name):
        if not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        storage.delete(name)
    # Not save(): that gives many storages' files another name.
    saved = storage._save(name, content)  # noqa: SLF001 - Django documents it for subclasses
    if saved != name:
        storage.delete(saved)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _save_on_disk(
    storage: FileSystemStorage, name: str, content: File[Any], *, replace: bool
) -> None:
    """Write elsewhere in the folder, then give it its name in one step."""
    validate_file_name(name, allow_relative_path=True)
    path = Path(storage.path(name))
    folder = Path(storage.location) / COPYING
    _make_folders(path.parent, storage.directory_permissions_mode)
    folder.mkdir(exist_ok=True)
    draft = folder / secrets.token_hex(12)
    try:
        uploads.fill(draft, content)
        if storage.file_permissions_mode is not None:
            os.chmod(draft, storage.file_permissions_mode)
        _give_name(draft, path, replace=replace)
    finally:
        draft.unlink(missing_ok=True)


def _make_folders(folder: Path, mode: int | None) -> None:
    """As FileSystemStorage makes them: this mode for each, whatever the umask is."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        with suppress(FileExistsError):
            one.mkdir()
            if mode is not None:
                one.chmod(mode)


#: What a file system without hard links says.
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


def _give_name(draft: Path, path: Path, *, replace: bool) -> None:
    if replace:
        os.replace(draft, path)
        return
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A mounted bucket, say. Two who save one name at once are not told apart there.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        os.rename(draft, path)


def prepare(storage: Storage) -> None:
    """Have a storage take back what a killed copy had begun: it holds the names of its files."""
    if isinstance(storage, Replicated):
        Repair(storage.replication).take_over(Report())


def tidy(storage: Storage) -> None:
    """Remove the half files that a killed copy left in a folder a day ago."""
    if not isinstance(storage, FileSystemStorage) or isinstance(storage, Replicated):
        return
    folder = Path(storage.location) / COPYING
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > _ABANDONED:
                    os.unlink(entry.path)
    with suppress(OSError):
        folder.rmdir()  # another copy may be at work in it
