r"""References in CSS: `url()`, `@import`, `image-set()` and source maps, by a scanner.

The laws:

1. One pass, by regular expressions whose tokens are what a reference can be in or begin with.
   No part of a token can be read in two ways, so the time grows with the length of the
   content, whatever is in it.
2. Tokens are those of https://www.w3.org/TR/css-syntax-3/. What is broken by its rules (a
   string with a line end in it, a quote in a URL without quotes) is no reference, and the
   scan goes on where a browser's would.

A function whose name is written with escapes (`u\72l(a.png)`) is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from outgrow.publish.references import Kind, Lines, Reference, Syntax, readable, text

_SPACE: Final = rb"[ \t\n\r\f]"
#: A number takes all its digits, up to six, and one space behind them.
_NUMBER: Final = rb"(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{1,5}(?![0-9a-fA-F]))(?:\r\n|[ \t\n\r\f])?"
_ESCAPE: Final = rb"\\(?:" + _NUMBER + rb"|\r\n|[^0-9a-fA-F])"
#: A character of a URL without quotes, but for escapes.
_BARE: Final = rb"[^\"'()\\\x00-\x20\x7f]"
_BARE_ESCAPE: Final = rb"\\(?:" + _NUMBER + rb"|[^0-9a-fA-F\n\r\f])"
_COMMENT: Final = rb"/\*[^*]*(?:\*(?!/)[^*]*)*"
#: No character of a name stands before, or behind.
_BEGINS: Final = rb"(?<![-\w\\\x80-\xff]%b)"
_ENDS: Final = rb"(?![-\w\\\x80-\xff])"

#: A string. The group of its closing quote is the last one that matches, if it is there.
_STRINGS: Final = (
    rb'"(?P<double>[^"\\\n\r\f]*(?:' + _ESCAPE + rb'[^"\\\n\r\f]*)*)(?P<double_end>")?',
    rb"'(?P<single>[^'\\\n\r\f]*(?:" + _ESCAPE + rb"[^'\\\n\r\f]*)*)(?P<single_end>')?",
)

#: `url(`, known by its parenthesis, which is rarer than the letter u; then what is in it, if
#: that is not a string: a URL, or what has a character in it that none may have.
_URL: Final = (
    rb"(?P<url>\((?<=[uU][rR][lL]\()" + _BEGINS % rb"...\(" + _SPACE + rb"*(?:"
    rb"(?P<bare>(?:" + _BARE + rb"|" + _BARE_ESCAPE + rb")" + _BARE + rb"*"
    rb"(?:" + _BARE_ESCAPE + _BARE + rb"*)*)" + _SPACE + rb"*(?:\)|\Z)"
    rb"|(?P<broken>(?![\"'])[^)\\]*(?:\\[\s\S][^)\\]*)*\)?))?)"
)

_SET: Final = (
    rb"(?P<set>\((?<=[iI][mM][aA][gG][eE]-[sS][eE][tT]\()"
    rb"(?:(?<=-[wW][eE][bB][kK][iI][tT]-.{10})|" + _BEGINS % rb".{10}" + rb"))"
)

#: `@import`, up to what is imported.
_IMPORT: Final = (
    rb"(?P<import>@(?i:import)" + _ENDS + rb"(?:" + _SPACE + rb"+|" + _COMMENT + rb"\*/)*)"
)

#: A namespace looks like a URL, and is a name.
_NAMESPACE: Final = rb"@(?i:namespace)" + _ENDS + rb"(?:[^;{}\"']+|\"[^\"\n]*\"|'[^'\n]*')*"

_MAP: Final = re.compile(rb"/\*[#@][ \t]*sourceMappingURL=[ \t]*(\S+?)\s*\*/")


def _pattern(first: bytes, *tokens: bytes) -> re.Pattern[bytes]:
    """Any of these tokens. `first` is what they begin with: all else is skipped quickly."""
    comment = rb"(?P<comment>" + _COMMENT + rb"(?:\*/)?)"
    several = b"|".join((*_STRINGS, comment, _URL, *tokens, _ESCAPE))
    return re.compile(rb"(?=[%b])(?:%b)" % (first, several), re.DOTALL)


_TOKEN: Final = _pattern(rb"\"'/@(\\", _SET, _IMPORT, _NAMESPACE)
#: The same inside of image-set(), where a string is a URL if it is in no other function.
_IN_SET: Final = _pattern(rb"\"'/()\\;{}", rb"(?P<open>\()", rb"(?P<close>\))", rb"(?P<stop>[;{}])")

#: What each of these makes of the depth.
_DEPTHS: Final[Mapping[str, Callable[[int], int]]] = {
    "set": lambda _: 1,
    "open": lambda depth: depth + 1,
    "close": lambda depth: depth - 1,
    "stop": lambda _: 0,
}
_STRING_ENDS: Final = {"double_end": "double", "single_end": "single"}

_ESCAPED: Final = re.compile(
    r"\\(?:(?P<code>[0-9a-fA-F]{1,6})(?:\r\n|[ \t\n\r\f])?|(?P<line>\r\n|[\n\r\f])|(?P<itself>.))",
    re.DOTALL,
)

#: Where a URL is, what it is for, and how it is written there.
_Span = tuple[int, int, Kind, Syntax]


def references(content: bytes) -> list[Reference]:
    """The references in a style sheet, in order; of source maps the last one, which counts."""
    if not readable(content):
        return []
    lines = Lines(content)
    found = [
        Reference(
            start, end, _meaning(content[start:end], syntax), lines.at(start), kind, (syntax,)
        )
        for start, end, kind, syntax in _spans(content)
    ]
    last = max((one.start for one in found if one.kind is Kind.SOURCE_MAP), default=-1)
    return [one for one in found if one.kind is not Kind.SOURCE_MAP or one.start == last]


def _spans(content: bytes) -> Iterator[_Span]:
    """Each reference of the content."""
    position = depth = 0  # of parentheses, inside of image-set()
    expected = (-1, Kind.URL)  # where a string is a reference, and what for
    while match := (_IN_SET if depth else _TOKEN).search(content, position):
        what, start, position = match.lastgroup, match.start(), match.end()
        if what in _STRING_ENDS:
            kind = expected[1] if expected[0] == start else Kind.URL
            if expected[0] == start or depth == 1:
                yield *match.span(_STRING_ENDS[what]), kind, Syntax.CSS_STRING
        elif what == "url":
            kind = Kind.IMPORT if expected == (start - len("url"), Kind.IMPORT) else Kind.URL
            if match["bare"] is not None:
                yield *match.span("bare"), kind, Syntax.CSS_URL
            elif match["broken"] is None:  # a string follows
                expected = (position, kind)
                depth += depth > 0
        elif what == "import":
            expected = (position, Kind.IMPORT)
        elif what == "comment":
            yield from _map(content, start, position)
        elif what is not None and what in _DEPTHS:
            depth = _DEPTHS[what](depth)


def _map(content: bytes, start: int, end: int) -> Iterator[_Span]:
    """The source map that a comment names, if it does."""
    if match := _MAP.fullmatch(content, start, end):
        yield *match.span(1), Kind.SOURCE_MAP, Syntax.COMMENT


def _meaning(raw: bytes, syntax: Syntax) -> str:
    """The URL, its escapes undone; comments have none."""
    if syntax is Syntax.COMMENT or b"\\" not in raw:
        return text(raw)
    return _ESCAPED.sub(_unescaped, text(raw))


def _unescaped(match: re.Match[str]) -> str:
    """https://www.w3.org/TR/css-syntax-3/#consume-escaped-code-point"""
    if match["line"]:
        return ""
    if match["itself"]:
        return match["itself"]
    code = int(match["code"], 16)
    is_character = 0 < code < 0x110000 and not 0xD800 <= code < 0xE000
    return chr(code) if is_character else "\ufffd"
