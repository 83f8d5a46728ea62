"""Which file names may reach a disk or a server, and names that are never used twice.

A name is a relative path with forward slashes, as Django's storages have it. What
is refused here is refused before anything is written or sent (promise M8), since
some web servers delete folders for a name that ends in a slash, hide or execute
dotfiles, or decode a percent sign twice.
"""

from __future__ import annotations

import base64
import re
import secrets
from functools import lru_cache
from pathlib import PurePosixPath

from outgrow.errors import UnsafeName

#: The folder beside the master's files that holds the journal.
JOURNAL_FOLDER = ".outgrow"

#: What the folder that `media probe` makes on a server, and takes away again, begins with.
PROBE_PREFIX = "outgrow-probe-"

#: The file on each media server that says whose copy it is.
MASTER_ID_FILE = "outgrow-master-id.txt"

#: Bytes in one part of a name: NAME_MAX of ext4, XFS, APFS and others.
PART_LIMIT = 255

#: Bytes in a whole name. Quoted, three times as long, it still fits the 4 KB that
#: lighttpd and nginx take in a request line with room to spare.
NAME_LIMIT = 1000

#: Random bytes in a unique name: 65 bits in 13 characters of base32, lower case, so
#: that a file system that folds case keeps them all.
_TOKEN_BYTES = 9
_TOKEN_LENGTH = 13

#: Characters of a suffix that is kept as an extension. What is longer is a sentence
#: after a full stop ("Report v1.2 of ..."), and may be shortened like one.
_EXTENSION_LIMIT = 20

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DRIVE = re.compile(r"[A-Za-z]:")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")


# A repair checks each name at every step; what is safe stays so.
@lru_cache(maxsize=4096)
def check(name: str, *, length: bool = True) -> str:
    """Return `name` if it may be used. Raises `UnsafeName` with the reason.

    With `length` false it may still be too long: it is to be shortened.
    """
    problem = _problem(name) or (too_long(name) if length else "")
    if problem:
        raise UnsafeName(name, problem)
    return name


def is_safe(name: str) -> bool:
    """Whether `check` lets a name pass."""
    try:
        check(name)
    except UnsafeName:
        return False
    return True


def too_long(name: str) -> str:
    """Which limit of length is broken, or an empty string."""
    if len(name.encode()) > NAME_LIMIT:
        return f"it is longer than {NAME_LIMIT} bytes"
    for part in name.split("/"):
        if len(part.encode()) > PART_LIMIT:
            return f"its part {part[:40]!r}... is longer than {PART_LIMIT} bytes"
    return ""


def _problem(name: str) -> str:
    """What is wrong with the name, apart from its length, or an empty string."""
    if not name:
        return "it is empty"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "it can't be written in UTF-8"
    if _CONTROL.search(name):
        return "it holds a control character"
    if "\\" in name:
        return "it holds a backslash"
    if _ENCODED.search(name):
        return "it holds a percent-encoding, which some servers decode twice"
    if _DRIVE.match(name):
        return "it begins with a drive letter"
    # Folded: on a disk that folds case it would be the same file.
    if name.casefold() == MASTER_ID_FILE:
        return "it is reserved for the id of the master"
    return next(filter(None, map(_part_problem, name.split("/"))), "")


def _part_problem(part: str) -> str:
    """What is wrong with one part between slashes, or an empty string."""
    if not part:
        return "it begins or ends with a slash, or holds two in a row"
    if part.startswith("."):
        return f"its part {part[:40]!r} begins with a dot"
    if part.endswith((".", " ")) or part.startswith(" "):
        return f"its part {part[:40]!r} begins or ends with a space, or ends with a dot"
    return ""


def token() -> str:
    """At least 64 random bits, in characters that every file system tells apart."""
    raw = base64.b32encode(secrets.token_bytes(_TOKEN_BYTES)).decode("ascii")
    return raw[:_TOKEN_LENGTH].lower()


def unique(name: str, mark: str, max_length: int | None = None) -> str:
    """`name` with `mark` before its extension, shortened to `max_length` characters.

    The extension is kept, and so is the folder; the stem gives way, as it does
    to the limit of one part. Raises `UnsafeName` when the name may not be used,
    or when there is no room for the mark.
    """
    problem = _problem(name)
    if problem:
        raise UnsafeName(name, problem)
    folder, slash, last = name.rpartition("/")
    extension = _extension(last)
    ending = f"_{mark}{extension}"
    room = min(PART_LIMIT, NAME_LIMIT - len(f"{folder}{slash}".encode())) - len(ending.encode())
    text = last.removesuffix(extension).encode()[: max(0, room)].decode(errors="ignore")
    if max_length is not None:
        text = text[: max(0, max_length - len(folder + slash + ending))]
    if not text:
        limit = max_length if max_length is not None else NAME_LIMIT
        raise UnsafeName(name, f"there is no room for {len(mark)} random characters in {limit}")
    return check(f"{folder}{slash}{text}{ending}")


def _extension(last: str) -> str:
    """The extension of a name's last part with its dot, ``.tar.gz`` whole, or nothing."""
    path = PurePosixPath(last)
    suffix = path.suffix
    if PurePosixPath(path.stem).suffix.lower() == ".tar":
        suffix = path.stem[-len(".tar") :] + suffix
    return suffix if len(suffix) <= _EXTENSION_LIMIT else ""
