"""Writes to the primary, reads to the replicas, and nobody reads older data than he wrote.

`ReplicationMiddleware` turns each request into a route (`route`); `ReplicationRouter` asks the
cluster (`cluster`) which server serves it. What a request wrote pins it to the primary, and
travels to the client as a position in the primary's log (`position`, `remember`): the next
request reads a replica that has replayed it. `watch` looks at the servers beside the
requests, `knowledge` draws the conclusions, and `guard` sees every query.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from outgrow.databases.middleware import (
        ReadOnlyMiddleware,
        ReplicationMiddleware,
        is_read_only,
        read_only_response,
    )
    from outgrow.databases.router import ReplicationRouter
    from outgrow.databases.state import ServerState, server_states
    from outgrow.databases.tasks import reads
    from outgrow.databases.using import using_primary, using_replica

__all__ = [
    "ReadOnlyMiddleware",
    "ReplicationMiddleware",
    "ReplicationRouter",
    "ServerState",
    "is_read_only",
    "read_only_response",
    "reads",
    "server_states",
    "using_primary",
    "using_replica",
]

_MODULES: Final = {
    "ReadOnlyMiddleware": "middleware",
    "ReplicationMiddleware": "middleware",
    "ReplicationRouter": "router",
    "ServerState": "state",
    "is_read_only": "middleware",
    "read_only_response": "middleware",
    "reads": "tasks",
    "server_states": "state",
    "using_primary": "using",
    "using_replica": "using",
}


def __getattr__(name: str) -> object:
    # PEP 562: names for settings, while the pure modules can be imported without Django.
    if name in _MODULES:
        return getattr(import_module(f"outgrow.databases.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
