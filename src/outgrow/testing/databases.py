"""Replicas in tests: those that share the test's transaction, and those that lag behind it."""

from __future__ import annotations

import inspect
import re
import tempfile
import time
import unittest
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.db import DatabaseError, connections

from outgrow.databases import probe
from outgrow.databases.cluster import MIRRORED, Cluster, clusters, remade
from outgrow.databases.guard import as_text, site_line
from outgrow.databases.position import Count
from outgrow.databases.statements import is_read
from outgrow.errors import ConfigurationError
from outgrow.servers import ServerSet
from outgrow.testing.shared import OwnReplica, SharedReplica, StandIn, standing, standing_in

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: Seconds that a standby gets for replaying what was written, and for pausing behind it.
PATIENCE: Final = 10.0

#: What reads rows: `is_read` also holds for the borders of a transaction, and for settings.
_QUERY: Final = re.compile(r"[\s(]*(?:SELECT|WITH|TABLE|VALUES)\b", re.IGNORECASE)


class Block:
    """A context manager, and a decorator of test functions and of classes of unittest's."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> Self:
        block = self._make()
        block.__enter__()
        self._entered.append(block)
        return self

    def __exit__(self, *error: object) -> None:
        self._entered.pop().__exit__(*cast("tuple[Any, Any, Any]", error))

    def __call__(self, target: Decorated) -> Decorated:
        """Decorate a test function, a coroutine function, or a class with test methods."""
        if inspect.isclass(target):
            return cast("Decorated", self._class(target))
        if iscoroutinefunction(target):

            @wraps(target)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self._make():
                    return await target(*args, **kwargs)

            return cast("Decorated", awaited)

        @wraps(target)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self._make():
                return target(*args, **kwargs)

        return cast("Decorated", called)

    def _class(self, case: Any) -> type:
        """Each test of the class in a block of its own, with its `setUp` and `tearDown`."""
        if not issubclass(case, unittest.TestCase):
            raise TypeError(
                f"{case.__name__} is no unittest.TestCase; with pytest write"
                ' @pytest.mark.usefixtures("replicas").'
            )
        set_up, make = case.setUp, self._make

        @wraps(set_up)
        def entered(test: Any) -> None:
            test.enterContext(make())
            set_up(test)

        case.setUp = entered
        return cast("type", case)


def replicas(*aliases: str) -> Block:
    """Let the replicas serve in tests: by name their own, but over the primary's connection.

    Django's test runner lets the primary serve all, for a replica's own connection can't see
    the transaction around a `TestCase`. In this block the router sends reads to the
    replicas as in production, and they see what the test has written: they are never behind.
    Guards, `_state.db` and ``using("replica1")`` work as in production;
    ``databases = {"default"}`` is enough.

    With `aliases` only these replicas serve, and the others of their clusters don't. Use it as
    a context manager within a test, or decorate a test function or a class of tests. Threads
    have the replicas too, each over its own connection to the primary, or over the one
    that Django shares with them. Raises `ConfigurationError` for an alias that is no replica.
    """
    _names(aliases)
    return Block(lambda: _replicas(aliases))


@contextmanager
def _replicas(aliases: tuple[str, ...]) -> Iterator[None]:
    _check(aliases)
    with _routed(_all_shared(), aliases, _one_for_all):
        yield


def _one_for_all(connection: Any) -> probe.Sighting:
    """What a server says of itself where all are one connection: nobody is behind.

    The real one can't be asked in a transaction, and a database in memory has no position.
    """
    is_primary = connection.alias == clusters()[connection.alias].primary
    return probe.Sighting("shared", writable=is_primary, position=Count("shared", 0))


def _all_shared() -> dict[str, StandIn]:
    return {
        alias: SharedReplica(alias, cluster.primary)
        for alias, cluster in clusters().items()
        if alias != cluster.primary
    }


@contextmanager
def _routed(
    stand_ins: Mapping[str, StandIn],
    serving: tuple[str, ...],
    ask: Callable[[Any], probe.Sighting] = probe.look,
) -> Iterator[None]:
    """A block in which the clusters route to these, with others' connections."""

    def prepare(cluster: Cluster) -> None:
        cluster.routing = MIRRORED
        cluster.ask = ask
        ours = [server for server in cluster.servers if server.address in serving]
        if ours:
            cluster.servers = ServerSet(ours, cluster.health)

    with remade(prepare), standing_in(stand_ins):
        yield


