"""References in pages, as static site generators write them, by a scanner.

The laws:

1. Tags, attributes and comments are told apart as https://html.spec.whatwg.org/#tokenization
   does; what is in comments, in titles and text areas, and in scripts of unknown types is text.
   A tag that does not end is none, and neither is anything behind it.
2. Styles and scripts in a page are read by the scanners of CSS and JavaScript. Whatever stands
   in an attribute is escaped twice when it is written: for itself, and for the attribute.
3. A page with `<base href>` has its relative references left alone, for they are relative to
   that; `base_line` says where it is.
4. What `integrity` says of a file belongs to the reference to it, in elements and import maps.
5. A link to a page, or to what may be one, is `Kind.LINK`: a missing target is no mistake.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from outgrow.publish import css, javascript
from outgrow.publish.references import (
    Damage,
    Found,
    Kind,
    Lines,
    Reference,
    Syntax,
    is_bare,
    readable,
    text,
)

_SPACE: Final = b" \t\n\r\f"

#: What is between tags and is none (comments, declarations, end tags), and where a tag begins.
_MARKUP: Final = re.compile(
    rb"<!--(?:-?>|.*?(?:--!?>|\Z))|<[!?/][^>]*>?|<(?P<tag>[A-Za-z][^ \t\n\r\f/>]*)", re.DOTALL
)
_ATTRIBUTE: Final = re.compile(
    rb"[ \t\n\r\f/]*(?P<name>[^ \t\n\r\f/>][^ \t\n\r\f/>=]*)(?:[ \t\n\r\f]*=[ \t\n\r\f]*"
    rb"(?:\"(?P<double>[^\"]*)\"?|'(?P<single>[^']*)'?"
    rb"|(?P<bare>[^ \t\n\r\f>\"'][^ \t\n\r\f>]*)|(?=>)))?"
)
_TAG_END: Final = re.compile(rb"[ \t\n\r\f/]*>")

#: Elements whose content is text, up to their own end tag.
_TEXTS: Final = {
    name: re.compile(rb"</%b(?=[ \t\n\r\f/>])" % name, re.IGNORECASE)
    for name in b"script style textarea title xmp iframe noembed noframes".split()
}

#: One without a semicolon is left as it is: `?a=1&copy=2` means what it says.
_ENTITY: Final = re.compile(rb"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")

#: https://html.spec.whatwg.org/#parse-a-srcset-attribute
_CANDIDATE: Final = re.compile(rb"[ \t\n\r\f,]*(?P<url>[^ \t\n\r\f]+)")
_DESCRIPTORS: Final = re.compile(rb"(?:[^,(]|\([^)]*\)?)*")

#: Element -> the attributes that name what it shows.
_URLS: Final[Mapping[bytes, tuple[bytes, ...]]] = {
    **dict.fromkeys(b"script img source track input audio embed".split(), (b"src",)),
    **dict.fromkeys(b"image use feimage".split(), (b"href", b"xlink:href")),
    **dict.fromkeys(b"body table td th".split(), (b"background",)),
    b"video": (b"src", b"poster"),
    b"object": (b"data",),
}
#: ... and those that lead to pages (law 5).
_LINKS: Final[Mapping[bytes, tuple[bytes, ...]]] = {
    **dict.fromkeys(b"a area".split(), (b"href", b"xlink:href")),
    **dict.fromkeys(b"iframe frame".split(), (b"src",)),
}
_SETS: Final = {b"img": b"srcset", b"source": b"srcset", b"link": b"imagesrcset"}

#: What a `<link>` loads; with any other `rel` it names a page, or a feed.
_LOADED: Final = frozenset(
    b"stylesheet icon apple-touch-icon apple-touch-icon-precomposed apple-touch-startup-image "
    b"mask-icon fluid-icon manifest preload modulepreload prefetch".split()
)
_IMAGES: Final = frozenset(
    b"og:image og:image:url og:image:secure_url twitter:image msapplication-tileimage".split()
)
_SCRIPT_TYPES: Final = frozenset(
    b"module text/javascript application/javascript application/x-javascript "
    b"text/ecmascript application/ecmascript".split()
)

#: A string of JSON, with the colon that makes it a key, or what begins and ends an object.
_JSON: Final = re.compile(
    rb"(?P<string>\"(?P<text>[^\"\\]*(?:\\.[^\"\\]*)*)\")(?P<colon>\s*:)?|(?P<mark>[{}])", re.DOTALL
)

#: Half a character, which JSON can write and no URL can hold.
_HALF: Final = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")

#: An attribute's name -> where its value is.
_Attributes = Mapping[bytes, tuple[int, int]]


def references(content: bytes) -> list[Reference]:
    """The references in a page, in order; see `read`."""
    return read(content).references


def read(content: bytes) -> Found:
    """The references in a page, in order, and where its scripts may hide some.

    See `base_line` for what may be left out (law 3).
    """
    page = _Page(content)
    lines = Lines(content)
    found = [
        replace(one, line=lines.at(one.start))
        for one in sorted(page.found, key=lambda one: one.start)
        if not page.base or one.url.startswith("/")
    ]
    return Found(found, tuple(page.damage))


def base_line(content: bytes) -> int:
    """The line of a `<base href>`, which makes relative references another's; 0 without one."""
    base = _Page(content).base
    return Lines(content).at(base) if base else 0


