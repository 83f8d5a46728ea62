"""How media servers are spoken to: put, delete and stat one file on several of them.

The laws:

1. No request is sent for a name that `names.check` refuses, and none whose path
   ends in a slash, so that none can remove a folder (promise M8).
2. Before this process first writes to a server, and again after the server has
   failed, it reads the id of the master there. A server that holds another
   master's id, or has lost its own, is not written to: its folder may be
   unmounted, or this process may be a copy of the site with its settings.
3. That a file is there is believed of a server whose id says whose it is, where nobody else
   knows of the file: there are servers that answer 200 to every name.
4. A server that failed is left alone until it is due; then a small request finds
   out whether it is back, beside the upload and not in its way. Only when `need`
   can't be reached without it is it asked all the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol
from urllib.parse import unquote

from outgrow import fanout, names
from outgrow.access import Access
from outgrow.answer import Response
from outgrow.download import Download
from outgrow.errors import (
    AnotherMaster,
    CatalogueUnavailable,
    ForeignServer,
    ServerDown,
    ServerError,
    UnexpectedStatus,
)
from outgrow.exchange import Limits
from outgrow.fanout import Outcome
from outgrow.http import FileBody, Pool, Request
from outgrow.media.lister import LISTING_TIMEOUT, Lister
from outgrow.media.listing import Entry
from outgrow.servers import Health, Server

PUT_DONE: Final = frozenset({200, 201, 204})
DELETE_DONE: Final = frozenset({200, 204, 404, 410})
GET_DONE: Final = frozenset({200, 206})
STAT_DONE: Final = frozenset({200, 404, 410})
#: 405: the folder is there already (RFC 4918 §9.3.1).
MKCOL_DONE: Final = frozenset({200, 201, 204, 301, 405})

#: 32 hexadecimal digits of ours; a restored or hand-made one may look a little different.
_MASTER_ID: Final = re.compile(r"[0-9A-Za-z-]{8,64}")

#: Seconds for a small request of our own: reading or writing the master's id.
SMALL_REQUEST: Final = 5.0


#: Names, and for each the servers that are to be asked.
Wanting = Mapping[str, Sequence[Server]]


class Registry(Protocol):
    """What the transport needs to know of the master; the journal knows it."""

    @property
    def master_id(self) -> str:
        """The id that every media server of this master holds."""

    def is_claimed(self, server: str) -> bool:
        """Whether the server was given the id once."""

    def set_claimed(self, server: str, *, claimed: bool = True) -> None:
        """Remember that it was."""

    def owe_all(self, server: str) -> object:
        """Record that a server is owed everything, from this moment on."""


class Transport(Protocol):
    """What replication needs; users may give a storage another one."""

    @property
    def servers(self) -> Sequence[Server]:
        """All media servers."""

    def put(
        self, name: str, body: FileBody, *, servers: Iterable[Server], need: int, deadline: float
    ) -> Outcome:
        """Send a file. `deadline` is a reading of the monotonic clock, in seconds."""

    def delete(
        self, name: str, *, servers: Iterable[Server], deadline: float, need: int = 0
    ) -> Outcome:
        """Remove a file; a server that has none of that name has done it."""

    def stat(self, name: str, *, servers: Iterable[Server], deadline: float) -> Outcome:
        """Ask whether a file is there. The answers' Content-Length is its size."""

    def put_all(
        self, bodies: Mapping[str, FileBody], servers: Wanting, *, deadline: float
    ) -> dict[str, Outcome]:
        """Send several files, to the servers of each: what became of each. For repair.

        Whoever is named is asked, whatever its health; nobody is given up early.
        """

    def delete_all(self, servers: Wanting, *, deadline: float) -> dict[str, Outcome]:
        """Remove several files, each from its servers."""

    def stat_all(self, servers: Wanting, *, deadline: float) -> dict[str, Outcome]:
        """Ask for several files, each on its servers."""

    def list(self, server: Server, prefix: str = "", *, digests: bool = False) -> Iterator[Entry]:
        """Every file of one server whose name begins so, in order of the names.

        `digests` asks for SHA-256 sums, which few servers give. Raises `NoListing` for a
        server that has none, and other `ServerError`s, also between two entries.
        """

    def get(self, name: str, server: Server, *, offset: int = 0) -> Download:
        """Begin to read a file. Raises `ServerError`."""

    def probe(
        self, servers: Iterable[Server] | None = None, *, claim: bool = True
    ) -> dict[Server, ServerError | None]:
        """Ask each server for a sign of life and the master's id, whatever its health.

        A new server is given the id, unless `claim` is false.
        """

    def distrusted(self, servers: Iterable[Server]) -> dict[Server, ServerError]:
        """Those of the servers that are not believed to have what they say, and why."""


