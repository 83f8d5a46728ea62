"""A pooler's service -> PgBouncer's configuration, and the file of its users.

The laws:

1. Each database server has an entry of its own, so that an alias of Django's leads to one server:
   the primary under the name of the database, a replica under that name with its alias behind it.
   The catalogue of a distributed storage has one as well, and so connections of its own: it works
   while a transaction of the site is open, which may have the last one of the other pool.
2. No password is here, nor in the file of users: that has the SCRAM secret that PostgreSQL has.
   PgBouncer opens the server with what the client has proved that it knows. So the two
   must be the same secret, and not only of the same password.
3. Who waits for a connection is told so before he would be taken for lost: half a replica's
   `read_timeout`, and what a connection to the primary may take.

Sources: pgbouncer.org/config.html (also for the rules of SCRAM: "Authentication file format"),
and RFC 5802 §3 with RFC 7677 for the secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology import database
from outgrow.topology.capacity import clients, pool
from outgrow.topology.model import LOOPBACK, Port, Service, Site
from outgrow.topology.pooler import CATALOGUE, entry
from outgrow.topology.render import File

CONFIGURATION: Final = "pgbouncer.ini"
USERS: Final = "userlist.txt"

#: PostgreSQL's own count (scram_iterations; RFC 7677 §4 wants no less).
ITERATIONS: Final = 4096

_MAIN: Final = """\
; Written by outgrow. Changes here are lost.
[databases]
{entries}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
; No socket in a folder: they are reached over TCP alone.
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
; Who may look, and change nothing: psql -d pgbouncer -c 'SHOW POOLS'
stats_users = {user}
pool_mode = {mode}
; Connections of each entry. Those of all together are what PostgreSQL must take.
default_pool_size = {pool}
; Django keeps one for each alias in each thread; this is the most, and some to spare.
max_client_conn = {clients}
; What a client asks for at its start would be another client's as well.
ignore_startup_parameters = options
; Seconds. A server that is away is tried again at once when it is back.
server_connect_timeout = 5
server_login_retry = 1
query_wait_timeout = 5
; A machine that has vanished without a word is noticed within a minute.
tcp_keepidle = 30
tcp_keepintvl = 10
tcp_keepcnt = 3
; What is logged is what went wrong.
log_connections = 0
log_disconnections = 0
log_stats = 0
"""

#: Where transactions of several clients share a session, it can be made what a replica's is to
#: be; where a session is one client's, it is reset behind him, and the standby refuses writes.
_READ_ONLY: Final = " connect_query='SET default_transaction_read_only = on'"


def render(site: Site, service: Service, users: PurePath) -> Iterator[File]:
    """The configuration of one pooler; `users` is the path of the file with its users.

    Raises `ConfigurationError` for a path that can't stand in it.
    """
    if any(character < " " for character in str(users)):
        raise ConfigurationError(str(users), "PgBouncer can't be given this path.", "Rename it.")
    rows = site.database
    assert rows is not None, "agreement: a pooler has a database"
    several = len(site.services("pooler")) > 1
    more = _READ_ONLY if site.pooler.by_transaction else ""
    content = _MAIN.format(
        # What `rules` lets into names, addresses and aliases needs no quotes here.
        entries="\n".join(
            f"{name} = host={port.host} port={port.number} dbname={rows.name}"
            f"{more if role == 'replica' else ''}"
            for name, (role, port) in entries(site).items()
        ),
        host=LOOPBACK if several else service.port.host,
        port=service.port.number,
        users=users,
        user=rows.user,
        mode=site.pooler.mode,
        pool=pool(site),
        clients=clients(site),
    )
    yield File(CONFIGURATION, content)


def entries(site: Site) -> dict[str, tuple[str, Port]]:
    """What is pooled: the role and the place of the server behind each name (law 1)."""
    if site.database is None or not site.services("primary"):
        return {}
    name, [primary] = site.database.name, site.services("primary")
    aliases = [database.PRIMARY_ALIAS, *([CATALOGUE] if site.media.is_distributed else [])]
    found = {entry(name, alias): ("primary", primary.port) for alias in aliases}
    replicas = site.replicas()
    return found | {entry(name, server.name): ("replica", port) for server, port in replicas}


def users(user: str, secret: str) -> File:
    """The file of users, for one of them."""
    return File(USERS, f'"{user}" "{secret}"\n', private=True)


def scram_secret(password: str, salt: bytes) -> str:
    """What PostgreSQL keeps of a password in `pg_authid.rolpassword`, with this salt.

    The password must be ASCII, which SASLprep (RFC 4013) leaves as it is.
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(one).decode() for one in (salt, hashlib.sha256(client).digest()))
    salt_text, stored = parts
    return f"SCRAM-SHA-256${ITERATIONS}:{salt_text}${stored}:{base64.b64encode(server).decode()}"
