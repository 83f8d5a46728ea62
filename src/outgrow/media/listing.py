"""What a media server says that it has: bytes of a listing -> entries, in order, compared.

Three kinds of listing are read, each as it comes, in memory that does not depend on
how long it is: that of our own server (a line for each file, the whole tree in order),
nginx's (`autoindex_format json`, one folder) and WebDAV's (RFC 4918 §9.1, one folder).

The laws:

1. A listing comes from another machine. What is in it is checked, and never believed to
   be safe: no name leads out of its folder, no text is longer than `LINE_LIMIT`, no
   document defines entities. Whatever is wrong raises `BadListing`.
2. A listing without its end is an error, never a short listing.
3. Names are compared by code point, as UTF-8 bytes are. A folder stands where its
   files stand: as if its name ended in a slash.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, NoReturn, Protocol, cast
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

#: Bytes of one entry. A name has 1,000 bytes at most, and can be quoted in six for each.
LINE_LIMIT: Final = 65536

#: Bytes without a single entry in them: blank lines, comments, what is left out.
EMPTY_LIMIT: Final = 1 << 24

#: Elements within each other; an answer of WebDAV has six.
DEPTH_LIMIT: Final = 50

#: The media type of our own listing: JSON texts, one a line.
OWN_TYPE: Final = "application/x-ndjson"

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LENGTH: Final = re.compile(r"[0-9]{1,19}")


class BadListing(ValueError):
    """A listing that can't be used; the text says why."""


class Entry(NamedTuple):
    """One file. `date` is as the server has it; `digest` its SHA-256 in hexadecimal, if known."""

    name: str
    size: int
    date: str = ""
    digest: str = ""

    @property
    def modified(self) -> float | None:
        """When it was changed last, in seconds since the epoch; None when nobody says."""
        if self.date.isdecimal():
            return float(self.date)
        try:
            return parsedate_to_datetime(self.date).timestamp()
        except (ValueError, OverflowError):
            return None


class Child(NamedTuple):
    """What is in one folder: a file, or a folder, whose name ends in a slash (law 3)."""

    name: str
    size: int = 0
    date: str = ""


class Wrong(enum.StrEnum):
    """How a server differs from what it should hold."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"


class Difference(NamedTuple):
    """One name that is not on a server as it should be. Sizes are bytes, and -1 for no file.

    `date` is that of the server's file.
    """

    name: str
    kind: Wrong
    wanted: int = -1
    found: int = -1
    date: str = ""

    @classmethod
    def read(cls, row: Iterable[object]) -> Difference:
        """The same again, from the fields as JSON has them."""
        name, kind, wanted, found, date = cast("tuple[str, str, int, int, str]", row)
        return cls(name, Wrong(kind), wanted, found, date)


def pairs(
    wanted: Iterable[Entry], found: Iterable[Entry]
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Both together, name by name: at least one of each two is there. See `in_order`."""
    ours, theirs = iter(wanted), iter(found)
    one, other = next(ours, None), next(theirs, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.name < other.name):
            yield one, None
            one = next(ours, None)
        elif one is None or other.name < one.name:
            yield None, other
            other = next(theirs, None)
        else:
            yield one, other
            one, other = next(ours, None), next(theirs, None)


def compare(wanted: Iterable[Entry], found: Iterable[Entry]) -> Iterator[Difference]:
    """What differs, name by name. Both must be in order: see `in_order`."""
    for one, other in pairs(wanted, found):
        if other is None:
            assert one is not None  # one of the two is there
            yield Difference(one.name, Wrong.MISSING, one.size)
        elif one is None:
            yield Difference(other.name, Wrong.EXTRA, -1, other.size, other.date)
        elif differ(one, other):
            yield Difference(one.name, Wrong.DIFFERENT, one.size, other.size, other.date)


def differ(one: Entry, other: Entry) -> bool:
    """Whether two entries of one name surely are different files."""
    if one.size != other.size:
        return True
    return bool(one.digest and other.digest) and one.digest != other.digest


