"""What a media server really does: asked with files of the probe's own, then taken away.

`outgrow.media.findings` says what the answers mean; this module asks, one server at a
time and one request after the other.

The laws:

1. Nothing is changed outside one folder with 128 random bits in its name, which the
   probe makes itself. `Visit` refuses to send anything else. It alone sends a DELETE
   that can remove a folder, and only for that folder and what is below it (promise M8).
2. A server that holds another master's id, or has lost its own, is not written to.
3. What a request may have made is on the list before the request is sent, and leaves it
   when the server has said that it is not there. Whatever breaks the probe off, what is
   on the list is removed, or told.
4. Every request has a deadline, that of the storage's own saves.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from outgrow import fanout
from outgrow.answer import Response
from outgrow.errors import ServerError
from outgrow.exchange import Limits
from outgrow.fanout import DEADLINE, UNDECIDED, Outcome
from outgrow.http import Access, FileBody, Pool, Request
from outgrow.media import findings, names
from outgrow.media.findings import (
    DELETE_DONE,
    GONE,
    HOMELESS,
    PUT_DONE,
    Finding,
    Result,
    RoundTrip,
    Sent,
    Subject,
)
from outgrow.media.remedies import Kind, recognise
from outgrow.servers import Server

#: Bytes of the largest body that is sent, if nothing else is said.
MAX_BODY: Final = 64 << 20

#: Every final status is an answer here; `findings` judges it.
_ANY: Final = frozenset(range(200, 1000))

_FIRST: Final = b"The quick brown fox jumps over the lazy dog.\n"
_SECOND: Final = b"Pack my box with five dozen liquor jugs, and more.\n"

#: A page that does nothing, by the extension that a browser may judge it by.
_PAGES: Final = {
    ".html": b"<!doctype html><title>Outgrow</title>",
    ".xhtml": b'<html xmlns="http://www.w3.org/1999/xhtml"><title>Outgrow</title></html>',
    ".svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    ".probe": b"<!doctype html><title>Outgrow</title>",
}

#: Each needs an encoding in a URL, or is mistaken for one that does.
_NAMES: Final = ("a b.txt", "a+b.txt", "100% a.txt", "über.txt", "日本.txt", "a&b=c#d.txt")

#: Silent failures after which the rest is not asked to go any more.
_PATIENCE: Final = 2


@dataclass(frozen=True, slots=True)
class Setup:
    """How a storage speaks to its servers: its own options. Times are in seconds.

    `keep`: names are used again. `max_body`: the largest body that is sent, in bytes; 0
    sends none.
    """

    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    deadline: float = DEADLINE
    keep: bool = False
    max_body: int = MAX_BODY


def probe(
    server: Server,
    setup: Setup,
    tell: Callable[[Finding], object],
    *,
    problem: ServerError | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Ask one server everything; `tell` is called with each finding as it is made.

    `problem` is what `Transport.probe(claim=False)` said of the server: with one,
    nothing is asked. Blocks; raises nothing for the server's sake. What is raised by
    others, KeyboardInterrupt too, comes out after the probe's files are removed.
    """
    if problem is not None:
        tell(findings.unreachable(server.name, problem))
        return
    pool = Pool(clock, setup.access)
    visit = Visit(server, setup, pool, clock)
    try:
        _ask_all(visit, tell)
    except ServerError as error:
        tell(findings.silent(server.name, error))
    finally:
        try:
            _clean_up(visit)
        finally:
            left = findings.left_behind(server.name, visit.files, visit.folders, visit.unsure)
            if left is not None:
                tell(left)
            pool.close()


def _clean_up(visit: Visit) -> None:
    """Once more, if it is broken off itself: who is impatient presses Ctrl-C just then."""
    try:
        visit.clean_up()
    except BaseException:
        visit.clean_up()
        raise


