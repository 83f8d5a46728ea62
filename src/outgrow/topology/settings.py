"""`Site` -> Django's settings.

A site's settings.py writes two lines::

    from outgrow.topology import current, django_settings

    globals().update(django_settings(current(BASE_DIR / "topology.toml")))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote

from outgrow.topology.database import PRIMARY_ALIAS, Database
from outgrow.topology.model import Port, Site
from outgrow.topology.objects import Objects
from outgrow.topology.pooler import CATALOGUE, entry

_BACKENDS: Final = {
    "sqlite": "django.db.backends.sqlite3",
    "postgresql": "django.db.backends.postgresql",
    "mariadb": "django.db.backends.mysql",
}

#: Seconds for a connection to the primary, without which there is no site.
_PRIMARY_TIMEOUT: Final = 5

#: Seconds for a connection to a replica, instead of which there are others. libpq takes
#: 1 for 2 (postgresql.org/docs/current/libpq-connect.html).
_REPLICA_TIMEOUT: Final = 2

#: Seconds for which a thread keeps a connection.
_KEPT: Final = 600

#: The header that says how a visitor has come, and its value for HTTPS.
_HTTPS: Final = ("HTTP_X_FORWARDED_PROTO", "https")

#: Seconds for a cache, instead of which there is the database.
_CACHE_TIMEOUT: Final = 1

_CACHES: Final[Mapping[str, dict[str, Any]]] = {
    "memcached": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "OPTIONS": {
            # One that is away has nothing, and is no error
            # (pymemcache.readthedocs.io/en/latest/apidoc/pymemcache.client.hash.html).
            "ignore_exc": True,
            "connect_timeout": _CACHE_TIMEOUT,
            "timeout": _CACHE_TIMEOUT,
        },
    },
    "redis": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "OPTIONS": {"socket_connect_timeout": _CACHE_TIMEOUT, "socket_timeout": _CACHE_TIMEOUT},
    },
}

#: Replicas refuse a write by themselves; this says it to the client's own session, too.
_READ_ONLY: Final = {
    "postgresql": {"options": "-c default_transaction_read_only=on"},
    "mariadb": {"init_command": "SET SESSION TRANSACTION READ ONLY"},
}


def django_settings(site: Site) -> dict[str, Any]:
    """ALLOWED_HOSTS, MEDIA_ROOT, MEDIA_URL and STORAGES for this site.

    With cache servers also CACHES, and sessions that are in the cache and in the database.
    Behind balancers also SECURE_PROXY_SSL_HEADER, which is safe there: ours write that header
    anew, whatever a visitor has sent.
    With [mounts] also the folders that all application servers share, for the system checks.
    With a table [database] also DATABASES, with replicas DATABASE_ROUTERS, and with replicas or
    several application servers OUTGROW. Options that the file leaves out are left out here, so
    that their own defaults hold. The static files' storage is Django's default.
    """
    return {
        "ALLOWED_HOSTS": list(site.domains),
        "MEDIA_ROOT": str(site.media_root),
        "MEDIA_URL": site.media_url,
        "STORAGES": {
            **_uploads(site),
            "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        },
        **({"SECURE_PROXY_SSL_HEADER": _HTTPS} if site.services("balancer") else {}),
        **_caches(site),
        **_with_servers(site, _databases(site, site.database) if site.database else {}),
    }


def _caches(site: Site) -> dict[str, Any]:
    servers = [service.port for service in site.services("cache")]
    if not servers:
        return {}
    if site.cache.engine == "redis":
        where: object = f"redis://{servers[0]}"
    else:
        # In the order of the file, spelt alike on every host: which of them has a key depends
        # on that.
        where = list(map(str, servers))
    return {
        "CACHES": {"default": {"LOCATION": where, **_CACHES[site.cache.engine]}},
        # A cache may forget; who is logged in stands in the database too.
        "SESSION_ENGINE": "django.contrib.sessions.backends.cached_db",
    }


def _with_servers(site: Site, found: dict[str, Any]) -> dict[str, Any]:
    """The same with what is true of the servers: poolers, shared folders, and how many there are.

    Their number is that of the application servers, if there are several.
    """
    if site.database and site.pooled():
        modes = dict.fromkeys(found["DATABASES"], site.pooler.mode)
        found = found | {"OUTGROW": {**found.get("OUTGROW", {}), "POOLED": modes}}
    if folders := [str(mount.folder) for mount in site.mounts if "app" in mount.roles]:
        found = found | {"OUTGROW": {**found.get("OUTGROW", {}), "SHARED_FOLDERS": folders}}
    machines = {service.port.host for service in site.services("app")}
    if len(machines) < 2:
        return found
    return found | {"OUTGROW": {**found.get("OUTGROW", {}), "APP_SERVERS": len(machines)}}


def _uploads(site: Site) -> dict[str, Any]:
    """The media servers' storage, or the store's; the store is "objects" beside media servers."""
    found = {}
    if site.objects:
        found["objects"] = _objects(site, site.objects)
    if site.services("media"):
        found["default"] = _media(site)
    else:
        found["default"] = found.pop("objects")
    return found


def _media(site: Site) -> dict[str, Any]:
    given = {key: value for key, value in asdict(site.media).items() if value is not None}
    del given["storage"]
    servers = {server.name: server.address for server in site.media_servers()}
    if site.media.is_distributed:
        options = {"servers": servers, "base_url": site.media_url, **given}
        return {"BACKEND": "outgrow.media.DistributedStorage", "OPTIONS": options}
    location = str(site.media_root)
    options = {"servers": servers, "location": location, "base_url": site.media_url, **given}
    return {"BACKEND": "outgrow.media.HybridStorage", "OPTIONS": options}


def _objects(site: Site, store: Objects) -> dict[str, Any]:
    [service] = site.services("objects")
    given = {
        "access_key": store.access_key,
        "secret_key": store.secret,
        "base_url": store.base_url,
        "querystring_auth": store.signed,
    }
    options = {
        "location": store.location,
        "endpoint": service.url,
        "region": store.region,
        **{key: value for key, value in given.items() if value not in {"", None}},
        # Its own begins empty; a provider's bucket is made by who pays for it.
        **({"auto_create_bucket": True} if service.engine == "swift" else {}),
    }
    return {"BACKEND": "outgrow.objects.ObjectStorage", "OPTIONS": options}


def _databases(site: Site, database: Database) -> dict[str, Any]:
    replicas = site.replicas()
    aliases = {PRIMARY_ALIAS: _primary(site, database)}
    if site.media.is_distributed:
        # What it says must be committed even when the site's own transaction is rolled back.
        aliases[CATALOGUE] = _primary(site, database)
    aliases |= {server.name: _replica(site, database, port) for server, port in replicas}
    aliases = {alias: one | _pooled(site, database, alias) for alias, one in aliases.items()}
    if not replicas:
        return {"DATABASES": aliases}
    options = {k: v for k, v in asdict(database.replication).items() if v is not None}
    cluster = {
        "replicas": [server.name for server, _ in replicas],
        "weights": {server.name: server.weight for server, _ in replicas},
        **options,
    }
    return {
        "DATABASES": aliases,
        "DATABASE_ROUTERS": ["outgrow.databases.ReplicationRouter"],
        "OUTGROW": {"REPLICATION": {PRIMARY_ALIAS: cluster}},
    }


def _pooled(site: Site, database: Database, alias: str) -> dict[str, Any]:
    """What is another thing for an alias that is reached through a pooler."""
    port = site.pooled()
    if port is None:
        return {}
    found = {"NAME": entry(database.name, alias), "HOST": port.host, "PORT": str(port.number)}
    if site.pooler.by_transaction:
        # A cursor of the server lives in one session; the next fetch may be in another
        # (docs.djangoproject.com/en/stable/ref/databases/, "Transaction pooling").
        return found | {"DISABLE_SERVER_SIDE_CURSORS": True}
    # A connection that is kept would keep one of the server.
    return found | {"CONN_MAX_AGE": 0}


def _primary(site: Site, database: Database) -> dict[str, Any]:
    if not database.has_servers:
        return {"ENGINE": _BACKENDS[database.engine], "NAME": database.name}
    [service] = site.services("primary")
    return {
        **_server(site, database, service.port),
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"connect_timeout": _PRIMARY_TIMEOUT},
    }


def _replica(site: Site, database: Database, port: Port) -> dict[str, Any]:
    mirror = {"TEST": {"MIRROR": PRIMARY_ALIAS}}
    if not database.has_servers:
        # The primary's own file, which this alias can't write (sqlite.org/uri.html).
        name = f"file:{quote(database.name)}?mode=ro"
        return {"ENGINE": _BACKENDS[database.engine], "NAME": name, **mirror}
    return {
        **_server(site, database, port),
        # No round trip for each request: a read that finds it dead goes to another.
        "CONN_HEALTH_CHECKS": False,
        "OPTIONS": {"connect_timeout": _REPLICA_TIMEOUT, **_READ_ONLY[database.engine]},
        **mirror,
    }


def _server(site: Site, database: Database, port: Port) -> dict[str, Any]:
    return {
        "ENGINE": _BACKENDS[database.engine],
        "NAME": database.name,
        "USER": database.user,
        # Without one the driver looks where it always does: ~/.pgpass, PGPASSWORD.
        **({"PASSWORD": database.password} if database.password else {}),
        "HOST": port.host,
        "PORT": str(port.number),
        # Each request of ASGI has a thread of its own, with which its connections would be lost
        # (docs.djangoproject.com/en/stable/ref/databases/#persistent-connections).
        "CONN_MAX_AGE": 0 if site.is_asgi else _KEPT,
    }
