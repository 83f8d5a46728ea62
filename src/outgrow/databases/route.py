"""What one request or task has done to each cluster, and where it reads.

The laws:

1. Facts (wrote, wanted, the server that was chosen) are in one object that changes,
   held by a context variable. Threads and asyncio tasks of a request see the same
   object; one that is bound anew in a child would not be seen by its parent.
2. Overrides are a second variable, which holds an immutable list. It is left by
   setting the list that was there before: a token can't be reset in another context
   (asgiref#534), and one slot for what was before breaks when blocks are nested.
3. A route is closed at the end of its request. Tasks that outlive the request find it
   closed, and are outside of any request: they read the primary.
4. What was written is never forgotten within a route, whoever asks for a replica.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from outgrow.databases.position import Position

PRIMARY: Final = "primary"
REPLICA: Final = "replica"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a server must have replayed to serve a client.

    All of `positions`, which can't be compared with each other. With `pin` nothing but
    the primary will do: the position could not be read, or there are none.
    """

    positions: tuple[Position, ...] = ()
    pin: bool = False

    def __bool__(self) -> bool:
        return self.pin or bool(self.positions)

    def merged(self, other: Wanted) -> Wanted:
        """What has both."""
        positions = list(self.positions)
        for position in other.positions:
            _add(positions, position)
        return Wanted(tuple(positions), self.pin or other.pin)

    def reached_by(self, replayed: Position | None) -> bool:
        """Whether a server at this position has all of it, as far as can be told."""
        if self.pin:
            return False
        if not self.positions:
            return True
        if replayed is None:
            return False
        return all(position.reached_by(replayed) is True for position in self.positions)


NOTHING: Final = Wanted()
PIN: Final = Wanted(pin=True)


def _add(positions: list[Position], new: Position) -> None:
    for index, old in enumerate(positions):
        both = old.merged(new)
        if both is not None:
            positions[index] = both
            return
    positions.append(new)


@dataclass(slots=True, eq=False)
class Leg:
    """The facts of one route about one cluster.

    `server` is the alias that serves its reads, once it is chosen, and `tried` has those that
    failed it. `wrote` pins the reads that follow to the primary. `stale`: it was served by a
    replica that lacks what its client wrote, or may lack it. `wait` is the route's.
    """

    wanted: Wanted = NOTHING
    wrote: bool = False
    server: str = ""
    stale: bool = False
    tried: set[str] = field(default_factory=set)
    wait: float | None = None
    _report: Leg | None = None

    def report(self) -> Leg:
        """The leg of those reads that may be behind what was written: they want nothing.

        For who has written something the response may be stale from then on.
        """
        if self._report is None:
            self._report = Leg(wait=self.wait)
        if self.wanted or self.wrote:
            self.stale = True
        return self._report


@dataclass(slots=True, eq=False)
class Route:
    """The facts of one request or task. `default` is where it reads if nothing else is said.

    `wanted` is what the client has written before, and `defaults` where a single cluster
    is read, by the alias of the primary. Used by all threads of the request; its changes are
    single steps.

    `wait` is a task's: it may write wherever it reads, and waits up to so many seconds for a
    replica that has what it wants. None is a request's, which goes by the options.
    """

    default: str = PRIMARY
    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    #: The clusters for which Django would have opened a transaction around the view, had it
    #: been to write (ATOMIC_REQUESTS).
    atomic: set[str] = field(default_factory=set)
    legs: dict[str, Leg] = field(default_factory=dict)
    is_open: bool = True
    wait: float | None = None

    def leg(self, cluster: str) -> Leg:
        """The facts about the cluster with this primary."""
        found = self.legs.get(cluster)
        if found is None:
            new = Leg(self.wanted.get(cluster, NOTHING), wait=self.wait)
            found = self.legs.setdefault(cluster, new)
        return found

    def written(self) -> list[str]:
        """The primaries of the clusters that were written to."""
        return [cluster for cluster, leg in list(self.legs.items()) if leg.wrote]

    def close(self) -> None:
        """End it: who still holds it is outside of any request now."""
        self.is_open = False


class Override(NamedTuple):
    """One block in which `mode` holds, for these clusters or for all; `outer` is around it.

    With `stale` a replica may serve what is older than what was written. `owner` is who ends
    the block, and `own` the route that was made for it, when there was none.
    """

    mode: str
    clusters: frozenset[str]
    stale: bool
    owner: object
    outer: Override | None
    own: Route | None = None

    def of(self, cluster: str) -> Override | None:
        """The innermost block that says something about this cluster."""
        block: Override | None = self
        while block is not None and block.clusters and cluster not in block.clusters:
            block = None if block.own is not None else block.outer
        return block

    def without(self, owner: object) -> tuple[Override | None, Override | None]:
        """The list without the innermost block of this owner, and that block."""
        if self.owner is owner:
            return self.outer, self
        if self.outer is None:
            return self, None
        outer, removed = self.outer.without(owner)
        return self._replace(outer=outer), removed


_current: ContextVar[Route | None] = ContextVar("outgrow.route", default=None)
_overrides: ContextVar[Override | None] = ContextVar("outgrow.overrides", default=None)


def current() -> Route | None:
    """The route of this request or task; None outside of any."""
    route = _current.get()
    return route if route is not None and route.is_open else None


def override(cluster: str) -> Override | None:
    """The innermost block around us that says something about this cluster."""
    block = _overrides.get()
    return None if block is None else block.of(cluster)


def mode(route: Route, cluster: str) -> str:
    """Where this route reads now, if nothing pins it."""
    block = override(cluster)
    return route.defaults.get(cluster, route.default) if block is None else block.mode


@contextmanager
def active(route: Route) -> Iterator[Route]:
    """Make it the current route for a block; overrides from outside don't reach in."""
    before, blocks = _current.get(), _overrides.get()
    _current.set(route)
    _overrides.set(None)
    try:
        yield route
    finally:
        _current.set(before)
        _overrides.set(blocks)


def forget() -> None:
    """Leave whatever route and blocks this context is in: a worker's next task begins."""
    _current.set(None)
    _overrides.set(None)


@contextmanager
def resumed(route: Route) -> Iterator[None]:
    """Make it the current route for one step of something that outlives its block."""
    before = _current.get()
    _current.set(route)
    try:
        yield
    finally:
        _current.set(before)


def enter(
    mode: str, clusters: Iterable[str] = (), *, stale: bool = False, owner: object = None
) -> None:
    """Begin a block in which `mode` holds. Outside of any route it has a route of its own."""
    own = None
    if current() is None:
        own = Route()
        _current.set(own)
    block = Override(mode, frozenset(clusters), stale, owner, _overrides.get(), own)
    _overrides.set(block)


def leave(owner: object = None) -> None:
    """End the innermost block of this owner in this context.

    It need not be the innermost of all: a generator that was left behind in the middle of
    its block may end after blocks have begun around it.
    """
    block = _overrides.get()
    if block is None:
        return
    rest, removed = block.without(owner)
    _overrides.set(rest)
    if removed is not None and removed.own is not None:
        removed.own.close()
        if _current.get() is removed.own:
            _current.set(None)
