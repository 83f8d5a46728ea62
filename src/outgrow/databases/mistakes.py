"""What is wrong with the settings of replication: for Django's system checks.

`settings_mistakes` opens no connection; `live_mistakes` asks the servers, for
``manage.py check --database``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from django.db import DatabaseError, InterfaceError, connections
from django.utils.module_loading import import_string

from outgrow import conf
from outgrow.conf import ClusterOptions
from outgrow.mistakes import Mistake

MIDDLEWARE: Final = "outgrow.databases.ReplicationMiddleware"
ROUTER: Final = "outgrow.databases.ReplicationRouter"
_SESSIONS: Final = "SessionMiddleware"

#: So often a replica is connected to, to see whether it is always the same server.
_LOOKS: Final = 3


def settings_mistakes() -> Iterator[Mistake]:
    """All that can be seen in the settings."""
    found, problems = conf.cluster_options(conf.outgrow(), conf.databases())
    for problem in problems:
        yield Mistake(f"{problem.path}: {problem.problem}", problem.hint, "E101")
    if not found:
        return
    yield from _router()
    yield from _middleware()
    for cluster in found:
        yield from _mirrors(cluster)
        yield from _cache(cluster)


def _router() -> Iterator[Mistake]:
    routers = [_name(one) for one in conf.routers()]
    if ROUTER not in routers and _full(ROUTER) not in routers:
        hint = f"Write DATABASE_ROUTERS = [{ROUTER!r}]."
        yield Mistake(
            "OUTGROW['REPLICATION'] has replicas, but no router reads them.", hint, "E102"
        )
    elif routers[0] not in {ROUTER, _full(ROUTER)}:
        text = f"DATABASE_ROUTERS begins with {routers[0]!r}, which hides its models' replicas."
        hint = f"Put {ROUTER!r} first: it asks the others which database a model has."
        yield Mistake(text, hint, "E102")


def _middleware() -> Iterator[Mistake]:
    names = conf.middleware()
    places = [place for place, name in enumerate(names) if name in {MIDDLEWARE, _full(MIDDLEWARE)}]
    if not places:
        hint = f"Put {MIDDLEWARE!r} first in MIDDLEWARE."
        yield Mistake("No request reads a replica: the middleware is missing.", hint, "E103")
        return
    before = [name for name in names[: places[0]] if name.endswith(_SESSIONS)]
    if before:
        text = f"{MIDDLEWARE} stands after {before[0]}: what sessions save would be missed."
        yield Mistake(text, "Put it first in MIDDLEWARE.", "E103")


def _mirrors(cluster: ClusterOptions) -> Iterator[Mistake]:
    databases = conf.databases()
    for alias in cluster.aliases:
        mirror = databases[alias].get("TEST", {}).get("MIRROR")
        if mirror != cluster.primary:
            text = f"DATABASES[{alias!r}]['TEST']['MIRROR'] is {mirror!r}: tests would give this "
            hint = f"Write 'TEST': {{'MIRROR': {cluster.primary!r}}}."
            yield Mistake(f"{text}replica a database of its own.", hint, "E104")
        pooled = databases[alias].get("OPTIONS", {}).get("pool")
        lent = conf.pooled()[0].get(alias) == "session"
        if databases[alias].get("CONN_MAX_AGE", 0) == 0 and not pooled and not lent:
            text = f"DATABASES[{alias!r}] has no CONN_MAX_AGE: every request connects anew."
            hint = "Set it to a number of seconds, or to None, or use a pool of connections."
            yield Mistake(text, hint, "W105")


def _cache(cluster: ClusterOptions) -> Iterator[Mistake]:
    remember = cluster.remember
    if not remember.in_cache:
        return
    path = f"{conf.REPLICATION_PATH}[{cluster.primary!r}]['cache']"
    backend = conf.caches().get(remember.cache, {}).get("BACKEND")
    if backend is None:
        hint = f"There are: {', '.join(conf.caches())}."
        yield Mistake(f"{path}: {remember.cache!r} is not in CACHES.", hint, "E106")
    elif "redis" not in str(backend).lower():
        text = f"{path}: {backend} can't add a note without losing another's."
        hint = "Use django.core.cache.backends.redis.RedisCache, or 'remember': 'cookie'."
        yield Mistake(text, hint, "E106")
    if isinstance(remember.key, str) and remember.key:
        try:
            import_string(remember.key)
        except ImportError as error:
            place = f"{conf.REPLICATION_PATH}[{cluster.primary!r}]['key']"
            yield Mistake(f"{place}: {error}", "Write its dotted path.", "E106")


#: Our own sessions are read-only by themselves, and so say nothing of the user's others.
_WRITABLE_PG: Final = """\
SELECT NOT pg_is_in_recovery() AND NOT EXISTS (
    SELECT 1 FROM pg_db_role_setting AS one LEFT JOIN pg_roles AS role ON role.oid = one.setrole
     WHERE (one.setrole = 0 OR role.rolname = current_user)
       AND (one.setdatabase = 0 OR one.setdatabase = (
           SELECT oid FROM pg_database WHERE datname = current_database()))
       AND 'default_transaction_read_only=on' = ANY (one.setconfig))"""


def _name(given: Any) -> str:
    return given if isinstance(given, str) else f"{type(given).__module__}.{type(given).__name__}"


def _full(name: str) -> str:
    """The path of the module in which a public name is defined."""
    module = "router" if name == ROUTER else "middleware"
    return name.replace("databases.", f"databases.{module}.")


def live_mistakes(aliases: list[str]) -> Iterator[Mistake]:
    """What the servers of these aliases say against being replicas."""
    found, _ = conf.cluster_options(conf.outgrow(), conf.databases())
    for cluster in found:
        for alias in cluster.aliases:
            if alias in aliases:
                yield from _replica(cluster, alias)


def _replica(cluster: ClusterOptions, alias: str) -> Iterator[Mistake]:
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return
    try:
        yield from _pooled(alias)
        yield from _writable(alias)
        yield from _filtered(cluster, alias)
        yield from _silent(cluster, alias)
    except (DatabaseError, InterfaceError) as error:
        text = f"The replica {alias!r} can't be asked: {' '.join(str(error).split())}"
        yield Mistake(text, "Start it, or take it out of the setting.", "W107")


def _pooled(alias: str) -> Iterator[Mistake]:
    """Whether several servers answer under this alias (a balancer, or a pooler)."""
    from outgrow.databases import probe

    seen = set()
    for _ in range(_LOOKS):
        connection = connections.create_connection(alias)
        try:
            connection.ensure_connection()
            seen.add(probe.look(connection).incarnation)
        finally:
            connection.close()
    if len(seen) > 1:
        text = f"Behind {alias!r} there are several servers: {', '.join(sorted(seen))}."
        hint = "Give each an alias of its own: what one has replayed says nothing of another."
        yield Mistake(text, hint, "E108")


def _writable(alias: str) -> Iterator[Mistake]:
    """Whether the user of a replica could write there, if its server let him."""
    connection = connections[alias]
    mysql = "SELECT @@GLOBAL.read_only IN ('0', 'OFF')"
    query = _WRITABLE_PG if connection.vendor == "postgresql" else mysql
    with connection.cursor() as cursor:
        cursor.execute(query)
        (writable,) = cursor.fetchone()
    if writable:
        text = f"The replica {alias!r} can be written to: it would differ from its primary."
        hint = (
            "Set read_only = ON on its server."
            if connection.vendor == "mysql"
            else "Use a standby, or a user with default_transaction_read_only = on."
        )
        yield Mistake(text, hint, "E109")


def _filtered(cluster: ClusterOptions, alias: str) -> Iterator[Mistake]:
    """Whether a MariaDB replica leaves out what its positions count as replayed."""
    connection = connections[alias]
    if connection.vendor != "mysql":
        return
    filters = [*_filters(connection), *_domains(connection)]
    if filters:
        text = f"The replica {alias!r} replays a part only: {', '.join(filters)}."
        hint = f"Let it replay all of {cluster.primary!r}, or take it out of the setting."
        yield Mistake(text, hint, "E110")


def _silent(cluster: ClusterOptions, alias: str) -> Iterator[Mistake]:
    """Whether a replica tells no position: nobody who wrote is served by it then."""
    from outgrow.databases import probe

    if probe.look(connections[alias]).position is None:
        text = f"The replica {alias!r} tells no position: who wrote reads the primary instead."
        hint = (
            f"For {cluster.pin_for:g} s (pin_for) after each write. Replicate by GTID "
            "(docs/howto/replicas.md), or leave it so."
        )
        yield Mistake(text, hint, "W111")


def _filters(connection: Any) -> Iterator[str]:
    """The filters by database and table; those that ignore, if they concern the site's own."""
    name = str(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL VARIABLES LIKE 'replicate\\_%'")
        found = [(variable, value) for variable, value in cursor.fetchall() if value]
    for variable, value in found:
        if variable.startswith(("replicate_do_", "replicate_wild_do_")) or _ignores(
            variable, value, name
        ):
            yield variable


def _ignores(variable: str, value: str, name: str) -> bool:
    """Whether this is a filter that ignores something of the database of this name."""
    parts = [part.strip().partition(".")[0] for part in value.split(",")]
    if variable == "replicate_wild_ignore_table":
        return any(_is_like(name, part) for part in parts)
    return variable in {"replicate_ignore_db", "replicate_ignore_table"} and name in parts


def _is_like(name: str, pattern: str) -> bool:
    """Whether a pattern of SQL's LIKE matches a name; a backslash makes a character plain."""
    wild = {"%": ".*", "_": "."}
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return bool(re.fullmatch("".join(wild.get(p) or re.escape(p[-1]) for p in parts), name))


def _domains(connection: Any) -> Iterator[str]:
    """The filters by domain, which only those are told who may see the replica's status."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("SHOW ALL SLAVES STATUS")
        except (DatabaseError, InterfaceError):
            return  # no privilege for it, or MySQL, which has no domains
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    for column in ("Replicate_Do_Domain_Ids", "Replicate_Ignore_Domain_Ids"):
        if any(row.get(column) for row in rows):
            yield column
