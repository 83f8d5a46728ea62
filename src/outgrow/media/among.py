"""What media servers have, compared with each other: where nothing says what should be there.

The laws:

1. Every listing is read to its end first, so that no server waits for another. Memory does
   not depend on the number of files.
2. What differs is looked at again, on every server, before it is told: the site goes on.
3. Nobody is right. A file is missing where another server has it; of two sizes that counts
   which more servers have, or the larger one, for a file that was cut is the commoner
   accident. So nothing is mended here.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import cast

from outgrow import names
from outgrow.errors import NoCopy, NoListing, ServerError
from outgrow.fanout import DEADLINE
from outgrow.media.listing import Entry
from outgrow.media.transport import Transport
from outgrow.media.verify import DIFFERENT, MISSING, Finding, Verdict, Verification, is_refusal
from outgrow.media.walking import ordered
from outgrow.servers import Server


class Among:
    """Compares the servers of one transport with each other. One run at a time.

    `only` limits what is told to servers of these names, and `prefix` to files.
    """

    def __init__(self, transport: Transport, *, only: Iterable[str] = (), prefix: str = "") -> None:
        self._transport = transport
        self._only = set(only)
        self._prefix = prefix
        self._verdicts: dict[Server, Verdict] = {}

    def run(self, progress: Callable[[str], None] = lambda _: None) -> Verification:
        """Compare. `progress` is called with each name. Raises `OSError` without room to sort."""
        servers = self._transport.servers
        self._verdicts = {server: Verdict(server.name) for server in servers}
        for server, problem in self._transport.probe(servers, claim=False).items():
            if problem is not None:
                self._verdicts[server].down = problem.reason
        listed = [self._listing(server) for server in self._up]
        up = [self._verdicts[server] for server in self._up]
        if up and not any(verdict.listed for verdict in up):
            raise NoCopy(
                "No media server says which files it has, so there is nothing to compare. Let one "
                "of them have a listing; see the page on media servers."
            )
        together = heapq.merge(*listed, key=itemgetter(0))
        for name, group in groupby(together, key=itemgetter(0)):
            progress(name)
            self._compare(name, {server: size for _, server, size in group})
        chosen = [one for one in self._verdicts.values() if one.server in self._only]
        return Verification(chosen if self._only else list(self._verdicts.values()))

    @property
    def _up(self) -> list[Server]:
        return [server for server, verdict in self._verdicts.items() if not verdict.down]

    def _listing(self, server: Server) -> Iterator[tuple[str, Server, int]]:
        """What a server has, in order of the names; nothing if it does not say (law 1)."""
        rows = ordered(self._transport.list(server, self._prefix), _entry)
        try:
            first = next(rows, None)
        except NoListing:
            self._verdicts[server].listed = False
            first = None
        except ServerError as error:
            self._verdicts[server].down = error.reason
            first = None
        if first is None:
            return iter(())
        return self._rows(server, first, rows)

    @staticmethod
    def _rows(
        server: Server, first: Entry, rows: Iterator[Entry]
    ) -> Iterator[tuple[str, Server, int]]:
        yield first.name, server, first.size
        for row in rows:
            yield row.name, server, row.size

    def _compare(self, name: str, sizes: dict[Server, int]) -> None:
        up = self._up
        sizes = {server: size for server, size in sizes.items() if server in up}
        for server in up:
            self._verdicts[server].compared += 1
        if not names.is_safe(name):
            return  # no storage has saved it, and it can't be asked for
        if len(sizes) < len(up) or len(set(sizes.values())) > 1:
            sizes = self._ask(name, up)
        present = Counter(size for size in sizes.values() if size >= 0)
        if not present:
            return  # deleted meanwhile
        right = max(present, key=lambda size: (present[size], size))
        for server, size in sizes.items():
            if size != right:
                what = MISSING if size < 0 else DIFFERENT
                self._verdicts[server].note(Finding(server.name, name, what, right, size))

    def _ask(self, name: str, servers: list[Server]) -> dict[Server, int]:
        """The size of a file on each server that answers; -1 where it is not (law 2)."""
        until = time.monotonic() + DEADLINE
        outcome = self._transport.stat(name, servers=servers, deadline=until)
        sizes = {}
        for server, response in outcome.done.items():
            length = response.headers.get("content-length", "")
            sizes[server] = -1
            if response.status == 200:
                sizes[server] = int(length) if length.isdecimal() else 0
        for server, error in outcome.missed.items():
            if is_refusal(error):
                sizes[server] = -1  # of this one name
            else:
                self._verdicts[server].down = error.reason
        return sizes


def _entry(row: Iterable[object]) -> Entry:
    return Entry(*cast("Entry", row))
