"""Fixtures for the tests of databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from outgrow.databases.cluster import Cluster
from tests.databases.interleaved import InterleavedClient
from tests.databases.sites import live_site, make_sqlite, make_tables, site, sqlite
from tests.live.mariadb import OWNER, MariaDBCluster
from tests.live.replicas import PostgresCluster


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Path:
    """A SQLite file with the tables of the apps."""
    with django_db_blocker.unblock():
        return make_sqlite(tmp_path_factory.mktemp("template"))


@pytest.fixture
def sqlite_databases(
    sqlite_template: Path, tmp_path: Path, django_db_blocker: Any
) -> Iterator[dict[str, dict[str, Any]]]:
    """DATABASES with a primary and two replicas in one file."""
    with django_db_blocker.unblock():
        yield sqlite(sqlite_template, tmp_path)


@pytest.fixture
def cluster(sqlite_databases: dict[str, dict[str, Any]]) -> Iterator[Cluster]:
    """A site with a primary and two replicas in one SQLite file."""
    with site(sqlite_databases) as found:
        yield found


@pytest.fixture(scope="session")
def migrated_postgres(
    postgres_cluster_servers: PostgresCluster, django_db_blocker: Any
) -> PostgresCluster:
    """The PostgreSQL servers, with the tables of the apps."""
    with django_db_blocker.unblock():
        make_tables(postgres_cluster_servers.primary.database(direct=True))
    postgres_cluster_servers.wait_caught_up()
    return postgres_cluster_servers


@pytest.fixture
def postgres_site(
    migrated_postgres: PostgresCluster, postgres_cluster: PostgresCluster
) -> Iterator[Callable[..., AbstractContextManager[Cluster]]]:
    """A function that makes a site on a PostgreSQL primary and two standbys; `site`'s options."""
    yield partial(live_site, postgres_cluster)
    if not postgres_cluster.primary.running:
        postgres_cluster.primary.start()
    postgres_cluster.mend()
    postgres_cluster.primary.execute("TRUNCATE auth_group, auth_user, django_session CASCADE")


@pytest.fixture(scope="session")
def migrated_mariadb(
    mariadb_cluster_servers: MariaDBCluster, django_db_blocker: Any
) -> MariaDBCluster:
    """The MariaDB servers, with the tables of the apps."""
    with django_db_blocker.unblock():
        make_tables(mariadb_cluster_servers.primary.database(direct=True))
    mariadb_cluster_servers.wait_caught_up()
    return mariadb_cluster_servers


@pytest.fixture
def mariadb_site(
    migrated_mariadb: MariaDBCluster, mariadb_cluster: MariaDBCluster
) -> Iterator[Callable[..., AbstractContextManager[Cluster]]]:
    """A function that makes a site on a MariaDB primary and a replica; `site`'s options."""
    yield partial(live_site, mariadb_cluster, OWNER)
    if not mariadb_cluster.primary.running:
        mariadb_cluster.primary.start()
    mariadb_cluster.mend()
    for table in ("auth_group", "django_session"):
        name = mariadb_cluster.primary.database()["NAME"]
        mariadb_cluster.primary.execute(f"DELETE FROM {name}.{table}")


@pytest.fixture(params=["wsgi", "asgi"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the tests of a module ask: over ASGI with other requests in flight, too."""
    if request.param == "asgi":
        monkeypatch.setattr(request.module, "Client", InterleavedClient)
    return str(request.param)
