"""What a media server's answers to `media probe` mean: answers -> a `Finding`.

The laws:

1. Nothing here asks a server. `outgrow.media.probe` asks, and each function below
   judges what came back for one check.
2. *bad* is what breaks a promise or a save on this server: the command exits with 1.
   *warning* is what breaks one sometimes, or lets visitors do harm. *note* is what a
   person should know, and what can't be told from here.
3. The configurations of docs/howto/media-servers.md give nothing bad.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from outgrow.answer import Response
from outgrow.errors import ForeignServer, ServerError, TimedOut
from outgrow.findings import Finding, Result
from outgrow.media.listing import OWN_TYPE
from outgrow.media.remedies import Kind, remedy

#: Statuses that the transport takes for success. tests/media/test_findings.py compares.
PUT_DONE: Final = frozenset({200, 201, 204})
DELETE_DONE: Final = frozenset({200, 204, 404, 410})
GONE: Final = frozenset({404, 410})

#: What a PUT may be answered with for no other reason than that its folder is missing:
#: 409 by lighttpd and Apache (RFC 4918 §9.7.1), 500 by nginx without `create_full_put_path`.
HOMELESS: Final = frozenset({404, 409, 500})

#: Sizes of bodies that are tried, in bytes; the last is what the caller asks for.
STEPS: Final = (1 << 20, 8 << 20, 64 << 20, 256 << 20)

#: What browsers run as a page, whatever `nosniff` says (HTML §7.5.1, "loading a document").
_RUN: Final = frozenset(
    {"text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml"}
)

#: Types for which a browser looks at the bytes and guesses (WHATWG MIME Sniffing §5).
_GUESSED: Final = frozenset({"", "unknown/unknown", "application/unknown", "*/*"})


@dataclass(frozen=True, slots=True)
class Subject:
    """The server that is judged. With `keep` the storage uses names again (`names="keep"`)."""

    server: str
    kind: Kind = Kind.UNKNOWN
    keep: bool = False

    def ok(self, check: str, seen: str, meaning: str = "") -> Finding:
        """All is well."""
        return Finding(self.server, check, Result.OK, seen, meaning)

    def wrong(self, result: Result, check: str, seen: str, meaning: str) -> Finding:
        """Something is to be known, or to be mended."""
        return Finding(self.server, check, result, seen, meaning, remedy(check, self.kind))

    def if_kept(self, check: str, seen: str, meaning: str) -> Finding:
        """What matters for names that are used again, and hardly for unique ones."""
        result = Result.WARNING if self.keep else Result.NOTE
        extra = "" if self.keep else " With unique names, as here, nothing depends on it."
        return self.wrong(result, check, seen, f"{meaning}{extra}")


@dataclass(frozen=True, slots=True)
class Sent:
    """A body of `size` bytes, what came back for it, and after how many seconds."""

    size: int
    reply: Response | ServerError
    seconds: float

    @property
    def taken(self) -> bool:
        """Whether the server has stored it."""
        return isinstance(self.reply, Response) and self.reply.status in PUT_DONE


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One name: the answer to its PUT, and what a GET of it gave afterwards."""

    put: Response
    got: Response
    content: bytes

    @property
    def problem(self) -> str:
        """What went wrong with the name, or an empty string."""
        if self.put.status not in PUT_DONE:
            return f"PUT was answered with {self.put.status}"
        if self.got.status != 200:
            return f"PUT was answered with {self.put.status}, GET with {self.got.status}"
        return "" if self.got.body == self.content else "GET gave the content of another name"


# --- whether it can be probed at all


def unreachable(server: str, error: ServerError) -> Finding:
    """The first question, whose server it is, was not answered as it should be."""
    if isinstance(error, ForeignServer):
        meaning = "It is not known to be this site's, so nothing was written to it."
        return Finding(server, "identity", Result.BAD, error.reason, meaning)
    meaning = "It was not probed."
    return Finding(server, "answers", Result.BAD, error.reason, meaning, error.advice)


def silent(server: str, error: ServerError) -> Finding:
    """It stopped answering in the middle."""
    meaning = "It answered before, and then did not. What was not asked by then is not known."
    return Finding(server, "answers", Result.BAD, error.reason, meaning, error.advice)


def identity(subject: Subject, answer: Response) -> Finding:
    """Whether it holds the master's id. One of another master never comes so far."""
    if answer.status == 200:
        return subject.ok("identity", "it holds this master's id")
    meaning = "It is new: the first save or repair gives it the id."
    return subject.wrong(Result.NOTE, "identity", "it holds no master's id", meaning)


