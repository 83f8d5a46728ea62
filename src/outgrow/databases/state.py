"""What this process knows of its database servers: for a page, for metrics. Asks no server.

`survey` asks them all now, for an operator; this is what requests go by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from outgrow.databases.cluster import Cluster, clusters

_PROMOTED: Final = "it can be written to, so it is no replica"


@dataclass(frozen=True, slots=True)
class ServerState:
    """One database server, as this process sees it.

    `cluster` is the primary's alias. `up` is None for a server at which nobody has looked yet.
    `lag` is in seconds, None where it is not known, and infinite for a replica of which it is
    only known that it is behind. `reads` counts the queries that it has served to this process.
    `used`: a client that wrote nothing may be served by it. `failure` is the last, while it lasts.
    """

    cluster: str
    alias: str
    role: str
    up: bool | None
    used: bool
    lag: float | None
    reads: int
    failure: str = ""

    def facts(self) -> dict[str, Any]:
        """All of it as plain values that JSON has."""
        lag = None if self.lag == float("inf") else self.lag
        return {**asdict(self), "lag": lag}


def server_states() -> list[ServerState]:
    """Every server of every cluster, the primary first.

    Thread-safe. Raises ConfigurationError for a mistake in the settings.
    """
    several = {cluster.primary: cluster for cluster in clusters().values()}
    return [state for cluster in several.values() for state in _states(cluster)]


def _states(cluster: Cluster) -> Iterator[ServerState]:
    knowledge, now = cluster.knowledge, cluster.clock()
    seen = knowledge.primary
    failure = knowledge.primary_failure
    yield ServerState(
        cluster.primary,
        cluster.primary,
        "primary",
        up=False if failure else None if seen is None else True,
        used=not failure,
        lag=None,
        reads=cluster.reads[cluster.primary],
        failure=failure,
    )
    for alias, server in cluster.by_alias.items():
        condition, replica = cluster.health.condition(server), knowledge.replica(alias)
        up = cluster.health.is_up(server)
        failure = (
            "it can be written to, so it is no replica" if knowledge.is_promoted(alias) else ""
        )
        yield ServerState(
            cluster.primary,
            alias,
            "replica",
            up=False if not up else None if replica is None else True,
            used=up and knowledge.is_fresh(alias, now),
            lag=None if replica is None else replica.lag,
            reads=cluster.reads[alias],
            failure=failure if up else condition.reason,
        )