class _Value:
    """The value of an attribute, its character references undone."""

    def __init__(self, page: bytes, start: int, end: int) -> None:
        self.content = page[start:end]
        self._offsets: Sequence[int] = range(start, end + 1)  # in the page, of each byte
        if b"&" in self.content:
            self._undo(start)

    def _undo(self, start: int) -> None:
        pieces: list[bytes] = []
        offsets: list[int] = []
        position = 0
        for match in _ENTITY.finditer(self.content):
            meant = html.unescape(match[0].decode("ascii")).encode(errors="replace")
            if meant == match[0]:
                continue  # a name that nobody knows
            pieces += (self.content[position : match.start()], meant)
            offsets += range(start + position, start + match.start())
            offsets += [start + match.start()] * len(meant)
            position = match.end()
        pieces.append(self.content[position:])
        offsets += range(start + position, start + len(self.content) + 1)
        self.content, self._offsets = b"".join(pieces), offsets

    def reference(self, start: int, end: int, kind: Kind, *syntax: Syntax) -> Reference:
        """A part of the value as a reference."""
        url = text(self.content[start:end])
        where = self._offsets[start], self._offsets[end]
        return Reference(*where, url, 0, kind, (*syntax, Syntax.ATTRIBUTE))

    def whole(self, kind: Kind) -> Iterator[Reference]:
        """All of it, but for the spaces around it."""
        start = len(self.content) - len(self.content.lstrip(_SPACE))
        end = len(self.content.rstrip(_SPACE))
        if start < end:
            yield self.reference(start, end, kind)

    def candidates(self) -> Iterator[Reference]:
        """The URLs of a `srcset`."""
        position = 0
        while match := _CANDIDATE.match(self.content, position):
            start, position = match.span("url")
            end = start + len(match["url"].rstrip(b","))
            if start < end:
                yield self.reference(start, end, Kind.URL, Syntax.CANDIDATE)
            if end == position:  # without a comma, descriptors follow
                described = _DESCRIPTORS.match(self.content, position)
                assert described is not None  # it matches anything
                position = described.end()

    def style(self) -> Iterator[Reference]:
        """What the declarations of a `style` refer to."""
        for one in css.references(self.content):
            found = self.reference(one.start, one.end, one.kind, *one.syntax)
            yield replace(found, url=one.url)


