"""A release: which files there are, under which keys, and how they are served.

A release is a value. It holds an entry for each file: its logical name (``css/base.css``, what a
template says), its key (``css/base.4f1c9a7e0b2d.css``, what a visitor asks for), the digest of
its content, the encoding of the one form that an object store holds, and its headers. Its `id`
is the hash of all of it, so that the same input gives the same release on any machine.

The laws:

1. A key of an asset holds a stamp: the hash of the content as visitors see it, of its media type
   and of its encoding. What is under such a key is never replaced by something else.
2. Pages keep their names, and are written over; a copy of each stays under a stamp. Plain files
   keep their names, too, and are written over without a copy.
3. A document that can't be understood is an error, never an empty release.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from outgrow.errors import PublishError

#: Of the documents. A newer one may mean something else.
FORMAT: Final = 1

#: Hexadecimal digits of a stamp, 48 bits, as Django's. Two contents of one name that share one
#: are found when the second is published (`push`), and nothing is replaced.
STAMP: Final = 12

Headers = tuple[tuple[str, str], ...]


class Kind(StrEnum):
    """What becomes of a file when its content changes (laws 1 and 2)."""

    ASSET = "asset"
    PAGE = "page"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a release.

    `digest` is the SHA-256 of the content that visitors get, in hexadecimal digits, and `size`
    its bytes; both before any encoding. `headers` are those that it is served with, but for
    `Content-Encoding`, which `encoding` says ("identity" for none). `integrity` is for
    `<script integrity>`, empty where nothing asks for it.
    """

    name: str
    key: str
    digest: str
    size: int
    encoding: str
    headers: Headers
    integrity: str = ""
    kind: Kind = Kind.ASSET


class Release:
    """Several entries, by their logical names, in the order of these."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries: Mapping[str, Entry] = {
            entry.name: entry for entry in sorted(entries, key=lambda one: one.name)
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Release) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.id)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    @cached_property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return _id(self._document())

    def _document(self) -> dict[str, Any]:
        # Most files share their headers: each set of them stands there once.
        known: dict[Headers, int] = {}
        for entry in self:
            known.setdefault(entry.headers, len(known))
        files = {
            entry.name: [
                entry.key,
                entry.digest,
                entry.size,
                entry.encoding,
                known[entry.headers],
                entry.integrity,
                entry.kind.value,
            ]
            for entry in self
        }
        return {"format": FORMAT, "headers": [dict(one) for one in known], "files": files}

    def document(self) -> dict[str, Any]:
        """What is kept of it, to be written as JSON; `parse` reads it back."""
        return {"id": self.id, **self._document()}


def canonical(document: Mapping[str, Any]) -> bytes:
    """JSON in one form only: the same value gives the same bytes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return text.encode()


def parse(document: object, source: str) -> Release:
    """A release from its document. `source` says where that was found, for the message.

    Raises PublishError where it is not one, is of a newer format, or was changed since it was
    written.
    """
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        known = document.get("format") if isinstance(document, Mapping) else None
        raise PublishError(
            f"{source} is no release of Outgrow, or of a newer one: its format is {known!r}, and "
            f"this one knows {FORMAT}."
        )
    content = {key: value for key, value in document.items() if key != "id"}
    # Before anything of it is believed.
    if _id(content) != document.get("id"):
        raise PublishError(f"{source} was changed: its id is not the hash of what it holds.")
    headers = [tuple(sorted(one.items())) for one in document["headers"]]
    return Release(
        Entry(name, key, digest, size, encoding, headers[number], integrity, Kind(kind))
        for name, (key, digest, size, encoding, number, integrity, kind) in document[
            "files"
        ].items()
    )


def _id(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(content)).hexdigest()[:32]


def stamp(digest: str, media_type: str, encoding: str) -> str:
    """What stands in a key for the content behind it, and for its form.

    `digest` is the SHA-256 of the content. Where the form changes, the key does, so that nobody
    who has the old headers gets the new bytes.
    """
    text = f"{digest} {media_type} {encoding}"
    return hashlib.sha256(text.encode()).hexdigest()[:STAMP]


def stamped(name: str, mark: str) -> str:
    """The key of a file: its name with the stamp before the extension.

    >>> stamped("css/base.css", "4f1c9a7e0b2d")
    'css/base.4f1c9a7e0b2d.css'
    """
    root, extension = posixpath.splitext(name)
    return f"{root}.{mark}{extension}"
