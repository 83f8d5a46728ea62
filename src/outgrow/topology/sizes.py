"""The numbers that sums are made of, each with its source.

What was measured was measured as docs/explanation/tuning.md says. What a program does by default
is asked of the program in tests/topology/test_capacity.py, where it tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from outgrow.topology.applications import CONNECTIONS as APP_CONNECTIONS


@dataclass(frozen=True, slots=True)
class Runs:
    """What one of `app.ENGINES` has on a server.

    Megabytes, measured, of a `worker` with the example site in it, and of all the processes `above`
    the workers; the connections that a worker takes, or None for as many as come.
    """

    worker: int
    above: int
    above_memory: int
    takes: int | None


#: gunicorn.org/reference/settings, worker_connections; granian has what `applications` says, which
#: is the same number. Above the workers of uvicorn is a helper of Python's multiprocessing, too.
APPLICATIONS: Final[Mapping[str, Runs]] = {
    "gunicorn": Runs(worker=90, above=1, above_memory=30, takes=APP_CONNECTIONS),
    "uvicorn": Runs(worker=95, above=2, above_memory=40, takes=None),
    "granian": Runs(worker=110, above=1, above_memory=35, takes=APP_CONNECTIONS),
}

#: Megabytes of one process, measured: the repair, Outgrow's media server, an nginx, an HAProxy,
#: and a PgBouncer.
REPAIR_MEMORY: Final = 75
MEDIA_MEMORY: Final = 35
NGINX_MEMORY: Final = 5
HAPROXY_MEMORY: Final = 10
PGBOUNCER_MEMORY: Final = 10

#: Megabytes of one client of PgBouncer (pgbouncer.org/features.html: 2 kB; 1 as measured).
PGBOUNCER_CLIENT: Final = 0.002

#: The cores of the small machine that `app.WORKERS` is made for: an nginx has a process each.
CORES: Final = 2

#: Connections that a process of the site keeps to a media server (`outgrow.http`).
MEDIA_KEPT: Final = 8

#: Connections at once: memcached(1), -c; redis.conf, maxclients; MariaDB's max_connections
#: (mariadb.com/kb/en/server-system-variables/#max_connections).
CACHE_TAKES: Final = {"memcached": (1024, "memcached's -c"), "redis": (10_000, "maxclients")}
MARIADB_TAKES: Final = 151

#: Outgrow's media server: `--connections`.
MEDIA_TAKES: Final = 1000

#: Megabytes: PostgreSQL's shared_buffers and work_mem, MariaDB's innodb_buffer_pool_size, by
#: default; what one connection's process has for itself, measured; and the buffers of one
#: connection of MariaDB (sort, join, read, thread_stack; its own defaults, rounded).
SHARED_BUFFERS: Final = 128
WORK_MEM: Final = 4
BACKEND_MEMORY: Final = 3
BUFFER_POOL: Final = 128
MARIADB_CONNECTION: Final = 3

#: Megabytes of log: PostgreSQL's max_wal_size by default; what we render as
#: max_slot_wal_keep_size; what README.md lets the journal of systemd have.
WAL: Final = 1000
SLOT_WAL: Final = 10_000
JOURNAL: Final = 1000

#: Megabytes that a visitor costs: nginx's client_body_buffer_size, proxy_buffers and
#: proxy_buffer_size (16k + 8 x 4k + 4k; nginx.org/en/docs/http/ngx_http_proxy_module.html), and
#: two buffers of HAProxy (docs.haproxy.org/2.6/configuration.html#tune.bufsize).
NGINX_VISITOR: Final = 0.052
HAPROXY_VISITOR: Final = 0.033

#: Records that a media server is owed before they become one (`outgrow.media.journal`).
RECORDS: Final = 100_000
