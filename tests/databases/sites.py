"""A site with a primary and replicas, in this process: aliases, settings, and who served what."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from outgrow.databases.cluster import MIRRORED, WATCHED, Cluster, clusters
from outgrow.databases.watch import Watch
from tests.live.databases import PATIENCE, forget
from tests.live.processes import wait_until
from tests.live.replicas import PLAIN, READER

ROUTER = "outgrow.databases.ReplicationRouter"
MIDDLEWARE = "outgrow.databases.ReplicationMiddleware"
ALIASES = ("default", "replica1", "replica2")


@dataclass
class Log:
    """Which alias was sent which statement, in order."""

    entries: list[tuple[str, str]] = field(default_factory=list)

    def aliases(self, word: str = "") -> list[str]:
        """The aliases that were sent statements with this word in them."""
        return [alias for alias, sql in self.entries if word in sql]

    @property
    def served(self) -> set[str]:
        """The aliases that were sent any SELECT."""
        return set(self.aliases("SELECT"))


@contextmanager
def logged(*aliases: str) -> Iterator[Log]:
    """What is sent to these aliases by this thread."""
    log = Log()
    with ExitStack() as stack:
        for alias in aliases or ALIASES:

            def note(execute: Any, sql: str, *rest: Any, alias: str = alias) -> Any:
                log.entries.append((alias, sql))
                return execute(sql, *rest)

            stack.enter_context(connections[alias].execute_wrapper(note))
        yield log


@contextmanager
def aliases(databases: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """These databases instead of those of the tests, in all threads; closed behind.

    The tests' own connection is kept open meanwhile: their database in memory lives by it.
    """
    configured = connections.configure_settings(
        {"default": {}, **{alias: dict(entry) for alias, entry in databases.items()}}
    )
    settings_before = {alias: connections.settings.get(alias) for alias in databases}
    kept = {}
    for alias in databases:
        if hasattr(connections._connections, alias):
            kept[alias] = connections[alias]
            del connections[alias]
        connections.settings[alias] = configured[alias]
    assert connections.settings is settings.DATABASES
    try:
        yield
    finally:
        for alias, before in settings_before.items():
            forget(alias)
            if before is None:
                del connections.settings[alias]
            else:
                connections.settings[alias] = before
            if alias in kept:
                connections[alias] = kept[alias]


@contextmanager
def site(
    databases: Mapping[str, Mapping[str, Any]],
    *,
    watched: bool = False,
    routers: tuple[Any, ...] = (ROUTER,),
    middleware: tuple[str, ...] = (MIDDLEWARE, *settings.MIDDLEWARE),
    urls: str = "tests.databases.urls",
    **options: Any,
) -> Iterator[Cluster]:
    """A site whose default database has all other databases as replicas.

    With `watched` the servers are looked at, as in a process that is none of tests.
    """
    replication = {"default": {"replicas": [one for one in databases if one != "default"]}}
    replication["default"].update(options)
    with (
        aliases(databases),
        override_settings(
            OUTGROW={"REPLICATION": replication},
            DATABASE_ROUTERS=list(routers),
            MIDDLEWARE=list(middleware),
            ROOT_URLCONF=urls,
            ALLOWED_HOSTS=["*"],
        ),
    ):
        cluster = clusters()["default"]
        watch = Watch(cluster)
        cluster.routing = WATCHED if watched else MIRRORED
        if watched:
            cluster.watch = watch.ensure
        try:
            yield cluster
        finally:
            watch.stop()


def make_tables(database: Mapping[str, Any]) -> None:
    """Make the tables of the tests' apps."""
    with aliases({"default": database}):
        call_command("migrate", verbosity=0)


def make_sqlite(folder: Path) -> Path:
    """A file with the tables of the tests' apps."""
    path = folder / "empty.sqlite3"
    make_tables({"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)})
    return path


def sqlite(template: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """A primary and two replicas that are the same file."""
    path = folder / "site.sqlite3"
    shutil.copy(template, path)
    entry = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "CONN_MAX_AGE": None,
        "TEST": {"MIRROR": "default"},
    }
    return {alias: dict(entry) for alias in ALIASES}


@contextmanager
def live_site(
    servers: Any, writer: str = PLAIN, *, fresh: bool = True, **options: Any
) -> Iterator[Cluster]:
    """A site on real servers, each through its proxy, that are looked at all the time.

    With `fresh` it begins when every replica was seen to be fresh.
    """
    kept = {"CONN_MAX_AGE": None, "TEST": {"MIRROR": "default"}}
    primary, *replicas = servers.servers
    databases = {server.name: server.database(user=READER, **kept) for server in replicas}
    databases["default"] = primary.database(user=writer, **kept)
    # Long, for a busy machine, where nobody looks for a while: a test about lag has its own.
    quick = {"check_every": 0.5, "max_lag": 60, "pin_for": 120, "downtime": 0.2, "read_timeout": 2}
    with site(databases, watched=True, **{**quick, **options}) as cluster:
        cluster.watch()
        if fresh:
            everybody_seen(cluster)
        yield cluster


def everybody_seen(cluster: Cluster) -> None:
    """Wait until every replica was seen to be fresh."""
    wait_until(
        lambda: all(
            cluster.health.is_up(one) and cluster.knowledge.is_fresh(one.address, cluster.clock())
            for one in cluster.servers
        ),
        "a replica is not fresh",
        seconds=PATIENCE,
    )


def until_unused(cluster: Cluster, alias: str) -> None:
    """Wait until a replica is seen to be no use to anybody."""
    wait_until(
        lambda: not cluster.knowledge.is_fresh(alias, cluster.clock()),
        "it counts as fresh",
        seconds=PATIENCE,
    )