def missing(subject: Subject, answer: Response) -> Finding:
    """A GET of a name that nobody ever used."""
    seen = f"GET of a missing file: {answer.status}"
    if answer.status in GONE:
        return subject.ok("missing", seen)
    meaning = (
        "A missing file can't be told from one that is there: repair would not send it, and "
        "a read could give another page for its content. Nothing was written."
    )
    return subject.wrong(Result.BAD, "missing", seen, meaning)


# --- writing


def folders(
    subject: Subject, put: Response, made: Response | None = None, again: Response | None = None
) -> Finding:
    """A PUT into a folder that is not there; where it was refused, MKCOL and the PUT again."""
    seen = f"PUT into a missing folder: {put.status}"
    if put.status in PUT_DONE:
        return subject.ok("folders", seen)
    if made is None or again is None:
        return refused(subject, "put", f"PUT: {put.status}", put.status)
    seen = f"{seen}, then MKCOL: {made.status}, then PUT: {again.status}"
    if again.status not in PUT_DONE:
        meaning = "It neither makes missing folders nor lets Outgrow make them: uploads fail here."
    elif put.status == 409:
        return subject.ok("folders", seen, "Outgrow makes the folders.")
    else:
        meaning = "Outgrow makes folders where 409 says that they are missing: uploads fail here."
    return subject.wrong(Result.BAD, "folders", seen, meaning)


def refused(subject: Subject, check: str, seen: str, status: int) -> Finding:
    """A request that every save or delete needs was not carried out."""
    meanings = {
        401: "It wants credentials, or others: look at the options 'token' and 'credentials'.",
        403: "It does not let this machine write: look at its rules of access.",
        405: "WebDAV is not on for this path.",
        413: "It limits the size of bodies to almost nothing.",
        507: "Its disk is full.",
    }
    meaning = meanings.get(status, "It can't be used as a media server so; its log says why.")
    return subject.wrong(Result.BAD, check, seen, meaning)


def stored(subject: Subject, put: Response, got: Response, content: bytes) -> Finding:
    """What a GET gives after the first PUT."""
    if put.status not in PUT_DONE:
        return refused(subject, "put", f"PUT: {put.status}", put.status)
    seen = f"PUT: {put.status}, then GET: {got.status}"
    if got.status == 200 and got.body == content:
        return subject.ok("put", f"{seen}, with the right content")
    meaning = "What was written can't be read: PUT and GET do not look at the same folder."
    text = f"{seen}, with other content" if got.status == 200 else seen
    return subject.wrong(Result.BAD, "put", text, meaning)


def overwrite(subject: Subject, put: Response, got: Response, content: bytes) -> Finding:
    """A PUT over a file that is there. Repair needs it, for a file that was cut."""
    seen = f"PUT over a file: {put.status}"
    if put.status not in PUT_DONE:
        return refused(subject, "overwrite", seen, put.status)
    if got.status == 200 and got.body == content:
        return subject.ok("overwrite", seen)
    meaning = "It says that it replaced the file, and still shows the old one. Does it cache?"
    return subject.wrong(Result.BAD, "overwrite", seen, meaning)


def stat(subject: Subject, answer: Response, size: int) -> Finding:
    """What HEAD says of a file of `size` bytes: its length, and its version."""
    length = answer.headers.get("content-length", "none")
    if answer.status != 200 or length != str(size):
        seen = f"HEAD: {answer.status}, Content-Length: {length} for a file of {size} bytes"
        meaning = "Repair compares files by their length, and would send all of them again."
        return subject.wrong(Result.BAD, "stat", seen, meaning)
    versions = [key for key in ("ETag", "Last-Modified") if key.lower() in answer.headers]
    if versions:
        return subject.ok("stat", f"HEAD shows Content-Length, {', '.join(versions)}")
    meaning = "A file that shows no version can't be told from a folder, and is not deleted."
    return subject.if_kept("stat", "HEAD shows neither ETag nor Last-Modified", meaning)


def exclusive(subject: Subject, put: Response) -> Finding:
    """A PUT with If-None-Match: * over a file that is there."""
    seen = f"PUT with If-None-Match: * over a file: {put.status}"
    if put.status == 412:
        return subject.ok("if-none-match", seen)
    meaning = "It replaces a file that was to be new."
    if put.status not in PUT_DONE:
        meaning = "It does not know conditional PUT."
    return subject.if_kept("if-none-match", seen, meaning)


def guarded(subject: Subject, delete: Response) -> Finding:
    """A DELETE with If-Match and an ETag that is not the file's."""
    seen = f"DELETE with a wrong If-Match: {delete.status}"
    if delete.status == 412:
        return subject.ok("if-match", seen)
    meaning = "It deletes whatever version is there, not the one that was seen."
    if delete.status not in DELETE_DONE:
        meaning = "It does not know conditional DELETE."
    return subject.if_kept("if-match", seen, meaning)