class Visit:
    """One server, and what the probe has made there. Used by one thread.

    `files` and `folders` hold names that may be there now; `unsure` those whose PUT or
    MKCOL had no answer. Each request raises `ServerError` when no answer comes.
    """

    def __init__(
        self, server: Server, setup: Setup, pool: Pool, clock: Callable[[], float]
    ) -> None:
        self.server = server
        self.setup = setup
        self.subject = Subject(server.name, keep=setup.keep)
        self.folder = f"outgrow-probe-{secrets.token_hex(16)}"
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.unsure: set[str] = set()
        self._replaced: set[str] = set()
        self.clock = clock
        self._pool = pool

    @property
    def has_folders(self) -> bool:
        """Whether the probe makes folders. Outgrow's own server would keep them for ever."""
        return self.subject.kind is not Kind.OWN

    def name(self, last: str) -> str:
        """The name of one of the probe's files on the server."""
        return f"{self.folder}{'/' if self.has_folders else '-'}{last}"

    def meet(self, kind: Kind) -> None:
        """Remember which program it is."""
        self.subject = Subject(self.server.name, kind, self.setup.keep)

    def get(self, name: str, **headers: str) -> Response:
        """Read a file, or ask in vain for one."""
        return self._send("GET", name, headers)

    def ask(self, method: str, name: str, **headers: str) -> Response:
        """Any request that has no body. In `headers`, ``If_Match`` stands for If-Match."""
        return self._send(method, name, headers)

    def put(
        self,
        name: str,
        body: bytes | FileBody,
        *,
        pool: Pool | None = None,
        **headers: str,
    ) -> Response:
        """Write a file of the probe's own, by another `pool` where one is given."""
        new, folders = name not in self.files, set(self.folders)
        self.files.add(name)
        self.unsure.add(name)
        if not new:
            self._replaced.add(name)
        self.folders.update(_above(name))
        outcome = self._run("PUT", name, headers, body, pool)
        answer = outcome.done.get(self.server)
        if outcome.failed or (answer and answer.status not in UNDECIDED):
            self.unsure.discard(name)
        if new and (outcome.failed or (answer and 300 <= answer.status < 500)):
            self.files.discard(name)
            self.folders = folders
        return self._answer(outcome)

    def put_deep(self, name: str, body: bytes) -> list[Response]:
        """The same, with the folder above it where the server wants that made (MKCOL)."""
        answers = [self.put(name, body)]
        if answers[0].status in HOMELESS and self.has_folders:
            answers.append(self._make_folder(_above(name)[-1]))
            answers.append(self.put(name, body))
        return answers

    def _make_folder(self, folder: str) -> Response:
        new = folder not in self.folders
        self.folders.add(folder)
        self.unsure.add(f"{folder}/")
        answer = self._send("MKCOL", f"{folder}/")
        if answer.status not in UNDECIDED:
            self.unsure.discard(f"{folder}/")
        if new and 300 <= answer.status < 500:
            self.folders.discard(folder)
        return answer

    def delete(self, name: str, **headers: str) -> Response:
        """Remove a file or a folder of the probe's own."""
        answer = self._send("DELETE", name, headers)
        if answer.status in DELETE_DONE:
            self.files.discard(name)
            if answer.status not in GONE and name not in self._replaced:
                self.unsure.discard(name)  # it was carried out, so it is not to come
            self.folders.discard(name.rstrip("/"))
        return answer

    def clean_up(self) -> None:
        """Remove what is left, the folders last. What can't be removed stays on the lists."""
        silent = 0
        deepest_first = sorted(self.folders, key=len, reverse=True)
        for name in (*sorted(self.files), *(f"{one}/" for one in deepest_first)):
            try:
                self.delete(name)
            except ServerError:
                silent += 1
            if silent == _PATIENCE:
                return

    def _send(
        self, method: str, name: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> Response:
        return self._answer(self._run(method, name, headers))

    def _run(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str],
        body: bytes | FileBody = b"",
        pool: Pool | None = None,
    ) -> Outcome:
        given = tuple((key.replace("_", "-"), text) for key, text in headers.items())
        request = Request(method, name, _ANY, given, body)
        if request.changes:
            self._check(name)
        return fanout.run(
            pool or self._pool,
            {self.server: request},
            need=1,
            deadline=self.clock() + self.setup.deadline,
            limits=self.setup.limits,
            clock=self.clock,
        )

    def _answer(self, outcome: Outcome) -> Response:
        for error in outcome.missed.values():
            raise error
        return outcome.done[self.server]

    def _check(self, name: str) -> None:
        """Law 1: nothing of anybody else's is changed. Raises ValueError, or UnsafeName."""
        names.check(name.removesuffix("/"))
        if not name.startswith((f"{self.folder}/", f"{self.folder}-")):
            raise ValueError(f"the probe must not change {name!r}: it has not made it")


