"""What is done once to the aliases of a cluster, before the first connection.

No round trip is spent on it: what a session needs is in the message that opens it.

- A replica's sessions are read-only: `default_transaction_read_only` on PostgreSQL,
  SET SESSION TRANSACTION READ ONLY on MySQL and MariaDB, `query_only` on SQLite.
- A replica that does not answer is given up after `CONNECT_TIMEOUT` seconds, unless the
  options in DATABASES say another time.
- ATOMIC_REQUESTS of a primary becomes a value that knows which requests read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.db import connections
from django.db.backends.signals import connection_created

from outgrow.conf import ClusterOptions
from outgrow.databases.atomic import AtomicRequests

#: Seconds to wait for a connection to a replica. libpq knows no less than 2 (PostgreSQL's
#: documentation of `connect_timeout`, until version 17).
CONNECT_TIMEOUT: Final = 2

_READ_ONLY_PG: Final = "-c default_transaction_read_only=on"
_READ_ONLY_MYSQL: Final = "SET SESSION TRANSACTION READ ONLY"


def prepare(cluster: ClusterOptions, settings: Mapping[str, dict[str, Any]]) -> None:
    """Change the settings of connections that are still to be opened. Can be repeated."""
    primary = settings[cluster.primary]
    if primary.get("ATOMIC_REQUESTS"):
        primary["ATOMIC_REQUESTS"] = AtomicRequests(cluster.primary)
    for alias in cluster.aliases:
        replica = settings[alias]
        # A transaction on a replica for each request would be a round trip, and of no use.
        replica["ATOMIC_REQUESTS"] = False
        vendor = str(replica.get("ENGINE", ""))
        options = replica.setdefault("OPTIONS", {})
        if "postg" in vendor:
            _prepare_postgresql(options)
        elif "mysql" in vendor:
            _prepare_mysql(options)


def _prepare_postgresql(options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_TIMEOUT)
    given = str(options.get("options", ""))
    if "default_transaction_read_only" not in given:
        options["options"] = f"{given} {_READ_ONLY_PG}".strip()


def _prepare_mysql(options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_TIMEOUT)
    given = str(options.get("init_command", ""))
    if "READ ONLY" not in given.upper():
        # Drivers run one statement; several need ';' and the server's consent.
        options["init_command"] = f"{given}; {_READ_ONLY_MYSQL}" if given else _READ_ONLY_MYSQL


def connected(connection: Any, **_: object) -> None:
    """Receiver of `connection_created`: the guard, and what only an open session takes."""
    from outgrow.databases.cluster import known_clusters
    from outgrow.databases.guard import install

    cluster = known_clusters().get(connection.alias)
    if cluster is None:
        return
    install(connection)
    if connection.vendor == "sqlite" and connection.alias != cluster.primary:
        connection.connection.execute("PRAGMA query_only = ON")


def install() -> None:
    """Prepare every cluster of the settings; for `AppConfig.ready` and for the router.

    Raises `ConfigurationError` for a mistake in the settings.
    """
    from outgrow.conf import replication
    from outgrow.databases import guard

    for cluster in replication():
        prepare(cluster, connections.settings)
    connection_created.connect(connected, dispatch_uid="outgrow.databases")
    for connection in connections.all(initialized_only=True):
        guard.install(connection)
