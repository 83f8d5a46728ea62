"""Where a release is pushed to: a folder, or an object store. One interface for all.

A target lists, reads, writes and deletes keys; in which order that is done, and what is kept in
mind of it, is `push`'s. Nothing is opened or sent before the first use. Thread-safe.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from django.core.files.base import ContentFile, File

from outgrow import names
from outgrow.errors import NoBucket, PublishError, UnsafeName
from outgrow.objects import ObjectStorage
from outgrow.publish.encodings import Encoding
from outgrow.publish.forms import Form, Shape
from outgrow.publish.ledger import FOLDER

#: Siblings that web servers look for: nginx (gzip_static; brotli_static and zstd where its
#: modules are), lighttpd (deflate), Caddy (precompressed).
SIBLINGS: Final = (Encoding.GZIP, Encoding.BROTLI, Encoding.ZSTD)

#: Of the ledger's documents: caches ask each time.
_DOCUMENT: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}

#: What a file is called while it is written; no name that is published begins so.
_WRITING: Final = ".outgrow-writing-"

#: Seconds after which nobody is writing it any more.
_LONG: Final = 86_400


class Target(Protocol):
    """What `push` and `prune` need of a place."""

    @property
    def name(self) -> str:
        """What messages call it; no credentials."""

    @property
    def shape(self) -> Shape:
        """How it holds files."""

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Every key with its bytes, the ledger's too; or those below a folder."""

    def read(self, key: str) -> bytes | None:
        """A whole document of the ledger; None where there is none."""

    def write(self, form: Form, content: File[Any]) -> None:
        """Write one file: visible whole, or not at all. Replaces what is there."""

    def note(self, key: str, content: bytes) -> None:
        """Write a document of the ledger."""

    def create(self, key: str, content: bytes) -> bool:
        """Write a document where there is none; whether there was none.

        Of two who do it at once both may be told so, where a store's promise is no better.
        """

    def open(self, key: str) -> File[Any]:
        """Read a file as it lies there, encoded or not. Raises FileNotFoundError."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys; those that are not there are no error."""

    def settle(self) -> None:
        """Return when all that was written survives a loss of power."""

    def tidy(self) -> None:
        """Remove what publishers that were killed have left half written, long ago."""


def problem(key: str) -> str:
    """Why no target takes a key, or an empty text."""
    # What others ask for below this name begins with a dot by its standard (RFC 8615).
    plain = key.removeprefix(".well-known/")
    try:
        names.check(plain)
    except UnsafeName as error:
        return error.problem
    first = plain.split("/")[0]
    if first == FOLDER:
        return f"{FOLDER} holds what Outgrow remembers of releases"
    return ""