class HttpTransport:
    """Media servers over plain HTTP: PUT, DELETE, HEAD, and MKCOL where it is needed.

    Thread-safe; after a fork each process opens connections of its own. Nothing
    is sent before the first request. `conditional` is for names that are used
    again: a DELETE then names the version that was seen (law 1).
    """

    def __init__(
        self,
        servers: Sequence[Server],
        registry: Registry,
        *,
        health: Health | None = None,
        limits: Limits | None = None,
        access: Access | None = None,
        conditional: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.servers = tuple(servers)
        self.health = health or Health(clock)
        self._registry = registry
        self._limits = limits or Limits()
        self._conditional = conditional
        self._clock = clock
        self._pool = Pool(clock, access)
        self._verified: set[str] = set()
        self._trusted: set[str] = set()
        self._foreign: dict[str, ServerError] = {}

    # --- the requests

    def put(
        self, name: str, body: FileBody, *, servers: Iterable[Server], need: int, deadline: float
    ) -> Outcome:
        """See `Transport`. Makes missing folders where the server wants that done."""
        request = self._request("PUT", name, PUT_DONE, body=body)
        outcome = self._change(request, servers, need, deadline)
        homeless = [one for one, error in outcome.failed.items() if _lacks_folder(error, name)]
        if homeless:
            self._make_folders(name, homeless, deadline)
            again = self._run(dict.fromkeys(homeless, request), need, deadline)
            _supersede(outcome, again)
        return outcome

    def delete(
        self, name: str, *, servers: Iterable[Server], deadline: float, need: int = 0
    ) -> Outcome:
        """See `Transport`."""
        request = self._request("DELETE", name, DELETE_DONE)
        if self._conditional:
            return self._delete_seen(request, servers, need, deadline)
        return self._change(request, servers, need, deadline)

    def stat(self, name: str, *, servers: Iterable[Server], deadline: float) -> Outcome:
        """See `Transport`."""
        request = self._request("HEAD", name, STAT_DONE)
        chosen = tuple(servers)
        return self._run(dict.fromkeys(chosen, request), len(chosen), deadline)

    def put_all(
        self, bodies: Mapping[str, FileBody], servers: Wanting, *, deadline: float
    ) -> dict[str, Outcome]:
        """See `Transport`. Makes missing folders as `put` does."""
        requests = {
            name: self._request("PUT", name, PUT_DONE, body=body) for name, body in bodies.items()
        }
        outcomes = self._run_all(requests, servers, deadline)
        homeless: dict[str, list[Server]] = {}
        for name, outcome in outcomes.items():
            for server, error in outcome.failed.items():
                if _lacks_folder(error, name):
                    homeless.setdefault(name, []).append(server)
        if homeless:
            self._make_all_folders(homeless, deadline)
            again = {name: requests[name] for name in homeless}
            for name, later in self._run_all(again, homeless, deadline).items():
                _supersede(outcomes[name], later)
        return outcomes

    def delete_all(self, servers: Wanting, *, deadline: float) -> dict[str, Outcome]:
        """See `Transport`."""
        if self._conditional:
            return {
                name: self.delete(name, servers=asked, deadline=deadline, need=len(asked))
                for name, asked in servers.items()
            }
        requests = {name: self._request("DELETE", name, DELETE_DONE) for name in servers}
        return self._run_all(requests, servers, deadline)

    def stat_all(self, servers: Wanting, *, deadline: float) -> dict[str, Outcome]:
        """See `Transport`."""
        requests = {name: self._request("HEAD", name, STAT_DONE) for name in servers}
        return self._run_all(requests, servers, deadline)

    def get(self, name: str, server: Server, *, offset: int = 0) -> Download:
        """Begin to read a file on one server; the caller reads and closes it.

        With `offset` a range is asked for, and 206 or 200 is the answer. Raises
        `ServerError`: an `UnexpectedStatus` with 404 for a file that is not there.
        """
        request = self._request("GET", name, GET_DONE)
        if offset:
            ranged = (("Range", f"bytes={offset}-"),)
            request = replace(request, headers=request.headers + ranged)
        download = Download(self._pool, server, request, limits=self._limits, clock=self._clock)
        outcome = Outcome()
        try:
            download.open()
            if download.status not in GET_DONE:
                refused = Response(download.status, download.headers)
                raise fanout.unexpected(server, request, refused)
        except ServerError as error:
            download.close()
            outcome.failed[server] = error
            raise
        else:
            outcome.done[server] = Response(download.status)
        finally:
            self._learn({server: request}, outcome)
        return download

    def list(self, server: Server, prefix: str = "", *, digests: bool = False) -> Iterator[Entry]:
        """See `Transport`."""
        timeout = max(self._limits.timeout, LISTING_TIMEOUT)
        # It may be slow for as long as it likes to look at its disk, within reason.
        limits = replace(self._limits, timeout=timeout, floor=0)

        def ask(request: Request) -> Download:
            return Download(self._pool, server, request, limits=limits, clock=self._clock)

        return Lister(server, ask, self._clock).entries(prefix, digests=digests)

    def probe(
        self, servers: Iterable[Server] | None = None, *, claim: bool = True
    ) -> dict[Server, ServerError | None]:
        """See `Transport`."""
        asked = self.servers if servers is None else tuple(servers)
        until = self._clock() + SMALL_REQUEST
        return self._probe(asked, len(asked), until, claim=claim)

    def distrusted(self, servers: Iterable[Server]) -> dict[Server, ServerError]:
        """See `Transport`. Each is asked once in a process, and after a failure (law 3)."""
        known = self._verified | self._trusted
        unsure = [one for one in servers if one.name not in known]
        if not unsure:
            return {}
        asked = dict.fromkeys(unsure, self._ask_id())
        outcome = self._run(asked, len(unsure), self._clock() + SMALL_REQUEST)
        problems = dict(outcome.missed)
        master = None  # without the journal the form of an id must do
        with suppress(CatalogueUnavailable):
            master = self._registry.master_id
        for server, response in outcome.done.items():
            # A new one has no id yet. It knows what it has not, and that will do here.
            problem = _wrong_id(server, response, master) if response.status == 200 else None
            if problem is None:
                self._trusted.add(server.name)
            else:
                problems[server] = problem
        return problems

    def _request(
        self, method: str, name: str, accept: frozenset[int], body: bytes | FileBody = b""
    ) -> Request:
        return Request(method, names.check(name), accept, body=body)

    # --- whom to ask

    def _change(
        self, request: Request, servers: Iterable[Server], need: int, deadline: float
    ) -> Outcome:
        """Send a request that changes something to those that may be asked (laws 2 and 4)."""
        wanted = tuple(servers)
        # A full disk refuses files; what is deleted there makes room.
        able = [one for one in wanted if self.health.is_up(one, writes=request.method == "PUT")]
        unknown = [one for one in able if one.name not in self._verified]
        refused = self._verify(unknown, deadline)
        chosen = [one for one in able if self._is_ready(one, request)]
        if len(chosen) < need:
            others = [one for one in wanted if one not in chosen and one not in refused]
            refused |= self._verify(others, deadline)
            chosen = [one for one in wanted if one.name in self._verified]
        requests = dict.fromkeys(chosen, request)
        probed = [one for one in wanted if one not in chosen and self.health.due(one)]
        claimed = self._claimed(probed)
        asked = requests | dict.fromkeys(probed, self._ask_id(optional=True))
        outcome = self._run(asked, need, deadline)
        for server in probed:
            problem = self._judge(server, outcome, claimed, deadline)
            outcome.done.pop(server, None)
            outcome.unknown.pop(server, None)
            outcome.failed[server] = problem or self._down(server)
        if len(outcome.done) < need:
            self._ask_the_rest(request, wanted, requests, refused, outcome, deadline)
        for server in wanted:
            if server not in requests and server not in outcome.missed | outcome.done:
                outcome.failed[server] = refused.get(server) or self._down(server)
        return outcome

    def _ask_the_rest(
        self,
        request: Request,
        wanted: Iterable[Server],
        asked: Iterable[Server],
        refused: dict[Server, ServerError],
        outcome: Outcome,
        deadline: float,
    ) -> None:
        """Too few did it: ask those that were left alone, too (law 4)."""
        rest = [one for one in wanted if one not in asked and one not in refused]
        unsure = [one for one in rest if one.name not in self._verified]
        refused |= self._verify(unsure, deadline)
        chosen = [one for one in rest if one.name in self._verified]
        if chosen and self._clock() < deadline:
            need = len(chosen)
            _supersede(outcome, self._run(dict.fromkeys(chosen, request), need, deadline))

    def _is_ready(self, server: Server, request: Request) -> bool:
        writes = request.method == "PUT"
        return server.name in self._verified and self.health.is_up(server, writes=writes)

    def _down(self, server: Server) -> ServerError:
        if server.name in self._foreign:
            return self._foreign[server.name]
        reason = self.health.condition(server).reason or "it is back, and will be repaired"
        return ServerDown(server.name, f"was not asked, for a moment ago it failed: {reason}")

    def _run(self, requests: dict[Server, Request], need: int, deadline: float) -> Outcome:
        outcome = fanout.run(
            self._pool,
            requests,
            need=need,
            deadline=deadline,
            limits=self._limits,
            clock=self._clock,
        )
        self._learn(requests, outcome)
        return outcome

    def _run_all(
        self, requests: Mapping[str, Request], servers: Wanting, deadline: float
    ) -> dict[str, Outcome]:
        """Send each its request, many at a time, if the server is this master's (law 2)."""
        asked = {server for name in requests for server in servers[name]}
        unsure = [server for server in asked if server.name not in self._verified]
        refused = self._verify(unsure, deadline)
        pairs = [
            (server, requests[name])
            for name in requests
            for server in servers[name]
            if server not in refused
        ]
        outcomes = fanout.run_all(
            self._pool, pairs, deadline=deadline, limits=self._limits, clock=self._clock
        )
        for name, request in requests.items():
            outcome = outcomes.setdefault(name, Outcome())
            self._learn(dict.fromkeys(servers[name], request), outcome)
            for server in refused.keys() & set(servers[name]):
                outcome.failed[server] = refused[server]
        return outcomes

    def _learn(self, requests: Mapping[Server, Request], outcome: Outcome) -> None:
        """What an outcome says of the health of the servers."""
        fanout.report(self.health, requests, outcome)
        for server in outcome.missed:
            if not self.health.is_up(server):
                self._forget(server)

    def _forget(self, server: Server) -> None:
        """It is to be asked for its id again."""
        self._verified.discard(server.name)
        self._trusted.discard(server.name)

    # --- whose server it is

    def _verify(self, servers: Sequence[Server], deadline: float) -> dict[Server, ServerError]:
        """Read the master's id on each; claim those that are new. Returns the refused."""
        if not servers:
            return {}
        problems = self._probe(servers, 0, deadline)
        return {server: problem for server, problem in problems.items() if problem is not None}

    def _probe(
        self, servers: Sequence[Server], need: int, deadline: float, *, claim: bool = True
    ) -> dict[Server, ServerError | None]:
        claimed = self._claimed(servers)
        requests = dict.fromkeys(servers, self._ask_id())
        outcome = self._run(requests, need, self._soon(deadline))
        if not claim:
            # One that has no id, and was given none, is well; it is not written to yet.
            new = {one for one, got in outcome.done.items() if got.status != 200} - claimed
            return {
                server: None if server in new else self._judge(server, outcome, claimed, deadline)
                for server in servers
            }
        return {server: self._judge(server, outcome, claimed, deadline) for server in servers}

    def _soon(self, deadline: float) -> float:
        """The deadline of a small request within a larger piece of work."""
        return min(deadline, self._clock() + SMALL_REQUEST)

    def _claimed(self, servers: Iterable[Server]) -> set[Server]:
        """The servers that hold this master's id, as far as is known.

        Read before they are asked: another process may claim a new one meanwhile,
        and a 404 from before that does not mean that the id was lost.
        """
        return {server for server in servers if self._registry.is_claimed(server.name)}

    def _ask_id(self, *, optional: bool = False) -> Request:
        accept = frozenset({200, 404})
        return Request("GET", names.MASTER_ID_FILE, accept, optional=optional)

    def _judge(
        self, server: Server, outcome: Outcome, claimed: set[Server], deadline: float
    ) -> ServerError | None:
        """What the answer to `_ask_id` says; None when the server may be written to."""
        response = outcome.done.get(server)
        if response is None:
            return outcome.missed.get(server)
        if response.status != 200 and server not in claimed:
            problem = self._claim(server, deadline)
        else:
            problem = self._compare(server, response)
        if problem is None:
            self._verified.add(server.name)
            self._foreign.pop(server.name, None)
            return None
        self._forget(server)
        if isinstance(problem, ForeignServer):
            self._foreign[server.name] = problem
        self.health.failed(server, problem.reason)
        return problem

    def _compare(self, server: Server, response: Response) -> ServerError | None:
        if response.status != 200:
            return ForeignServer(
                server.name,
                f"lost {names.MASTER_ID_FILE}: its folder may be unmounted, or replaced. "
                "If it is meant to be empty, run: "
                f"manage.py outgrow media repair --server {server.name} --adopt",
            )
        problem = _wrong_id(server, response, self._registry.master_id)
        if problem is None and not self._registry.is_claimed(server.name):
            self._registry.set_claimed(server.name)
        return problem

    def _claim(self, server: Server, deadline: float) -> ServerError | None:
        """Give a new server this master's id, and owe it everything that is there already.

        Then the id is read again: another process may have been quicker (412), or
        may have won afterwards where If-None-Match is ignored.
        """
        self._registry.owe_all(server.name)
        headers = (("If-None-Match", "*"),)
        body = (self._registry.master_id + "\n").encode("ascii")
        request = Request("PUT", names.MASTER_ID_FILE, PUT_DONE | {412}, headers, body)
        outcome = self._run({server: request}, 1, self._soon(deadline))
        if outcome.done:
            outcome = self._run({server: self._ask_id()}, 1, self._soon(deadline))
        response = outcome.done.get(server)
        return self._compare(server, response) if response else outcome.missed[server]

    # --- servers that need more than one request

    def _make_folders(self, name: str, servers: Sequence[Server], deadline: float) -> None:
        """MKCOL for each folder above `name`, the outermost first (RFC 4918 §9.3)."""
        parts = name.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count]) + "/"
            request = Request("MKCOL", folder, MKCOL_DONE)
            self._run(dict.fromkeys(servers, request), 0, deadline)

    def _make_all_folders(self, wanting: Wanting, deadline: float) -> None:
        """The same for many names, each folder once."""
        needed: dict[str, set[Server]] = {}
        for name, servers in wanting.items():
            needed.setdefault(name.rpartition("/")[0], set()).update(servers)
        for folder, homeless in needed.items():
            self._make_folders(f"{folder}/", tuple(homeless), deadline)

    def _delete_seen(
        self, request: Request, servers: Iterable[Server], need: int, deadline: float
    ) -> Outcome:
        """DELETE only what is seen to be a file, in the version that is seen.

        lighttpd and Apache remove a folder, and all below it, for a DELETE without
        a slash; a name that is used again may have become a folder. Between the
        HEAD and the DELETE there is a race on servers that ignore If-Match (nginx,
        which answers 409 to a folder).
        """
        look = replace(request, method="HEAD", accept=STAT_DONE)
        seen = self._change(look, servers, need, deadline)
        outcome = Outcome(failed=dict(seen.failed), unknown=dict(seen.unknown))
        for server, error in seen.failed.items():
            if _is_folder(error, request.name):
                del outcome.failed[server]
                outcome.done[server] = Response(404)
        requests = {}
        for server, response in seen.done.items():
            if response.status != 200:
                outcome.done[server] = response
            elif response.headers.keys().isdisjoint({"etag", "last-modified"}):
                # A listing that the server made has neither; nobody may find out by DELETE.
                reason = (
                    "shows no version of it, so it may be a folder, and was not asked to delete"
                )
                outcome.failed[server] = UnexpectedStatus(server.name, 200, reason)
            else:
                tag = response.headers.get("etag", "")
                match = (("If-Match", tag),) if _is_strong(tag) else ()
                requests[server] = replace(request, headers=request.headers + match)
        _supersede(outcome, self._run(requests, 0, deadline))
        return outcome


