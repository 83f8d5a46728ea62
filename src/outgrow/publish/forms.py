"""The forms of a release's files at one target: which keys there are, and what is under each.

An object store and a plain CDN send a key as it is, so it has one form, encoded or not. A web
server chooses: beside ``base.css`` lie ``base.css.br`` and ``base.css.gz``, and it sends what
the visitor's browser takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from outgrow.publish.encodings import SUFFIXES, Encoding, worth
from outgrow.publish.release import Entry, Headers, Kind, Release

#: Where a copy of each page lies at a target, under its stamp, so that a former release can be
#: served again.
PAGES: Final = "outgrow-publish/pages"


#: What an object store keeps with an object, and sends again. CORS and the like are rules of the
#: bucket, or of the CDN before it
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html).
_KEPT: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-language",
        "content-type",
        "expires",
    }
)
_OWN: Final = ("x-amz-", "x-goog-", "x-ms-")


def is_kept(header: str) -> bool:
    """Whether an object store keeps a header."""
    return header.lower() in _KEPT or header.lower().startswith(_OWN)


@dataclass(frozen=True, slots=True)
class Form:
    """What is under one key of a target.

    `headers` hold `Content-Encoding`, too; they are empty at a target that keeps none.
    """

    key: str
    entry: Entry
    encoding: Encoding
    headers: Headers

    def is_same(self, other: Form | None) -> bool:
        """Whether the other one's bytes and headers are these."""
        return (
            other is not None
            and self.entry.digest == other.entry.digest
            and self.encoding == other.encoding
            and self.headers == other.headers
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kind of target holds files: `siblings` beside each; none: one form, with headers."""

    siblings: tuple[Encoding, ...] | None = None

    def forms(self, entry: Entry, key: str = "") -> Iterator[Form]:
        """The forms of one file, the plain one last: a server that finds it finds all.

        `key` is where it is, if not under its own.
        """
        key = key or entry.key
        if self.siblings is None:
            yield self._single(entry, key)
            return
        if worth(dict(entry.headers).get("Content-Type", ""), entry.size):
            for encoding in self.siblings:
                yield Form(f"{key}{SUFFIXES[encoding]}", entry, encoding, ())
        yield Form(key, entry, Encoding.IDENTITY, ())

    @staticmethod
    def _single(entry: Entry, key: str) -> Form:
        encoding = Encoding(entry.encoding)
        headers = {name: value for name, value in entry.headers if is_kept(name)}
        if encoding is not Encoding.IDENTITY:
            headers["Content-Encoding"] = encoding.value
        return Form(key, entry, encoding, tuple(sorted(headers.items())))

    def assets(self, release: Release) -> dict[str, Form]:
        """What never changes: the assets, and the copies of pages."""
        return _by_key(
            form
            for entry in release
            if entry.kind is not Kind.PLAIN
            for form in self.forms(entry, copy_of(entry) if entry.kind is Kind.PAGE else "")
        )

    def pages(self, release: Release) -> dict[str, Form]:
        """What is written over: pages, and plain files."""
        return _by_key(
            form for entry in release if entry.kind is not Kind.ASSET for form in self.forms(entry)
        )

    def document(self) -> list[str] | None:
        """For the ledger."""
        return None if self.siblings is None else [one.value for one in self.siblings]


def _by_key(forms: Iterable[Form]) -> dict[str, Form]:
    return {form.key: form for form in forms}


def copy_of(page: Entry) -> str:
    """The key of the copy of a page."""
    return f"{PAGES}/{page.key}.{page.digest[:16]}.{page.encoding}"


def longest(entry: Entry) -> str:
    """The longest key that a file may have at any target."""
    key = copy_of(entry) if entry.kind is Kind.PAGE else entry.key
    if not worth(dict(entry.headers).get("Content-Type", ""), entry.size):
        return key
    return key + max(SUFFIXES.values(), key=len)


def shape(document: object) -> Shape:
    """The shape from the ledger. Raises ValueError or TypeError for what is none."""
    if document is None:
        return Shape()
    if not isinstance(document, list):
        raise TypeError(f"{document!r} is no list of encodings")
    return Shape(tuple(Encoding(one) for one in document))
