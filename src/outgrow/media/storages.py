"""Django's storage API over the replication protocol, and nothing else.

`HybridStorage` is a FileSystemStorage: reads, URLs, sizes, times and permissions
are Django's own, on the master. `save` and `delete` also reach every media server.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin

from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, storages
from django.db import connections, transaction
from django.utils.encoding import filepath_to_uri
from django.utils.functional import cached_property

from outgrow import conf, names
from outgrow.errors import SaveInterrupted, UnsafeName
from outgrow.media import uploads
from outgrow.media.background import Background
from outgrow.media.base import MADE, Replicated, suspicious
from outgrow.media.directory import DirectoryJournal
from outgrow.media.files import sync_folder
from outgrow.media.repair import Repair
from outgrow.media.replication import Pending, Replication, Upload

logger = logging.getLogger("outgrow.media")


class HybridStorage(Replicated, FileSystemStorage):
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
    `delete_on_commit`, `using`
        A delete in a transaction happens after its commit, and not after a rollback
        (False); the alias of DATABASES that is meant (``"default"``).
    `querystring_auth`, `querystring_expire`, `secret`
        Sign what `url` gives (False); for so many seconds (3600); with this secret, which
        the media servers know.
    `public_urls`
        For servers that visitors can reach: the address before a file's name, by the
        server's name. `url` then leads to one that has the file (none).
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
        self._take(options)

    #: The options that this kind of storage has.
    option_names = conf.HYBRID_OPTIONS

    def _given(self) -> dict[str, Any]:
        return {"base_url": self._base_url, "allow_overwrite": self._allow_overwrite}

    # --- the parts

    @property
    def uses_database(self) -> bool:
        """Whether deletes wait for the commit of a transaction, and so must see it."""
        return self.options.delete_on_commit

    @cached_property
    def journal(self) -> DirectoryJournal:
        """What each server is owed, beside the master."""
        if not self.location or (self._location is None and not conf.media_root()):
            raise ImproperlyConfigured(
                "Neither MEDIA_ROOT nor the option 'location' is set: "
                "the master copy has no place. Set MEDIA_ROOT."
            )
        options = self.options
        return DirectoryJournal(
            self.location, fsync=options.fsync, attempt_limit=self.attempt_limit
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

    def _clear_cached_properties(self, setting: str, **kwargs: Any) -> None:
        super()._clear_cached_properties(setting, **kwargs)  # type: ignore[arg-type]
        if setting in {"MEDIA_ROOT", "MEDIA_URL"}:
            for name in MADE:
                self.__dict__.pop(name, None)

    # --- names

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """With ``names="unique"`` a name that was never used; else Django's own answer."""
        with suspicious():
            if self.options.names == "unique":
                plain = str(name).replace("\\", "/")
                return names.unique(plain, names.token(), max_length)
            names.check(str(name).replace("\\", "/"), length=max_length is None)
        found = super().get_available_name(name, max_length=max_length)
        with suspicious():
            return names.check(found)

    def url(self, name: str | None, expire: float | None = None) -> str:
        """As FileSystemStorage's; signed, with `querystring_auth`, for `expire` seconds.

        With `public_urls` it leads to a server that has the file.
        """
        if name and self.options.public_urls:
            place = self.place(name, self.base_url or "")
            return self.sign(urljoin(place, filepath_to_uri(name).lstrip("/")), expire)
        return self.sign(super().url(name), expire)

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
        return self._keep(self._upload(name, content))

    def _upload(self, name: str, content: File[Any]) -> Upload:
        with suspicious():
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
        options = self.options
        if options.delete_on_commit and connections[options.using].in_atomic_block:
            transaction.on_commit(partial(self._delete, name), using=options.using)
        else:
            self._delete(name)

    def _is_master_only(self, name: str) -> bool:
        """Whether a name that is never sent is that of a file all the same, and of no other."""
        path = self.path(name)
        return os.path.isfile(path) and os.path.relpath(path, self.location) == name

    def _delete(self, name: str) -> None:
        self._log("delete", name, self.drive(self.replication.delete(name)))

    def _fill(self, path: Path, content: File[Any]) -> None:
        """Put the content into a new file. The caller's file is left as it is."""
        uploads.fill(path, content)
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
    #: When jobs may be queued again after the broker was away, by the monotonic clock.
    _queue_again_at = 0.0

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

    def _keep(self, upload: Upload) -> str:
        pending = self.drive(self.replication.store(upload))
        self._hand_on(pending)
        return str(pending.attempt.name)

    def _delete(self, name: str) -> None:
        self._hand_on(self.drive(self.replication.bury(name)))

    def _hand_on(self, pending: Pending) -> None:
        """Give a change to the thread, or to jobs."""
        own = type(self).enqueue is not AsyncStorage.enqueue
        if self.options.background == "thread" and not own:
            if not self.background.offer(pending):
                self._hand_over(pending)
            return
        servers = self._hand_over(pending)
        if time.monotonic() < self._queue_again_at:
            return  # the broker was away a moment ago, and can take seconds to say so
        for server in servers:
            try:
                self.enqueue(server, pending.attempt.name)
            except Exception:
                self._queue_again_at = time.monotonic() + self.options.downtime
                logger.exception(
                    "%r is owed to %s, and no job could be queued for it. A repair pass will do "
                    "it. No job is tried for %g s.",
                    pending.attempt.name,
                    server,
                    self.options.downtime,
                )
                return

    def _hand_over(self, pending: Pending) -> list[str]:
        """Owe it to every server. The change is on record in any case, so this can't fail it."""
        try:
            return self.replication.hand_over(pending)
        except OSError:
            logger.exception(
                "%r is on record as begun; a repair pass ends it", pending.attempt.name
            )
            return []

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


def configured() -> Iterator[tuple[str, Mapping[str, Any], type[Replicated]]]:
    """The media storages among STORAGES: alias, entry and class. Makes none of them."""
    return conf.storages_of(Replicated)


def _is_journal(part: str) -> bool:
    """Whether this is the journal's folder, also on a disk that folds case."""
    return part.casefold() == names.JOURNAL_FOLDER


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
