"""Django's storage API over the replication protocol, and nothing else.

`HybridStorage` is a FileSystemStorage: reads, URLs, sizes, times and permissions
are Django's own, on the master. `save` and `delete` also reach every media server.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.images import ImageFile
from django.core.files.storage import FileSystemStorage, storages
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from outgrow import conf
from outgrow.errors import SaveInterrupted, ServerError, UnsafeName
from outgrow.exchange import Limits
from outgrow.fanout import Outcome
from outgrow.media import names
from outgrow.media.background import Background
from outgrow.media.directory import DirectoryJournal
from outgrow.media.files import sync_folder
from outgrow.media.journal import ATTEMPT_LIMIT
from outgrow.media.repair import Repair
from outgrow.media.replication import Pending, Replication, Steps, Upload, run
from outgrow.media.transport import HttpTransport, Transport
from outgrow.servers import Health

logger = logging.getLogger("outgrow.media")


class HybridStorage(FileSystemStorage):
    """A master copy on the local disk, and a copy of every file on each media server.

    The options, for ``STORAGES["default"]["OPTIONS"]``:

    `servers`
        A list of URLs (``http://media1:8080``, ``https://10.0.0.5/media/``), of
        ``host:port``, or a mapping of stable names to URLs.
    `need`
        How many servers must have taken a file for `save` to succeed: a number
        (1), ``"majority"``, ``"all"``, or 0. The others are owed it.
    `names`
        ``"unique"``: each saved name gets 65 random bits and is never used again.
        ``"keep"``: as FileSystemStorage does.
    `timeout`, `deadline`, `downtime`
        Seconds without progress (2); for a whole save (25); for which a server
        that failed is left alone (60).
    `fsync`
        Wait for the disk at each step, to survive power loss (False).
    `show_traceback`
        Log the traceback of what a server did wrong (False).
    `token`
        Sent as ``Authorization: Bearer`` to each server.
    `location`, `base_url`, `allow_overwrite` and Django's other options
        As for FileSystemStorage; `allow_overwrite` needs ``names="keep"``.

    `save` raises `outgrow.errors.NotEnoughServers`; the caller's file stays open
    and can be saved again. Names that may not be used raise Django's
    SuspiciousFileOperation. Thread-safe and fork-safe. Nothing is opened, read or
    sent before the first use.
    """

    def __init__(
        self,
        location: str | os.PathLike[str] | None = None,
        base_url: str | None = None,
        file_permissions_mode: int | None = None,
        directory_permissions_mode: int | None = None,
        *,
        allow_overwrite: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            location=cast("str | None", location),
            base_url=base_url,
            file_permissions_mode=file_permissions_mode,
            directory_permissions_mode=directory_permissions_mode,
            allow_overwrite=allow_overwrite,
        )
        # Django keeps these under the same names, which its stubs do not know.
        self._location = location
        self._base_url = base_url
        self._allow_overwrite = allow_overwrite
        # Without servers (in a migration's state, say) it can be made, not used.
        self._options = options
        if "servers" in options:
            self._check(options)

    #: The options that this kind of storage has.
    option_names = conf.HYBRID_OPTIONS

    def _check(self, options: dict[str, Any]) -> conf.MediaOptions:
        given = dict(options, base_url=self._base_url, allow_overwrite=self._allow_overwrite)
        path = f"{type(self).__name__}(...)"
        checked, problems = conf.media_options(given, path, self.option_names)
        if problems:
            raise ImproperlyConfigured("; ".join(map(str, problems))) from problems[0]
        return checked

    def deconstruct(self) -> tuple[str, tuple[()], dict[str, Any]]:
        """For migrations: the class alone. Servers and tokens are no part of a schema."""
        kind = type(self)
        module = "outgrow.media" if kind.__module__ == __name__ else kind.__module__
        return f"{module}.{kind.__qualname__}", (), {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process opens connections of its own.
        return {key: value for key, value in self.__dict__.items() if key not in _MADE}

    # --- the parts

    @cached_property
    def options(self) -> conf.MediaOptions:
        """The checked options. Raises ImproperlyConfigured when there are no servers."""
        return self._check(self._options)

    @cached_property
    def journal(self) -> DirectoryJournal:
        """What each server is owed, beside the master."""
        if not self.location or (self._location is None and not conf.media_root()):
            raise ImproperlyConfigured(
                "Neither MEDIA_ROOT nor the option 'location' is set: "
                "the master copy has no place. Set MEDIA_ROOT."
            )
        options = self.options
        # A save may send, and then undo; both get `deadline`.
        limit = max(ATTEMPT_LIMIT, 4 * options.deadline)
        return DirectoryJournal(self.location, fsync=options.fsync, attempt_limit=limit)

    @cached_property
    def transport(self) -> Transport:
        """How the servers are spoken to. Override this, or give the option `transport`."""
        options = self.options
        if options.transport is not None:
            return cast("Transport", options.transport(options.servers, self.journal))
        return HttpTransport(
            options.servers,
            self.journal,
            health=Health(downtime=options.downtime),
            limits=Limits(timeout=options.timeout),
            token=options.token,
            conditional=options.names == "keep",
        )

    @cached_property
    def replication(self) -> Replication:
        """The protocol over this storage's journal and transport."""
        options = self.options
        return Replication(
            self.journal,
            self.transport,
            need=options.need,
            source=self.journal.copy,
            reused=options.names == "keep",
            deadline=options.deadline,
        )

    def drive(self, steps: Steps[Any]) -> Any:
        """Take the steps of a save or a delete. Tests break off between two of them."""
        return run(steps)

    def _clear_cached_properties(self, setting: str, **kwargs: Any) -> None:
        super()._clear_cached_properties(setting, **kwargs)  # type: ignore[arg-type]
        if setting in {"MEDIA_ROOT", "MEDIA_URL"}:
            for name in _MADE:
                self.__dict__.pop(name, None)

    # --- names

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """With ``names="unique"`` a name that was never used; else Django's own answer."""
        with _suspicious():
            if self.options.names == "unique":
                plain = str(name).replace("\\", "/")
                return names.unique(plain, names.token(), max_length)
            names.check(str(name).replace("\\", "/"), length=max_length is None)
        found = super().get_available_name(name, max_length=max_length)
        with _suspicious():
            return names.check(found)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """As FileSystemStorage's, without the journal."""
        folders, files = super().listdir(path)
        return [folder for folder in folders if not _is_journal(folder)], files

    def path(self, name: str) -> str:
        """As FileSystemStorage's; the journal's folder has no files of the site."""
        found = super().path(name)
        parts = Path(os.path.relpath(found, self.location)).parts
        if any(map(_is_journal, parts[:1])):
            raise SuspiciousFileOperation(f"{name!r} lies in the journal of the media storage.")
        return found

    # --- reading

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        if set(mode) & set("wax+"):
            raise io.UnsupportedOperation(
                f"open({name!r}, {mode!r}): a file that is written in place can't be "
                "replicated. Write it elsewhere and save() it."
            )
        return super()._open(name, mode)  # type: ignore[misc, no-any-return]

    # --- writing

    def _save(self, name: str, content: File[Any]) -> str:
        saved = self.drive(self.replication.save(self._upload(name, content)))
        self._log("save", saved.name, saved.outcome)
        return str(saved.name)

    def _upload(self, name: str, content: File[Any]) -> Upload:
        with _suspicious():
            names.check(name)
        return Upload(
            name,
            lambda path: self._fill(path, content),
            self.get_available_name,
            replace=self._allow_overwrite,
            folder_mode=self.directory_permissions_mode,
        )

    def delete(self, name: str) -> None:
        """Delete a file on the master and on every server, now or when it is back.

        A folder is removed on the master alone, if it is empty, as
        FileSystemStorage does. Raises `ValueError` for an empty name.
        """
        if not name:
            raise ValueError("The name must be given to delete().")
        if os.path.isdir(self.path(name)):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self.path(name))
            return
        try:
            names.check(name)
        except UnsafeName as error:
            # A file from before the migration. No server was ever sent it.
            if not self._is_master_only(name):
                raise SuspiciousFileOperation(str(error)) from error
            super().delete(name)
            return
        self._delete(name)

    def _is_master_only(self, name: str) -> bool:
        """Whether a name that is never sent is that of a file all the same, and of no other."""
        path = self.path(name)
        return os.path.isfile(path) and os.path.relpath(path, self.location) == name

    def _delete(self, name: str) -> None:
        self._log("delete", name, self.drive(self.replication.delete(name)))

    def _fill(self, path: Path, content: File[Any]) -> None:
        """Put the content into a new file. The caller's file is left as it is."""
        if not _link(content, path):
            self._copy(path, content)
        try:
            self._finish(path)
        except FileNotFoundError:
            raise SaveInterrupted(
                "A save was given up by a repair pass while its file was written, because it had "
                f"not moved for {self.journal.attempt_limit:g} s. Nothing was saved; save it again."
            ) from None

    def _finish(self, path: Path) -> None:
        """Permissions, group, and the disk."""
        if self.file_permissions_mode is not None:
            os.chmod(path, self.file_permissions_mode)
        self._ensure_location_group_id(path)  # type: ignore[attr-defined]
        if self.options.fsync:
            _sync_file(path)
            sync_folder(path.parent)

    def _copy(self, path: Path, content: File[Any]) -> None:
        # Like FileSystemStorage: 0o666 less the umask, text or bytes as they come.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
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

    # --- logging

    def _log(self, verb: str, name: str, outcome: Outcome) -> None:
        """One line for each server that missed it; it is owed, so this is no failure."""
        level = logging.ERROR if self.options.need == 0 else logging.WARNING
        for error in outcome.missed.values():
            self._log_one(level, verb, name, error)

    def _log_one(self, level: int, verb: str, name: str, error: ServerError) -> None:
        logger.log(
            level,
            "%s of %r is owed to %s",
            verb,
            name,
            error,
            exc_info=error if self.options.show_traceback else None,
        )


