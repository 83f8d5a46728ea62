"""References of static files to each other: what they mean, and how new ones are written.

The scanners (`css`, `javascript`, `html`) find references, `resolve` says which file each
means, and `replace` puts new URLs in.

The laws:

1. Nothing but the text of a reference changes, byte for byte. A reference that keeps its URL
   keeps its bytes.
2. Contents are bytes in any encoding that has ASCII in it. URLs are read as UTF-8; bytes that
   are not stay what they are (`surrogateescape`). Nothing raises for broken bytes.
3. What is not surely a file of ours is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final
from urllib.parse import quote, unquote_to_bytes

#: Marks of UTF-16 and UTF-32, in which an ASCII character is not one byte.
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

#: RFC 3986 §3.1. Whatever has a scheme is not one of our files: `data:` and `blob:` too.
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

#: Browsers drop these inside a URL, and strip them and spaces around it
#: (https://url.spec.whatwg.org/#concept-basic-url-parser).
_DROPPED: Final = re.compile(r"[\t\n\r]")
_AROUND: Final = "".join(map(chr, range(0x21)))

#: The path of a URL, and the query and the fragment behind it.
_PARTS: Final = re.compile(r"([^?#]*)(.*)", re.DOTALL)


class Kind(StrEnum):
    """What a missing target means."""

    IMPORT = "import"  # an error: without it the file does not work
    URL = "url"  # an error too
    SOURCE_MAP = "source map"  # a warning: only developers look for it
    LINK = "link"  # nothing: it may lead out of the static files


class Syntax(Enum):
    """What a URL is written in, and so how it is escaped."""

    CSS_URL = auto()  # without quotes: url(a.png)
    CSS_STRING = auto()
    SCRIPT_STRING = auto()  # JavaScript's, in any of its quotes, and JSON's
    COMMENT = auto()  # /*# sourceMappingURL=a.css.map */
    CANDIDATE = auto()  # one of several in srcset, between spaces and commas
    ATTRIBUTE = auto()  # HTML's, in any quotes or none


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference to a file, as it stands in a content.

    `start` and `end` are offsets in bytes of the text of the URL, without its quotes; `url` is
    what it means, the escapes of the language undone; `line` is 1 for the first. `syntax` is
    from the inside out: the CSS of an attribute `style` is escaped for both. `integrity` is where
    a digest of that file stands beside it; its `url` is the digest.
    """

    start: int
    end: int
    url: str
    line: int
    kind: Kind
    syntax: tuple[Syntax, ...]
    integrity: Reference | None = None


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a script that could not be made out, with what looks like a reference in it.

    Offsets in bytes: of its begin and its end, and of the first of these references.
    """

    start: int
    end: int
    at: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a scanner finds in a content."""

    references: list[Reference]
    damage: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL refers to: a file, by its name below the root of the static files.

    `suffix` is the query and the fragment, to be kept. `start` is how the URL begins: the
    prefix of an absolute one, `./` where a relative one must begin with a dot, or nothing.
    """

    name: str
    suffix: str = ""
    start: str = ""

    def url(self, key: str, base_key: str) -> str:
        """The URL to write in the file `base_key` when this file's final name is `key`.

        It is absolute if the old one was, and relative if it was relative.
        """
        if self.start.startswith("/"):
            return self.start + _quoted(key) + self.suffix
        way = relative(key, base_key)
        # A module's "./a.js" must keep its dot: "a.js" would be the name of a package.
        start = "" if way.startswith("../") else self.start
        return start + way + self.suffix


def readable(content: bytes) -> bool:
    """Whether references can be found in this; not in UTF-16 and UTF-32 (by their mark)."""
    return not content.startswith(_WIDE)


def text(raw: bytes) -> str:
    """Bytes of a content as text that can become the same bytes again (law 2)."""
    return raw.decode(errors="surrogateescape")


def is_bare(specifier: str) -> bool:
    """Whether a module specifier is a name (`vue`), and no URL: then an import map says what it is.

    https://html.spec.whatwg.org/#resolve-a-module-specifier
    """
    return not specifier.startswith(("/", "./", "../"))


def resolve(url: str, base: str, prefix: str = "/static/") -> Target | None:
    """The file that `url` means in the file `base`; None for what is to be left alone.

    `prefix` is the path below which the static files are served. What has a scheme or a host is
    left alone, and so is what leads out of the static files, or to a folder, or only to a
    fragment of the same file.
    """
    url = _DROPPED.sub("", url.strip(_AROUND))
    parts = _PARTS.fullmatch(url)
    assert parts is not None  # it matches anything
    path, suffix = parts[1].replace("\\", "/"), parts[2]  # as browsers do
    if not path or path.startswith("//") or _SCHEME.match(path):
        return None
    if not path.startswith("/"):
        name = _walk(base.split("/")[:-1], path)
        start = "./" if path.startswith(".") else ""
        return Target(name, suffix, start) if name else None
    root = prefix.rstrip("/") + "/"
    if not path.startswith(root):
        return None
    name = _walk([], path[len(root) :])
    return Target(name, suffix, root) if name else None


def _walk(folder: Sequence[str], path: str) -> str:
    """The name that a path leads to from a folder; empty when it is none of a file below the root.

    Escapes are undone part by part, for browsers take `%2e%2e` for two dots.
    """
    names = list(folder)
    parts = [
        text(unquote_to_bytes(part.encode(errors="surrogateescape"))) for part in path.split("/")
    ]
    if parts[-1] in {"", ".", ".."} or any("/" in part for part in parts):
        return ""
    for part in parts:
        if part == "..":
            if not names:
                return ""
            names.pop()
        elif part not in {"", "."}:
            names.append(part)
    return "/".join(names)


def relative(target_key: str, base_key: str) -> str:
    """The relative URL from one final name to another, as `../img/a.4f1c.png`; quoted."""
    target, base = target_key.split("/"), base_key.split("/")
    same = 0
    while same < min(len(target), len(base)) - 1 and target[same] == base[same]:
        same += 1
    ups = [".."] * (len(base) - 1 - same)
    return "/".join([*ups, *map(_quoted, target[same:])])


def _quoted(name: str) -> str:
    """A name as the path of a URL. `+` is quoted, too: some stores take it for a space."""
    return quote(name, safe="/@", errors="surrogateescape")


def written(reference: Reference, target_url: str) -> bytes:
    """The text that stands for `target_url` where the reference stands."""
    for syntax in reference.syntax:
        pattern, escaped = _ESCAPES[syntax]
        target_url = pattern.sub(escaped, target_url)
    return target_url.encode(errors="surrogateescape")


def replace(content: bytes, replacements: Iterable[tuple[Reference, str]]) -> bytes:
    """The content with these URLs in the place of these references, and else unchanged.

    Raises `ValueError` when two references overlap: they are not of this content.
    """
    pieces: list[bytes] = []
    position = 0
    for reference, url in sorted(replacements, key=lambda one: one[0].start):
        if reference.start < position:
            raise ValueError(f"two references overlap at byte {reference.start}")
        if url == reference.url:
            continue  # law 1
        pieces += (content[position : reference.start], written(reference, url))
        position = reference.end
    return b"".join([*pieces, content[position:]])


class Lines:
    """The line of each offset in a content, 1 for the first; offsets must not shrink."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._offset = 0
        self._line = 1

    def at(self, offset: int) -> int:
        """The line at `offset`. Each byte is looked at once."""
        self._line += self._content.count(b"\n", self._offset, offset)
        self._offset = offset
        return self._line


