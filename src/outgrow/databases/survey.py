"""Every server of a cluster, asked now: for the command, for a page, for alerts.

Each server is asked over a connection of its own, all at once, and none for longer than
the options of its cluster say. Nothing that requests rely on is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

from outgrow.databases import probe
from outgrow.databases.cluster import Cluster, is_database_error
from outgrow.databases.position import Lsn, Position
from outgrow.databases.watch import own_connection
from outgrow.databases.watchdog import watchdog

#: Seconds to wait for a replica to replay what the primary had a moment ago.
PATIENCE: Final = 1.0

PRIMARY: Final = "primary"
REPLICA: Final = "replica"


@dataclass(frozen=True, slots=True)
class Surveyed:
    """One server. `lag` is in seconds, `behind` in bytes of WAL; None where it can't be told.

    With `at_least` the lag is more than that, since it was not waited for any longer. `failure`
    says why it could not be asked, and `problem` what is wrong with it though it answers.
    """

    alias: str
    role: str
    up: bool = False
    writable: bool | None = None
    position: str = ""
    lag: float | None = None
    at_least: bool = False
    behind: int | None = None
    failure: str = ""
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def survey(
    cluster: Cluster,
    *,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
) -> list[Surveyed]:
    """Ask every server: the primary first, then the replicas in the order of the setting.

    Takes up to `patience` seconds where a replica is behind, and raises nothing for a server's
    sake.
    """
    asked = clock()
    primary = _primary(cluster)
    target = primary[1]
    aliases = list(cluster.by_alias)
    with ThreadPoolExecutor(max(1, len(aliases))) as pool:
        ask = [
            pool.submit(_replica, cluster, alias, target, patience, asked, clock)
            for alias in aliases
        ]
        return [primary[0], *(one.result() for one in ask)]


def problems(surveyed: list[Surveyed], max_lag: float) -> Iterator[str]:
    """What an operator is to be told, in words."""
    for one in surveyed:
        if one.failure:
            yield f"{one.alias} ({one.role}) does not answer: {one.failure}"
        elif one.problem:
            yield f"{one.alias}: {one.problem}"
        elif one.lag is not None and one.at_least and one.lag >= max_lag:
            yield f"{one.alias} is more than {one.lag:g} s behind."


def _primary(cluster: Cluster) -> tuple[Surveyed, Position | None]:
    sighting = _look(cluster, cluster.primary)
    if isinstance(sighting, str):
        return Surveyed(cluster.primary, PRIMARY, failure=sighting), None
    problem = "" if sighting.writable else "it can't be written to: the site can only be read."
    text = str(sighting.position or "")
    found = Surveyed(
        cluster.primary,
        PRIMARY,
        up=True,
        writable=sighting.writable,
        position=text,
        problem=problem,
    )
    return found, sighting.position


def _replica(
    cluster: Cluster,
    alias: str,
    target: Position | None,
    patience: float,
    asked: float,
    clock: Callable[[], float],
) -> Surveyed:
    connection = own_connection(alias)
    limit = cluster.options.read_timeout
    try:
        connection.ensure_connection()
        with watchdog.limit(connection, limit):
            first = probe.look(connection)
        at_once = target.reached_by(first.position) if target and first.position else None
        reached, lag = at_once, None if at_once is None else 0.0
        if target is not None and at_once is False:
            with watchdog.limit(connection, limit + patience):
                reached = probe.wait(connection, target, patience)
            lag = clock() - asked
    except Exception as error:
        if not is_database_error(connection, error):
            raise
        return Surveyed(alias, REPLICA, failure=_sentence(error))
    finally:
        connection.close()
    return Surveyed(
        alias,
        REPLICA,
        up=True,
        writable=first.writable,
        position=str(first.position or ""),
        lag=lag,
        at_least=reached is False,
        behind=_bytes(target, first.position),
        problem=_problem(target, first, reached),
    )


def _problem(target: Position | None, first: probe.Sighting, reached: bool | None) -> str:
    if target is None:
        return ""
    if first.position is None:
        return "it tells no position, so it serves nobody who wrote."
    if reached is None:
        return "it follows another history than the primary's, and serves nobody."
    return ""


def _bytes(target: Position | None, replayed: Position | None) -> int | None:
    if not isinstance(target, Lsn) or not isinstance(replayed, Lsn):
        return None
    if target.timeline != replayed.timeline:
        return None
    return max(0, target.value - replayed.value)


def _look(cluster: Cluster, alias: str) -> probe.Sighting | str:
    """What a server says, or why it does not."""
    connection = own_connection(alias)
    try:
        connection.ensure_connection()
        with watchdog.limit(connection, cluster.options.read_timeout):
            return probe.look(connection)
    except Exception as error:
        if not is_database_error(connection, error):
            raise
        return _sentence(error)
    finally:
        connection.close()


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
