"""A pooler on one machine: its files and its process, for `plan`.

It stands where the database servers do, for PgBouncer refuses to be root's, too.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from outgrow.topology.model import Service, Site
from outgrow.topology.parts import Planned, Programs
from outgrow.topology.postgres import Postgres
from outgrow.topology.process import Command, Reload
from outgrow.topology.render import File, pgbouncer

#: Bytes of a salt, as PostgreSQL's own (scram-common.h: SCRAM_DEFAULT_SALT_LEN).
_SALT: Final = 16


def secret(site: Site, password: str) -> str:
    """What PostgreSQL and the poolers keep of the password; "" without poolers.

    The password is another one in each run's folder, and so the salt is made from it.
    """
    if not site.services("pooler"):
        return ""
    salt = hashlib.sha256(b"outgrow up" + password.encode()).digest()[:_SALT]
    return pgbouncer.scram_secret(password, salt)


def files(site: Site, service: Service, home: Path, password: str) -> Iterator[File]:
    """Its configuration and its users, below the folder of the database servers."""
    folder = _folder(service, home)
    rows = site.database
    assert rows is not None, "agreement: a pooler has a database"
    whole = (
        *pgbouncer.render(site, service, folder / pgbouncer.USERS),
        pgbouncer.users(rows.user, secret(site, password)),
    )
    for file in whole:
        yield replace(file, name=str(folder / file.name), private=True)


def planned(service: Service, postgres: Postgres, programs: Programs) -> Planned:
    """Its process: ready when the primary answers a query through it."""
    configuration = _folder(service, postgres.home) / pgbouncer.CONFIGURATION
    check = postgres.through(service)
    return Planned(
        service.name,
        f"pooler ({service.engine})",
        Command(
            (programs.pgbouncer, str(configuration)),
            postgres.home,
            account=programs.account,
            # It lets transactions end that are open; SIGTERM means another thing in each version.
            stop=signal.SIGINT,
            reload=Reload(),
        ),
        "passes on a query",
        check,
        replace(check, seconds=0.0),
        service.port,
        url=service.url,
    )


def _folder(service: Service, home: Path) -> Path:
    return home / "_pooler" / service.name
