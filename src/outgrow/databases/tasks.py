"""Positions that travel with background work: a task sees what its sender wrote and saw.

::

    @shared_task
    @reads("sticky")
    def send_receipt(order): ...

The laws:

1. A message has the position of what its sender is to see, of the moment when it is sent: what
   the sender's own message or client wanted, and the server's position that it wrote to or read
   from. In an open transaction that can't be known yet; the message says "pin" then.
2. A position in a message has no deadline. It may wait for hours, and is cheap to check.
3. A message without a position comes from somebody who sends none, and is taken for a "pin".
   A pinned task reads the primary.
4. A task that is tried again has the position that it had before, and what it wrote itself.
   Of one whose worker died nobody knows what it wrote: it is to see all that the primary has.
5. A task begins with nothing of the task before it, and leaves nothing to the next one. One that
   is run at once, within a request, has its own way to read, and shares all facts with the
   request: neither misses what the other wrote.

Which queue it is, is for others to know: `celery`, `rq` and `task_backends` call `sent` when
a message is sent, and `running` around a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from inspect import isfunction, signature
from typing import Any, Final, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db import connections

from outgrow.databases import route as routes
from outgrow.databases.cluster import ALONE, Cluster, distinct, in_transaction, known_clusters
from outgrow.databases.middleware import written_now
from outgrow.databases.remember import Written, packed, together, unpacked
from outgrow.databases.route import NOTHING, PIN, PRIMARY, REPLICA, Route, Wanted, active
from outgrow.errors import ConfigurationError, ReplicaBehind

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

ALWAYS: Final = "always"
STICKY: Final = "sticky"
DELAYED: Final = "delayed"
_WORDS: Final = (ALWAYS, STICKY, DELAYED)

#: Seconds that a task waits for a replica, and until it is tried again.
WAIT: Final = 1.0
DELAY: Final = 5.0

#: A deadline in the year 36812.
_NEVER: Final = float(2**40)

#: The position of a message whose sender has neither written nor seen anything.
NOTHING_WANTED: Final = packed({}, _NEVER)

#: On a decorated function. `functools.wraps` carries it on.
MARK: Final = "_outgrow_reads"


@dataclass(frozen=True, slots=True)
class Reads:
    """How a task reads; times are in seconds."""

    consistency: str = ALWAYS
    wait: float = WAIT
    delay: float = DELAY


def reads(
    consistency: str, *, wait: float = WAIT, delay: float = DELAY
) -> Callable[[Decorated], Decorated]:
    """Say where a task reads; the decorator next to the function.

    - "always": the primary, as a task does that is not decorated.
    - "sticky": a replica that has what the sender of the task wrote and saw. If there is none,
      it waits up to `wait` seconds for one, and then reads the primary.
    - "delayed": the same, but instead of the primary it is put back, once, and tried again
      `delay` seconds later. With Django's tasks, which can't be put back, it is "sticky".

    All of them write to the primary, and read what they wrote. Raises `ConfigurationError` for
    another word.
    """
    if consistency not in _WORDS:
        hint = f"Write one of {', '.join(map(repr, _WORDS))}."
        raise ConfigurationError("reads()", f"{consistency!r} is no way to read.", hint)
    how = Reads(consistency, wait, delay)

    def decorate(function: Decorated) -> Decorated:
        if not isfunction(function):
            problem = f"{function!r} is no function."
            raise ConfigurationError("reads()", problem, "Put it next to the function.")
        if consistency == DELAYED:
            function = cast("Decorated", _settled(function))
        setattr(function, MARK, how)
        return function

    return decorate


def reads_of(function: object) -> Reads:
    """How a function was decorated to read."""
    how = getattr(function, MARK, None)
    return how if isinstance(how, Reads) else Reads()


def _settled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is begun when it is clear who serves its reads: it may be put back."""
    if iscoroutinefunction(function):

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            await sync_to_async(settle)()
            return await function(*args, **kwargs)

        wrapped: Callable[..., Any] = awaited
    else:

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            settle()
            return function(*args, **kwargs)

        wrapped = called
    # Celery looks at this, and not behind a wrapper, to check the arguments of `delay()`.
    wrapped.__signature__ = signature(function)  # type: ignore[attr-defined]
    return wrapped


# --- sending


def sent(*, everything: bool = False) -> str:
    """The position for a message that is sent now.

    With `everything` it is the primary's, whatever was done here: others may have written what
    the task is to see. Asks a server, one round trip for each cluster, if this route has
    written to it or read from it; outside of any route, the primary. Raises nothing for a
    server's sake.
    """
    route = routes.current()
    found = {}
    for cluster in distinct(known_clusters()):
        wanted = _seen(route, cluster)
        if everything:
            wanted = wanted.merged(_primary_now(cluster))
        if wanted:
            found[cluster.primary] = wanted
    return packed(found, _NEVER)


