"""What the embedded media server answers: a request and a file's state -> a value.

The laws:

1. Nothing here does I/O. The server looks at the disk, asks here, and acts.
2. A request is judged twice: by `accept`, before the disk is looked at, and then
   against what is there (`read`, `check_write`, `check_removal`). Whatever can be
   refused is refused before the body of an upload is asked for, by `Refused`.
3. A name is decoded once, from the target as it was sent. None that could leave
   the root, or that starts with a dot, gets past `accept`.
4. A folder is never removed and never replaced, whatever the request says (M8).
5. The type of a file follows from its name, and browsers are told not to guess. What
   they would run scripts of is offered to be saved, unless the rules allow more.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from outgrow.content_types import ACTIVE, content_type
from outgrow.media import conditions, digests, signing
from outgrow.media.conditions import File, Span
from outgrow.media.digests import Digest
from outgrow.media.listing import OWN_TYPE
from outgrow.names import NAME_LIMIT, PART_LIMIT

#: Headers of every answer.
ALWAYS = (("X-Content-Type-Options", "nosniff"),)

#: What a target of a listing begins with, before the folder's name.
LISTING = b"/.outgrow/list/"

READING = ("GET", "HEAD")
METHODS = (*READING, "PUT", "DELETE")

#: Registered methods that this server does not offer (RFC 9110, 4918, 5789): 405.
#: Any other is unknown to it: 501 (RFC 9110 §9.1).
_OTHER_METHODS = {
    "CONNECT",
    "COPY",
    "LOCK",
    "MKCOL",
    "MOVE",
    "OPTIONS",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "TRACE",
    "UNLOCK",
}

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
#: What takes the sting out of a file with scripts, wherever it is opened. Images that
#: a page shows in <img> run none, and are shown all the same.
_HARMLESS = (
    ("Content-Disposition", "attachment"),
    ("Content-Security-Policy", "default-src 'none'; sandbox"),
)

_PORT = re.compile(r":[0-9]*\Z")
_IDENTITY = re.compile(r"[ \t]*(?:identity[ \t]*)?", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `target` is the raw path; header names are in lower case."""

    method: str
    target: bytes
    headers: Mapping[str, str]
    #: Bytes of the whole head, about as they came.
    size: int = 0
    query: bytes = b""
    #: When it came, in seconds since the epoch.
    now: float = 0.0

    @property
    def has_body(self) -> bool:
        """Whether a body follows (RFC 9112 §6.3)."""
        length = self.headers.get("content-length", "0").strip()
        return "transfer-encoding" in self.headers or length.strip("0") != ""

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for leave to send the body (RFC 9110 §10.1.1)."""
        return self.headers.get("expect", "").lower() == "100-continue"


@dataclass(frozen=True, slots=True)
class Rules:
    """How this server is set up: who may write, and how large requests may be.

    `hosts`: names that it is called by, in lower case. Without a token only they, IP
    addresses and localhost may be written to: a web page may have its own name
    resolve to this machine, and its scripts would then be let in (DNS rebinding).
    `max_body` and `max_head` are bytes; 0 is no limit. `active`: uploads that could
    run scripts are shown and not only offered to be saved. With a `secret`, reading needs
    the token or a signed URL below `prefix` (see `signing`). `reads_only`: nothing is
    written or listed here, whoever asks.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    active: bool = False
    max_body: int = 0
    max_head: int = 0
    secret: str = field(default="", repr=False)
    prefix: str = ""
    reads_only: bool = False


class NoFile(Enum):
    """What is found at a name where there is no regular file."""

    MISSING = "there is nothing at this name"
    GONE = "this name was deleted, and is not used again"
    BELOW_FILE = "a part of this name is a file, not a folder"
    FOLDER = "this name is a folder"
    LINK = "a part of this name is a symbolic link"
    SPECIAL = "this name is neither a file nor a folder"


