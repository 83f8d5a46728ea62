"""Tries out what a store really does, with files of its own that are removed again.

The laws:

1. Everything is proven by doing: written, read back, asked for as a visitor would.
2. *bad* is what loses or shows a file; *warning* is what a site will miss; *note* is what a
   person should know, and what can't be told from here.
3. What was written is removed, whatever happens; what could not be is named.
"""

from __future__ import annotations

import gzip
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

from django.core.files.base import ContentFile

from outgrow import names
from outgrow.conf.objects import PART_LEAST
from outgrow.errors import ServerError
from outgrow.findings import Finding, Result
from outgrow.objects import arrivals
from outgrow.objects.addresses import base_of
from outgrow.objects.direct import Limits
from outgrow.objects.storages import ObjectStorage

#: What the first file is stored with, and must be served with.
HEADERS: Final = {
    "Cache-Control": "max-age=61, private",
    "Content-Disposition": 'attachment; filename="check.txt"',
    "Content-Encoding": "gzip",
    "Content-Language": "en",
    "Expires": "Thu, 01 Jan 2099 00:00:00 GMT",
    "x-amz-meta-outgrow": "check",
}
TEXT: Final = b"This file was made by 'outgrow buckets check', and can be deleted.\n"
#: The same bytes each time: no time is in them.
_CONTENT: Final = gzip.compress(TEXT, mtime=0)

#: Seconds by which the clocks of both may differ; signatures end at 15 minutes
#: (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, RequestTimeTooSkewed).
_CLOCKS: Final = 60


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a visitor got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Silent(Exception):
    """A visitor got no answer; the text says why."""


def examine(storage: ObjectStorage, told: Callable[[Finding], None]) -> None:
    """Look at the store of a storage; `told` gets one finding after the other.

    Raises only what is no answer of the store's, such as a wrong option.
    """
    look = _Look(storage)
    try:
        for finding in look.findings():
            told(finding)
    finally:
        for finding in look.tidy():
            told(finding)


