"""What a media server really does: asked with files of the probe's own, then taken away.

`outgrow.media.findings` says what the answers mean; this module asks, one server at a
time and one request after the other. `outgrow.media.visit` holds the laws that keep
it from doing harm; to them comes one: a server that holds another master's id, or has
lost its own, is not written to.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Final

from outgrow import names
from outgrow.access import Access
from outgrow.answer import Response
from outgrow.errors import ServerError
from outgrow.findings import Finding, Result
from outgrow.http import FileBody, Pool
from outgrow.media import findings
from outgrow.media.findings import PUT_DONE, RoundTrip, Sent
from outgrow.media.lister import LISTING
from outgrow.media.remedies import recognise
from outgrow.media.visit import Setup, Visit
from outgrow.servers import Server

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
    page = visit.get(f"{LISTING}{folder}")
    propfind = visit.ask("PROPFIND", folder, Depth="1")
    return findings.listing(visit.subject, propfind, page, "first.txt")


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
            visit.delete(_body_name(visit, size))
    return findings.bodies(visit.subject, sent, visit.setup.deadline) if sent else None


def _send_body(visit: Visit, body: FileBody) -> Sent:
    begin = visit.clock()
    try:
        reply: Response | ServerError = visit.put(_body_name(visit, body.size), body)
    except ServerError as error:
        reply = error
    return Sent(body.size, reply, visit.clock() - begin)


def _body_name(visit: Visit, size: int) -> str:
    """Another one for each: what was deleted is gone for good on Outgrow's own server."""
    return visit.name(f"body-{size}.bin")


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
