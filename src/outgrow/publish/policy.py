"""Which headers a published file is served with: good defaults, and rules of the site's own.

The rules stand in TOML::

    [publish]
    immutable = ["assets/*-????????.js"]   # names that hold a hash already: they stay as they are
    keep = ["downloads/latest.zip"]        # besides *.html and the like: names that must stay
    no_transform = true                    # for Cloudflare R2, which else unpacks what is packed
    may_miss = ["vendor/**"]               # files whose references may lead nowhere: a warning

    [publish.types]
    ".gcode" = "text/x-gcode"

    [[publish.headers]]
    match = "fonts/**"                     # or a list of patterns
    set = { "Timing-Allow-Origin" = "*", "Cross-Origin-Resource-Policy" = "" }

A pattern is for the logical name: `**` stands for any folders, `*` and `?` for what has no slash.
Later rules win; an empty value takes a header away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final

from outgrow import content_types, header_fields
from outgrow.errors import ConfigurationError
from outgrow.publish import tables

#: A year, the most that RFC 9111's predecessor allowed; `immutable` is RFC 8246's.
FOREVER: Final = "public, max-age=31536000, immutable"

#: For caches of HTTP/1.0 alone, as nginx's `expires max` has it. A moment that is a year away
#: would be another one each day, and so would the release.
EXPIRES: Final = "Thu, 31 Dec 2037 23:55:55 GMT"

#: Kept, but asked for each time (RFC 9111, 5.2.2.4): an unchanged one costs no body.
REVALIDATE: Final = "no-cache"

#: What keeps its name: pages, and what others ask for by a fixed one.
PAGES: Final = (
    "**/*.html",
    "**/*.htm",
    "**/*.xhtml",
    "**/*.rss",
    "**/*.atom",
    "**/*.webmanifest",
    "**/_headers",
    "**/_redirects",
    ".well-known/**",
    "apple-touch-icon*.png",
    "browserconfig.xml",
    "favicon.ico",
    "feed.xml",
    "humans.txt",
    "llms.txt",
    "robots.txt",
    "security.txt",
    "sitemap*.xml",
    "sitemap*.xml.gz",
    "service-worker.js",
    "sw.js",
)

#: Types that browsers fetch with CORS whatever the page says: fonts (CSS Fonts 4, 4.9), module
#: scripts; and those with an `integrity`, which only CORS lets them look into.
_SHARED: Final = ("font/", "text/javascript", "text/css", "application/wasm")
_FONTS: Final = ("application/vnd.ms-fontobject",)


#: Headers that are not the policy's, and whose they are.
_REFUSED: Final = {
    "content-encoding": "is set by what the target holds",
    "content-length": "is the server's",
    "content-range": "is the server's",
    "connection": "is the server's",
    "date": "is the server's",
    "etag": "is the server's",
    "last-modified": "is the server's",
    "location": "is the server's",
    "set-cookie": "would give all visitors one cookie",
    "transfer-encoding": "is the server's",
    "vary": "is set by the server that chooses",
}
_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(;[\x20-\x7e]*)?\Z")


@dataclass(frozen=True)
class Rule:
    """Headers for the names that one of the patterns matches; an empty value takes one away."""

    match: tuple[str, ...]
    set: Mapping[str, str]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All of them in one."""
        return matcher(self.match)


