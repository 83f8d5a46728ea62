"""The files of the embedded media server: looked at, read, written, removed.

The laws:

1. Every name is walked from the root's own descriptor, one part at a time, and no
   symbolic link is followed. So nothing outside the root can be reached, though a
   part be exchanged for a link in between (what openat2's RESOLVE_BENEATH and
   RESOLVE_NO_SYMLINKS promise; Python has no openat2).
2. An upload is written to a file of its own in `.outgrow-new/` and moved to its
   name when it is whole. That folder can't be asked for: its name starts with a
   dot. What a killed process left there is removed at the next start.
3. Nobody in this process changes a name between the check of a condition and the
   change. A new file (If-None-Match: *) is made by link(), which is exclusive
   between processes too.
4. With `fsync`, an upload is on the disk before it is answered: its bytes first,
   then its name, then the names of folders made for it. So is a deletion.
5. What was deleted stays deleted: see `tombstones`.
6. A checksum that is known is with the upload before it has its name: see `checksums`.
7. What an upload replaces with other bytes is not lost, where names are never used again:
   one of the two has gone bad, and `quarantine` keeps the one that was here. At no time
   is the name without a file.

Everything here blocks; the server calls it in threads. All calls are thread-safe.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from outgrow.errors import ConfigurationError
from outgrow.media import checksums
from outgrow.media.conditions import File
from outgrow.media.integrity import Record
from outgrow.media.listing import Child, Entry, is_text
from outgrow.media.protocol import NoFile, State
from outgrow.media.tombstones import Expired, Parts, Tombstones
from outgrow.media.walking import walk

#: Where uploads are written before they have their name.
NEW_FOLDER = ".outgrow-new"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a named pipe must not wait for its writer.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# To be read, too: an upload is compared with what it replaces.
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: Bytes of each of two files that are compared at once.
_PIECE = 256 * 1024

#: Keeps a file of the folder with this descriptor, at this name, before it is replaced.
Keep = Callable[[int, Parts, File], None]


class Missing(Exception):
    """The walk to a name ended early; `state` says why."""

    def __init__(self, state: NoFile) -> None:
        super().__init__(state)
        self.state = state


class Disk:
    """The files below `root`. `open` it before use and `close` it after.

    `reused`: see `Tombstones`. `records`: uploads have a record of their checksum, where
    the file system can keep one; `keeps_records` says whether it can, once open. `keep`
    is told of a file that is about to be replaced by other bytes (law 7).
    """

    #: Nobody keeps what is replaced, unless told: see `Replaced`.
    keep: Keep | None = None

    def __init__(
        self,
        root: Path,
        *,
        fsync: bool = True,
        reused: Iterable[Parts] = (),
        records: bool = False,
    ) -> None:
        self.path = root
        self.fsync = fsync
        self.tombstones = Tombstones(reused)
        self.changing = threading.Lock()
        self.keeps_records = False
        self._records = records
        self._root = -1
        self._new = -1

    def open(self) -> None:
        """Take hold of the root and clear away what a killed process left.

        Raises ConfigurationError when the root is no folder that can be written.
        """
        try:
            self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._new = self.own_folder(NEW_FOLDER)
            self.keeps_records = self._records and checksums.are_kept(self._new)
            self.tombstones.open(self._root)
            self._clear()
        except OSError as error:
            self.close()
            raise ConfigurationError(
                str(self.path),
                f"the media server can't use this folder: {error.strerror}.",
                "It must exist and be writable for the server's user.",
            ) from error

    def close(self) -> None:
        """Let go of the root. Harmless when closed."""
        self.tombstones.close()
        for descriptor in (self._root, self._new):
            if descriptor >= 0:
                os.close(descriptor)
        self._root = self._new = -1

    def own_folder(self, name: str) -> int:
        """A descriptor of a folder in the root that is ours alone; made if it is missing."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._root)
        return os.open(name, _FOLDER, dir_fd=self._root)

    def _clear(self) -> None:
        """Remove leftovers, unless another server uses this root at the same time."""
        try:
            fcntl.flock(self._new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Another server's uploads are in there, or the file system knows no
            # locks. What is left lies where nobody is served from.
            pass
        else:
            for name in os.listdir(self._new):
                os.unlink(name, dir_fd=self._new)
        with suppress(OSError):
            fcntl.flock(self._new, fcntl.LOCK_SH | fcntl.LOCK_NB)

    @contextmanager
    def folder(self, parts: Parts, made: Callable[[int], None] | None = None) -> Iterator[int]:
        """A descriptor of the folder above a name. Raises Missing when there is none.

        With `made`, folders that are missing are created, and `made` is called
        with a descriptor of the folder above each new one.
        """
        current = os.dup(self._root)
        try:
            for part in parts[:-1]:
                below = self._step(current, part, made)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)

    def _step(self, above: int, part: str, made: Callable[[int], None] | None) -> int:
        try:
            return os.open(part, _FOLDER, dir_fd=above)
        except FileNotFoundError:
            if made is None:
                raise Missing(NoFile.MISSING) from None
        except NotADirectoryError:
            # Linux answers ENOTDIR for a link too, when O_DIRECTORY is asked for.
            linked = _look(above, part) is NoFile.LINK
            raise Missing(NoFile.LINK if linked else NoFile.BELOW_FILE) from None
        except OSError as error:
            raise _unless_link(error) from error
        with suppress(FileExistsError):  # made by another request, a moment ago
            os.mkdir(part, dir_fd=above)
            made(above)
        return self._step(above, part, None)

    def look(self, parts: Parts) -> State:
        """What is at a name."""
        if self.tombstones.has(parts):
            return NoFile.GONE
        try:
            with self.folder(parts) as above:
                return _look(above, parts[-1])
        except Missing as missing:
            return missing.state

    def look_in(self, above: int, parts: Parts) -> State:
        """The same, with a descriptor of the folder above it."""
        return NoFile.GONE if self.tombstones.has(parts) else _look(above, parts[-1])

    def read(self, parts: Parts) -> tuple[State, int]:
        """What is at a name, and a descriptor to read it by (-1 when it is no file)."""
        if self.tombstones.has(parts):
            return NoFile.GONE, -1
        try:
            with self.folder(parts) as above:
                return _open(above, parts[-1])
        except Missing as missing:
            return missing.state, -1

    def entries(self, folder: Parts) -> Iterator[Entry]:
        """The files below a folder, in order of their names. Blocks between two as well.

        No links are followed, and dotfiles and deleted names are left out.
        """
        found = walk(self.children, "".join(f"{part}/" for part in folder))
        return (one for one in found if not self.tombstones.has(tuple(one.name.split("/"))))

    def children(self, folder: str) -> Iterator[Child]:
        """What is in a folder whose name ends in a slash, or is empty; nothing if it has gone."""
        # A folder's name ends in a slash: its own descriptor is that above nothing.
        with (
            suppress(Missing),
            self.folder(tuple(folder.split("/"))) as above,
            os.scandir(above) as entries,
        ):
            for entry in entries:
                yield from _child(entry)

    def remove(self, parts: Parts, check: Callable[[State], None]) -> State:
        """Delete a name, for good; return what was there. `check(state)` may raise."""
        try:
            with self.folder(parts) as above:
                with self.changing:
                    state = self.look_in(above, parts)
                    check(state)
                    remembered = self._bury(above, parts)
                if remembered:
                    self.sync(self.tombstones.descriptor)
                self.sync(above)
                return state
        except Missing as missing:
            check(missing.state)
            if self.tombstones.make(parts):
                # Put there since, by a process that saw no tombstone.
                self._remove_leftover(Expired(parts, None))
                self.sync(self.tombstones.descriptor)
            return missing.state

    def withdraw(self, parts: Parts, file: File, folder: int, label: str) -> bool:
        """Move a file to a folder of our own, by one rename, if this is still the file there.

        Another process may have put another file at the name between the look and the
        rename; that one goes back. Says whether the file was moved.
        """
        with suppress(Missing, FileNotFoundError), self.folder(parts) as above:
            with self.changing:
                if self.look_in(above, parts) != file:
                    return False
                os.rename(parts[-1], label, src_dir_fd=above, dst_dir_fd=folder)
                moved = _look(folder, label) == file
                if not moved:
                    with suppress(FileExistsError):  # and a still newer one is there
                        os.link(label, parts[-1], src_dir_fd=folder, dst_dir_fd=above)
                    os.unlink(label, dir_fd=folder)
            self.sync(folder)
            self.sync(above)
            return moved
        return False

    def _bury(self, above: int, parts: Parts) -> bool:
        """Make the tombstone and remove the file, in this order where that can be."""
        try:
            remembered = self.tombstones.make(parts)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            _remove_file(above, parts[-1])
            return self.tombstones.make(parts)
        _remove_file(above, parts[-1])
        return remembered

    def sweep(self, now: float, stop: Callable[[], bool]) -> None:
        """Remove old tombstones. `now` is in seconds since 1970. May take long."""
        with self.tombstones.sweeping() as alone:
            if not alone:
                return
            for expired in self.tombstones.expired(now):
                if stop():
                    return
                with self.changing:
                    self._remove_leftover(expired)
                    self.tombstones.remove(expired.parts)

    def _remove_leftover(self, expired: Expired) -> None:
        """Remove what lies at a name that has a tombstone."""
        with suppress(Missing), self.folder(expired.parts) as above:
            if _remove_file(above, expired.parts[-1], expired.before):
                # It must not be there again when the tombstone is not.
                self.sync(above)

    @contextmanager
    def checked(
        self,
        parts: Parts,
        check: Callable[[State], None],
        made: Callable[[int], None] | None = None,
    ) -> Iterator[int]:
        """`folder`, but what is found in its place is given to `check`, to be refused."""
        try:
            with self.folder(parts, made) as above:
                yield above
        except Missing as missing:
            check(missing.state)
            raise FileNotFoundError(errno.ENOENT, missing.state.value, "/".join(parts)) from None

    def sync(self, descriptor: int) -> None:
        """fsync, if this server does that."""
        if self.fsync:
            os.fsync(descriptor)

    def room_for(self, size: int) -> bool:
        """Whether the file system has `size` bytes left. Quotas are seen only by writing."""
        free = os.fstatvfs(self._root)
        return free.f_bavail * free.f_frsize >= size

    def create(self) -> Upload:
        """Begin an upload."""
        return Upload(self, self._new)