def names(subject: Subject, trips: Mapping[str, RoundTrip]) -> Finding:
    """Names that must be encoded in a URL."""
    wrong = {name: trip.problem for name, trip in trips.items() if trip.problem}
    if not wrong:
        return subject.ok("names", f"{len(trips)} unusual names come back as they were sent")
    seen = "; ".join(f"{name!r}: {problem}" for name, problem in wrong.items())
    meaning = "Files with such names are lost, or mixed up. Is there a proxy that decodes them?"
    return subject.wrong(Result.BAD, "names", seen, meaning)


def bodies(subject: Subject, sent: Sequence[Sent], deadline: float) -> Finding:
    """Growing bodies, until one was refused. `deadline`: the storage's, in seconds."""
    times = ", ".join(f"{_size(one.size)} in {one.seconds:.2f} s" for one in sent if one.taken)
    last = sent[-1]
    if last.taken:
        rate = last.size / max(last.seconds, 1e-3) / (1 << 20)
        return subject.ok("body", f"{times} ({rate:.0f} MB/s)")
    before = f"{times}; " if times else ""
    if isinstance(last.reply, ServerError):
        seen = f"{before}{_size(last.size)}: {last.reply.reason}"
        meaning = (
            f"A save of this size fails here. It has {deadline:g} s (the option 'deadline'); a "
            "server that breaks off without an answer may have a limit of its own."
        )
        return subject.wrong(Result.BAD, "body", seen, meaning)
    status = last.reply.status
    seen = f"{before}{_size(last.size)}: {status}"
    if status != 413:
        return refused(subject, "body", seen, status)
    meaning = (
        "A larger upload is not taken, and stays owed to this server. If no upload is so "
        "large, probe with a smaller --max-body."
    )
    return subject.wrong(Result.BAD, "body", seen, meaning)


def sizes(largest: int) -> Iterator[int]:
    """The sizes to try, in bytes, up to `largest`; none for 0."""
    yield from (step for step in STEPS if step < largest)
    if largest:
        yield largest


# --- reading


def ranged(subject: Subject, answer: Response, content: bytes, first: int, last: int) -> Finding:
    """A GET of the bytes from `first` to `last`, both included."""
    seen = f"GET with Range: {answer.status}"
    wanted = f"bytes {first}-{last}/{len(content)}"
    if answer.status == 206:
        told = answer.headers.get("content-range", "").strip()
        if told == wanted and answer.body == content[first : last + 1]:
            return subject.ok("range", f"{seen}, with the right bytes")
        meaning = "A read that goes on where it broke off would give a wrong file."
        return subject.wrong(Result.BAD, "range", f"{seen}, Content-Range: {told!r}", meaning)
    meaning = "A read that broke off begins anew, and visitors can't skip in a video."
    return subject.wrong(Result.WARNING, "range", seen, meaning)


def runs(answer: Response) -> bool:
    """Whether a browser that was given this answer for a page would run what is in it."""
    if answer.status != 200 or _word(answer, "content-disposition") == "attachment":
        return False
    policy = answer.headers.get("content-security-policy", "").lower()
    for directive in policy.split(";"):
        words = directive.split()
        if words and words[0] == "sandbox" and "allow-scripts" not in words:
            return False
    kind = _word(answer, "content-type")
    if kind in _RUN:
        return True
    return kind in _GUESSED and _word(answer, "x-content-type-options") != "nosniff"


def _word(answer: Response, header: str) -> str:
    """What stands before the parameters of a header, in lower case."""
    return answer.headers.get(header, "").partition(";")[0].strip().lower()


def browser(subject: Subject, pages: Mapping[str, Response]) -> Finding:
    """Uploads that a browser would run, by their extension."""
    live = [extension for extension, answer in pages.items() if runs(answer)]
    if not live:
        return subject.ok("browser", f"none of {', '.join(pages)} would run as a page")
    seen = ", ".join(
        f"{one} as {pages[one].headers.get('content-type', 'no type')}" for one in live
    )
    meaning = (
        "A visitor can upload a page that runs with the rights of the address that files have. "
        "Send such files as downloads, or have files on a domain of their own."
    )
    return subject.wrong(Result.WARNING, "browser", seen, meaning)


def dotfiles(subject: Subject, answer: Response) -> Finding:
    """A GET of the journal, which lies in a dotfolder beside the master."""
    seen = f"GET of .outgrow/master: {answer.status}"
    if answer.status == 200:
        meaning = "It serves MEDIA_ROOT itself, with the journal: anybody can read that."
        return subject.wrong(Result.BAD, "dotfiles", seen, meaning)
    if answer.status in GONE:
        meaning = "Nothing is there. Whether a dotfile would be shown can't be told from that."
        return subject.wrong(Result.NOTE, "dotfiles", seen, meaning)
    return subject.ok("dotfiles", f"{seen}, refused")


