"""Files -> a release, and the contents of its forms.

Each file is read twice: once for its digest and its references, once when its content is sent.
In between nothing of it is in memory but what refers to what. A file that is another one the
second time ends the publication (`SourceChanged`).

The order: digests of all; then the names, each after those that it refers to (`graph`); a file
with other names in it has another digest, which gives its own name. Files that refer to each
other in a circle share one stamp, made of all of them with their plain names.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import threading
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BufferedReader
from typing import Any, Final

from django.core.files.base import ContentFile, File

from outgrow.errors import BadReferences, BadSources, PublishError, SourceChanged
from outgrow.names import too_long
from outgrow.publish import facts, graph, integrity, mentions, release
from outgrow.publish.cache import Cache
from outgrow.publish.compress import compressed
from outgrow.publish.encodings import MOST, Encoding, worth
from outgrow.publish.facts import Facts
from outgrow.publish.forms import Form, longest
from outgrow.publish.policy import Policy
from outgrow.publish.references import Kind, Reference, Target, readable, resolve
from outgrow.publish.references import replace as replaced
from outgrow.publish.release import Entry, Release
from outgrow.publish.scan import Scan, Source
from outgrow.suggestions import closest

#: Bytes that are read at a time.
_CHUNK: Final = 1 << 20

#: Bytes above which only two contents at a time are in memory.
_LARGE: Final = 8 << 20


@dataclass(frozen=True)
class Settings:
    """How a release is made.

    `prefix` is the path of the site's STATIC_URL, by which style sheets may name files.
    `encoding` is what object stores hold. Without `stamps` files keep their names, and nothing
    in them is changed.
    """

    policy: Policy = field(default_factory=Policy)
    prefix: str = "/static/"
    encoding: Encoding = Encoding.GZIP
    stamps: bool = True


@dataclass(frozen=True, slots=True)
class _Link:
    """A reference that means a file of the release."""

    reference: Reference
    target: Target

    @property
    def digest(self) -> Reference | None:
        """Where a page says which digest the file has, if browsers look at it."""
        found = self.reference.integrity
        return found if found and integrity.is_known(found.url) else None


_NOTHING: Final = Facts()


@dataclass(frozen=True, slots=True)
class _Read:
    """What the first reading of a file found."""

    digest: str
    facts: Facts = _NOTHING
    links: tuple[_Link, ...] = ()


class Build:
    """One release, made of the files of a scan.

    `release` is made at its first use, and raises BadSources and BadReferences with all that is
    wrong. `warnings` are complete then. `open` is thread-safe.
    """

    def __init__(
        self,
        scan: Scan,
        settings: Settings,
        *,
        cache: Cache | None = None,
        workers: int | None = None,
    ) -> None:
        self._sources = scan.sources
        self._settings = settings
        self._cache = cache or Cache(None)
        self._workers = workers or os.cpu_count() or 1
        self._read: dict[str, _Read] = {}
        self._refused: dict[tuple[str, str], bool] = {}
        self._large = threading.BoundedSemaphore(2)
        self.warnings = [*scan.warnings]

    # --- the release

    @cached_property
    def release(self) -> Release:
        """The whole release."""
        self._read_all()
        if self._settings.stamps:
            self._refuse_wrong()
            self._warn_of_mentions()
        entries: dict[str, Entry] = {}
        for names in graph.components(self._edges()):
            if len(names) == 1 and not self._refers_to_itself(names[0]):
                entries[names[0]] = self._single(names[0], entries)
            else:
                entries |= self._circle(names, entries)
        self._refuse_long(entries.values())
        if self._cache.problem:
            self.warnings.append(self._cache.problem)
        return Release(entries.values())

    def _refuse_long(self, entries: Iterable[Entry]) -> None:
        """With hashes and suffixes keys are longer than names. Raises BadSources with all."""
        long = [(self._sources[one.name].path, too_long(longest(one))) for one in entries]
        problems = [f"{path} can't be published: with its hash {why}." for path, why in long if why]
        if problems:
            raise BadSources(problems)

    def _read_all(self) -> None:
        """Read every file once, several at a time. Raises BadSources with all that failed."""
        problems: list[str] = []

        def some(sources: Sequence[Source]) -> None:
            for source in sources:
                try:
                    self._read[source.name] = self._first(source)
                except OSError as error:
                    problems.append(f"{source.path} can't be read: {error.strerror}.")

        # In as many parts as there are threads: to hand over each small file takes as long as
        # to read it.
        everything = list(self._sources.values())
        parts = [everything[number :: self._workers] for number in range(self._workers)]
        with ThreadPoolExecutor(self._workers, thread_name_prefix="outgrow-build") as pool:
            list(pool.map(some, parts))
        if problems:
            raise BadSources(sorted(problems))

    def _first(self, source: Source) -> _Read:
        kind = self._settings.policy.media_type(source.name).partition(";")[0]
        if kind not in facts.TYPES or not self._settings.stamps or source.size > MOST:
            with open(source.path, "rb") as file:
                return _Read(_digest(file))
        with self._room(source.size), open(source.path, "rb") as file:
            content = file.read()
        digest = hashlib.sha256(content).hexdigest()
        if not readable(content):
            self.warnings.append(
                f"{source.name} is in UTF-16 or UTF-32: its references are left as they are."
            )
            return _Read(digest)
        found = self._facts(digest, content, kind)
        if found.damage:
            self.warnings.append(f"{source.name}:{found.damage}")
        return _Read(digest, found, tuple(self._links(source.name, found.references)))

    def _room(self, size: int) -> AbstractContextManager[object]:
        return self._large if size > _LARGE else nullcontext()

    def _links(self, name: str, references: Sequence[Reference]) -> Iterator[_Link]:
        for reference in references:
            found = resolve(reference.url, name, self._settings.prefix)
            if found is not None:
                yield _Link(reference, found)

    def _facts(self, digest: str, content: bytes, kind: str) -> Facts:
        """What a content says; from the cache if it was seen before."""
        key = hashlib.sha256(f"facts {kind} {facts.VERSION} {digest}".encode()).hexdigest()
        kept = self._cache.get(key)
        if kept is not None:
            return facts.loaded(kept)
        found = facts.read(content, kind)
        self._cache.put(key, facts.dumped(found))
        return found

    # --- references that lead nowhere

    def _refuse_wrong(self) -> None:
        problems = []
        for name, read in self._read.items():
            for link in read.links:
                text = self._wrong(name, link)
                if not text:
                    continue
                kind = link.reference.kind
                if kind is Kind.SOURCE_MAP or self._settings.policy.may_miss(name):
                    self.warnings.append(text)
                elif kind is not Kind.LINK:
                    problems.append(text)
        if problems:
            raise BadReferences(problems)

    def _wrong(self, name: str, link: _Link) -> str:
        """What is wrong with a reference, or an empty text."""
        target = self._sources.get(link.target.name)
        if target is None:
            return self._missing(name, link)
        if link.digest is None:
            return ""
        if not self._is_refused(link.digest.url, target):
            return ""
        return (
            f"{name}:{link.reference.line}: the integrity is not that of {target.name}: browsers "
            "would refuse the file. Make the page anew, or take the attribute away."
        )

    def _is_refused(self, value: str, target: Source) -> bool:
        """Whether that digest is not the file's; many pages say the same of one file."""
        known = self._refused.get((value, target.name))
        if known is None:
            try:
                with open(target.path, "rb") as file:
                    known = integrity.refuses(value, file)
            except OSError as error:
                raise SourceChanged(_changed(target)) from error
            self._refused[value, target.name] = known
        return known

    def _missing(self, name: str, link: _Link) -> str:
        reference, wanted = link.reference, link.target.name
        text = (
            f"{name}:{reference.line}: the {reference.kind} {reference.url!r} means {wanted}, "
            "which is not there."
        )
        if reference.kind is Kind.SOURCE_MAP:
            return text
        for ending in (".js", ".mjs", "/index.js"):
            if f"{wanted}{ending}" in self._sources:
                return f"{text} There is {wanted}{ending}: browsers add nothing to a name."
        last = posixpath.basename(wanted)
        others = [one for one in self._sources if posixpath.basename(one) == last]
        close = others[0] if others else closest(wanted, self._sources, cutoff=0.8)
        return f"{text} Did you mean {close}?" if close else text

    def _warn_of_mentions(self) -> None:
        """Tell of files that a script may load by a name that they lose."""

        def changes(name: str) -> bool:
            return name in self._sources and self._kind(name).is_stamped

        for script, read in self._read.items():
            found = [
                (one, name)
                for one in read.facts.mentions
                if (name := mentions.meant(one[1], script, self._settings.prefix, changes))
            ]
            if found and not self._settings.policy.may_miss(script):
                self.warnings.append(mentions.warning(script, found))

    # --- names

    def _edges(self) -> dict[str, set[str]]:
        """What must have its name first, or its digest.

        Pages keep their names, and need not wait for each other.
        """
        return {
            name: {
                link.target.name
                for link in read.links
                if link.target.name in self._sources
                and (self._kind(link.target.name).is_stamped or link.digest)
            }
            for name, read in self._read.items()
        }

    def _refers_to_itself(self, name: str) -> bool:
        return any(link.target.name == name for link in self._read[name].links)

    def _kind(self, name: str) -> _Named:
        policy = self._settings.policy
        if not self._settings.stamps:
            return _PLAIN
        if policy.is_page(name):
            return _PAGE
        return _IMMUTABLE if policy.is_immutable(name) else _ASSET

    def _single(self, name: str, entries: Mapping[str, Entry]) -> Entry:
        read = self._read[name]
        replacements = self._replacements(name, entries)
        if not replacements:
            return self._entry(name, read.digest, self._sources[name].size, read.facts.integrity)
        content = self._content(name, replacements)
        digest = hashlib.sha256(content).hexdigest()
        return self._entry(name, digest, len(content), integrity.of(content))

    def _circle(self, names: Sequence[str], entries: dict[str, Entry]) -> dict[str, Entry]:
        """Entries of files that refer to each other: one stamp, then their contents.

        Raises BadReferences where one of them has to hold the digest of another: that one would
        change with it.
        """
        for name in names:
            for link in self._read[name].links:
                if link.digest and link.target.name in names:
                    raise BadReferences([self._endless(name, link)])
        plain = {name: self._entry(name, "", 0, "", key=name) for name in names}
        together = hashlib.sha256()
        for name in names:
            content = self._content(name, self._replacements(name, ChainMap(plain, entries)))
            together.update(f"{name} {len(content)} ".encode() + content)
        mark = together.hexdigest()
        stamped = {name: self._entry(name, mark, 0, "") for name in names}
        final = {}
        for name in names:
            content = self._content(name, self._replacements(name, ChainMap(stamped, entries)))
            final[name] = replace(
                stamped[name],
                digest=hashlib.sha256(content).hexdigest(),
                size=len(content),
                integrity=integrity.of(content),
            )
        return final

    @staticmethod
    def _endless(name: str, link: _Link) -> str:
        return (
            f"{name}:{link.reference.line}: the integrity of {link.target.name} can't be written, "
            f"for that file refers to {name} again, and so depends on it. Take the attribute away."
        )

    def _entry(self, name: str, digest: str, size: int, own: str, *, key: str = "") -> Entry:
        """An entry whose stamp, if it has one, is made of this digest."""
        named, policy = self._kind(name), self._settings.policy
        headers = policy.headers(name, hashed=named.kind is release.Kind.ASSET)
        kind = headers.get("Content-Type", "")
        # By the size of the file itself: that of its content depends on names, and names on this.
        is_worth = worth(kind, self._sources[name].size)
        encoding = self._settings.encoding if is_worth else Encoding.IDENTITY
        if not key:
            stamp = release.stamp(digest, kind, encoding)
            key = release.stamped(name, stamp) if named.is_stamped else name
        held = tuple(sorted(headers.items()))
        return Entry(name, key, digest, size, encoding, held, own, named.kind)

    # --- contents

    def _replacements(self, name: str, entries: Mapping[str, Entry]) -> list[tuple[Reference, str]]:
        """What is to be written into a file, and where: other URLs, and digests of other files."""
        found = []
        for link in self._read[name].links:
            target = link.target.name
            entry = entries.get(target)
            if entry is None:
                continue
            if entry.key != target:
                found.append((link.reference, link.target.url(entry.key, name)))
            if link.digest and entry.digest != self._read[target].digest:
                found.append((link.digest, entry.integrity))
        return found

    def _content(self, name: str, replacements: Sequence[tuple[Reference, str]]) -> bytes:
        """The content of a file with other URLs in it. Raises SourceChanged."""
        source = self._sources[name]
        with open(source.path, "rb") as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != self._read[name].digest:
            raise SourceChanged(_changed(source))
        return replaced(content, replacements)

    def open(self, form: Form) -> File[Any]:
        """The bytes of one form. Raises SourceChanged, and MissingExtra."""
        name, source = form.entry.name, self._sources.get(form.entry.name)
        if source is None:
            raise PublishError(
                f"{form.key} was published before, is not at the target any more, and is not among "
                "these files. Publish all of them together."
            )
        replacements = self._replacements(name, self.release.entries)
        if form.encoding is Encoding.IDENTITY and not replacements:
            return _Checked(source, form.entry.digest)

        def content() -> bytes:
            return self._content(name, replacements)

        with self._room(form.entry.size):
            found = compressed(content, form.entry.digest, form.encoding, self._cache)
        return ContentFile(found)