class AsyncStorage(HybridStorage):
    """A master copy on the local disk now, and a copy on each media server soon.

    `save` and `delete` return when the master has the change and a record says that all
    servers are owed it. The servers are told in the background. Nothing is lost when the
    process dies right after: the next one that begins to work, or `media repair`, finds
    the record. Options that HybridStorage has not:

    `background`
        Who does the work: ``"thread"`` (one of this process; the default), or jobs of
        ``"tasks"`` (Django's), ``"celery"`` or ``"rq"``.
    `backlog`, `drain`
        Of the thread: how many changes may wait (1000), and seconds that it is given
        at the end of the process (10). What does not fit stays on record.
    `queue`, `broker`
        Of the jobs: the queue's name, where it is not the default one; the URL of Redis
        for RQ.

    It has no `need`: a save waits for no server. For another queue, override `enqueue`.
    """

    option_names = conf.ASYNC_OPTIONS

    @cached_property
    def background(self) -> Background[Pending]:
        """The thread of this process. It begins with the first save or delete."""
        options = self.options
        return Background(
            self._forward, self._catch_up, backlog=options.backlog, drain=options.drain
        )

    def enqueue(self, server: str, name: str) -> None:
        """Queue one job that calls `replicate(server, name)`, somewhere and some time.

        Override it for a queue of your own; both arguments are texts. What it raises is
        logged, and the file stays owed.
        """
        from outgrow.media import jobs  # imports Celery and the like, where they are there

        options = self.options
        jobs.send(
            options.background,
            (self._alias(), server, name),
            queue=options.queue,
            broker=options.broker,
        )

    def replicate(self, server: str, name: str) -> None:
        """Bring one file on one server to the master's state. What a job does.

        Raises nothing for the server's sake: what it missed, it stays owed.
        """
        debts = list(self.journal.debts(server, name))
        if debts:
            mended = self.drive(self.replication.mend(name, debts))
            self._log("replication", name, mended.outcome)

    def _save(self, name: str, content: File[Any]) -> str:
        pending = self.drive(self.replication.store(self._upload(name, content)))
        self._hand_on(pending)
        return str(pending.attempt.name)

    def _delete(self, name: str) -> None:
        self._hand_on(self.drive(self.replication.bury(name)))

    def _hand_on(self, pending: Pending) -> None:
        """Give a change to the thread, or to jobs."""
        own = type(self).enqueue is not AsyncStorage.enqueue
        if self.options.background == "thread" and not own:
            if not self.background.offer(pending):
                self.replication.hand_over(pending)
            return
        for server in self.replication.hand_over(pending):
            try:
                self.enqueue(server, pending.attempt.name)
            except Exception:
                logger.exception(
                    "%r is owed to %s, and no job could be queued for it. "
                    "A repair pass will do it.",
                    pending.attempt.name,
                    server,
                )

    def _forward(self, pending: Pending) -> None:
        verb = "save" if pending.look else "delete"
        self._log(verb, pending.attempt.name, self.drive(self.replication.forward(pending)))

    def _catch_up(self, go_on: Callable[[], bool]) -> bool:
        """One pass of repair, which leaves the rest when a new change waits."""
        Repair(self.replication).once(settle=False, sweep=False, want=lambda _: go_on())
        return go_on()

    def _alias(self) -> str:
        for alias in conf.storages():
            if storages[alias] is self:
                return alias
        raise ImproperlyConfigured(
            f"This {type(self).__name__} is not one of STORAGES, so a job can't find it. "
            "Put it there, or use background='thread', or override enqueue()."
        )


def configured() -> Iterator[tuple[str, Mapping[str, Any], type[HybridStorage]]]:
    """The media storages among STORAGES: alias, entry and class. Makes none of them."""
    for alias, entry in conf.storages().items():
        if not isinstance(entry, Mapping):
            continue  # Django says so itself
        backend = entry.get("BACKEND")
        try:
            kind = import_string(backend) if isinstance(backend, str) else backend
        except ImportError:
            continue  # Django says so itself when that storage is used
        if isinstance(kind, type) and issubclass(kind, HybridStorage):
            yield alias, entry, kind


#: What a storage makes at its first use, and makes anew after a change of settings.
_MADE = ("options", "journal", "transport", "replication", "background")


def _is_journal(part: str) -> bool:
    """Whether this is the journal's folder, also on a disk that folds case."""
    return part.casefold() == names.JOURNAL_FOLDER


@contextlib.contextmanager
def _suspicious() -> Iterator[None]:
    """Django answers 400 to a SuspiciousFileOperation, not 500."""
    try:
        yield
    except UnsafeName as error:
        raise SuspiciousFileOperation(str(error)) from error


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
    if not plain or type(source) not in {io.BufferedReader, io.BufferedRandom, io.FileIO}:
        return False
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


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
