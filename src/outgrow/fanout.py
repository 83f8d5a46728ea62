"""The same request to several servers at once, from one thread.

The laws:

1. Every server ends as one of three: *done* (it said so), *failed* (it surely did
   not and will not), *unknown* (the whole request was handed to the kernel and no
   answer came: it may be carried out at any later time, promise M5).
2. A request is sent again only if it changes nothing, or if its last byte was
   never handed to the kernel. A repeated PUT or DELETE is how files come back
   from the dead.
3. The fan-out ends when all have answered; or when `need` are done and those
   left have made no progress for `PATIENCE`; or at the deadline. Optional requests
   count for none of this. Past the deadline nothing is sent at all.
4. One server's failure never touches another's request.
"""

from __future__ import annotations

import selectors
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from outgrow.answer import Response
from outgrow.errors import (
    BadAnswer,
    ConnectFailed,
    ConnectionLost,
    FileCut,
    OutOfTime,
    ServerDown,
    ServerError,
    TimedOut,
    UnexpectedStatus,
)
from outgrow.exchange import Exchange, Limits
from outgrow.http import Pool, Request
from outgrow.servers import Health, Server

#: Seconds without progress after which the stragglers are no longer waited for.
#: Swift's post_quorum_timeout.
PATIENCE = 0.5

#: Seconds for a whole save or delete on all servers. Below the 30 s after which
#: gunicorn's sync workers are killed by default.
DEADLINE = 25.0

#: Requests that `run_all` has on their way to one server. More than the server has
#: processors is of little use, and each costs it a connection.
AT_ONCE = 4

#: Errors after which a server is not asked for the rest.
SILENT = (ConnectFailed, ConnectionLost, TimedOut, BadAnswer)

#: Whole answers that do not say what became of the request: 202 was accepted
#: for later; 502 and 504 come from a gateway that may have passed it on
#: (RFC 9110 §15.3.3, §15.6.3, §15.6.5).
UNDECIDED = frozenset({202, 502, 504})


#: Seconds for which a server is left alone at most because it says so (Retry-After).
#: Then a small request asks it again: nobody's typing error keeps it out for a year.
LONGEST_PAUSE = 600.0

#: And at least: an answer of 0 would have each process ask it again at once.
SHORTEST_PAUSE = 1.0


@dataclass(slots=True)
class Outcome:
    """What became of the same request on several servers. Each is in one of the three."""

    done: dict[Server, Response] = field(default_factory=dict)
    failed: dict[Server, ServerError] = field(default_factory=dict)
    unknown: dict[Server, ServerError] = field(default_factory=dict)

    @property
    def missed(self) -> dict[Server, ServerError]:
        """Those that did not confirm, with their reasons."""
        return self.failed | self.unknown