@dataclass(frozen=True, slots=True)
class _Named:
    """What becomes of a file's name."""

    kind: release.Kind
    is_stamped: bool = False


_ASSET: Final = _Named(release.Kind.ASSET, is_stamped=True)
_IMMUTABLE: Final = _Named(release.Kind.ASSET)
_PAGE: Final = _Named(release.Kind.PAGE)
_PLAIN: Final = _Named(release.Kind.PLAIN)


class _Checked(File):  # type: ignore[type-arg] # Django's own can't be subscripted
    """A file that is what it was, or ends with SourceChanged before its last piece."""

    def __init__(self, source: Source, digest: str) -> None:
        try:
            super().__init__(open(source.path, "rb"), source.path)  # noqa: SIM115 - a File closes it
        except OSError as error:
            raise SourceChanged(_changed(source)) from error
        self._source = source
        self._digest = digest

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """See File. The last piece is given when the digest of all is right."""
        self.seek(0)
        digest, before = hashlib.sha256(), b""
        while piece := self.read(chunk_size or _CHUNK):
            digest.update(piece)
            if before:
                yield before
            before = piece
        if digest.hexdigest() != self._digest:
            raise SourceChanged(_changed(self._source))
        yield before


def _changed(source: Source) -> str:
    return (
        f"{source.path} changed while it was being published. What was published before is still "
        "served; publish again when nobody writes there."
    )


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()