def _wrong_id(server: Server, response: Response, master: str | None) -> ForeignServer | None:
    """What is wrong with the id that a server holds; None when it is that of this master."""
    held = response.body.decode("latin-1").strip()
    if held == master:
        return None
    if not _MASTER_ID.fullmatch(held):
        return ForeignServer(
            server.name,
            f"answers GET {names.MASTER_ID_FILE} with {held[:40]!r}, which is no master's id. "
            "Does it answer so to every name? Let it answer 404 for files that are missing",
        )
    if master is None:
        return None
    return AnotherMaster(
        server.name,
        f"belongs to the master {held[:40]!r}, and this one is {master!r}. Is MEDIA_ROOT "
        "mounted, and are these the media servers of this site?",
    )


def _supersede(outcome: Outcome, later: Outcome) -> None:
    """Let what a later request found replace what an earlier one did."""
    for server in (*later.done, *later.missed):
        outcome.failed.pop(server, None)
    outcome.done |= later.done
    outcome.failed |= later.failed
    outcome.unknown |= later.unknown


def _lacks_folder(error: ServerError, name: str) -> bool:
    """Whether a PUT may do once its folder is there (RFC 4918 §9.7.1)."""
    return isinstance(error, UnexpectedStatus) and error.status == 409 and "/" in name


def _is_folder(error: ServerError, name: str) -> bool:
    """Whether a server answered that this name is a folder: it redirects to `name/`."""
    if not isinstance(error, UnexpectedStatus) or error.location is None:
        return False
    return 300 <= error.status < 400 and unquote(error.location).endswith(f"/{name}/")


def _is_strong(tag: str) -> bool:
    """If-Match compares strongly, so a weak tag never matches (RFC 9110 §13.1.1)."""
    return tag.startswith('"') and all(32 < ord(character) < 127 for character in tag)
