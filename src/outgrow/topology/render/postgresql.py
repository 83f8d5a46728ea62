"""A database server's service -> what its PostgreSQL is told besides its own defaults.

Source: postgresql.org/docs/current/runtime-config-replication.html and app-pgrewind.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outgrow.topology import database
from outgrow.topology.capacity import connections
from outgrow.topology.model import Host, Service, Site
from outgrow.topology.render import File

#: The name of the file; below `conf.d` of the cluster, Debian's PostgreSQL reads it.
CONFIGURATION: Final = "postgresql-outgrow.conf"

_MAIN: Final = """\
# Written by outgrow. Changes here are lost.
listen_addresses = '{host}'
port = {port}
# Each thread of the site keeps its connections; this is the most, and some to spare.
max_connections = {connections}
wal_level = replica
hot_standby = on
# Without it an old primary could not be made a standby of the new one by pg_rewind.
wal_log_hints = on
# What a replica that is away may still need; more, and it is made anew.
max_slot_wal_keep_size = 10GB
{synchronous}"""

_SYNCHRONOUS: Final = """\
# A commit waits until any one of the others has it on its disk.
synchronous_standby_names = '{names}'
"""


def render(site: Site, host: Host, service: Service) -> Iterator[File]:
    """The settings of one PostgreSQL, primary or replica.

    A replica has those of the primary that it may become.
    """
    others = [
        database.alias(one.name)
        for one in site.hosts
        if one.name != host.name and any(s.role in {"primary", "replica"} for s in one.services)
    ]
    waits = site.database is not None and site.database.synchronous
    names = database.any_of(others) if waits else ""
    # A standby must take as many as its primary, or it does not start.
    most = max(connections(site, role) for role in ("primary", "replica"))
    content = _MAIN.format(
        host=service.port.host,
        port=service.port.number,
        connections=most,
        synchronous=_SYNCHRONOUS.format(names=names) if names else "",
    )
    yield File(CONFIGURATION, content)