class FolderTarget:
    """A folder, from which a web server serves. Headers are that server's.

    A file is written aside and renamed: who reads finds the old one or the new one. With
    `siblings` compressed forms lie beside each file.
    """

    def __init__(self, folder: str | os.PathLike[str], siblings: Iterable[Encoding]) -> None:
        self._folder = Path(folder)
        self.shape = Shape(tuple(siblings))

    @property
    def name(self) -> str:
        """See Target."""
        return str(self._folder)

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """See Target. Links are listed, and not followed."""

        def refuse(error: OSError) -> None:
            raise PublishError(f"{error.filename} can't be listed: {error.strerror}.") from error

        start = self._folder / folder
        if not start.exists():
            return
        for place, _folders, files in os.walk(start, onerror=refuse):
            inside = Path(place).relative_to(self._folder)
            for file in files:
                if not file.startswith(_WRITING):
                    # It may be gone by now.
                    with suppress(FileNotFoundError):
                        size = os.lstat(os.path.join(place, file)).st_size
                        yield (inside / file).as_posix(), size

    def read(self, key: str) -> bytes | None:
        """See Target."""
        try:
            return (self._folder / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, form: Form, content: File[Any]) -> None:
        """See Target."""
        self._write(form.key, content.chunks(), os.replace)

    def note(self, key: str, content: bytes) -> None:
        """See Target."""
        self._write(key, [content], os.replace)

    def create(self, key: str, content: bytes) -> bool:
        """See Target. Of two one is told so."""
        try:
            self._write(key, [content], os.link)
        except FileExistsError:
            return False
        return True

    def open(self, key: str) -> File[Any]:
        """See Target."""
        return File((self._folder / key).open("rb"))

    def delete(self, keys: Iterable[str]) -> None:
        """See Target. Folders that are empty then go too."""
        for key in keys:
            path = self._folder / key
            with suppress(FileNotFoundError):
                path.unlink()
            self._tidy(path.parent)

    def settle(self) -> None:
        """See Target. Everything at once: to sync each file takes as long as to write it."""
        os.sync()

    def tidy(self) -> None:
        """See Target."""
        for place, _folders, files in os.walk(self._folder):
            for file in files:
                path = os.path.join(place, file)
                with suppress(FileNotFoundError):
                    if file.startswith(_WRITING) and time.time() - os.lstat(path).st_mtime > _LONG:
                        os.unlink(path)

    def _tidy(self, folder: Path) -> None:
        while folder != self._folder:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _write(
        self, key: str, pieces: Iterable[bytes], commit: Callable[[Path, Path], object]
    ) -> None:
        path = self._folder / key
        aside = path.parent / f"{_WRITING}{secrets.token_hex(8)}"
        try:
            with self._opened(aside) as file:
                for piece in pieces:
                    file.write(piece)
            os.chmod(aside, 0o644)
            commit(aside, path)
        except FileExistsError:
            raise
        except OSError as error:
            raise PublishError(f"{path} can't be written: {error.strerror}.") from error
        finally:
            with suppress(OSError):
                aside.unlink()

    @contextmanager
    def _opened(self, path: Path) -> Iterator[Any]:
        for _ in range(3):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Somebody else's deletion may have taken the folder meanwhile.
            with suppress(FileNotFoundError):
                file = path.open("xb")
                break
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        with file:
            yield file


class StoreTarget:
    """A prefix of a bucket. The options are those of an `ObjectStorage`.

    Each key has one form, with all its headers.
    """

    def __init__(self, **options: Any) -> None:
        self._storage = _Storage(**options)
        self.shape = Shape()

    @property
    def name(self) -> str:
        """See Target."""
        return self._storage.server

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """See Target. A bucket that will be made has nothing in it."""
        try:
            for key, size, _modified in self._storage.walk(folder):
                yield key, int(size)
        except NoBucket:
            if not self._storage.options.auto_create_bucket:
                raise

    def read(self, key: str) -> bytes | None:
        """See Target."""
        try:
            with self._storage.open(key) as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def write(self, form: Form, content: File[Any]) -> None:
        """See Target."""
        self._storage.publish(form.key, content, dict(form.headers))

    def note(self, key: str, content: bytes) -> None:
        """See Target."""
        self._storage.publish(key, ContentFile(content), _DOCUMENT)

    def create(self, key: str, content: bytes) -> bool:
        """See Target."""
        try:
            self._storage.publish(key, ContentFile(content), _DOCUMENT, replace=False)
        except FileExistsError:
            return False
        # Swift lets several win at times (notes of its tests: 17 of 40 races had one winner).
        return self.read(key) == content

    def open(self, key: str) -> File[Any]:
        """See Target."""
        return self._storage.open(key)

    def delete(self, keys: Iterable[str]) -> None:
        """See Target."""
        self._storage.delete_many(keys)

    def settle(self) -> None:
        """See Target. What a store has answered is kept."""

    def tidy(self) -> None:
        """See Target. Of uploads in parts, `outgrow buckets leftovers` knows more."""


class _Storage(ObjectStorage):
    """An object storage whose headers are given with each file, and whose names are checked."""

    defaults: ClassVar[Mapping[str, Any]] = {"overwrite": True, "active_content": "inline"}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wanted: dict[str, Mapping[str, str]] = {}

    def key(self, name: str) -> str:
        """The key, whatever the name: `problem` has looked at it."""
        return f"{self._root}{name}"

    def headers(self, name: str) -> dict[str, str]:
        """Those that it is published with."""
        return dict(self._wanted[name])

    def publish(
        self, key: str, content: File[Any], headers: Mapping[str, str], *, replace: bool = True
    ) -> None:
        """Save a file with exactly these headers. Raises FileExistsError without `replace`."""
        self._wanted[key] = headers
        try:
            self.save_as(key, content, replace=replace)
        finally:
            self._wanted.pop(key, None)
