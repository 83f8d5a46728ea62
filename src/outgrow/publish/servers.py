"""The site's media or static servers as a target: by HTTP, with the journal of their storage.

The files lie in the storage's master folder, too; what a server misses is owed to it in the
journal, and `outgrow media repair` sends it when the server is back. Pages are sent when every
server that answers has all that they refer to; a server that comes back gets assets and pages
in any order, so it may serve visitors when it is owed nothing (`media status` says it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile, File

from outgrow.errors import PublishError
from outgrow.media import HybridStorage
from outgrow.media.repair import Repair
from outgrow.publish.encodings import Encoding
from outgrow.publish.forms import Form, Shape
from outgrow.publish.targets import FolderTarget

#: A name is written over while a server misses it: the storage must know what that means.
_NEEDS: Final = "It needs the options names='keep' and allow_overwrite=True."


class ServersTarget:
    """Several servers, behind a `HybridStorage` that is there for static files alone.

    `alias` is what STORAGES calls it. Thread-safe. Raises PublishError for a storage of another
    kind.
    """

    def __init__(self, alias: str, storage: object, siblings: Iterable[Encoding]) -> None:
        self._alias = alias
        self._storage = _checked(alias, storage)
        self._folder = FolderTarget(self._storage.location, ())
        self.shape = Shape(tuple(siblings))

    @property
    def name(self) -> str:
        """See Target."""
        return f"the servers of STORAGES[{self._alias!r}]"

    def listing(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """See Target. What the master has: the servers have it, or are owed it."""
        for key, size in self._folder.listing(folder):
            if not key.startswith("."):
                yield key, size

    def read(self, key: str) -> bytes | None:
        """See Target."""
        return self._folder.read(key)

    def open(self, key: str) -> File[Any]:
        """See Target."""
        return self._folder.open(key)

    def write(self, form: Form, content: File[Any]) -> None:
        """See Target."""
        self._save(form.key, content, replace=True)

    def note(self, key: str, content: bytes) -> None:
        """See Target."""
        self._save(key, ContentFile(content), replace=True)

    def create(self, key: str, content: bytes) -> bool:
        """See Target. Of two one is told so: the master is one folder."""
        try:
            self._save(key, ContentFile(content), replace=False)
        except FileExistsError:
            return False
        return True

    def _save(self, key: str, content: File[Any], *, replace: bool) -> None:
        try:
            self._storage.save_as(key, content, replace=replace)
        except SuspiciousFileOperation as error:
            raise PublishError(f"{self.name} can't take {key}: {error}") from error

    def delete(self, keys: Iterable[str]) -> None:
        """See Target."""
        for key in keys:
            self._storage.delete(key)

    def settle(self) -> None:
        """See Target: and every server that answers has it. Raises PublishError if not."""
        report = Repair(self._storage.replication).once(settle=False)
        for (server, key), reason in report.errors.items():
            raise PublishError(
                f"{server} does not take {key}: {reason}. No page that needs it was sent; correct "
                "that, and publish again."
            )
        options = self._storage.options
        left = len(options.servers) - len(report.down)
        if left < max(options.need, 1):
            why = "; ".join(f"{server}: {reason}" for server, reason in report.down.items())
            raise PublishError(
                f"Only {left} of {self.name} have all files, and 'need' is {options.need}: {why}. "
                "No page was sent; publish again when they are back."
            )

    def tidy(self) -> None:
        """See Target: the storage's own repair does it."""


def _checked(alias: str, storage: object) -> HybridStorage:
    if not isinstance(storage, HybridStorage):
        kind = type(storage).__name__
        raise PublishError(f"STORAGES[{alias!r}] is a {kind}; servers need a HybridStorage.")
    if storage.options.names != "keep" or not storage._allow_overwrite:  # noqa: SLF001 - Django's
        raise PublishError(f"STORAGES[{alias!r}] gives other names to files. {_NEEDS}")
    return storage
