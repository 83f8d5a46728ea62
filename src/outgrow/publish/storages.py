"""Django's static files by a release: the names that `{% static %}` writes, and `collectstatic`.

The manifest is a file that goes with the code: a process reads it once, at the first URL, and
never asks a store. So each server names the files of its own release, whatever else is served.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urldefrag, urljoin

from django.contrib.staticfiles.storage import StaticFilesStorage
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import Storage

from outgrow import conf
from outgrow.errors import ConfigurationError, PublishError
from outgrow.publish import configuration, manifest, templates
from outgrow.publish.build import Build
from outgrow.publish.configuration import Configuration
from outgrow.publish.ledger import FOLDER
from outgrow.publish.push import Publisher, publish_together
from outgrow.publish.release import STAMP, Entry, Kind, Release
from outgrow.publish.scan import Scan, Sources
from outgrow.publish.targets import SIBLINGS, FolderTarget
from outgrow.suggestions import closest

#: The manifest, where nothing else is said, below STATIC_ROOT.
MANIFEST: Final = f"{FOLDER}/manifest.json"

#: Options that are the storage's own; all others are those of the table [publish].
_OWN: Final = ("base_url", "configuration", "location", "strict")

_logger: Final = logging.getLogger("outgrow.publish")


class PublishedStaticFilesStorage(StaticFilesStorage):
    """Serves `static()` URLs from the manifest of this build.

    Options are those of the table [publish] in outgrow.toml, or `configuration`, the path of such
    a file; and `strict`: a name that the manifest does not have raises ValueError. Without it
    that is logged, once for each name, and the URL is the plain one: visitors get a page.

    With DEBUG the names are plain, as with Django's own. `collectstatic` makes a release of what
    it has collected, and publishes it in STATIC_ROOT, or at the targets of the option `to`.
    Nothing is read before the first use. Thread-safe and fork-safe.
    """

    def __init__(self, **options: Any) -> None:
        given = {name: options.pop(name) for name in _OWN if name in options}
        self._strict = bool(given.pop("strict", False))
        self._file = given.pop("configuration", None)
        self._table = options
        super().__init__(**given)
        self._lock = threading.Lock()
        self._told: set[str] = set()

    # --- its parts

    @cached_property
    def configuration(self) -> Configuration:
        """The checked options. Raises ImproperlyConfigured."""
        path = "STORAGES['staticfiles']['OPTIONS']"
        here = Path.cwd()
        table = {"url": self._url_path(), **self._table}
        if self._file is not None and self._table:
            first = next(iter(self._table))
            raise ImproperlyConfigured(f"{path}: {first!r} stands beside 'configuration'.")
        try:
            if self._file is not None:
                return configuration.load(Path(self._file))
            return configuration.parse(table, here, path)
        except ConfigurationError as error:
            raise ImproperlyConfigured(str(error)) from error

    def _url_path(self) -> str:
        return self.base_url if self.base_url and self.base_url.endswith("/") else "/static/"

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is. Raises ImproperlyConfigured where nothing says it."""
        if self.configuration.manifest is not None:
            return self.configuration.manifest
        if self.location is None:
            raise ImproperlyConfigured(
                "Neither STATIC_ROOT nor the option 'manifest' of STORAGES['staticfiles'] is set."
            )
        return Path(self.location) / MANIFEST

    @cached_property
    def release(self) -> Release:
        """The release of this build. Raises FileNotFoundError and PublishError."""
        return manifest.read(self.manifest_path)

    # --- URLs

    def url(self, name: str | None, force: bool = False) -> str:  # noqa: FBT002 - as Django's
        """Where visitors find a file. Sends nothing, and looks at the disk once."""
        if not name or (conf.debug() and not force) or name.endswith("/"):
            return super().url(name)
        plain, fragment = urldefrag(name)
        entry = self._entry(unquote(plain.partition("?")[0]))
        if entry is None:
            return super().url(name)
        query = plain.partition("?")[2]
        url = urljoin(self._base(), quote(entry.key))
        if entry.kind is Kind.PLAIN:
            query = query or entry.digest[:STAMP]
        return url + (f"?{query}" if query else "") + (f"#{fragment}" if fragment else "")

    def _base(self) -> str:
        if self.base_url is None:
            raise ValueError("This file is not accessible via a URL.")
        return str(self.base_url)

    def _entry(self, name: str) -> Entry | None:
        """The entry of a name; None where it is told that there is none."""
        try:
            found = self.release.entries.get(name)
        except (FileNotFoundError, PublishError) as error:
            if self._strict:
                raise
            hint = "Run manage.py collectstatic, or manage.py outgrow publish."
            self._tell("", f"Static files have plain names: {error} {hint}")
            return None
        if found is None:
            self._refuse(name)
        return found

    def _refuse(self, name: str) -> None:
        close = closest(name, self.release.entries)
        hint = f" Did you mean {close!r}?" if close else ""
        text = f"The static file {name!r} is not in the manifest {self.manifest_path}.{hint}"
        if self._strict:
            raise ValueError(text)
        self._tell(name, text)

    def _tell(self, name: str, text: str) -> None:
        with self._lock:
            if name in self._told:
                return
            self._told.add(name)
        _logger.error("%s", text)

    def stored_name(self, name: str) -> str:
        """The key of a file: what `url` names, without the address."""
        entry = self._entry(name)
        return name if entry is None else entry.key

    def integrity(self, name: str) -> str:
        """The value of `integrity` for a script or a style sheet; empty where there is none."""
        if conf.debug():
            return ""
        entry = self._entry(name)
        return entry.integrity if entry else ""

    # --- collectstatic

    def post_process(
        self,
        paths: Mapping[str, tuple[Storage, str]],
        dry_run: bool = False,  # noqa: FBT002 - as Django's
        **_: Any,
    ) -> Iterator[tuple[str, str | None, bool | Exception]]:
        """Make a release of what was collected, and publish it. See Django's staticfiles."""
        build = self.build(paths)
        try:
            release = build.release
            build.warnings += templates.check(release, self.configuration.settings.policy)
        except PublishError as error:
            yield "All", None, error
            return
        for line in build.warnings:
            _logger.warning("%s", line)
        if dry_run:
            return
        targets = [one.target() for one in self.configuration.targets] or [self._own_target()]
        publish_together([Publisher(target, release, build) for target in targets])
        self.write_manifest(release)
        for entry in release:
            yield entry.name, entry.key, entry.key != entry.name

    def _own_target(self) -> FolderTarget:
        if self.location is None:
            raise ImproperlyConfigured("STATIC_ROOT is not set.")
        return FolderTarget(self.location, SIBLINGS)

    def build(self, paths: Mapping[str, tuple[Storage, str]]) -> Build:
        """A build of these files, by name: a storage, and the path in it."""
        return self.configuration.build(scan(paths, self.path))

    def write_manifest(self, release: Release) -> None:
        """Write the manifest, and use it from now on in this process."""
        manifest.write(self.manifest_path, release)
        self.__dict__.pop("release", None)


def scan(
    paths: Mapping[str, tuple[Storage, str]], copy: Callable[[str], str] | None = None
) -> Scan:
    """Files by their names, each in a storage, as sources. Raises BadSources.

    `copy` says where a file of a storage that is no folder was copied to.
    """
    found = Sources()
    for name, (storage, path) in paths.items():
        try:
            place = storage.path(path)
        except NotImplementedError:
            if copy is None:
                found.refuse(f"{name} can't be published: {storage} is no folder.")
                continue
            place = copy(name)
        found.add(name.replace(os.sep, "/"), place)
    return found.scan()