class Upload:
    """A file that is being written and has no name yet. `discard` it in any case."""

    def __init__(self, disk: Disk, folder: int) -> None:
        self._disk = disk
        self._folder = folder
        self._temporary = secrets.token_hex(16)
        # A write may still run in its thread when the request is given up; its
        # descriptor must not be closed, and perhaps become another's, meanwhile.
        self._busy = threading.Lock()
        self._descriptor = os.open(self._temporary, _CREATE, 0o666, dir_fd=folder)

    def write(self, data: bytes) -> None:
        """Append `data`."""
        with self._busy:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._writable(), rest) :]

    def commit(
        self,
        parts: Parts,
        check: Callable[[State], None],
        *,
        exclusive: bool,
        digest: bytes | None = None,
    ) -> tuple[File, bool]:
        """Give the file its name; return the file and whether the name is new.

        `check(state)` may raise, and then nothing changes. With `exclusive`,
        raises FileExistsError when another process was faster. `digest`: its SHA-256,
        to be remembered.
        """
        with self._busy:
            # ext4 and others stamp files with a clock of some ms; the ETag shall
            # tell apart files that came faster, in an inode that was used again.
            os.utime(self._writable(), ns=(now := time.time_ns(), now))
            if digest is not None and self._disk.keeps_records:
                file = describe(os.fstat(self._descriptor))
                checksums.try_to_write(self._descriptor, Record.of(file, digest))
            self._disk.sync(self._descriptor)
            with self._disk.checked(parts, check, self._disk.sync) as above:
                # Before the lock: large files take their time.
                seen = None if exclusive else self._other(above, parts)
                with self._disk.changing:
                    state = self._disk.look_in(above, parts)
                    check(state)
                    if not exclusive:
                        self._keep_other(above, parts, seen)
                    self._give_name(above, parts[-1], exclusive=exclusive)
                    if self._disk.tombstones.has(parts):  # law 4 of tombstones
                        _remove_file(above, parts[-1])
                        check(NoFile.GONE)
                self._disk.sync(above)
            return describe(os.fstat(self._descriptor)), state is NoFile.MISSING

    def _other(self, above: int, parts: Parts) -> tuple[File, bool] | None:
        """The file at the name, and whether it has other bytes than this upload.

        None where nothing is kept: there is no file, or the name may be used again.
        """
        disk = self._disk
        if disk.keep is None or not disk.tombstones.cover(parts):
            return None
        found = disk.look_in(above, parts)
        return (found, self._differs(above, parts[-1])) if isinstance(found, File) else None

    def _keep_other(self, above: int, parts: Parts, seen: tuple[File, bool] | None) -> None:
        """Keep what is about to be replaced, if it is another file (law 7)."""
        if seen is None or seen[0] != self._disk.look_in(above, parts):
            seen = self._other(above, parts)  # another upload was faster
        if seen is not None and seen[1] and self._disk.keep is not None:
            self._disk.keep(above, parts, seen[0])

    def _differs(self, above: int, name: str) -> bool:
        """Whether a file has other bytes than this one. What can't be read has."""
        try:
            _, descriptor = _open(above, name)
        except (Missing, OSError):
            return True
        try:
            return not _same_bytes(self._descriptor, descriptor)
        except OSError:
            return True
        finally:
            os.close(descriptor)

    def _give_name(self, above: int, name: str, *, exclusive: bool) -> None:
        if exclusive:
            os.link(self._temporary, name, src_dir_fd=self._folder, dst_dir_fd=above)
        else:
            os.rename(self._temporary, name, src_dir_fd=self._folder, dst_dir_fd=above)
            self._temporary = ""

    def discard(self) -> None:
        """Close, and remove what has not been given its name. Harmless when repeated."""
        with self._busy:
            if self._descriptor < 0:
                return
            os.close(self._descriptor)
            self._descriptor = -1
            if self._temporary:
                os.unlink(self._temporary, dir_fd=self._folder)

    def _writable(self) -> int:
        if self._descriptor < 0:
            raise OSError(errno.EBADF, "this upload was given up")
        return self._descriptor