def in_order(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The same entries. Raises `BadListing` at a name that comes twice, or too late."""
    last = ""
    for entry in entries:
        if entry.name <= last:
            raise BadListing(f"{entry.name[:80]!r} follows {last[:80]!r}: it is not in order")
        last = entry.name
        yield entry


# --- our own


def line(entry: Entry) -> bytes:
    """An entry as a line of our own listing."""
    fields = [entry.name, entry.size, entry.date, *([entry.digest] if entry.digest else ())]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def end(count: int) -> bytes:
    """The last line of our own listing, which says that it is whole."""
    return b'{"count":%d}\n' % count


class Lines:
    """Reads our own listing. An empty line says only that the server is at work."""

    def __init__(self) -> None:
        self._rest = b""
        self._count = 0
        self._ended = False
        self._empty = 0

    def feed(self, data: bytes) -> Iterator[Entry]:
        """The entries that are whole now."""
        self._empty = _still_empty(self._empty, data)
        head, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if len(self._rest) > LINE_LIMIT:
            raise BadListing(f"a line is longer than {LINE_LIMIT} bytes")
        for found in _json_lines(head) if newline else ():
            if self._ended:
                raise BadListing("it goes on behind its end")
            if isinstance(found, dict):
                self._close(found)
                continue
            self._count += 1
            self._empty = 0
            entry = _entry(found)
            if is_text(entry.name):
                yield entry

    def _close(self, found: dict[str, object]) -> None:
        if found != {"count": self._count}:
            raise BadListing(f"it ends with {found!r} after {self._count} entries"[:200])
        self._ended = True

    def close(self) -> None:
        """The listing is over. Raises `BadListing` when it is not whole."""
        if self._rest.strip() or not self._ended:
            raise BadListing(f"it was cut after {self._count} entries")


def _still_empty(size: int, data: bytes) -> int:
    """Bytes since the last entry. Raises `BadListing` when they are too many."""
    if size > EMPTY_LIMIT:
        raise BadListing(f"nothing is in {EMPTY_LIMIT} bytes of it")
    return size + len(data)


def is_text(name: str) -> bool:
    """Whether a name is UTF-8. What is not was no upload: somebody put it there."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_lines(text: bytes) -> list[object]:
    """Many lines at once: one call of the parser costs as much as twenty names."""
    return _loads(b"[" + b",".join(filter(None, text.split(b"\n"))) + b"]")


def _loads(text: bytes) -> list[object]:
    try:
        # A name that is no UTF-8 is left out, and must not spoil the others.
        found: list[object] = json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise BadListing(f"it is not JSON: {error}"[:200]) from error
    return found


def _entry(found: object) -> Entry:
    match found:
        case [str(name), int(size), str(date)] if size >= 0:
            return Entry(_path(name), size, date)
        case [str(name), int(size), str(date), str(digest)] if size >= 0:
            if _DIGEST.fullmatch(digest):
                return Entry(_path(name), size, date, digest)
    raise BadListing(f"{str(found)[:80]!r} is not an entry")


def _path(name: str) -> str:
    for part in name.split("/"):
        _part(part)
    return name


def _part(name: str) -> str:
    """A name that stays in its folder (law 1)."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise BadListing(f"{name[:80]!r} is no name of a file")
    return name


# --- one folder


class FolderParser(Protocol):
    """Reads the listing of one folder."""

    def feed(self, data: bytes) -> Iterator[Child]:
        """The children that are whole now."""

    def close(self) -> None:
        """The listing is over. Raises `BadListing` when it is not whole."""


class Autoindex:
    """Reads nginx's: a JSON array with a line for each child.

    What is neither a file nor a folder is left out, and so are dotfiles.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._began = False
        self._ended = False
        self._empty = 0

    def feed(self, data: bytes) -> Iterator[Child]:
        """See `FolderParser`."""
        self._empty = _still_empty(self._empty, data)
        head, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if len(self._rest) > LINE_LIMIT:
            raise BadListing(f"a line is longer than {LINE_LIMIT} bytes")
        if newline:
            yield from self._take(head.strip())

    def close(self) -> None:
        """See `FolderParser`."""
        for _ in self._take(self._rest.strip()):
            raise BadListing("it was cut behind a name")
        if not self._ended:
            raise BadListing("it was cut: the closing bracket is missing")

    def _take(self, text: bytes) -> Iterator[Child]:
        if not text:
            return
        if self._ended:
            raise BadListing("it goes on behind its end")
        if not self._began:
            self._began = True
            if not text.startswith(b"["):
                raise BadListing("it is not nginx's: set 'autoindex_format json'")
            text = text[1:]
        if text.endswith(b"]"):
            self._ended = True
            text = text[:-1]
        text = text.strip().removesuffix(b",").removeprefix(b",")
        for child in map(_autoindex_child, _loads(b"[" + text + b"]")):
            if child is not None:
                self._empty = 0
                yield child


def _autoindex_child(found: object) -> Child | None:
    try:
        name, kind = found["name"], found["type"]  # type: ignore[index]
        if kind == "other":
            return None
        is_folder = kind == "directory"
        size, date = (0, "") if is_folder else (found["size"], found["mtime"])  # type: ignore[index]
    except (TypeError, KeyError):
        raise _no_entry(found) from None
    # The types by `type`: this is done for each of a million names.
    if not (type(name) is type(date) is str and type(size) is int and size >= 0):
        raise _no_entry(found)
    if kind != "file" and not is_folder:
        raise _no_entry(found)
    if name.startswith(".") or not is_text(name):
        return None
    if "/" in name or "\0" in name or not name:
        raise BadListing(f"{name[:80]!r} is no name of a file")
    return Child(f"{name}/", size, date) if is_folder else Child(name, size, date)


def _no_entry(found: object) -> BadListing:
    return BadListing(f"{str(found)[:80]!r} is not an entry of nginx's")


class Multistatus:
    """Reads WebDAV's answer to PROPFIND with Depth: 1. `path` is the folder's own, decoded."""

    def __init__(self, path: str) -> None:
        self._folder = path.rstrip("/")
        self._found: list[Child] = []
        self._text = ""
        self._reset()
        self._ended = False
        self._empty = 0
        self._depth = 0
        parser = self._parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler = self._open
        parser.EndElementHandler = self._close_element
        parser.CharacterDataHandler = self._characters
        # No document of WebDAV has one; entities are how small documents become huge.
        parser.StartDoctypeDeclHandler = _no_doctype

    def feed(self, data: bytes) -> Iterator[Child]:
        """See `FolderParser`."""
        self._empty = _still_empty(self._empty, data)
        self._parse(data, last=False)
        found, self._found = self._found, []
        if found:
            self._empty = 0
        yield from found

    def close(self) -> None:
        """See `FolderParser`."""
        self._parse(b"", last=True)
        if not self._ended:
            raise BadListing("it is no answer to PROPFIND")

    def _parse(self, data: bytes, *, last: bool) -> None:
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            raise BadListing(f"it is not XML: {error}") from error

    def _reset(self) -> None:
        self._href, self._size, self._date, self._is_folder = "", "", "", False

    def _open(self, element: str, _: object) -> None:
        self._text = ""
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise BadListing(f"it has more than {DEPTH_LIMIT} elements within each other")
        if element == "DAV: response":
            self._reset()
        elif element == "DAV: collection":
            self._is_folder = True

    def _characters(self, text: str) -> None:
        self._text += text
        if len(self._text) > LINE_LIMIT:
            raise BadListing(f"a text is longer than {LINE_LIMIT} characters")

    def _close_element(self, element: str) -> None:
        self._depth -= 1
        match element:
            case "DAV: href":
                self._href = self._text.strip()
            case "DAV: getcontentlength":
                self._size = self._text.strip()
            case "DAV: getlastmodified":
                self._date = self._text.strip()
            case "DAV: response":
                self._take()
            case "DAV: multistatus":
                self._ended = True
        self._text = ""

    def _take(self) -> None:
        try:
            quoted = urlsplit(self._href).path
        except ValueError:
            raise BadListing(f"{self._href[:80]!r} is no address") from None
        path = unquote(quoted, errors="surrogateescape").rstrip("/")
        if path == self._folder:
            return
        folder, _, name = path.rpartition("/")
        if folder != self._folder:
            raise BadListing(f"{path[:80]!r} is not in the folder {self._folder[:80]!r}")
        _part(name)
        if name.startswith(".") or not is_text(name):
            return
        if not self._is_folder and not _LENGTH.fullmatch(self._size):
            raise BadListing(f"it does not say how long {name[:80]!r} is")
        if self._is_folder:
            self._found.append(Child(f"{name}/"))
        else:
            self._found.append(Child(name, int(self._size), self._date))


def _no_doctype(*_: object) -> NoReturn:
    raise BadListing("it has a DOCTYPE, which may hide anything")
