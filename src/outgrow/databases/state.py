"""What this process knows of its database servers: for a page, for metrics. Asks no server.

`survey` asks them all now, for an operator; this is what requests go by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from outgrow.databases.cluster import Cluster, clusters, distinct
from outgrow.databases.knowledge import PROMOTED, Seen


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
        lag = None if self.lag == math.inf else self.lag
        return {**asdict(self), "lag": lag}


def server_states() -> list[ServerState]:
    """Every server of every cluster, the primary first.

    Thread-safe. Raises ConfigurationError for a mistake in the settings.
    """
    return [state for cluster in distinct(clusters()) for state in _states(cluster)]


def _states(cluster: Cluster) -> Iterator[ServerState]:
    knowledge = cluster.knowledge
    failure = knowledge.primary_failure
    yield ServerState(
        cluster.primary,
        cluster.primary,
        "primary",
        up=_up(knowledge.primary, is_down=bool(failure)),
        used=not failure,
        lag=None,
        reads=cluster.reads[cluster.primary],
        failure=failure,
    )
    for alias, server in cluster.by_alias.items():
        replica, up = knowledge.replica(alias), cluster.health.is_up(server)
        failure = f"it {PROMOTED}" if knowledge.is_promoted(alias) else ""
        yield ServerState(
            cluster.primary,
            alias,
            "replica",
            up=_up(replica, is_down=not up),
            used=up and cluster.is_fresh(alias),
            lag=None if replica is None else replica.lag,
            reads=cluster.reads[alias],
            failure=failure if up else cluster.health.condition(server).reason,
        )


def _up(seen: Seen | None, *, is_down: bool) -> bool | None:
    """Whether a server answers; None if nobody has looked."""
    if is_down:
        return False
    return None if seen is None else True