def _child(entry: os.DirEntry[str]) -> Iterator[Child]:
    """What an entry of a folder is in a listing, if it is in it."""
    if entry.name.startswith(".") or not is_text(entry.name):
        return
    if entry.is_dir(follow_symlinks=False):
        yield Child(f"{entry.name}/")
        return
    with suppress(FileNotFoundError):
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            date = str(int(found.st_mtime))
            yield Child(entry.name, found.st_size, date)


def _look(above: int, name: str) -> State:
    """What is at `name` in the folder `above`."""
    try:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return NoFile.MISSING
    return _judge(found)


def _remove_file(above: int, name: str, before: int | None = None) -> bool:
    """Remove `name` from the folder `above` if it is a file; say whether it was.

    With `before`, a file that is newer is left alone.
    """
    found = _look(above, name)
    if not isinstance(found, File) or (before is not None and found.mtime_ns > before):
        return False
    with suppress(FileNotFoundError):  # another process was faster
        os.unlink(name, dir_fd=above)
    return True


def _open(above: int, name: str) -> tuple[State, int]:
    """What is at `name` in the folder `above`, and a descriptor if it is a file."""
    try:
        descriptor = os.open(name, _READ, dir_fd=above)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.EOPNOTSUPP}:  # a socket, a device
            return NoFile.SPECIAL, -1
        raise _unless_link(error) from error
    state = _judge(os.fstat(descriptor))
    if isinstance(state, File):
        return state, descriptor
    os.close(descriptor)
    return state, -1


def _same_bytes(one: int, other: int) -> bool:
    """Whether two open files have the same bytes. Raises OSError for what can't be read."""
    if os.fstat(one).st_size != os.fstat(other).st_size:
        return False
    position = 0
    while data := os.pread(one, _PIECE, position):
        if os.pread(other, _PIECE, position) != data:
            return False
        position += len(data)
    return True


def _unless_link(error: OSError) -> Exception:
    """What an error of open() says of the name; the error itself if it says nothing."""
    # O_NOFOLLOW on a link: ELOOP on Linux and macOS, EMLINK on FreeBSD.
    if error.errno in {errno.ELOOP, errno.EMLINK}:
        return Missing(NoFile.LINK)
    if isinstance(error, FileNotFoundError):
        return Missing(NoFile.MISSING)
    return error


def _judge(found: os.stat_result) -> State:
    if stat.S_ISREG(found.st_mode):
        return describe(found)
    if stat.S_ISDIR(found.st_mode):
        return NoFile.FOLDER
    return NoFile.LINK if stat.S_ISLNK(found.st_mode) else NoFile.SPECIAL


def describe(found: os.stat_result) -> File:
    """What names the version of a regular file."""
    return File(found.st_ino, found.st_size, found.st_mtime_ns)
