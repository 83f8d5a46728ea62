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
from contextlib import closing
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.utils import load_backend

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
        # A kept connection that is lost is opened anew by the guard, without a question before.
        replica["CONN_HEALTH_CHECKS"] = False
        options = replica.setdefault("OPTIONS", {})
        vendor = _vendor(str(replica.get("ENGINE", "")))
        if vendor == "postgresql":
            _prepare_postgresql(options)
        elif vendor == "mysql":
            _prepare_mysql(options)


def _vendor(engine: str) -> str:
    """The vendor of a backend, which may be another's around one of Django's."""
    try:
        return str(load_backend(engine).DatabaseWrapper.vendor)
    except (ImproperlyConfigured, AttributeError):
        return ""  # Django says so when it is connected to


def _prepare_postgresql(options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_TIMEOUT)
    given = str(options.get("options", ""))
    if "default_transaction_read_only" not in given:
        options["options"] = f"{given} {_READ_ONLY_PG}".strip()
    pool = options.get("pool")
    if pool:
        # A request must not wait for its default, half a minute.
        options["pool"] = {"timeout": CONNECT_TIMEOUT, **(pool if isinstance(pool, dict) else {})}


def _prepare_mysql(options: dict[str, Any]) -> None:
    options.setdefault("connect_timeout", CONNECT_TIMEOUT)
    # It is one statement: where the site has one already, `connected` sends ours.
    options.setdefault("init_command", _READ_ONLY_MYSQL)


def connected(connection: Any, **_: object) -> None:
    """Receiver of `connection_created`: the guard, and what only an open session takes."""
    from outgrow.databases.cluster import known_clusters
    from outgrow.databases.guard import install

    cluster = known_clusters().get(connection.alias)
    if cluster is None:
        return
    install(connection)
    if connection.alias == cluster.primary:
        return
    if connection.vendor == "sqlite":
        connection.connection.execute("PRAGMA query_only = ON")
    if connection.vendor == "mysql":
        given = connection.settings_dict["OPTIONS"].get("init_command")
        if given != _READ_ONLY_MYSQL:
            with closing(connection.create_cursor()) as cursor:
                cursor.execute(_READ_ONLY_MYSQL)


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