class _Page:
    """What is found in one page, lines not yet counted; `base` is an offset in its `<base>`."""

    def __init__(self, content: bytes) -> None:
        self.found: list[Reference] = []
        self.damage: list[Damage] = []
        self.base = 0
        self._content = content
        if readable(content):
            self._scan()

    def _scan(self) -> None:
        position = 0
        while match := _MARKUP.search(self._content, position):
            position = match.end()
            if match["tag"] is None:
                continue
            tag = match["tag"].lower()
            attributes, position = self._attributes(position)
            end = _TAG_END.match(self._content, position)
            if end is None:
                return  # law 1
            position = end.end()
            self.found += self._element(tag, attributes)
            if tag == b"base" and b"href" in attributes:
                self.base = self.base or match.end()
            if tag in _TEXTS:
                stop = _TEXTS[tag].search(self._content, position)
                start, position = position, stop.start() if stop else len(self._content)
                self.found += self._text(tag, attributes, start, position)

    def _attributes(self, position: int) -> tuple[_Attributes, int]:
        """The attributes of a tag, and where they end; of two with one name the first counts."""
        found: dict[bytes, tuple[int, int]] = {}
        while match := _ATTRIBUTE.match(self._content, position):
            position = match.end()
            value = match.lastgroup if match.lastgroup != "name" else None
            span = match.span(value) if value else (position, position)
            found.setdefault(match["name"].lower(), span)
        return found, position

    def _value(self, attributes: _Attributes, name: bytes) -> bytes:
        """The value of an attribute whose words are fixed."""
        if name not in attributes:
            return b""
        return _Value(self._content, *attributes[name]).content.strip(_SPACE).lower()

    def _element(self, tag: bytes, attributes: _Attributes) -> Iterator[Reference]:
        if not attributes:
            return
        integrity = self._integrity(tag, attributes)
        for name, kind in self._kinds(tag, attributes):
            if name in attributes:
                for one in _Value(self._content, *attributes[name]).whole(kind):
                    yield replace(one, integrity=integrity)
        name = _SETS.get(tag, b"")
        if name in attributes:
            yield from _Value(self._content, *attributes[name]).candidates()
        if b"style" in attributes:
            yield from _Value(self._content, *attributes[b"style"]).style()

    def _integrity(self, tag: bytes, attributes: _Attributes) -> Reference | None:
        if tag not in {b"script", b"link"} or b"integrity" not in attributes:
            return None
        return next(_Value(self._content, *attributes[b"integrity"]).whole(Kind.URL), None)

    def _kinds(self, tag: bytes, attributes: _Attributes) -> Iterator[tuple[bytes, Kind]]:
        """Which attributes of an element are a URL, and what for."""
        for name in _URLS.get(tag, ()):
            yield name, Kind.URL
        for name in _LINKS.get(tag, ()):
            yield name, Kind.LINK
        if tag == b"link":
            is_loaded = _LOADED.intersection(self._value(attributes, b"rel").split())
            yield b"href", Kind.URL if is_loaded else Kind.LINK
        if tag == b"meta":
            names = {self._value(attributes, b"property"), self._value(attributes, b"name")}
            if names & _IMAGES:
                yield b"content", Kind.URL

    def _text(
        self, tag: bytes, attributes: _Attributes, start: int, end: int
    ) -> Iterator[Reference]:
        """What styles and scripts refer to. Pages have no `importScripts`, as modules have none."""
        content = self._content[start:end]
        kind = self._value(attributes, b"type")
        found: Iterable[Reference] = ()
        if tag == b"style":
            found = css.references(content)
        elif tag == b"script" and b"src" not in attributes:
            if not kind or kind in _SCRIPT_TYPES:
                script = javascript.read(content, module=True)
                found = script.references
                self.damage += [
                    Damage(one.start + start, one.end + start, one.at + start)
                    for one in script.damage
                ]
            elif kind == b"importmap":
                found = _import_map(content)
        for one in found:
            yield _moved(one, start)


def _moved(one: Reference, by: int) -> Reference:
    inner = one.integrity and _moved(one.integrity, by)
    return replace(one, start=one.start + by, end=one.end + by, integrity=inner)


def _import_map(content: bytes) -> Iterator[Reference]:
    """The addresses of an import map, and the URLs that it has digests for.

    https://html.spec.whatwg.org/#parse-an-import-map-string
    """
    try:
        json.loads(text(content))
    except (ValueError, RecursionError):
        return
    path: list[str] = []  # the keys of the objects that are open, and nothing for the outermost
    key = ""
    address: Reference | None = None  # one whose digest follows
    for match in _JSON.finditer(content):
        value = None if match["mark"] else json.loads(text(match["string"]))
        syntax = (Syntax.SCRIPT_STRING,)
        reference = Reference(*match.span("text"), value or "", 0, Kind.URL, syntax)
        is_key = bool(match["colon"])
        if address is not None:
            is_digest = value is not None and not is_key
            yield replace(address, integrity=reference) if is_digest else address
            address = None
        if value is None:
            path = [*path, key] if match["mark"] == b"{" else path[:-1]
            continue
        if is_key:
            key = value
        at = path[1:]
        is_address = at == ["imports"] or (len(at) == 2 and at[0] == "scopes")
        is_url = at == ["integrity"] if is_key else is_address
        if not is_url or is_bare(value) or _HALF.search(value):
            continue
        if is_key:
            address = reference
        else:
            yield reference