def _names(aliases: tuple[Any, ...]) -> None:
    """Raise for a decorator without its brackets."""
    if not all(isinstance(alias, str) for alias in aliases):
        raise TypeError("Write it with brackets, with the aliases of replicas or with nothing in.")


def _check(aliases: tuple[str, ...]) -> None:
    # Not when something is decorated: pytest imports tests before it prepares for them.
    known = [alias for alias, cluster in clusters().items() if alias != cluster.primary]
    for alias in aliases:
        if alias not in known:
            raise ConfigurationError(
                f"outgrow.testing: {alias!r}",
                "is no replica of OUTGROW['REPLICATION'].",
                f"There are: {', '.join(known) or 'none'}.",
            )


def lagging(*aliases: str) -> Block:
    """Let replicas stay as they are now, while the primary goes on.

    A client who wrote in the block must be served by the primary; one who did not is served by
    a lagging replica, and sees what was there before the block. A test of that
    fails if nobody keeps track of who wrote. Without `aliases` all replicas lag; the others
    don't serve meanwhile. Within `replicas()` and without.

    On SQLite the replica is a snapshot, in a file of its own, of the primary's file or of
    Django's database in memory. On PostgreSQL it must be a real standby, whose replay is paused
    and, behind the block, resumed. Neither can be in a `TestCase`, whose data are in
    no database until they are committed, which is never: take `TransactionTestCase`.
    Raises `ConfigurationError` where it can't be.
    """
    _names(aliases)
    return Block(lambda: _lagging(aliases))


@contextmanager
def _lagging(aliases: tuple[str, ...]) -> Iterator[None]:
    _check(aliases)
    around = standing() or _all_shared()
    lagging_already = tuple(alias for alias, one in around.items() if isinstance(one, OwnReplica))
    aliases = tuple(alias for alias in aliases or around if alias not in lagging_already)
    with ExitStack() as stack:
        own = {alias: stack.enter_context(_as_of_now(alias)) for alias in aliases}
        stack.enter_context(_routed({**around, **own}, (*aliases, *lagging_already)))
        yield


def _as_of_now(alias: str) -> AbstractContextManager[StandIn]:
    primary = connections[clusters()[alias].primary]
    if primary.in_atomic_block:
        raise _impossible(
            alias,
            f"a transaction is open on {primary.alias!r}; no replica has what is not committed.",
            "Take Django's TransactionTestCase, or with pytest transactional_db.",
        )
    kind = {"sqlite": _snapshot, "postgresql": _paused}.get(primary.vendor)
    if kind is None:
        raise _impossible(alias, "it can be done on SQLite and PostgreSQL.", "")
    return kind(alias, primary)


def _impossible(alias: str, problem: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"lagging({alias!r})", problem, hint)


@contextmanager
def _snapshot(alias: str, primary: Any) -> Iterator[StandIn]:
    with tempfile.TemporaryDirectory(prefix="outgrow-lagging-") as folder:
        path = Path(folder) / f"{alias}.sqlite3"
        own = OwnReplica(alias, {**connections.settings[alias], "NAME": str(path)})
        primary.ensure_connection()
        with closing(primary.Database.connect(path)) as target:
            primary.connection.backup(target)
        try:
            yield own
        finally:
            own.close()