class _Look:
    """One look at one store."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._options = storage.options
        self._server = storage.server
        mark = names.token()
        self._name, self._large = f"outgrow-check-{mark}.txt", f"outgrow-check-{mark}.bin"
        given = {"names": "keep", "overwrite": False, "headers": {}, "part_size": PART_LEAST}
        if self._options.backup_bucket:
            given["backup_bucket"] = ""  # what is deleted here is no file of the site's
        has_headers = self._options.location.scheme in {"s3", "gs", "az"}
        self._plain = storage.plain(**given)
        self._storage = storage.plain(**given | {"headers": HEADERS if has_headers else {}})
        self._has_server = has_headers
        self._made: list[str] = []

    def _finding(
        self, check: str, result: Result, seen: str, meaning: str = "", remedy: str = ""
    ) -> Finding:
        return Finding(self._server, check, result, seen, meaning, remedy)

    def _ok(self, check: str, seen: str) -> Finding:
        return self._finding(check, Result.OK, seen)

    def _bad(self, check: str, seen: object, meaning: str = "", remedy: str = "") -> Finding:
        return self._finding(check, Result.BAD, str(seen), meaning, remedy)

    def findings(self) -> Iterator[Finding]:
        """One check after the other; without a first file there is no second check."""
        first = self._write()
        yield first
        if first.result is Result.BAD:
            return
        checks: list[Callable[[], Finding | None]] = [
            self._read,
            self._parts,
            self._list,
            self._taken,
        ]
        if self._has_server:
            checks += [self._visitor, self._headers, self._stranger, self._signature]
            checks += [self._clock, self._preflight]
        checks.append(self._delete)
        for check in checks:
            try:
                found = check()
            except (ServerError, _Silent, OSError) as error:
                found = self._bad(check.__name__.strip("_"), error)
            if found is not None:
                yield found

    # --- as the site

    def _write(self) -> Finding:
        self._made.append(self._name)
        try:
            self._storage.save_as(self._name, ContentFile(_CONTENT))
        except ServerError as error:
            return self._bad("write", error)
        return self._ok("write", f"{self._name} was written")

    def _read(self) -> Finding:
        with self._storage.open(self._name) as file:
            found = file.read()
        if found != _CONTENT:
            return self._bad("read", f"other bytes came back ({len(found)})", "It loses files.")
        return self._ok("read", "the same bytes came back")

    def _parts(self) -> Finding:
        size = PART_LEAST + 1
        self._made.append(self._large)
        self._plain.save_as(self._large, ContentFile(bytes(size)))
        found = self._plain.size(self._large)
        if found != size:
            return self._bad("parts", f"{found} bytes of {size} are there", "It cuts large files.")
        return self._ok("parts", f"a file of two parts has all of its {size:,} bytes")

    def _list(self) -> Finding:
        listed = {name for name, _, _ in self._plain.walk() if name in self._made}
        if set(self._made) - listed:
            meaning = "'media copy' and 'buckets ls' need a whole listing."
            return self._finding("list", Result.WARNING, "a new file is not listed yet", meaning)
        return self._ok("list", "new files are listed")

    def _taken(self) -> Finding:
        """Whether If-None-Match is honoured."""
        try:
            self._storage.save_as(self._name, ContentFile(_CONTENT))
        except FileExistsError:
            return self._ok("taken names", "a name that is taken is refused (If-None-Match)")
        seen = "a name that is taken is written over"
        if self._options.is_unique or self._options.overwrite:
            return self._finding("taken names", Result.NOTE, seen, "This storage does not need it.")
        meaning = "Of two who save one name at once, one file is lost."
        remedy = "Leave out names='keep': then no name is used twice."
        return self._finding("taken names", Result.WARNING, seen, meaning, remedy)

    # --- as a visitor

    def _visitor(self) -> Finding | None:
        options = self._options
        try:
            url = self._storage.url(self._name)
        except ValueError as error:
            return self._finding("visitor", Result.NOTE, str(error))
        if url.startswith("/"):
            seen = f"{url.partition('?')[0]} is on the site's own server: not looked at from here"
            return self._finding("visitor", Result.NOTE, seen)
        answer = self._get(url)
        kind = "a signed URL" if options.is_signed else "a plain URL"
        if answer.status == 200 and answer.body in {_CONTENT, TEXT}:
            return self._ok("visitor", f"{kind} gives the file")
        seen = f"{kind} was answered with {answer.status}"
        if options.is_signed:
            return self._bad("visitor", seen, "Visitors see no file.")
        meaning = "Visitors see no file: they may not read it without a signature."
        remedy = "Set 'policy': 'read' and run: manage.py outgrow buckets apply"
        return self._bad("visitor", seen, meaning, remedy)

    def _headers(self) -> Finding | None:
        url = self._storage.url(self._name)
        if url.startswith("/"):
            return None
        answer = self._get(url)
        if answer.status != 200:
            return None  # `visitor` says it
        lost = [
            name
            for name, value in HEADERS.items()
            if answer.headers.get(name.lower(), "") != value
            # Who unpacks on the way says so by leaving it out.
            and not (name == "Content-Encoding" and answer.body == TEXT)
        ]
        if not lost:
            return self._ok("headers", f"all {len(HEADERS)} kinds of headers are served")
        meaning = "The option 'headers' can't set them here."
        return self._finding("headers", Result.WARNING, f"not served: {', '.join(lost)}", meaning)

    def _stranger(self) -> Finding:
        """Who has no signature, at the store itself."""
        answer = self._get(base_of(self._options) + quote(self._storage.key(self._name), safe="/~"))
        is_open = answer.status == 200
        seen = f"without a signature: {answer.status}"
        if self._options.policy == "read" and not is_open:
            remedy = "Run: manage.py outgrow buckets apply"
            return self._bad("stranger", seen, "Nobody may read, and 'policy' says all.", remedy)
        if not is_open:
            return self._ok("stranger", f"{seen}, refused")
        if not self._options.is_signed:
            return self._ok("stranger", f"{seen}: all may read")
        meaning = "Whoever knows or guesses a name reads the file; signed URLs protect nothing."
        remedy = "Set 'policy': 'none' and run: manage.py outgrow buckets apply; or change the ACL."
        return self._bad("stranger", seen, meaning, remedy)

    def _signature(self) -> Finding | None:
        """Whether a wrong signature is refused."""
        url = self._storage.url(self._name)
        head, mark, signature = url.partition("X-Amz-Signature=")
        if not mark or url.startswith("/"):
            return None
        wrong = "".join("1" if letter == "0" else "0" for letter in signature)
        answer = self._get(f"{head}{mark}{wrong}")
        if answer.status != 200:
            return self._ok("signature", f"a wrong one is refused: {answer.status}")
        meaning = "It does not look at signatures: it protects no file."
        return self._bad("signature", "a wrong one is good enough", meaning)

    def _clock(self) -> Finding | None:
        answer = self._get(base_of(self._options))
        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except ValueError:
            return None
        apart = abs(theirs - time.time())
        if apart <= _CLOCKS:
            return None
        meaning = "At 15 minutes no signature is good any more."
        seen = f"its clock and this machine's are {apart:.0f} s apart"
        return self._finding("clock", Result.WARNING, seen, meaning, "Set both by NTP.")

    def _preflight(self) -> Finding | None:
        """What a browser asks before a page of another origin may upload."""
        if not self._options.cors:
            return None
        origin = self._options.cors[0].replace("*", "https://www.example.org")
        given = self._storage.plain(names="unique", overwrite=False)
        # As the script of a page asks, with what it was given; Swift looks at the signature's
        # parameters to know whose question it is.
        permit = arrivals.permit(given, "check.txt", 1, owner="check", limits=Limits(1))
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": permit.method,
            "Access-Control-Request-Headers": "content-type",
        }
        answer = self._get(permit.url, method="OPTIONS", headers=asked)
        allowed = answer.headers.get("access-control-allow-origin", "")
        if allowed in {origin, "*"}:
            return self._ok("preflight", f"pages of {origin} may upload")
        seen = f"a preflight for {origin}: {answer.status}"
        seen += f", for {allowed!r}" if allowed else ", and no Access-Control-Allow-Origin"
        remedy = "Run: manage.py outgrow buckets apply"
        return self._bad("preflight", seen, "No browser uploads from there.", remedy)

    def _get(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> _Answer:
        options = self._options
        request = urllib.request.Request(url, headers=dict(headers or {}), method=method)  # noqa: S310 - our own URL
        request.add_header("Accept-Encoding", "gzip")
        is_tls = url.startswith("https:")
        context = ssl.create_default_context(cafile=options.ca or None) if is_tls else None
        try:
            with urllib.request.urlopen(request, timeout=options.timeout, context=context) as found:  # noqa: S310
                return _answer(found.status, found.headers, found.read(len(_CONTENT) + len(TEXT)))
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, b"")
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise _Silent(f"a visitor got no answer from {url.partition('?')[0]}: {reason}") from (
                error
            )

    # --- at the end

    def _delete(self) -> Finding:
        for name in list(self._made):
            self._plain.delete(name)
            self._made.remove(name)
        left = [name for name in (self._name, self._large) if self._plain.exists(name)]
        if left:
            return self._bad("delete", f"still there: {', '.join(left)}", "It deletes nothing.")
        return self._ok("delete", "what was deleted is gone")

    def tidy(self) -> Iterator[Finding]:
        """Remove what a look that broke off has left."""
        for name in self._made:
            try:
                self._plain.delete(name)
            except ServerError as error:
                meaning = f"{name} may be left there. Remove it by hand."
                yield self._finding("tidy", Result.NOTE, str(error), meaning)


def _answer(status: int, headers: Message, body: bytes) -> _Answer:
    return _Answer(status, {name.lower(): value for name, value in headers.items()}, body)