def _above(name: str) -> list[str]:
    """The folders above a file, the outermost first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


# --- the checks, in the order in which they are asked


def _ask_all(visit: Visit, tell: Callable[[Finding], object]) -> None:
    for check in CHECKS:
        finding = check(visit)
        if finding is None:
            continue
        tell(finding)
        if finding.result is Result.BAD and finding.check in _FATAL:
            return


#: What is bad in one of these makes all that follows meaningless.
_FATAL: Final = frozenset({"missing", "folders", "put"})


def _missing(visit: Visit) -> Finding:
    answer = visit.get(visit.name("missing.txt"))
    visit.meet(recognise(answer))
    return findings.missing(visit.subject, answer)


def _identity(visit: Visit) -> Finding:
    return findings.identity(visit.subject, visit.get(names.MASTER_ID_FILE))


def _folders(visit: Visit) -> Finding | None:
    answers = visit.put_deep(visit.name("first.txt"), _FIRST)
    return findings.folders(visit.subject, *answers) if visit.has_folders else None


def _put(visit: Visit) -> Finding:
    name = visit.name("put.txt")
    answer = visit.put(name, _FIRST)
    return findings.stored(visit.subject, answer, visit.get(name), _FIRST)


def _overwrite(visit: Visit) -> Finding:
    name = visit.name("put.txt")
    answer = visit.put(name, _SECOND)
    return findings.overwrite(visit.subject, answer, visit.get(name), _SECOND)


def _stat(visit: Visit) -> Finding:
    answer = visit.ask("HEAD", visit.name("first.txt"))
    return findings.stat(visit.subject, answer, len(_FIRST))


def _exclusive(visit: Visit) -> Finding:
    answer = visit.put(visit.name("put.txt"), _SECOND, If_None_Match="*")
    return findings.exclusive(visit.subject, answer)


def _guarded(visit: Visit) -> Finding:
    answer = visit.delete(visit.name("put.txt"), If_Match='"outgrow-probe"')
    return findings.guarded(visit.subject, answer)


def _ranged(visit: Visit) -> Finding:
    first, last = 4, 19
    answer = visit.get(visit.name("first.txt"), Range=f"bytes={first}-{last}")
    return findings.ranged(visit.subject, answer, _FIRST, first, last)


def _names(visit: Visit) -> Finding:
    put = {last: visit.put(visit.name(last), last.encode()) for last in _NAMES}
    trips = {
        last: RoundTrip(put[last], visit.get(visit.name(last)), last.encode()) for last in _NAMES
    }
    return findings.names(visit.subject, trips)


def _browser(visit: Visit) -> Finding:
    pages = {}
    for extension, content in _PAGES.items():
        name = visit.name(f"page{extension}")
        visit.put(name, content)
        pages[extension] = visit.get(name)
    return findings.browser(visit.subject, pages)


def _dotfiles(visit: Visit) -> Finding:
    return findings.dotfiles(visit.subject, visit.get(f"{names.JOURNAL_FOLDER}/master"))


def _anonymous(visit: Visit) -> Finding | None:
    access = visit.setup.access
    if not _has_credentials(visit):
        return None
    pool = Pool(visit.clock, Access(ca=access.ca))
    try:
        reply: Response | ServerError = visit.put(visit.name("anonymous.txt"), _FIRST, pool=pool)
    except ServerError as error:
        reply = error
    finally:
        pool.close()
    return findings.anonymous(visit.subject, reply)


def _has_credentials(visit: Visit) -> bool:
    access = visit.setup.access
    return bool(access.certificate or access.authorization(visit.server.name))


def _addresses(visit: Visit) -> Finding:
    return findings.addresses(visit.subject, known=_has_credentials(visit))


def _listing(visit: Visit) -> Finding:
    folder = f"{visit.folder}/"
    propfind = visit.ask("PROPFIND", folder, Depth="1")
    return findings.listing(visit.subject, propfind, visit.get(folder), "first.txt")


def _deleted(visit: Visit) -> Finding:
    name = visit.name("first.txt")
    answer = visit.delete(name)
    return findings.deleted(visit.subject, answer, visit.get(name))


def _deleted_missing(visit: Visit) -> Finding:
    return findings.deleted_missing(visit.subject, visit.delete(visit.name("missing.txt")))


def _deleted_folder(visit: Visit) -> Finding:
    if not visit.has_folders:
        return findings.no_folders(visit.subject)
    folder = visit.name("folder")
    inside = f"{folder}/inside.txt"
    put = visit.put_deep(inside, _FIRST)[-1]
    if put.status not in PUT_DONE:
        return findings.refused(visit.subject, "folders", f"PUT: {put.status}", put.status)
    answer = visit.ask("DELETE", folder)
    return findings.deleted_folder(visit.subject, answer, visit.get(inside))


def _bodies(visit: Visit) -> Finding | None:
    sent: list[Sent] = []
    with tempfile.TemporaryFile() as file:
        for size in findings.sizes(visit.setup.max_body):
            os.ftruncate(file.fileno(), size)  # all zeros, and no room on the disk
            sent.append(_send_body(visit, FileBody(file.fileno(), size)))
            if not sent[-1].taken:
                break
            visit.delete(visit.name("body.bin"))
    return findings.bodies(visit.subject, sent, visit.setup.deadline) if sent else None


def _send_body(visit: Visit, body: FileBody) -> Sent:
    begin = visit.clock()
    try:
        reply: Response | ServerError = visit.put(visit.name("body.bin"), body)
    except ServerError as error:
        reply = error
    return Sent(body.size, reply, visit.clock() - begin)


CHECKS: Final[tuple[Callable[[Visit], Finding | None], ...]] = (
    _missing,
    _identity,
    _folders,
    _put,
    _overwrite,
    _stat,
    _ranged,
    _names,
    _browser,
    _dotfiles,
    _listing,
    _exclusive,
    _guarded,
    _anonymous,
    _addresses,
    _deleted,
    _deleted_missing,
    _deleted_folder,
    _bodies,
)