@dataclass(frozen=True)
class Policy:
    """How files are named and served. `types` are media types by the extension with its dot."""

    rules: tuple[Rule, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    immutable: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    may_miss_in: tuple[str, ...] = ()
    no_transform: bool = False

    @cached_property
    def _pages(self) -> re.Pattern[str]:
        return matcher((*PAGES, *self.keep))

    @cached_property
    def _immutable(self) -> re.Pattern[str]:
        return matcher(self.immutable)

    def is_page(self, name: str) -> bool:
        """Whether a file keeps its name, and is written over."""
        return bool(self._pages.match(name))

    def is_immutable(self, name: str) -> bool:
        """Whether a name holds a hash already."""
        return bool(self._immutable.match(name)) and not self.is_page(name)

    def may_miss(self, name: str) -> bool:
        """Whether references in a file may lead nowhere."""
        return bool(matcher(self.may_miss_in).match(name))

    def media_type(self, name: str) -> str:
        """The media type, with a charset where browsers would guess."""
        dot = name.rfind(".")
        given = self.types.get(name[dot:].lower()) if dot >= 0 else None
        kind = given or content_types.content_type(name)
        if ";" in kind or not kind.startswith("text/") or kind == "text/xml":
            return kind
        return f"{kind}; charset=utf-8"

    def headers(self, name: str, *, hashed: bool) -> dict[str, str]:
        """All headers of one file; `hashed`: its content never changes under its key."""
        kind = self.media_type(name)
        found = {
            "Content-Type": kind,
            "Cache-Control": FOREVER if hashed else REVALIDATE,
            "X-Content-Type-Options": "nosniff",
        }
        if self.no_transform:
            found["Cache-Control"] += ", no-transform"
        if hashed:
            found["Expires"] = EXPIRES
        if kind.startswith((*_SHARED, *_FONTS)):
            found["Access-Control-Allow-Origin"] = "*"
        if hashed:
            # Pages that isolate themselves (COEP) take from another origin only what says so.
            found["Cross-Origin-Resource-Policy"] = "cross-origin"
        for rule in self.rules:
            if rule.pattern.match(name):
                _apply(found, rule.set)
        return found


def _apply(found: dict[str, str], changes: Mapping[str, str]) -> None:
    for name, value in changes.items():
        same = next((one for one in found if one.lower() == name.lower()), name)
        found.pop(same, None)
        if value:
            found[name] = value


@lru_cache(maxsize=64)
def matcher(patterns: Sequence[str]) -> re.Pattern[str]:
    """One expression that matches the names that one of the patterns does."""
    return re.compile("|".join(f"(?:{_translated(one)})" for one in patterns) or r"(?!)")


def _translated(pattern: str) -> str:
    text, position = "", 0
    while position < len(pattern):
        for word, meaning in (("**/", "(?:.*/)?"), ("**", ".*"), ("*", "[^/]*"), ("?", "[^/]")):
            if pattern.startswith(word, position):
                text, position = text + meaning, position + len(word)
                break
        else:
            text, position = text + re.escape(pattern[position]), position + 1
    return rf"{text}\Z"


def parse(content: Mapping[str, Any], path: str = "publish") -> Policy:
    """The policy from its table; keys that are not the policy's are not looked at.

    Raises ConfigurationError, which names the first key that is wrong.
    """
    return Policy(
        tuple(_rules(content.get("headers", []), f"{path}.headers")),
        dict(_types(content.get("types", {}), f"{path}.types")),
        _patterns(content.get("immutable", []), f"{path}.immutable"),
        _patterns(content.get("keep", []), f"{path}.keep"),
        _patterns(content.get("may_miss", []), f"{path}.may_miss"),
        tables.flag(content.get("no_transform", False), f"{path}.no_transform"),
    )


def _rules(given: object, path: str) -> Iterator[Rule]:
    if not isinstance(given, list):
        raise ConfigurationError(path, "is not a list of tables.", f"Write [[{path}]].")
    for number, one in enumerate(given):
        yield _rule(one, f"{path}[{number}]")


def _rule(given: object, path: str) -> Rule:
    if not isinstance(given, Mapping):
        raise ConfigurationError(path, "is not a table.", "Write 'match' and 'set'.")
    tables.refuse_unknown(given, ("match", "set"), path)
    for key in ("match", "set"):
        if key not in given:
            raise ConfigurationError(f"{path}.{key}", "is missing.")
    match = given["match"]
    patterns = _patterns([match] if isinstance(match, str) else match, f"{path}.match")
    return Rule(patterns, dict(_headers(given["set"], f"{path}.set")))


def _headers(given: object, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(path, "is not a table of headers.")
    for name, value in given.items():
        if not header_fields.NAME.match(name):
            raise ConfigurationError(f"{path}.{name}", "can't be the name of a header.")
        if name.lower() in _REFUSED:
            raise ConfigurationError(
                f"{path}.{name}", f"{_REFUSED[name.lower()]}.", "Leave it out."
            )
        if not isinstance(value, str) or not header_fields.VALUE.match(value):
            hint = "Write a text of visible ASCII characters; an empty one takes the header away."
            raise ConfigurationError(f"{path}.{name}", f"is {value!r}.", hint)
        if name.lower() == "content-type" and not _TYPE.match(value):
            raise ConfigurationError(f"{path}.{name}", f"is {value!r}, which is no media type.")
        yield name, value


def _types(given: object, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(path, "is not a table.", 'Write ".glb" = "model/gltf-binary".')
    for extension, kind in given.items():
        if not extension.startswith(".") or "/" in extension or extension.count(".") > 1:
            hint = "Write the last dot of a name and what follows: '.glb'."
            raise ConfigurationError(f"{path}.{extension}", "is no extension.", hint)
        if not isinstance(kind, str) or not _TYPE.match(kind):
            raise ConfigurationError(f"{path}.{extension}", f"is {kind!r}, which is no media type.")
        yield extension.lower(), kind


def _patterns(given: object, path: str) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise ConfigurationError(path, f"is {given!r}.", "Write a list of patterns.")
    for number, one in enumerate(given):
        if not isinstance(one, str) or not one or one.startswith("/"):
            hint = "Write a pattern for logical names, as 'fonts/**'; they begin with no slash."
            raise ConfigurationError(f"{path}[{number}]", f"is {one!r}.", hint)
    return tuple(given)
