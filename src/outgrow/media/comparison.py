"""What differs between what is wanted and what one media server has.

A server that has a listing is asked for that, and any other for each name by HEAD. Either
way this is how things were a moment ago, while the site goes on writing: who acts on a
difference looks at the master again, and whoever reports one looks at the server, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

from outgrow import names
from outgrow.errors import BadAnswer, NoListing, ServerError, UnexpectedStatus
from outgrow.fanout import DEADLINE, Outcome
from outgrow.media import listing
from outgrow.media.journal import Journal
from outgrow.media.listing import Difference, Entry, Wrong
from outgrow.media.transport import Transport
from outgrow.media.walking import ordered
from outgrow.servers import Server

#: Names that are asked for together, where there is no listing.
BATCH = 64


class Comparison:
    """Compares servers with the journal's files whose names begin with `prefix`.

    `failed` is called with what can't be read on the master, `progress` with each name
    that is wanted, and `unlisted` with the servers that are asked for each name, and why.
    """

    def __init__(
        self,
        journal: Journal,
        transport: Transport,
        *,
        prefix: str = "",
        failed: Callable[[str, OSError], None],
        progress: Callable[[str], None] = lambda _: None,
        unlisted: Callable[[Server, ServerError], None] = lambda *_: None,
    ) -> None:
        self._journal = journal
        self._transport = transport
        self._prefix = prefix
        self._failed = failed
        self._progress = progress
        self._unlisted = unlisted

    def differences(self, server: Server) -> Iterator[Difference]:
        """What differs, in order of the names. All is compared before the first is given.

        Without a listing, what is extra is found for deleted names alone. Raises
        `ServerError` when the server fails, and `OSError` without room to sort.
        """
        listed = self._transport.list(server, self._prefix)
        found = ordered(listing.compare(self._wanted(), listed), Difference.read)
        try:
            first = next(found, None)
        except (NoListing, BadAnswer, UnexpectedStatus) as error:
            self._unlisted(server, error)
            yield from ordered(self._ask(server), Difference.read)
            return
        if first is not None:
            yield first
            yield from found

    def _wanted(self) -> Iterator[Entry]:
        for entry in self._journal.entries(self._failed, self._prefix):
            self._progress(entry.name)
            yield entry

    # --- without a listing

    def _ask(self, server: Server) -> Iterator[Difference]:
        deleted = (name for name, _ in self._journal.tombstones())
        gone = (Entry(name, -1) for name in deleted if name.startswith(self._prefix))
        entries = chain(self._wanted(), gone)
        while batch := list(islice(entries, BATCH)):
            yield from self._ask_for(server, batch)

    def _ask_for(self, server: Server, batch: list[Entry]) -> Iterator[Difference]:
        asked = {entry.name: (server,) for entry in batch if names.is_safe(entry.name)}
        outcomes = self._transport.stat_all(asked, deadline=time.monotonic() + DEADLINE)
        for entry in batch:
            if entry.name not in asked:
                # Who acts on it finds out, and says, why it is not sent.
                yield Difference(entry.name, Wrong.MISSING, entry.size)
                continue
            difference = _judge(entry, server, outcomes[entry.name])
            if difference is not None:
                yield difference


def _judge(wanted: Entry, server: Server, outcome: Outcome) -> Difference | None:
    """What an answer to HEAD says of one name; a size of -1 stands for a deleted one."""
    response = outcome.done.get(server)
    if response is None:
        error = outcome.missed[server]
        if not isinstance(error, UnexpectedStatus) or error.status not in range(400, 429):
            raise error
        # It refuses this one name: whoever tries to mend it finds out why.
        return Difference(wanted.name, Wrong.DIFFERENT, wanted.size)
    if response.status != 200:
        missing = Difference(wanted.name, Wrong.MISSING, wanted.size)
        return None if wanted.size < 0 else missing
    length = response.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else -1
    if wanted.size == size:
        return None
    kind = Wrong.EXTRA if wanted.size < 0 else Wrong.DIFFERENT
    return Difference(wanted.name, kind, wanted.size, size)