def listing(subject: Subject, propfind: Response, page: Response, name: str) -> Finding:
    """PROPFIND of a folder that holds the file `name`, and GET of its listing as `page`."""
    seen = f"GET of a listing: {page.status}, PROPFIND: {propfind.status}"
    if page.status == 200 and (
        _word(page, "content-type") == OWN_TYPE or name in _entries(page.body)
    ):
        return subject.ok("listing", f"{seen}: it lists by GET")
    if propfind.status == 207 and quote(name).encode() in propfind.body:
        return subject.ok("listing", f"{seen}: it lists by PROPFIND")
    meaning = "It gives this machine no listing: verify asks for each file, which takes long."
    return subject.wrong(Result.NOTE, "listing", seen, meaning)


def _entries(body: bytes) -> set[str]:
    """The names in a listing by nginx's `autoindex_format json`."""
    try:
        found = json.loads(body)
    except ValueError:
        return set()
    if not isinstance(found, list):
        return set()
    return {str(one.get("name")) for one in found if isinstance(one, dict)}


# --- who may write


def anonymous(subject: Subject, reply: Response | ServerError) -> Finding:
    """A PUT without the credentials, and without the client's certificate."""
    if isinstance(reply, TimedOut):
        meaning = "Whether it takes a PUT from anybody is not known."
        seen = f"PUT without credentials: {reply.reason}"
        return subject.wrong(Result.WARNING, "credentials", seen, meaning)
    if isinstance(reply, ServerError):
        return subject.ok("credentials", f"PUT without credentials: {reply.reason}")
    seen = f"PUT without credentials: {reply.status}"
    if reply.status not in PUT_DONE:
        return subject.ok("credentials", seen)
    meaning = "It does not ask for the credentials: whoever reaches it can write."
    return subject.wrong(Result.BAD, "credentials", seen, meaning)


def addresses(subject: Subject, *, known: bool) -> Finding:
    """What can't be told from here. `known`: the storage has credentials for it."""
    who = "anybody who has the credentials" if known else "anybody"
    meaning = f"From which addresses {who} may write can't be told from this machine."
    return subject.wrong(Result.NOTE, "addresses", "this machine may write", meaning)


# --- removing


def deleted(subject: Subject, delete: Response, got: Response) -> Finding:
    """A DELETE of a file, and a GET afterwards."""
    seen = f"DELETE: {delete.status}, then GET: {got.status}"
    if delete.status not in DELETE_DONE:
        return refused(subject, "delete", f"DELETE: {delete.status}", delete.status)
    if got.status in GONE:
        return subject.ok("delete", seen)
    meaning = "It says that it deleted the file, and still shows it. Does it cache?"
    return subject.wrong(Result.BAD, "delete", seen, meaning)


def deleted_missing(subject: Subject, delete: Response) -> Finding:
    """A DELETE of a file that is not there. Repair sends such."""
    seen = f"DELETE of a missing file: {delete.status}"
    if delete.status in DELETE_DONE:
        return subject.ok("delete-missing", seen)
    meaning = "A repeated deletion never ends: the file stays owed to this server."
    return subject.wrong(Result.BAD, "delete-missing", seen, meaning)


def deleted_folder(subject: Subject, delete: Response, inside: Response) -> Finding:
    """A DELETE, without a slash, of the probe's own folder; and a GET of a file inside."""
    seen = f"DELETE of a folder: {delete.status}"
    if inside.status == 200:
        return subject.ok("delete-folder", f"{seen}, and it stays")
    meaning = "It removes a folder with all that is in it. Outgrow asks only for files."
    return subject.if_kept("delete-folder", f"{seen}, and all in it is gone", meaning)


def no_folders(subject: Subject) -> Finding:
    """Outgrow's own server was recognised."""
    seen = "not tried: Outgrow's own server never removes a folder"
    return subject.ok("delete-folder", seen, "A folder of the probe's would stay.")


def left_behind(
    server: str, files: Collection[str], folders: Collection[str], unsure: Collection[str]
) -> Finding | None:
    """What the probe could not take away again; None when that is nothing.

    `unsure`: files whose PUT got no answer, so that they may still appear (promise M5).
    """
    parts = [
        f"{what}: {', '.join(sorted(found))}"
        for what, found in (
            ("files", files),
            ("empty folders", folders),
            ("may still appear", set(unsure) - set(files)),
        )
        if found
    ]
    if not parts:
        return None
    meaning = "The probe made it, or may have, and could not remove it."
    advice = "Remove it by hand on the server."
    result = Result.BAD if files else Result.WARNING
    return Finding(server, "left-behind", result, "; ".join(parts), meaning, advice)


def _size(count: int) -> str:
    """A number of bytes for people."""
    for unit, shift in (("MB", 20), ("KB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.3g} {unit}"
    return f"{count} bytes"
