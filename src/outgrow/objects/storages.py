"""Django's storage API over an object store.

Each method comes to one request, two where there is no other way. Nothing is opened or sent
before the first use.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, ClassVar, Final, cast

from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files.base import File
from django.core.files.storage import Storage
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.module_loading import import_string

from outgrow import conf, content_types, names
from outgrow.errors import (
    BadAnswer,
    ConnectionLost,
    NoAccess,
    NoBucket,
    ObjectReplaced,
    UnexpectedStatus,
    UnsafeName,
    WrongRegion,
)
from outgrow.objects import arrivals, creation, keeping, mishaps, runtime
from outgrow.objects.addresses import Addresses
from outgrow.objects.arrivals import DirectUpload
from outgrow.objects.downloads import ObjectFile, ObjectReader
from outgrow.objects.stores import Headers, Stores, describe
from outgrow.objects.uploads import Unsettled, upload
from outgrow.twins import AsyncTwins

#: Headers that obstore sets for one object, by their names in lower case.
_ATTRIBUTES: Final = {
    name.lower(): name
    for name in (
        "Cache-Control",
        "Content-Disposition",
        "Content-Encoding",
        "Content-Language",
        "Content-Type",
    )
}
_METADATA: Final = ("x-amz-meta-", "x-goog-meta-", "x-ms-meta-")
#: Of a request for several
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html).
_MOST_DELETES: Final = 1000
_DAY: Final = timedelta(days=1)


class ObjectStorage(AsyncTwins, Storage):
    """Files in an object store: S3 and its kind, Google's, Azure's; or a folder, or memory.

    The options are described in docs/reference/objects.md, and checked by `manage.py check`.

    A name is given once (``names="unique"``: 65 random bits are added), is kept and given
    another ending where it is taken (``names="keep"``), or is written over
    (``overwrite=True``, for static files).

    Methods raise FileNotFoundError for a file that is not there, and a subclass of
    `outgrow.errors.ServerError` where the store does not do what it is asked; `exists`
    answers False for absence alone. Thread-safe; a process that was forked works on (see
    `runtime`). Can be pickled.
    """

    #: What an option is when it is not given; a kind of storage may have its own.
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, **options: Any) -> None:
        self._options = {**self.defaults, **options}
        if "location" in self._options:
            self._check()

    def _check(self) -> conf.ObjectOptions:
        checked, problems = conf.object_options(self._options, f"{type(self).__name__}(...)")
        if problems:
            raise ImproperlyConfigured("; ".join(map(str, problems))) from problems[0]
        return checked

    def deconstruct(self) -> tuple[str, tuple[()], dict[str, Any]]:
        """For migrations: the class alone. Keys and buckets are no part of a schema."""
        kind = type(self)
        module = "outgrow.objects" if kind.__module__ == __name__ else kind.__module__
        return f"{module}.{kind.__qualname__}", (), {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process opens connections of its own.
        return {"_options": self._options}

    # --- the parts

    def plain(self, **changes: Any) -> ObjectStorage:
        """An `ObjectStorage` on the same store, with some options changed."""
        return ObjectStorage(**{**self._options, **changes})

    @cached_property
    def options(self) -> conf.ObjectOptions:
        """The checked options. Raises ImproperlyConfigured where there is no location."""
        return self._check()

    @cached_property
    def stores(self) -> Stores:
        """Obstore's stores."""
        return Stores(self.options)

    @cached_property
    def server(self) -> str:
        """What messages call the store."""
        return describe(self.options)

    @cached_property
    def _root(self) -> str:
        place = self.options.location
        return f"{place.prefix}/" if place.prefix and place.scheme != "file" else ""

    def key(self, name: str) -> str:
        """The object's key for a file's name. Raises SuspiciousFileOperation."""
        plain = str(name).replace("\\", "/")
        try:
            return f"{self._root}{names.check(plain)}"
        except UnsafeName as error:
            raise SuspiciousFileOperation(str(error)) from error

    def _translated(self, name: str) -> AbstractContextManager[None]:
        return mishaps.translated(self.server, name)

    # --- names

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """A name that was never used; or as Django does it; or the name itself."""
        options = self.options
        plain = str(name).replace("\\", "/")
        try:
            if options.overwrite:
                return names.check(plain)
            if options.is_unique:
                return names.unique(plain, names.token(), max_length)
            names.check(plain, length=max_length is None)
            return names.check(super().get_available_name(plain, max_length=max_length))
        except UnsafeName as error:
            raise SuspiciousFileOperation(str(error)) from error

    # --- reading

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        if set(mode) & set("wax+"):
            raise io.UnsupportedOperation(
                f"open({name!r}, {mode!r}): an object can't be written in place. Write to a "
                "file elsewhere, and save() that."
            )
        key = self.key(name)
        reader = ObjectReader(self.stores.store, key, lambda: self.reading(name))
        return ObjectFile(reader, name, mode)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Raise ours for what reading a file raises in the body."""
        errors = runtime.library().exceptions
        try:
            with self._translated(name):
                yield
        except errors.PreconditionError as error:
            raise ObjectReplaced(self.server, name) from error

    def _head(self, name: str) -> Mapping[str, Any]:
        """What the store says of an object. Raises FileNotFoundError."""
        key, store = self.key(name), self.stores.store()
        library = runtime.library()
        try:
            with self._translated(name):
                return cast("Mapping[str, Any]", library.head(store, key))
        except (FileNotFoundError, NoAccess, WrongRegion, UnexpectedStatus) as error:
            if getattr(error, "status", 0) >= 500:
                raise  # it was tried again for as long as it may be
            # An answer to HEAD has no body, in which the reason would be. The whole object is
            # asked for, and not read: one that came meanwhile may be empty, and no part of
            # that can be asked for (416, RFC 9110, section 15.5.17).
            with self._translated(name):
                library.get(store, key)
            raise

    def exists(self, name: str) -> bool:
        """Whether there is such a file. Raises a ServerError where that is not known."""
        try:
            self._head(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return int(self._head(name)["size"])

    def get_modified_time(self, name: str) -> datetime:
        """When a file was written; aware of its zone with USE_TZ."""
        found = cast("datetime", self._head(name)["last_modified"])
        return found if conf.use_tz() else timezone.make_naive(found)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """The folders and the files right below a path. A folder is what files lie in."""
        inside = path.strip("/").removeprefix("./")
        prefix = f"{self.key(inside)}/" if inside not in {"", "."} else self._root
        with self._translated(path):
            found = runtime.library().list_with_delimiter(self.stores.store(), prefix or None)
        folders = [one.rstrip("/").rpartition("/")[2] for one in found["common_prefixes"]]
        files = [one["path"].rpartition("/")[2] for one in found["objects"]]
        return sorted(folders), sorted(files)

    def walk(self, prefix: str = "") -> Iterator[tuple[str, int, datetime]]:
        """Every file whose folder is `prefix` or lies below it: name, bytes, when written.

        In the store's order, page by page; memory does not depend on their number.
        """
        inside = f"{self._root}{prefix.strip('/')}".rstrip("/")
        with self._translated(prefix):
            pages = runtime.library().list(self.stores.store(), inside or None, chunk_size=1000)
            for page in pages:
                for one in page:
                    yield one["path"].removeprefix(self._root), one["size"], one["last_modified"]

    # --- writing

    def _save(self, name: str, content: File[Any]) -> str:
        if isinstance(content, DirectUpload) and content.place == self.server:
            return arrivals.take(self, name, content)
        # A name that was never used needs no condition, and may be sent twice.
        create = not self.options.is_unique and not self.options.overwrite
        try:
            return self._in_a_bucket(name, content, create=create)
        except FileExistsError:
            # Somebody took the name since it was seen to be free.
            return self._save(self.get_available_name(name), content)

    def save_as(self, name: str, content: File[Any], *, replace: bool = False) -> None:
        """Save a file under exactly this name, as a copy of another storage's needs it.

        Raises FileExistsError when the name is taken, unless `replace`. Of two who do it at the
        same moment both may succeed where the store does not know conditional requests,
        and with more than one part. Otherwise as `save`.
        """
        if not replace and self._needs_parts(content) and self.exists(name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        self._in_a_bucket(name, content, create=not replace)

    def _needs_parts(self, content: File[Any]) -> bool:
        try:
            return int(content.size) > self.options.part_size
        except (AttributeError, OSError):
            return True  # a stream of unknown length

    def _in_a_bucket(self, name: str, content: File[Any], *, create: bool) -> str:
        try:
            return self._put(name, content, create=create)
        except NoBucket:
            if not self.options.auto_create_bucket:
                raise
            creation.create(self.options)
            if not content.seekable():
                raise  # what was read of it is gone; the next one has a bucket
            return self._put(name, content, create=create)

    def _put(self, name: str, content: File[Any], *, create: bool) -> str:
        """Send it. Raises FileExistsError with `create`, as far as the store knows."""
        options, key = self.options, self.key(name)
        attributes, others = self._divided(self.headers(name))
        errors = runtime.library().exceptions
        store = self.stores.store(others)
        try:
            with self._translated(name):
                sent = upload(
                    store,
                    key,
                    content,
                    attributes=attributes,
                    create=create,
                    part=options.part_size,
                    concurrency=options.concurrency,
                )
        except errors.AlreadyExistsError as error:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
        except Unsettled as error:
            return self._settled(name, error)
        self._verify(name, sent)
        return name

    def _settled(self, name: str, error: Unsettled) -> str:
        """The name, if what is there under it can only be what was sent."""
        if self.options.is_unique and self.exists(name):
            self._verify(name, error.sent)
            return name
        text = f"it is not known whether {name!r} was put together from its parts; save it again"
        raise ConnectionLost(self.server, text) from error

    def _verify(self, name: str, sent: int) -> None:
        """Whether what was put together from parts has as many bytes as were sent.

        Not asked for one request, whose body the store has checked against its digest; nor
        for a name that others may have written to meanwhile.
        """
        if sent <= self.options.part_size or not self.options.is_unique:
            return
        size = self.size(name)
        if size != sent:
            self.discard(name)
            text = f"{name!r} has {size} bytes there, of {sent} that were sent; it was removed"
            raise BadAnswer(self.server, text)

    def headers(self, name: str) -> dict[str, str]:
        """The headers with which a file is stored and served; override it for your own rules.

        By the option `headers`; `Content-Type` by the extension, never by what a visitor
        said. What browsers would run as a page is a download, unless the option
        `active_content` says "inline".
        """
        kind = content_types.content_type(name)
        found = {"Content-Type": kind}
        if kind.startswith("text/"):
            found["Content-Type"] = f"{kind}; charset=utf-8"
        if self.options.active_content == "download" and kind in content_types.ACTIVE:
            found["Content-Disposition"] = "attachment"
        wanted: Any = self.options.headers
        if isinstance(wanted, str):
            wanted = import_string(wanted)
        if callable(wanted):
            wanted = wanted(name)
        known = {key.lower(): key for key in found}
        for key, value in wanted.items():
            problem = conf.header_problem(key, value)
            if problem:
                raise ImproperlyConfigured(f"The option 'headers' {problem}.")
            found[known.get(key.lower(), key)] = (
                _expires(value) if key.lower() == "expires" else value
            )
        return found

    def _divided(self, headers: Mapping[str, str]) -> tuple[dict[str, str], Headers]:
        """What obstore sets for one object, and what a store of its own must send."""
        attributes: dict[str, str] = {}
        others: list[tuple[str, str]] = []
        if self.options.location.scheme == "file":
            return attributes, ()  # a folder keeps no headers; who serves it sets them
        for name, value in headers.items():
            lower = name.lower()
            if lower in _ATTRIBUTES:
                attributes[_ATTRIBUTES[lower]] = value
            elif lower.startswith(_METADATA):
                attributes[lower.partition("-meta-")[2]] = value
            else:
                others.append((lower, value))
        return attributes, tuple(sorted(others))

    def delete(self, name: str) -> None:
        """Delete a file; one that is not there is no error.

        With the option `backup_bucket` a copy is left there first; when that fails nothing is
        deleted.
        """
        if not name:
            raise ValueError("The name must be given to delete().")
        if self.options.backup_bucket and not keeping.keep(self.options, self.key(name), name):
            return  # it is not there
        self.discard(name)

    def discard(self, name: str) -> None:
        """Delete what is no file of the site's: no copy is left. Else as `delete`."""
        with suppress(FileNotFoundError), self._translated(name):
            runtime.library().delete(self.stores.store(), self.key(name))

    def delete_many(self, several: Iterable[str]) -> None:
        """Delete files, up to 1,000 with each request; those that are not there are no error.

        Where the store does not know such requests, as Google's does not, and where a backup is
        kept of each: with a request for each.
        """
        left = iter(several)
        while batch := list(islice(left, _MOST_DELETES)):
            if self.options.location.scheme == "s3" and not self.options.backup_bucket:
                with self._translated(f"{batch[0]} and {len(batch) - 1} more"):
                    keys = [self.key(name) for name in batch]
                    runtime.library().delete(self.stores.store(), keys)
                continue
            for name in batch:
                self.delete(name)

    # --- URLs

    def url(
        self,
        name: str | None,
        parameters: Mapping[str, str] | None = None,
        expire: float | None = None,
    ) -> str:
        """Where visitors find a file: signed, and good for `expire` seconds, or plain.

        With the option `base_url` it is that and the name. `parameters` stand in the query;
        ``{"response-content-disposition": "attachment; filename=..."}`` lets S3 send another
        header. Sends nothing. Raises ValueError where a file can have no URL.
        """
        if not name:
            raise ValueError("This file has no name, and so no URL.")
        plain = name.replace("\\", "/").lstrip("/")
        return self._addresses.url(plain, self._root + plain, parameters, expire)

    @cached_property
    def _addresses(self) -> Addresses:
        return Addresses(self.options, self.stores.store)


def _expires(value: str | timedelta) -> str:
    """A moment, as HTTP writes it; to whole days, so that most files of a day share it."""
    if isinstance(value, str):
        return value
    moment = datetime.now(UTC) + value + _DAY
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.strftime("%a, %d %b %Y %H:%M:%S GMT")