def run(
    pool: Pool,
    requests: Mapping[Server, Request],
    *,
    need: int,
    deadline: float,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Send each server its request, all at once, and sort the answers.

    `need` is how many must be done before stragglers are given up; `deadline` is
    a reading of `clock`, in seconds. Blocks until then at most. Raises nothing
    for a server's sake. Thread-safe.
    """
    outcome = Outcome()
    exchanges = [Exchange(server, one, pool, limits, clock) for server, one in requests.items()]
    if clock() >= deadline:
        for exchange in exchanges:
            exchange.abandon(OutOfTime(exchange.server.name, "was not asked: the time was over"))
            _settle(exchange, outcome)
        return outcome
    try:
        with selectors.PollSelector() as selector:
            _Loop(selector, outcome, need, deadline, clock).run(exchanges)
    finally:
        for exchange in exchanges:
            exchange.close()
    return outcome


def run_all(
    pool: Pool,
    requests: Iterable[tuple[Server, Request]],
    *,
    deadline: float,
    at_once: int = AT_ONCE,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Outcome]:
    """Send each server many requests, `at_once` at a time; what became of each name.

    A name comes once for each server at most. A server that can't be reached, or falls silent,
    is not sent the rest. Otherwise as `run` that waits for all; for what need not wait
    for stragglers: repair.
    """
    queue = _Queue(pool, limits, clock, deadline, at_once)
    for server, request in requests:
        queue.add(server, request)
    try:
        with selectors.PollSelector() as selector:
            queue.run(selector)
    finally:
        queue.close()
    return queue.outcomes


def report(health: Health, requests: Mapping[Server, Request], outcome: Outcome) -> None:
    """Tell `health` what the outcome of `requests` says of each server.

    Connect errors, time-outs, nonsense and 5xx count against a server; 507 stops
    writes only; 429 counts, for it is about the number of requests; no other 4xx does,
    or hostile names could take all servers down. A server that names a time (Retry-After)
    is left alone for that long, within `LONGEST_PAUSE`. A server that was still busy at the
    deadline is slow, not dead; a file that was cut is our own fault. A read that went
    well does not end a stop of writes, unless it was the probe that was due.
    """
    for server in outcome.done:
        request = requests[server]
        health.ok(server, writes=request.changes or request.optional)
    for server, error in outcome.missed.items():
        if isinstance(error, (OutOfTime, FileCut)):
            continue
        if not isinstance(error, UnexpectedStatus):
            health.failed(server, error.reason)
        elif error.status == 429 or error.status >= 500:
            full = error.status == 507
            health.failed(server, error.reason, writes_only=full, pause=_pause(error))


def _pause(error: UnexpectedStatus) -> float | None:
    """For how many seconds the server wants to be left alone, within reason."""
    if error.retry_after is None:
        return None
    return min(max(error.retry_after, SHORTEST_PAUSE), LONGEST_PAUSE)


def unexpected(server: Server, request: Request, response: Response) -> UnexpectedStatus:
    """The error of a whole answer that does not mean success."""
    return UnexpectedStatus(
        server.name,
        response.status,
        _describe(request, response),
        response.headers.get("location"),
        response.retry_after,
    )


def _settle(exchange: Exchange, outcome: Outcome) -> None:
    """Sort one finished exchange into the outcome."""
    server, request = exchange.server, exchange.request
    response, error = exchange.response, exchange.error
    if response is not None and response.status in request.accept:
        outcome.done[server] = response
        return
    undecided = exchange.sent_all and error is not None
    if response is not None:
        error = unexpected(server, request, response)
        undecided = exchange.sent_all and response.status in UNDECIDED
    assert error is not None  # an exchange ends with one of the two
    if undecided and request.changes:
        outcome.unknown[server] = error
    else:
        outcome.failed[server] = error


#: What to do about an answer, by its status.
_ADVICE = {
    401: "it wants other credentials: look at the options 'credentials' and 'token'",
    403: "it does not let this machine write: look at its access rules",
    404: "it has no such place: is the path in 'servers' right?",
    405: "it does not allow {method}: is WebDAV on for this path?",
    409: "a folder is missing there, or stands in the file's place",
    413: "it limits the size of bodies",
    414: "it limits the length of names",
    423: "somebody has locked the file there",
    429: "it is asked too often: it is left alone",
    500: "its error log says why; often its user may not write to the folder",
    501: "it does not know {method}: is WebDAV on for this path?",
    502: "what stands behind it does not answer",
    503: "it takes no requests now: it is left alone",
    504: "what stands behind it does not answer",
    507: "its disk is full",
}

#: What nginx and Apache write on the page of a 400 about TLS.
_COMPLAINTS = (
    (b"No required SSL certificate", "it wants a client certificate: set 'certificate' and 'key'"),
    (b"SSL certificate error", "it does not accept our certificate: look at 'certificate'"),
    (b"HTTPS port", "it speaks TLS there: write https:// in 'servers'"),
    (b"SSL-enabled server port", "it speaks TLS there: write https:// in 'servers'"),
)


def _describe(request: Request, response: Response) -> str:
    """A refused request as a phrase, with what to do where the status says it."""
    text = f"answered {request.method} with {response.status}"
    advice = _ADVICE.get(response.status, "").format(method=request.method)
    if response.status == 410 and request.method == "PUT":
        # Our own server, which a storage of unique names never asks twice.
        advice = "it holds this name for deleted: was it restored by hand?"
    if response.status == 400:
        advice = next((what for part, what in _COMPLAINTS if part in response.body), "")
    if 300 <= response.status < 400:
        advice = (
            f"a redirect to {response.headers.get('location', '?')[:80]!r} is not followed: "
            "write the address itself in 'servers'"
        )
    if response.retry_after is not None:
        advice = f"{advice + ', ' if advice else ''}for {response.retry_after:g} s, as it says"
    return f"{text} ({advice})" if advice else text


class _Loop:
    """Waits for several exchanges at once."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        outcome: Outcome,
        need: int,
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self._selector = selector
        self._outcome = outcome
        self._need = need
        self._deadline = deadline
        self._clock = clock
        #: When the last request that counts ended, and how many are done.
        self._ended_at: float | None = None
        self._done = 0
        self._waiting: set[Exchange] = set()
        #: What the selector knows: the descriptor and mask of each exchange.
        self._known: dict[Exchange, tuple[int, int]] = {}

    def run(self, exchanges: list[Exchange]) -> None:
        started = self._clock()
        self._waiting.update(exchanges)
        for exchange in exchanges:
            exchange.start()
            self._after(exchange)
        while self._waiting:
            now = self._clock()
            limit = self._limit(started)
            if now >= limit:
                self._give_up(now)
                return
            until = min(limit, *(exchange.due for exchange in self._waiting))
            for key, mask in self._selector.select(max(0.0, until - now)):
                self._step(key.data, mask)
            self._expire()

    def _limit(self, started: float) -> float:
        """When to stop waiting (law 3)."""
        asked = [exchange for exchange in self._waiting if not exchange.request.optional]
        ended_at = self._ended_at
        if not asked:
            return min(self._deadline, (started if ended_at is None else ended_at) + PATIENCE)
        if ended_at is None or self._done < self._need:
            return self._deadline
        moved = max(exchange.progress_at for exchange in asked)
        return min(self._deadline, max(moved, ended_at) + PATIENCE)

    def _step(self, exchange: Exchange, mask: int) -> None:
        exchange.handle(mask)
        self._after(exchange)

    def _expire(self) -> None:
        now = self._clock()
        for exchange in [one for one in self._waiting if now >= one.due]:
            exchange.expire()
            self._after(exchange)

    def _after(self, exchange: Exchange) -> None:
        if not exchange.finished:
            self._register(exchange)
            return
        self._forget(exchange)
        self._waiting.discard(exchange)
        _settle(exchange, self._outcome)
        if not exchange.request.optional:
            self._ended_at = self._clock()
            self._done += exchange.server in self._outcome.done

    def _register(self, exchange: Exchange) -> None:
        wanted = (exchange.descriptor, exchange.interest)
        known = self._known.get(exchange)
        if known == wanted:
            return
        if known is not None:
            self._selector.unregister(known[0])
        self._selector.register(wanted[0], wanted[1], exchange)
        self._known[exchange] = wanted

    def _forget(self, exchange: Exchange) -> None:
        known = self._known.pop(exchange, None)
        if known is not None:
            self._selector.unregister(known[0])

    def _give_up(self, now: float) -> None:
        for exchange in self._waiting:
            self._forget(exchange)
            silent = now - exchange.progress_at
            name = exchange.server.name
            if now >= self._deadline and silent < PATIENCE:
                exchange.abandon(OutOfTime(name, "was still busy when the time was over"))
            elif silent < PATIENCE + exchange.sync_time:
                exchange.abandon(OutOfTime(name, "was still writing when the others were done"))
            else:
                exchange.abandon(TimedOut(name, f"made no progress for {silent:.1f} s"))
            _settle(exchange, self._outcome)
        self._waiting.clear()


class _Queue:
    """Many requests for each of several servers, some of them on their way."""

    def __init__(
        self,
        pool: Pool,
        limits: Limits,
        clock: Callable[[], float],
        deadline: float,
        at_once: int,
    ) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._deadline = deadline
        self._at_once = at_once
        self._queued: dict[Server, deque[Request]] = {}
        self._waiting: set[Exchange] = set()
        #: What the selector knows: the descriptor and mask of each exchange.
        self._known: dict[Exchange, tuple[int, int]] = {}
        self._sent: Counter[Server] = Counter()

    def add(self, server: Server, request: Request) -> None:
        self._queued.setdefault(server, deque()).append(request)
        self.outcomes.setdefault(request.name, Outcome())

    def run(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        for server in self._queued:
            self._fill(server)
        while self._waiting:
            now = self._clock()
            if now >= self._deadline:
                break
            until = min(self._deadline, *(exchange.due for exchange in self._waiting))
            for key, mask in selector.select(max(0.0, until - now)):
                key.data.handle(mask)
                self._after(key.data)
            self._expire()
        self._give_up()

    def close(self) -> None:
        for exchange in self._waiting:
            exchange.close()

    def _fill(self, server: Server) -> None:
        queued = self._queued[server]
        while queued and self._sent[server] < self._at_once and self._clock() < self._deadline:
            request = queued.popleft()
            exchange = Exchange(server, request, self._pool, self._limits, self._clock)
            self._sent[server] += 1
            self._waiting.add(exchange)
            exchange.start()
            self._follow(exchange)

    def _after(self, exchange: Exchange) -> None:
        if not self._follow(exchange):
            self._fill(exchange.server)

    def _follow(self, exchange: Exchange) -> bool:
        """Whether it goes on; if not, it is sorted."""
        known = self._known.get(exchange)
        if not exchange.finished:
            wanted = (exchange.descriptor, exchange.interest)
            if known == wanted:
                return True
            if known is not None:
                self._selector.unregister(known[0])
            self._selector.register(*wanted, exchange)
            self._known[exchange] = wanted
            return True
        if known is not None:
            self._selector.unregister(known[0])
            del self._known[exchange]
        self._waiting.discard(exchange)
        self._settle(exchange)
        return False

    def _settle(self, exchange: Exchange) -> None:
        server = exchange.server
        self._sent[server] -= 1
        _settle(exchange, self.outcomes[exchange.request.name])
        if isinstance(exchange.error, SILENT):
            reason = f"was not asked, for a moment ago it failed: {exchange.error.reason}"
            self._refuse(server, ServerDown(server.name, reason))

    def _refuse(self, server: Server, error: ServerError) -> None:
        """Sort what is still queued for a server: it surely did not do it."""
        queued = self._queued[server]
        while queued:
            self.outcomes[queued.popleft().name].failed[server] = error

    def _expire(self) -> None:
        now = self._clock()
        for exchange in [one for one in self._waiting if now >= one.due]:
            exchange.expire()
            self._after(exchange)

    def _give_up(self) -> None:
        """The time is over: what is on its way is unknown, and the rest was never sent."""
        for server in self._queued:
            self._refuse(server, OutOfTime(server.name, "was not asked: the time was over"))
        for exchange in list(self._waiting):
            text = "was still busy when the time was over"
            exchange.abandon(OutOfTime(exchange.server.name, text))
            self._follow(exchange)
