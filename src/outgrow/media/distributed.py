"""`DistributedStorage`: files on media servers alone, with a catalogue in the database.

There is no master copy: an upload is sent from the process that received it, and is read
from whichever server has it. What the servers hold and are owed stands in the site's
primary database; `outgrow.media.catalogue` has the laws.
"""

from __future__ import annotations

import errno
import heapq
import io
import logging
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, cast
from urllib.parse import urljoin

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.storage import Storage
from django.db import connections, transaction
from django.utils import timezone
from django.utils.encoding import filepath_to_uri
from django.utils.functional import cached_property

from outgrow import conf, names, signals
from outgrow.errors import CatalogueUnavailable, NoCopy, NotDeleted, ServerError, UnsafeName
from outgrow.media import uploads
from outgrow.media.base import MADE, Replicated, suspicious
from outgrow.media.catalogue import Catalogue
from outgrow.media.journal import Wanted
from outgrow.media.listing import Entry
from outgrow.media.reading import Reader, ReadTransport, RemoteFile
from outgrow.media.replication import Replication, Upload
from outgrow.media.unrecorded import Unrecorded

#: Bytes that a reader asks for at once.
_BUFFER = 1 << 16


logger = logging.getLogger("outgrow.media")


class DistributedStorage(Replicated, Storage):
    """Files on several media servers, with no copy on the application's own disk.

    The options, besides `servers`, `timeout`, `deadline`, `downtime`, `show_traceback` and
    `token`, which are those of HybridStorage:

    `need`
        How many servers must have taken a file for `save` to succeed: a number,
        ``"majority"`` (the default) or ``"all"``. The others are owed it.
    `journal`
        ``"none"`` for a site without a database: all servers take a file or the save fails,
        and nothing is repaired (``"database"``).
    `database`
        The alias of DATABASES that the catalogue has for itself (``"outgrow"``): a second
        connection to the primary database, or a file of its own with SQLite.
    `using`
        The alias whose transactions decide what is kept (``"default"``).
    `catalogue`
        A name that tells apart several storages in one database (``"media"``).
    `grace`
        Seconds, longer than the site's longest transaction (86400). Needed where the
        database can't tell whether a transaction is over; PostgreSQL can.
    `read`
        For a file that the catalogue has not heard of, or while the database is down: it
        exists if ``"any"`` server has it (the default), or a ``"majority"``.
    `credentials`, `ca`, `certificate`, `key`
        What each server is told, and the files of TLS.
    `public_urls`, `querystring_auth`, `querystring_expire`, `secret`
        As for HybridStorage.
    `base_url`
        What `url` puts before a name: MEDIA_URL, if it is not given.

    A file that is saved in a transaction of the site that is rolled back is removed by the
    next pass of ``media repair``. A delete in a transaction happens after its commit.
    """

    option_names = conf.DISTRIBUTED_OPTIONS

    @property
    def uses_database(self) -> bool:
        """It does: the catalogue is there, and deletes wait for the commit."""
        return True

    def __init__(self, base_url: str | None = None, **options: Any) -> None:
        self._base_url = base_url
        self._take(options)

    def _given(self) -> dict[str, Any]:
        return {"base_url": self._base_url}

    # --- the parts

    @cached_property
    def journal(self) -> Catalogue | Unrecorded:
        """What the files are, and what each server is owed."""
        options = self.options
        if options.journal == "none":
            return Unrecorded(options.catalogue, left=_tell_left, attempt_limit=self.attempt_limit)
        return Catalogue(
            options.database,
            site=options.using,
            name=options.catalogue,
            grace=options.grace,
            attempt_limit=self.attempt_limit,
        )

    @cached_property
    def reader(self) -> Reader:
        """How files are read, over the servers."""
        return Reader(cast("ReadTransport", self.transport), self.journal)

    @cached_property
    def replication(self) -> Replication:
        """The protocol over this storage's catalogue and transport."""
        return Replication(
            self.journal,
            self.transport,
            need=self.options.need,
            source=self.reader.copy,
            deadline=self.options.deadline,
            given_up=self._tell_given_up,
            deletes_need=self.options.need if self.options.journal == "none" else 0,
        )

    def _tell_given_up(self, name: str) -> None:
        """Send the signal. What a receiver raises is logged: the repair goes on."""
        sent = signals.file_given_up.send_robust(type(self), storage=self, name=name)
        for receiver, answer in sent:
            if isinstance(answer, Exception):
                text = "A receiver of file_given_up failed for %r: %r"
                logger.error(text, name, receiver, exc_info=answer)

    @property
    def base_url(self) -> str:
        """What stands before each name in a URL; it ends with a slash."""
        url = conf.media_url() if self._base_url is None else self._base_url
        return url if url.endswith("/") else f"{url}/"

    def _clear_cached_properties(self) -> None:
        for name in MADE:
            self.__dict__.pop(name, None)

    # --- names

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """A name that was never used, and never will be again."""
        with suspicious():
            return names.unique(str(name).replace("\\", "/"), names.token(), max_length)

    def url(self, name: str | None, expire: float | None = None) -> str:
        """The address of a file for visitors; signed, with `querystring_auth`, for `expire` s."""
        if not name:
            raise ValueError("The name must be given to url().")
        url = urljoin(self.place(name, self.base_url), filepath_to_uri(name).lstrip("/"))
        return self.sign(url, expire)

    # --- reading

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        if mode not in {"rb", "r"}:
            raise io.UnsupportedOperation(
                f"open({name!r}, {mode!r}): a file on media servers is read as bytes ('rb'), and "
                "written by save()."
            )
        with suspicious():
            names.check(name)
        return File(io.BufferedReader(self.reader.open(name), _BUFFER), name)

    def exists(self, name: str) -> bool:
        """Whether the file is there, by the catalogue; else by the servers: see `read`.

        Raises `CatalogueUnavailable` when the catalogue can't be asked and too few servers
        have it: they may have lost it.
        """
        try:
            names.check(name)
        except UnsafeName:
            return False
        away = None
        try:
            wanted = self.journal.look(name).wanted
        except CatalogueUnavailable as error:
            wanted, away = Wanted.UNHEARD, error
        if wanted is not Wanted.UNHEARD:
            return wanted is Wanted.PRESENT
        count = len(self.options.servers)
        enough = count // 2 + 1 if self.options.read == "majority" else 1
        found = self.reader.exists(name, enough=enough)
        if away is not None and not found:
            raise away
        return found

    def size(self, name: str) -> int:
        """Bytes in the file, by the catalogue; else by a server."""
        return int(self._known(name, self.journal.size, lambda file: file.size))

    def get_modified_time(self, name: str) -> datetime:
        """When the file was saved, by the catalogue; else by a server."""
        at: datetime = self._known(name, self.journal.saved_at, lambda file: file.modified)
        return at if conf.use_tz() else timezone.make_naive(at)

    def _known(
        self, name: str, ask: Callable[[str], Any], read: Callable[[RemoteFile], Any]
    ) -> Any:
        """What the catalogue says of a file; without it, a server's answer."""
        with suspicious():
            names.check(name)
        try:
            known = ask(name)
        except CatalogueUnavailable:
            known = None
        if known is not None:
            return known
        with self.reader.open(name) as file:
            return read(file)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """The folders and files in a folder, by the catalogue."""
        prefix = f"{path.strip('/')}/" if path.strip("/") else ""
        folders, files = set(), []
        for name in self._below(prefix):
            first, slash, _ = name.removeprefix(prefix).partition("/")
            if slash:
                folders.add(first)
            else:
                files.append(first)
        return sorted(folders), sorted(files)

    def _below(self, prefix: str) -> Iterator[str]:
        """The names that begin so; without a catalogue, those that the first server has."""
        if isinstance(self.journal, Catalogue):
            return self.journal.below(prefix)
        return (entry.name for entry in self._on_a_server(prefix))

    def entries(
        self, failed: Callable[[str, OSError], None], prefix: str = "", *, everywhere: bool = False
    ) -> Iterator[Entry]:
        """See `Replicated.entries`. Without a catalogue, what the first server has, or all."""
        if isinstance(self.journal, Catalogue):
            return super().entries(failed, prefix)
        return self._on_every_server(prefix) if everywhere else self._on_a_server(prefix)

    def _on_every_server(self, prefix: str) -> Iterator[Entry]:
        """The files that all servers have, with as many bytes. Raises ServerError."""
        servers = self.options.servers
        listings = [self.transport.list(server, prefix) for server in servers]
        for _, found in groupby(heapq.merge(*listings), key=attrgetter("name")):
            several = list(found)
            if len(several) == len(servers) and len({one.size for one in several}) == 1:
                yield several[0]

    def _on_a_server(self, prefix: str) -> Iterator[Entry]:
        """The files of the first server that has a listing."""
        problems = []
        for server in self.reader.servers(prefix):
            try:
                found = list(self.transport.list(server, prefix))
            except ServerError as error:
                problems.append(str(error))
                continue
            yield from found
            return
        raise NoCopy(
            f"No media server says which files begin with {prefix!r}. Let one of them have a "
            f"listing; see the page on media servers. {'; '.join(problems)}"
        )

    # --- writing

    def _save(self, name: str, content: File[Any]) -> str:
        return self._keep(self._upload(name, content))

    def save_as(self, name: str, content: File[Any], *, replace: bool = False) -> None:
        """See `Replicated.save_as`. Without a catalogue the servers are asked for the name.

        What only some of them have is what a copy has left that failed: the same content.
        """
        everywhere = len(self.options.servers)
        if isinstance(self.journal, Unrecorded) and self.reader.exists(name, enough=everywhere):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        super().save_as(name, content, replace=replace)

    def _upload(self, name: str, content: File[Any]) -> Upload:
        with suspicious():
            names.check(name)
        # On its way it lies where others may look: for its owner alone, as Django's uploads.
        return Upload(
            name, lambda path: uploads.fill(path, content, 0o600), self.get_available_name
        )

    def delete(self, name: str) -> None:
        """Delete a file on every server, now or when it is back.

        In a transaction of the site it happens after the commit, and not after a
        rollback. Raises `ValueError` for an empty name.
        """
        if not name:
            raise ValueError("The name must be given to delete().")
        try:
            names.check(name)
        except UnsafeName as error:
            raise SuspiciousFileOperation(str(error)) from error
        using = self.options.using
        if not connections[using].in_atomic_block:
            self._remove(name)
            return
        self.journal.revoke(name)
        transaction.on_commit(partial(self._remove, name), using=using)

    def _remove(self, name: str) -> None:
        outcome = self.drive(self.replication.delete(name))
        if outcome.missed and isinstance(self.journal, Unrecorded):
            missed = {server.name: error for server, error in outcome.missed.items()}
            raise NotDeleted(name, missed)
        self._log("delete", name, outcome)


def _tell_left(name: str, servers: list[str]) -> None:
    """Without a catalogue all that can be done is to say it."""
    logger.error("A file %r may be left on %s; nothing will remove it", name, ", ".join(servers))
