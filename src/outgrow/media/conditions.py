"""Conditions and ranges of HTTP, as arithmetic on plain values.

RFC 9110 §13 (If-Match and its kin) and §14 (Range). Nothing here does I/O.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_tz
from typing import Literal

#: RFC 9110 §8.8.3: opaque-tag is DQUOTE *etagc DQUOTE; etagc is any visible
#: character but the double quote. Header values are decoded as Latin-1.
_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAG_LIST = re.compile(rf"[ \t]*(?:,[ \t]*)*{_TAG}(?:[ \t]*,(?:[ \t]*{_TAG})?)*[ \t]*")
_ONE_TAG = re.compile(_TAG)

# No more digits than a 64-bit number has: more can't be a position in a file.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class File:
    """What is known of a regular file: enough to name its version."""

    inode: int
    size: int
    mtime_ns: int

    @property
    def tag(self) -> str:
        """A strong ETag: an upload is always a new inode, with the time in nanoseconds."""
        return f'"{self.inode:x}-{self.size:x}-{self.mtime_ns:x}"'

    @property
    def modified(self) -> int:
        """Last-Modified, in whole seconds."""
        return self.mtime_ns // 1_000_000_000

    @property
    def last_modified(self) -> str:
        """Last-Modified, as the header has it."""
        return formatdate(self.modified, usegmt=True)


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


#: What the conditions of a request come to: go on, "412", or "not modified".
Verdict = Literal["go on", "failed", "not modified"]


def malformed(headers: Mapping[str, str]) -> str | None:
    """The name of an If-Match or If-None-Match header that can't be read, if any.

    To overlook one would be to write where the client asked not to.
    """
    for name in ("If-Match", "If-None-Match"):
        value = headers.get(name.lower())
        if value is not None and value.strip() != "*" and not _TAG_LIST.fullmatch(value):
            return name
    return None


def evaluate(headers: Mapping[str, str], file: File | None, *, reading: bool) -> Verdict:
    """The conditions in the order of RFC 9110 §13.2.2. `file` is None when there is none."""
    if "if-match" in headers:
        if not _matches(headers["if-match"], file, weak=False):
            return "failed"
    elif _changed_since(headers.get("if-unmodified-since"), file):
        return "failed"
    if "if-none-match" in headers:
        if _matches(headers["if-none-match"], file, weak=True):
            return "not modified" if reading else "failed"
    elif reading and _unchanged_since(headers.get("if-modified-since"), file):
        return "not modified"
    return "go on"


def _matches(value: str, file: File | None, *, weak: bool) -> bool:
    """Whether one of the listed tags is the file's (RFC 9110 §13.1.1, §13.1.2)."""
    if file is None:
        return False
    if value.strip() == "*":
        return True
    tags = _ONE_TAG.findall(value)
    return file.tag in tags or (weak and f"W/{file.tag}" in tags)


def _changed_since(value: str | None, file: File | None) -> bool:
    # RFC 9110 §13.1.4: what is no date is ignored.
    moment = parse_date(value)
    return moment is not None and (file is None or file.modified > moment)


def _unchanged_since(value: str | None, file: File | None) -> bool:
    # RFC 9110 §13.1.3: what is no date is ignored.
    moment = parse_date(value)
    return moment is not None and file is not None and file.modified <= moment


def parse_date(value: str | None) -> int | None:
    """An HTTP-date (RFC 9110 §5.6.7, all three forms) as seconds since 1970, or None."""
    if value is None:
        return None
    try:
        parsed = parsedate_tz(value)
        return None if parsed is None else calendar.timegm(parsed[:9]) - (parsed[9] or 0)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None  # email.utils is lenient, and then trips over what it let pass


def select(headers: Mapping[str, str], file: File) -> Span | Literal["unsatisfiable"] | None:
    """The range that a GET asks for; None for the whole file (RFC 9110 §14.2).

    Several ranges at once, other units and what can't be read are ignored, as the
    RFC allows. So is a range under an If-Range that does not name this version.
    A date there never does: it counts seconds, and a file can change within one
    (RFC 9110 §8.8.2.2); every answer carries an ETag to use instead.
    """
    asked = _RANGE.fullmatch(headers.get("range", ""))
    if asked is None or headers.get("if-range", file.tag).strip() != file.tag:
        return None
    first, last = asked.groups()
    if not first:
        return _suffix(last, file.size)
    if last and int(last) < int(first):
        return None
    if int(first) >= file.size:
        return "unsatisfiable"
    return Span(int(first), min(int(last) + 1, file.size) if last else file.size)


def _suffix(length: str, size: int) -> Span | Literal["unsatisfiable"] | None:
    """The last `length` bytes."""
    if not length:
        return None
    if int(length) == 0:
        return "unsatisfiable"
    # Of an empty file a suffix is satisfiable (RFC 9110 §14.1.2), but there is
    # no Content-Range that says so: the whole, empty file is the answer.
    return Span(max(0, size - int(length)), size) if size else None