def resent(text: str) -> str:
    """The position for a message that has one, as it is sent again (law 4)."""
    route = routes.current()
    known = _unpacked(text)
    if route is not None:
        known = together([known, route.wanted])
        for cluster in distinct(known_clusters()):
            leg = route.legs.get(cluster.primary)
            if leg is not None and leg.wrote:
                known = together([known, {cluster.primary: _primary_now(cluster)}])
    return packed({cluster: wanted for cluster, wanted in known.items() if wanted}, _NEVER)


def _seen(route: Route | None, cluster: Cluster) -> Wanted:
    """What a server must have, to have all that this route wrote, and what it saw."""
    if route is None:
        # It reads and writes the primary, and nobody has noted what.
        return _primary_now(cluster)
    leg = route.legs.get(cluster.primary)
    wanted = route.wanted.get(cluster.primary, NOTHING) if leg is None else leg.wanted
    if leg is None or wanted.pin:
        return wanted
    on_primary = leg.wrote or cluster.mode(route) == PRIMARY or leg.server == cluster.primary
    if on_primary or in_transaction(connections[cluster.primary]):
        return wanted.merged(_primary_now(cluster))
    return wanted.merged(_replayed(cluster, leg.server)) if leg.server else wanted


def _primary_now(cluster: Cluster) -> Wanted:
    return PIN if _on_loop() else written_now(cluster)


def _replayed(cluster: Cluster, alias: str) -> Wanted:
    """What a replica has, from which this route has read."""
    connection = connections[alias]
    if _on_loop() or in_transaction(connection):
        return _primary_now(cluster)
    sighting = cluster.look(alias, connection)
    if sighting is None:
        return _primary_now(cluster)
    # A replica without positions: its primary's are PIN, for who wrote.
    return NOTHING if sighting.position is None else Wanted((sighting.position,))


def _on_loop() -> bool:
    # The quick form of the public one, as in `cluster`: nothing is asked on an event loop.
    return asyncio._get_running_loop() is not None  # noqa: SLF001


def _unpacked(text: str | None) -> Written:
    """What a message says, by the primaries of this site."""
    found = unpacked(text or "", 0)
    if not found and text != NOTHING_WANTED:
        return {cluster.primary: PIN for cluster in distinct(known_clusters())}
    return found


# --- running


def watch() -> None:
    """See to it that the servers of all clusters are looked at, beside the tasks."""
    for cluster in distinct(known_clusters()):
        cluster.watch()


@dataclass(slots=True, eq=False)
class Running:
    """A task that runs. `postpone` puts it back, by raising; None where that can't be done."""

    route: Route
    postpone: Callable[[ReplicaBehind], None] | None = None

    def settle(self) -> None:
        """Choose who serves what the task is to see, or put the task back."""
        postpone, self.postpone = self.postpone, None
        if postpone is None:
            return
        for cluster in distinct(known_clusters()):
            wanted = self.route.leg(cluster.primary).wanted
            if not wanted or wanted.pin or cluster.routing == ALONE:
                continue
            if cluster.choose(self.route.leg(cluster.primary)) == cluster.primary:
                postpone(ReplicaBehind(cluster.primary, "|".join(map(str, wanted.positions))))
                return


_running: ContextVar[Running | None] = ContextVar("outgrow.task", default=None)


def settle() -> None:
    """Choose who serves the task that runs here, or put it back, if it is to be put back."""
    task = _running.get()
    if task is not None:
        task.settle()


@contextmanager
def running(
    text: str | None,
    how: Reads,
    *,
    again: bool = False,
    inside: bool = False,
    postpone: Callable[[ReplicaBehind], None] | None = None,
) -> Iterator[None]:
    """Run a task in the block, with the position of its message.

    `again`: a worker may have died over it. `inside`: it may be run by a request, and
    not by a worker. `postpone` puts it back by raising; if it returns, the primary serves.
    """
    outer = routes.current() if inside else None
    before = _running.get()
    if not inside:
        # What a time limit has interrupted may not have been left in order.
        routes.forget()
    if outer is None:
        task = Running(_route(text, how, again=again), postpone)
    else:
        task = Running(Route(_default(how), outer.wanted, legs=outer.legs, wait=how.wait))
    if how.consistency != DELAYED:
        task.postpone = None
    _running.set(task)
    try:
        with active(task.route):
            yield
    finally:
        task.route.close()
        _running.set(before)


def _default(how: Reads) -> str:
    return PRIMARY if how.consistency == ALWAYS else REPLICA


def _route(text: str | None, how: Reads, *, again: bool) -> Route:
    wanted = _unpacked(text)
    if again:
        now = {cluster.primary: _primary_now(cluster) for cluster in distinct(known_clusters())}
        wanted = together([wanted, now])
    return Route(_default(how), wanted, wait=how.wait)