State = File | NoFile


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send: a small `body`, or the bytes `span` of the file that was judged."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """An accepted request: which file, and for a PUT what is said of the body.

    The method of a listing is LIST (or HEAD LIST, for its head alone), and `parts` are a folder's.
    `length` is None for a chunked body. With `exclusive` the file must be new.
    """

    method: str
    parts: tuple[str, ...]
    headers: Mapping[str, str]
    length: int | None = None
    digests: tuple[Digest, ...] = ()

    @property
    def exclusive(self) -> bool:
        """Whether the client asked for a new file (If-None-Match: *)."""
        return self.headers.get("if-none-match", "").strip() == "*"


class Refused(Exception):
    """The request is not carried out, and `answer` is to be sent instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def refusal(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """An answer that says in one plain line why nothing was done."""
    body = f"{HTTPStatus(status).phrase}: {text}\n".encode()
    plain = ("Content-Type", "text/plain; charset=utf-8")
    return Answer(status, (plain, ("Content-Length", str(len(body))), *headers), body)


def head_too_large(limit: int) -> Answer:
    """The answer to a head that has no end."""
    return refusal(431, f"the head of a request may have {limit} bytes here")


def accept(request: Request, rules: Rules) -> Wanted:
    """Judge a request by its head alone. Raises Refused."""
    if rules.max_head and request.size > rules.max_head:
        raise Refused(head_too_large(rules.max_head))
    _check_method(request.method, rules)
    if request.target.startswith(LISTING):
        return _accept_listing(request, rules)
    parts = _parse_target(request.target)
    if request.method in READING:
        _check_reader(request, parts, rules)
        return Wanted(request.method, parts, request.headers)
    _check_host(request.headers, rules)
    _check_writer(request.headers, rules)
    if request.method == "DELETE":
        return Wanted(request.method, parts, request.headers)
    length = _body_length(request.headers, rules)
    return Wanted("PUT", parts, request.headers, length, _promised(request.headers))


def _accept_listing(request: Request, rules: Rules) -> Wanted:
    """A listing is for those who may write: names of files are a secret, too."""
    if rules.reads_only:
        raise Refused(_not_here())
    if request.method not in READING:
        raise Refused(refusal(405, "a listing can only be read", ("Allow", "GET, HEAD")))
    _check_host(request.headers, rules)
    _check_writer(request.headers, rules)
    folder = request.target.partition(b"?")[0].removeprefix(LISTING).removesuffix(b"/")
    parts = _parse_target(b"/" + folder) if folder else ()
    return Wanted("LIST" if request.method == "GET" else "HEAD LIST", parts, request.headers)


def listed() -> Answer:
    """The head of a listing. How long it is shows only at its end."""
    return Answer(200, (("Content-Type", OWN_TYPE), ("Cache-Control", "no-store")))


def wants_digests(wanted: Wanted) -> bool:
    """Whether SHA-256 sums are asked for (RFC 9530 §4)."""
    return "sha-256" in wanted.headers.get("want-repr-digest", "").lower()


def read(wanted: Wanted, state: State, rules: Rules) -> Answer:
    """The answer to a GET or HEAD; its `span` is what is to be sent of the file."""
    if not isinstance(state, File):
        return refusal(403 if state is NoFile.LINK else 404, state.value)
    verdict = conditions.evaluate(wanted.headers, state, reading=True)
    if verdict == "failed":
        return condition_failed()
    validators = (("ETag", state.tag), ("Last-Modified", state.last_modified))
    if verdict == "not modified":
        return Answer(304, validators)
    kind = content_type(wanted.parts[-1])
    described = (
        ("Content-Type", kind),
        *(_HARMLESS if kind in ACTIVE and not rules.active else ()),
        ("Accept-Ranges", "bytes"),
        *validators,
    )
    # RFC 9110 §14.2: Range is defined for GET alone.
    span = conditions.select(wanted.headers, state) if wanted.method == "GET" else None
    if span == "unsatisfiable":
        return refusal(
            416, "the file ends before this range", ("Content-Range", f"bytes */{state.size}")
        )
    if span is None:
        whole = Span(0, state.size)
        return Answer(200, (*described, ("Content-Length", str(state.size))), span=whole)
    position = f"bytes {span.start}-{span.stop - 1}/{state.size}"
    length = ("Content-Length", str(len(span)))
    return Answer(206, (*described, length, ("Content-Range", position)), span=span)


def check_write(wanted: Wanted, state: State) -> None:
    """Whether a PUT may go on over what is there. Raises Refused."""
    if state is NoFile.LINK:
        raise Refused(refusal(403, state.value))
    if state is NoFile.GONE:
        raise Refused(refusal(410, state.value))
    if isinstance(state, NoFile) and state is not NoFile.MISSING:
        raise Refused(refusal(409, state.value))
    _check_conditions(wanted, state)


def check_removal(wanted: Wanted, state: State) -> None:
    """Whether a DELETE may remove what is there. Raises Refused."""
    if isinstance(state, File):
        _check_conditions(wanted, state)
    if state is NoFile.LINK:
        raise Refused(refusal(403, state.value))
    # RFC 9110 §13.2.1: conditions don't matter where the answer is 404 anyway.
    if state in {NoFile.FOLDER, NoFile.SPECIAL}:
        raise Refused(refusal(409, f"{state.value}; only files are removed"))


def check_size(size: int, rules: Rules) -> None:
    """Whether a body may have `size` bytes. Raises Refused."""
    if rules.max_body and size > rules.max_body:
        raise Refused(refusal(413, f"a body may have {rules.max_body} bytes here"))


def too_slow(rate: int) -> Answer:
    """The answer to a body that drips."""
    return refusal(408, f"the body came slower than {max(1, rate)} bytes a second")


def check_digests(promises: Iterable[Digest], sums: Mapping[str, bytes]) -> None:
    """Whether a body's checksums, by algorithm, are what was promised. Raises Refused."""
    for promise in promises:
        if sums[promise.algorithm] != promise.value:
            raise Refused(refusal(400, f"the body does not have the checksum in {promise.header}"))


def stored(file: File, *, created: bool) -> Answer:
    """The answer to a PUT that has been carried out."""
    headers = (("ETag", file.tag), ("Last-Modified", file.last_modified))
    return Answer(201, (*headers, ("Content-Length", "0"))) if created else Answer(204, headers)


def removed(state: State) -> Answer:
    """The answer to a DELETE that has been carried out on what was there."""
    return Answer(204) if isinstance(state, File) else refusal(404, state.value)


def disk_full() -> Answer:
    """The answer when there is no room for a file."""
    return refusal(507, "the disk is full")


def failure(error: OSError) -> Answer:
    """The answer when the disk refused; 500 stands for what an operator must look at."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return disk_full()
    if error.errno == errno.EEXIST:  # If-None-Match: *, and another process was faster
        return condition_failed()
    if error.errno == errno.EFBIG:
        return refusal(413, "the file system takes no file of this size")
    if error.errno == errno.ENAMETOOLONG:
        return refusal(400, "the file system takes no name of this length")
    if error.errno in {errno.EISDIR, errno.ENOTDIR}:
        return refusal(409, "the name became a folder, or a folder above it a file, meanwhile")
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return refusal(503, "too many files are open", ("Retry-After", "1"))
    return refusal(500, "the server could not carry this out; its log says why")


def _check_method(method: str, rules: Rules) -> None:
    if method in READING:
        return
    if method in METHODS and not rules.reads_only:
        return
    if method in METHODS:
        raise Refused(_not_here())
    if method in _OTHER_METHODS:
        allowed = ", ".join(READING if rules.reads_only else METHODS)
        raise Refused(refusal(405, f"this server knows {allowed}", ("Allow", allowed)))
    raise Refused(refusal(501, "this method is unknown"))


def _not_here() -> Answer:
    """The answer to a writer who came to the port of the readers."""
    text = "here files are only read; they are written and listed at --write-bind"
    return refusal(405, text, ("Allow", ", ".join(READING)))


def _parse_target(target: bytes) -> tuple[str, ...]:
    """The parts of the name, decoded once."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        raise Refused(refusal(400, "the target must be a path"))
    if _BAD_ESCAPE.search(path):
        raise Refused(refusal(400, "a percent sign must be followed by two hexadecimal digits"))
    # Split first and decode then: %2F inside a part must not become a border.
    raw = [unquote_to_bytes(part) for part in path[1:].split(b"/")]
    if sum(map(len, raw)) + len(raw) - 1 > NAME_LIMIT:
        raise Refused(refusal(400, f"the name is longer than {NAME_LIMIT} bytes"))
    return tuple(map(_check_part, raw))


def _check_part(raw: bytes) -> str:
    """One decoded part of a name."""
    problem = ""
    part = raw.decode("utf-8", "replace")
    if part.encode() != raw:
        problem = "the name is not UTF-8"
    elif not part:
        problem = "the name is empty, ends with a slash or holds two in a row"
    elif part.startswith("."):
        problem = "a part of the name starts with a dot"
    elif "/" in part or "\\" in part:
        problem = "a part of the name holds a slash or a backslash"
    elif _CONTROL.search(part):
        problem = "the name holds a control character"
    elif len(raw) > PART_LIMIT:
        problem = f"a part of the name is longer than {PART_LIMIT} bytes"
    if problem:
        raise Refused(refusal(400, problem))
    return part


def _check_host(headers: Mapping[str, str], rules: Rules) -> None:
    """Whether the name in Host is ours; with a token it does not matter."""
    if rules.token is not None:
        return
    name = _PORT.sub("", headers.get("host", "").strip().lower())
    if name in {"localhost", *rules.hosts} or _is_address(name):
        return
    # RFC 9110 §15.5.20
    raise Refused(refusal(421, "without a token this server is written to by address (--host)"))


def _is_address(host: str) -> bool:
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return False
    return bracketed == (address.version == 6)


def _check_writer(headers: Mapping[str, str], rules: Rules) -> None:
    """The token (RFC 6750 §2.1), and conditions that must not be misread."""
    if rules.token is not None and not _has_token(headers, rules.token):
        challenge = ("WWW-Authenticate", 'Bearer realm="media"')
        raise Refused(refusal(401, "writing needs the server's token", challenge))
    if bad := conditions.malformed(headers):
        raise Refused(refusal(400, f"{bad} can't be read"))


def _has_token(headers: Mapping[str, str], token: str) -> bool:
    scheme, _space, given = headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    return right and scheme.lower() == "bearer"


def _check_reader(request: Request, parts: tuple[str, ...], rules: Rules) -> None:
    """The signature of a URL, where files are private."""
    if not rules.secret:
        return
    if rules.token is not None and _has_token(request.headers, rules.token):
        return
    path = f"{rules.prefix}/{'/'.join(parts)}"
    query = request.query.decode("latin-1")
    verdict = signing.check(path, query, rules.secret, request.now)
    # nginx's documentation answers 403 and 410.
    if verdict is signing.Verdict.WRONG:
        raise Refused(refusal(403, "this file needs a signed URL"))
    if verdict is signing.Verdict.EXPIRED:
        raise Refused(refusal(410, "this URL has expired"))


def _body_length(headers: Mapping[str, str], rules: Rules) -> int | None:
    """The length of the body, or None when it is chunked."""
    # RFC 9110 §14.5: a server that does not know partial PUT must refuse it.
    if "content-range" in headers:
        raise Refused(refusal(400, "a part of a file can't be written (Content-Range)"))
    # What is stored is the content itself: nothing here would decode it for readers.
    if not _IDENTITY.fullmatch(headers.get("content-encoding", "")):
        wanted = ("Accept-Encoding", "identity")  # RFC 9110 §12.5.3
        raise Refused(refusal(415, "files are stored without a Content-Encoding", wanted))
    if (coding := headers.get("transfer-encoding")) is not None:
        # RFC 9112 §6.1: 501 for a coding that is not understood.
        if coding.strip().lower() != "chunked":
            raise Refused(refusal(501, "of the transfer codings only chunked is known"))
        return None
    length = headers.get("content-length")
    if length is None:
        raise Refused(refusal(411, "an upload needs Content-Length, or to be chunked"))
    if not re.fullmatch("[0-9]{1,19}", length):
        raise Refused(refusal(400, "Content-Length can't be read"))
    check_size(int(length), rules)
    return int(length)


def _promised(headers: Mapping[str, str]) -> tuple[Digest, ...]:
    try:
        return digests.promised(headers)
    except ValueError as error:
        raise Refused(refusal(400, f"{error} can't be read")) from error


def condition_failed() -> Answer:
    """The answer when If-Match or another condition does not hold."""
    return refusal(412, "a condition of the request does not hold")


def _check_conditions(wanted: Wanted, state: State) -> None:
    file = state if isinstance(state, File) else None
    if conditions.evaluate(wanted.headers, file, reading=False) != "go on":
        raise Refused(condition_failed())