# --- how a URL is escaped


def _css(match: re.Match[str]) -> str:
    """https://www.w3.org/TR/css-syntax-3/#consume-escaped-code-point: the space ends it."""
    return f"\\{ord(match[0]):x} "


def _script(match: re.Match[str]) -> str:
    """In a form that strings in all quotes, templates and JSON have in common."""
    return f"\\u{ord(match[0]):04x}"


def _percent(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


def _entity(match: re.Match[str]) -> str:
    return "&amp;" if match[0] == "&" else f"&#{ord(match[0])};"


#: `<` is escaped where it could end the element that style or script stand in. Semicolons
#: are not: they end declarations only outside of url() and strings.
_ESCAPES: Final[Mapping[Syntax, tuple[re.Pattern[str], Callable[[re.Match[str]], str]]]] = {
    Syntax.CSS_URL: (re.compile(r"[\x00-\x20\x7f\"'()\\<]"), _css),
    Syntax.CSS_STRING: (re.compile(r"[\x00-\x1f\x7f\"'\\<]"), _css),
    Syntax.SCRIPT_STRING: (re.compile(r"[\x00-\x1f\x7f\"'`$\\<\u2028\u2029]"), _script),
    Syntax.COMMENT: (re.compile(r"[\s\x00-\x1f\x7f\"'*<]"), _percent),
    Syntax.CANDIDATE: (re.compile(r"[\s\x00-\x1f\x7f]|^,+|,+\Z"), _percent),
    Syntax.ATTRIBUTE: (re.compile(r"[\t\n\f\r &\"'`=<>]"), _entity),
}
