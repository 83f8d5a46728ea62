"""The files of one media server: its listing, whichever kind it has, as one walk in order.

Asked in this turn: our own listing, and nginx's, below `LISTING`; then WebDAV. All three
are for the site's own machines alone; `docs/howto/media-servers.md` says how.

The laws:

1. Only GET and PROPFIND are sent: neither can change a file, whatever the target.
2. Memory does not depend on the number of files: a folder of more than some 50,000
   names is sorted through temporary files.
3. Files whose names this master would never send (dotfiles, for one) are left out, as
   servers keep half-written uploads there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote

from outgrow.download import PIECE, Download
from outgrow.endpoint import endpoint
from outgrow.errors import BadAnswer, NoListing, TimedOut, UnexpectedStatus
from outgrow.http import Request
from outgrow.media.listing import (
    OWN_TYPE,
    Autoindex,
    BadListing,
    Child,
    Entry,
    FolderParser,
    Lines,
    Multistatus,
    in_order,
)
from outgrow.media.walking import walk
from outgrow.names import MASTER_ID_FILE
from outgrow.servers import Server

#: Where our own server and nginx give their listings: no file can have such a name.
LISTING: Final = ".outgrow/list/"

#: Seconds: nginx and WebDAV servers look at each file of a folder before they say a word.
LISTING_TIMEOUT: Final = 60.0

#: Names in one listing: some 5 GB of temporary files. Nobody has so many on a few servers.
MOST: Final = 50_000_000

#: Seconds for a whole listing. One that takes longer drips, or never ends.
LISTING_DEADLINE: Final = 2 * 3600.0

#: What is asked of WebDAV: less than everything, which is slow.
_PROPFIND: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>"
)

Ask = Callable[[Request], Download]


class Lister:
    """Lists one server. `ask` makes a Download that is not open yet. Used by one thread."""

    def __init__(
        self, server: Server, ask: Ask, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.server = server
        self._ask = ask
        self._clock = clock
        self._until = 0.0

    def entries(self, prefix: str = "", *, digests: bool = False) -> Iterator[Entry]:
        """Every file whose name begins with `prefix`, in order.

        With `digests` the server is asked for SHA-256 sums; only our own gives them.
        Raises `NoListing` before the first entry when there is none, and another
        `ServerError` when the server fails or says what can't be.
        """
        folder = prefix[: prefix.rfind("/") + 1]
        self._until = self._clock() + LISTING_DEADLINE
        try:
            for entry in _limited(in_order(self._tree(folder, digests=digests))):
                if entry.name.startswith(prefix) and entry.name != MASTER_ID_FILE:
                    yield entry
        except BadListing as error:
            raise BadAnswer(self.server.name, f"its listing is not usable: {error}") from error

    def _tree(self, folder: str, *, digests: bool) -> Iterator[Entry]:
        want = (("Want-Repr-Digest", "sha-256=1"),) if digests else ()  # RFC 9530 §4
        request = Request("GET", LISTING + folder, frozenset({200}), want)
        with self._ask(request) as download:
            download.open()
            kind = download.headers.get("content-type", "").partition(";")[0]
            if download.status == 200 and kind == OWN_TYPE:
                yield from self._own(download)
                return
            is_nginx = download.status == 200 and kind == "application/json"
            refused = download.status
        if is_nginx or (folder and refused == 404 and self._has_autoindex()):
            yield from walk(self._autoindex, folder)
            return
        yield from self._webdav(folder, refused)

    def _own(self, download: Download) -> Iterator[Entry]:
        lines = Lines()
        for data in self._pieces(download):
            for entry in lines.feed(data):
                if not _is_hidden(entry.name):
                    yield entry
        lines.close()

    def _has_autoindex(self) -> bool:
        """Whether it is only this folder that nginx has not."""
        with self._ask(Request("HEAD", LISTING, frozenset({200}))) as download:
            download.open()
            return download.status == 200

    def _autoindex(self, folder: str) -> Iterator[Child]:
        yield from self._folder(Request("GET", LISTING + folder, frozenset({200})), Autoindex())

    def _webdav(self, folder: str, refused: int) -> Iterator[Entry]:
        """The tree by PROPFIND. `refused` is what became of the request before."""
        with self._ask(_propfind("", "0")) as download:
            download.open()
            status = download.status
        if status != 207:
            raise NoListing(
                self.server.name,
                f"has no listing: it answered GET {LISTING} with {refused} and PROPFIND with "
                f"{status}. Let this machine have one: see 'Listings' in the documentation "
                "of media servers",
            )
        yield from walk(self._propfind, folder)

    def _propfind(self, folder: str) -> Iterator[Child]:
        path = unquote(endpoint(self.server.address).target(folder))
        yield from self._folder(_propfind(folder, "1"), Multistatus(path))

    def _folder(self, request: Request, parser: FolderParser) -> Iterator[Child]:
        """What is in one folder; nothing when it has gone since it was seen."""
        with self._ask(request) as download:
            download.open()
            if download.status in {404, 410}:
                return
            if download.status not in request.accept:
                text = f"answered {request.method} {request.name!r} with {download.status}"
                raise UnexpectedStatus(self.server.name, download.status, text)
            for data in self._pieces(download):
                yield from parser.feed(data)
            parser.close()

    def _pieces(self, download: Download) -> Iterator[bytes]:
        while data := download.read(PIECE):
            if self._clock() > self._until:
                hours = LISTING_DEADLINE / 3600
                reason = f"its listing has no end after {hours:g} hours"
                raise TimedOut(self.server.name, reason)
            yield data


def _limited(entries: Iterator[Entry]) -> Iterator[Entry]:
    yield from islice(entries, MOST)
    if next(entries, None) is not None:
        raise BadListing(f"it has more than {MOST:,} names")


def _propfind(folder: str, depth: str) -> Request:
    headers = (("Depth", depth), ("Content-Type", "application/xml"))
    return Request("PROPFIND", folder, frozenset({207}), headers, _PROPFIND)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name