@contextmanager
def _paused(alias: str, primary: Any) -> Iterator[StandIn]:
    own = OwnReplica(alias, connections.settings[alias])
    standby = own.make()
    try:
        _catch_up(alias, standby, primary)
        _pause(alias, standby)
        # Whatever happens from here on: a standby that stays paused fills its disk.
        try:
            _await_pause(alias, standby)
            yield own
        finally:
            _ask(standby, "SELECT pg_wal_replay_resume()")
    finally:
        own.close()


def _catch_up(alias: str, standby: Any, primary: Any) -> None:
    """Let a standby replay what is on the primary now."""
    if not _ask(standby, "SELECT pg_is_in_recovery()"):
        raise _impossible(
            alias,
            "it leads to a server that replays nothing, so it can't fall behind.",
            "Its HOST and PORT must be those of a standby of the primary.",
        )
    position = probe.look(primary).position
    if position is None or not probe.wait(standby, position, PATIENCE):
        raise _impossible(alias, "it does not replay what the primary has written.", "")


def _pause(alias: str, standby: Any) -> None:
    try:
        _ask(standby, "SELECT pg_wal_replay_pause()")
    except DatabaseError as error:
        user = standby.settings_dict["USER"]
        raise _impossible(
            alias,
            f"its user may not pause the replay: {str(error).strip()}",
            "GRANT EXECUTE ON FUNCTION pg_wal_replay_pause(), pg_wal_replay_resume()"
            f" TO {user}, or take another user.",
        ) from error


def _await_pause(alias: str, standby: Any) -> None:
    """It was only asked for, until the process that replays has come by."""
    until = time.monotonic() + PATIENCE
    while _ask(standby, "SELECT pg_get_wal_replay_pause_state()") != "paused":
        if time.monotonic() > until:
            raise _impossible(alias, "its replay does not pause.", "")
        time.sleep(0.01)


def _ask(connection: Any, sql: str) -> Any:
    """The answer to a question that is no query of the site."""
    return probe._row(connection, sql)[0]  # noqa: SLF001


@contextmanager
def assert_routed(*aliases: str) -> Iterator[None]:
    """Fail unless all reads in the block were served by this alias, or by these.

    There must be at least one. Only reads of their clusters count, and those of this thread;
    Django's test client works in it. Can be used as a decorator. Raises
    `AssertionError`, which tells each statement that went elsewhere, with the line of
    the site's code. Begin `replicas()` and `lagging()` before it.
    """
    seen: list[tuple[str, str, str]] = []
    with ExitStack() as stack:
        for alias in _family(aliases):
            note = _noting(alias, seen)
            stack.enter_context(connections[alias].execute_wrapper(note))
        yield
    _judge(aliases, seen)


def _family(aliases: tuple[str, ...]) -> list[str]:
    """All aliases of the clusters of these."""
    known = clusters()
    for alias in aliases:
        if alias not in known:
            raise ConfigurationError(
                f"assert_routed({alias!r})", "there is no such alias in OUTGROW['REPLICATION']."
            )
    ours = [known[alias] for alias in aliases]
    return [alias for alias, cluster in known.items() if cluster in ours]


def _noting(alias: str, seen: list[tuple[str, str, str]]) -> Callable[..., Any]:
    def note(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        text = as_text(sql, context)
        if _QUERY.match(text) and is_read(text):
            seen.append((alias, text, site_line()))
        return execute(sql, params, many, context)

    return note


def _judge(aliases: tuple[str, ...], seen: list[tuple[str, str, str]]) -> None:
    wanted = " or ".join(map(repr, aliases))
    if not seen:
        raise AssertionError(f"Nothing was read in this block, from {wanted} or elsewhere.")
    astray = [one for one in seen if one[0] not in aliases]
    if astray:
        lines = [f"  {alias}: {sql[:300]}  ({line})" for alias, sql, line in astray]
        head = f"{len(astray)} of {len(seen)} reads were not served by {wanted}:"
        raise AssertionError("\n".join([head, *lines]))
