"""A PostgreSQL of our own, from the distribution's packages, as two aliases of Django's.

It refuses to run as root, so its programs run as nobody then.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from outgrow.testing import free_port
from tests.live.processes import missing, server_folder, unprivileged

#: Where Debian and others keep the programs that are not on everybody's PATH.
_FOLDERS = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt/postgresql")

#: The alias of the site, and that of the catalogue: two connections to one database.
SITE, OWN = "postgres", "postgres_outgrow"


def binary(name: str) -> str | None:
    """Where a program of the newest PostgreSQL is."""
    found = [path for folder in _FOLDERS for path in Path(folder).glob(f"*/bin/{name}")]
    newest = max(found, key=lambda path: float(path.parts[-3]), default=None)
    return str(newest) if newest else shutil.which(name)


@contextmanager
def running_postgres() -> Iterator[dict[str, Any]]:
    """Start a server on loopback and stop it; the settings of a database on it."""
    if binary("initdb") is None:
        missing("PostgreSQL is not installed", "apt-get install postgresql")
    user = unprivileged()
    who = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    port = free_port()
    with server_folder("outgrow-pg-") as folder:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": folder, **who}
        data = ["-D", str(folder / "data")]
        make = [str(binary("initdb")), *data, "-U", "site", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run([*make, "--no-locale"], check=True, timeout=60, **quiet)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = [str(binary("pg_ctl")), *data, "-w", "-t", "60"]
        start = [*control, "-o", options, "-l", str(folder / "log"), "start"]
        subprocess.run(start, check=True, timeout=90, **quiet)
        try:
            yield {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "site",
                "HOST": "127.0.0.1",
                "PORT": str(port),
                "CONN_HEALTH_CHECKS": True,
            }
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, timeout=90, **quiet)


@pytest.fixture(scope="session")
def postgres_server(django_db_blocker: Any) -> Iterator[None]:
    """The two aliases, with the tables of the app."""
    with running_postgres() as database:
        for alias in (SITE, OWN):
            connections.settings[alias] = connections.configure_settings(
                {"default": {}, alias: database}
            )[alias]
        with django_db_blocker.unblock():
            call_command("migrate", "outgrow", database=SITE, verbosity=0)
            yield
            for alias in (SITE, OWN):
                connections[alias].close()
                del connections[alias], connections.settings[alias]


@pytest.fixture
def postgres(postgres_server: None, django_db_blocker: Any) -> Iterator[tuple[str, str]]:
    """An empty catalogue in PostgreSQL: the aliases of the site and of the catalogue."""
    with django_db_blocker.unblock():
        yield SITE, OWN
        with connections[SITE].cursor() as cursor:
            tables = "outgrow_file, outgrow_live, outgrow_owed, outgrow_fact"
            cursor.execute(f"TRUNCATE {tables}")
        for alias in (SITE, OWN):
            connections[alias].close()
