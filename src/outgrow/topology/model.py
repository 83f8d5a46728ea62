"""A site as a value: its servers, what each does, and where each is reached.

The laws:

1. A `Site` that exists is valid. `parse` finds every problem of a file and raises
   them together; nothing behind it checks again.
2. Whatever is made from a site (settings, configurations, commands) is made
   from this value alone. `local` gives the same site on one machine, as a value of
   the same type, so both go through the same code (promise T1).
3. What a role is stands in `ROLES`; a new role is a word there, and a command
   for it in `plan`.

The file in full::

    [site]
    name = "photos"                      # a short name: letters, digits, - and .
    settings = "photos.settings"         # DJANGO_SETTINGS_MODULE
    wsgi = "photos.wsgi:application"
    asgi = "photos.asgi:application"     # for an engine of [app] that can run it
    domains = ["photos.example.org"]     # ALLOWED_HOSTS
    media_root = "var/media"             # the master copy; relative to this file. With
                                         # [mounts.media] it is that folder, and left out
    media_url = "/media/"                # the default
    folder = "."                         # where the code is; the default

    [media]                              # options of the storage, as it documents them
    storage = "hybrid"                   # or "distributed": without a master copy
    need = 1                             # a number, "majority" or "all"
    names = "unique"                     # or "keep"
    timeout = 2.0                        # seconds
    deadline = 25.0                      # seconds
    downtime = 60.0                      # seconds
    fsync = false
    engine = "outgrow"                   # or "nginx": what the media servers run
    active = false                       # true: uploaded HTML, SVG and scripts are shown

    [balancer]                           # how those with this role work
    engine = "nginx"                     # or "haproxy"
    max_upload = 100                     # megabytes of one request
    timeout = 60                         # seconds without progress of one request
    health = "/"                         # the path that shows whether an app server is well
    certificate = "/etc/ssl/photos.pem"  # with these two it speaks HTTPS
    certificate_key = "/etc/ssl/photos.key"

    [app]                                # what those with this role run
    engine = "gunicorn"                  # or "uvicorn", which needs asgi, or "granian"
    workers = 3                          # processes; `outgrow up` has one for each server
    threads = 8                          # of each; an ASGI application has none

    [database]                           # without it the site's own settings hold
    engine = "postgresql"                # or "mariadb", or "sqlite", the default
    name = "photos"                      # of the database; for SQLite the path of its file
    user = "photos"                      # the default is the name of the database
    password_env = "PHOTOS_PASSWORD"     # the environment variable that holds the password
    # password_file = "/run/secrets/db"  # or a file that holds nothing else
    max_lag = 10.0                       # options of OUTGROW["REPLICATION"], in seconds
    check_every = 5.0
    pin_for = 60.0
    downtime = 60.0
    when_behind = "primary"              # or "wait" or "stale"
    wait = 0.1
    write_on_read = "pin"                # or "refuse" or "log"
    read_timeout = 10.0
    synchronous = true                   # a commit waits until a replica has it; PostgreSQL's

    [cache]                              # how those with this role work
    engine = "memcached"                 # or "redis"
    memory = 64                          # megabytes of each

    [pooler]                             # how those with this role work; PostgreSQL's
    mode = "transaction"                 # or "session"
    size = 20                            # connections of each to one database server
    clients = 500                        # of the site's processes to it; the default is their sum

    [dns]                                # how those with this role work
    engine = "bind"                      # or "dnsmasq"
    ttl = 60                             # seconds for which an answer is kept
    contact = "hostmaster@example.org"   # the default is that of the first domain
    serial = 2026010100                  # only for secondaries: it grows with each change

    [dns.secondaries]                    # servers of others that copy the zones
    "ns.example.net" = "198.51.100.53"

    [worker]                             # what those with this role run, in the site's folder
    command = "python -m celery -A photos worker"

    [objects]                            # with it uploads lie in an object store
    engine = "external"                  # or "swift", which `outgrow up` starts in any case
    bucket = "photos"
    prefix = "uploads"                   # below it; the default is none
    region = "eu-west-3"                 # the default is "us-east-1"
    access_key = "key"                   # without it the machine's role is asked
    secret_env = "PHOTOS_SECRET"         # the environment variable that holds its secret
    # secret_file = "/run/secrets/store" # or a file that holds nothing else
    base_url = "https://files.example.org/"  # a CDN, or a domain of one's own
    signed = true                        # the default, unless there is a base_url

    [mounts.reports]                     # a shared folder; that of the name media is MEDIA_ROOT
    type = "nfs"
    server = "files1"                    # with the role "files"; or the address of another one
    export = "/srv/export/reports"       # its folder there
    folder = "/srv/reports"              # where it is mounted
    roles = ["app", "worker"]            # by whom; the default. Or "balancer" or "media"

    [servers.front]
    roles = ["balancer"]                 # visitors come here; app servers are behind it
    address = "10.0.0.1"
    ports = { balancer = 443 }           # the default with a certificate, else 80
    engine = "haproxy"                   # this server's own
    public = ["203.0.113.1", "2001:db8::1"]  # where visitors reach it, if not at address

    [servers.app1]
    roles = ["app"]
    address = "10.0.0.11"
    ports = { app = 8000 }               # the default
    memory = 4000                        # megabytes; `outgrow capacity` compares its sum

    [servers.media1]
    roles = ["media"]                    # or several: ["app", "media"]
    address = "10.0.0.21"
    ports = { media = 8080 }             # the default
    zone = "a"                           # where it stands; for the choice of a server
    weight = 1                           # its share of the load, when that is spread

    [servers.db1]
    roles = ["primary"]                  # the server that takes the writes
    address = "10.0.0.31"
    ports = { primary = 5432 }           # the default for PostgreSQL; 3306 for MariaDB

    [servers.db2]
    roles = ["replica"]                  # any number of these; "db2" is the alias, too
    address = "10.0.0.32"

    [servers.cache1]
    roles = ["cache"]                    # any number of these with memcached, one with Redis
    address = "10.0.0.41"
    ports = { cache = 11211 }            # the default for memcached; 6379 for Redis

    [servers.pool1]
    roles = ["pooler"]                   # one for all, or one on each server that runs the site
    address = "10.0.0.36"
    ports = { pooler = 6432 }            # the default

    [servers.work1]
    roles = ["worker"]                   # any number of these, on servers of their own or not
    address = "10.0.0.51"

    [servers.ns1]
    roles = ["dns"]                      # any number of these; the zone calls it ns1.DOMAIN
    address = "192.0.2.53"
    ports = { dns = 53 }                 # the default

    [servers.store]
    roles = ["objects"]                  # the object store; then no media server is needed
    address = "s3.example.org"
    ports = { objects = 443 }            # the default: HTTPS. Any other port is HTTP

    [servers.files1]
    roles = ["files"]                    # shares folders: those of [mounts] that name it
    address = "10.0.0.61"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Final

from outgrow.errors import TopologyErrors
from outgrow.servers import Server
from outgrow.topology import (
    agreement,
    app,
    balancer,
    cache,
    database,
    dns,
    mounts,
    objects,
    pooler,
    rules,
    worker,
)
from outgrow.topology.app import App
from outgrow.topology.balancer import Balancer
from outgrow.topology.cache import Cache
from outgrow.topology.database import Database
from outgrow.topology.dns import Dns
from outgrow.topology.keys import Problems, Table, suggestion
from outgrow.topology.mounts import Mount
from outgrow.topology.objects import LOCAL_KEY, Objects
from outgrow.topology.pooler import Pooler
from outgrow.topology.worker import Worker

#: What a server can do.
ROLES: Final = (
    "balancer",
    "app",
    "media",
    "primary",
    "replica",
    "pooler",
    "cache",
    "worker",
    "objects",
    "dns",
    "files",
)

#: Where it does it, unless `ports` says otherwise. A database's, and an object store's, depends
#: on its engine, and a balancer's on whether it has a certificate.
PORTS: Final = {"app": 8000, "media": 8080}

#: What a media server can run; the first is the default.
ENGINES: Final = ("outgrow", "nginx")

#: Roles in which a server may run one thing or another, whatever the other servers run.
CHOICES: Final = {"balancer": balancer.ENGINES, "media": ENGINES, "dns": dns.ENGINES}

#: Where the whole of the uploads is: on a disk that all app servers share, or on the media
#: servers alone, with a catalogue in the database.
STORAGES: Final = ("hybrid", "distributed")

#: How the storage names files; see HybridStorage.
NAMES: Final = ("unique", "keep")

LOOPBACK: Final = "127.0.0.1"

HTTPS: Final = 443

#: Under these a site that runs on one machine is reached, beside its own domains.
LOCAL_DOMAINS: Final = ("localhost", LOOPBACK)

#: What runs and belongs to no server has these names.
REPAIR: Final = "repair"
MIGRATE: Final = "migrate"

#: Below the folder of a run: the password of its databases, and SQLite's file.
PASSWORD_FILE: Final = "_password"  # noqa: S105 - a name
SQLITE_FILE: Final = "_database.sqlite3"

#: And the master copy, and the folders that servers share. Server names don't begin with "_",
#: so no server's folder is there.
MASTER: Final = "_master"
MOUNTS: Final = "_mounts"


@dataclass(frozen=True, slots=True)
class Port:
    """A TCP port of one machine; 0 where nothing listens. `host` is an address or a name."""

    host: str
    number: int

    def __str__(self) -> str:
        # RFC 3986 §3.2.2: an IPv6 address stands in brackets.
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.number}"

    @property
    def url(self) -> str:
        """The address for HTTP, without a slash at the end."""
        return f"http://{self}"


@dataclass(frozen=True, slots=True)
class Service:
    """What one server does in one role.

    `name` is the server's when it has one role, else ``server:role``. `engine` is
    what a balancer, a media server or a database server runs, and empty for an app server.
    """

    name: str
    role: str
    port: Port
    engine: str = ""

    @property
    def url(self) -> str:
        """Where it is reached, without a slash at the end."""
        if self.role in {"objects", "balancer"} and self.port.number == HTTPS:
            return f"https://{self.port}".removesuffix(f":{HTTPS}")
        return self.port.url if self.is_http else f"{self.engine}://{self.port}"

    @property
    def is_http(self) -> bool:
        """Whether it speaks HTTP."""
        return self.role in PORTS or self.role in {"objects", "balancer"}


@dataclass(frozen=True, slots=True)
class Host:
    """One server of the site, with its roles in the order of the file.

    `memory` is in megabytes; 0 where the file does not say it. `public` are the addresses under
    which visitors reach it, where that is not `address`.
    """

    name: str
    address: str
    services: tuple[Service, ...]
    zone: str = ""
    weight: int = 1
    memory: int = 0
    public: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Media:
    """Which storage, and its options. What is None is left to the storage's own default.

    `timeout`, `deadline` and `downtime` are in seconds.
    """

    need: int | str | None = None
    names: str | None = None
    timeout: float | None = None
    deadline: float | None = None
    downtime: float | None = None
    fsync: bool | None = None
    storage: str = STORAGES[0]

    @property
    def is_distributed(self) -> bool:
        """Whether there is no master copy."""
        return self.storage == "distributed"


@dataclass(frozen=True, slots=True)
class Site:
    """A Django site and the servers that it runs on.

    `folder` holds its code and `media_root` the master copy of its uploads.
    """

    name: str
    settings: str
    wsgi: str
    domains: tuple[str, ...]
    folder: PurePath
    media_root: PurePath
    media_url: str
    media: Media
    hosts: tuple[Host, ...]
    database: Database | None = None
    objects: Objects | None = None
    balancer: Balancer = field(default_factory=Balancer)
    cache: Cache = field(default_factory=Cache)
    worker: Worker = field(default_factory=Worker)
    pooler: Pooler = field(default_factory=Pooler)
    dns: Dns = field(default_factory=Dns)
    app: App = field(default_factory=App)
    mounts: tuple[Mount, ...] = ()
    #: The ASGI application, or "".
    asgi: str = ""
    #: Uploads that a browser would run are shown as pages, and not only offered to be saved.
    active: bool = False
    #: The server that this process runs on, where several of them are on one machine.
    here: str = ""

    @property
    def is_asgi(self) -> bool:
        """Whether the application servers run the ASGI application, and not that for WSGI."""
        return bool(self.asgi) and self.app.engine in app.TAKES_ASGI

    @property
    def application(self) -> str:
        """What the application servers run."""
        return self.asgi if self.is_asgi else self.wsgi

    def services(self, role: str | None = None) -> tuple[Service, ...]:
        """Every service, or those in one role, in the order of the file."""
        every = (service for host in self.hosts for service in host.services)
        return tuple(service for service in every if role in {None, service.role})

    def service(self, name: str) -> Service:
        """The service with this name. Raises KeyError, which names those there are."""
        for service in self.services():
            if service.name == name:
                return service
        raise KeyError(f"{name!r}; there are: {', '.join(s.name for s in self.services())}")

    def media_servers(self) -> tuple[Server, ...]:
        """The media servers as the storage knows them: by name, under a URL."""
        return tuple(
            Server(service.name, service.url, host.zone, host.weight)
            for host, service in self._with_role("media")
        )

    def replicas(self) -> tuple[tuple[Server, Port], ...]:
        """The replicas as Django knows them: by alias, each with its port."""
        return tuple(
            (Server(database.alias(host.name), service.url, host.zone, host.weight), service.port)
            for host, service in self._with_role("replica")
        )

    def pooled(self) -> Port | None:
        """Where the site's processes reach their pooler; None without one.

        Of several each is for those on its own server, which reach it over loopback.
        """
        poolers = [(host.name, service.port) for host, service in self._with_role("pooler")]
        if len(poolers) < 2:
            return poolers[0][1] if poolers else None
        port = dict(poolers).get(self.here, poolers[0][1])
        return replace(port, host=LOOPBACK)

    def _with_role(self, role: str) -> Iterator[tuple[Host, Service]]:
        for host in self.hosts:
            for service in host.services:
                if service.role == role:
                    yield host, service


def parse(content: Mapping[str, object], folder: PurePath, source: str = "") -> Site:
    """The site that the content of a topology file describes.

    `folder` is what relative paths in it are relative to; `source` names the file
    in errors. Raises `TopologyErrors`, with every problem that the file has.
    """
    problems = Problems()
    top = Table("", content, problems)
    site, applications, fronts, caches, workers, media, data, store, servers = (
        top.table("site", required=True),
        top.table("app"),
        top.table("balancer"),
        top.table("cache"),
        top.table("worker"),
        top.table("media"),
        top.table("database"),
        top.table("objects"),
        top.table("servers"),
    )
    pools, names, folders = top.table("pooler"), top.table("dns"), top.table("mounts")
    top.close()
    rows = database.parse(data, folder) if top.has("database") else None
    # Without that table it is said that it is missing, and the engine does not matter.
    engine = rows.engine if rows else "postgresql"
    engines = {"primary": engine, "replica": engine}
    kind = store.choice("engine", objects.ENGINES, "an engine of an object store")
    engines["objects"] = kind or objects.ENGINES[0]
    files = objects.parse(store, folder) if top.has("objects") else None
    for role, table in (("balancer", fronts), ("media", media), ("dns", names)):
        engines[role] = table.choice("engine", CHOICES[role], "an engine") or CHOICES[role][0]
    shared = cache.parse(caches)
    engines |= {"cache": shared.engine, "pooler": pooler.ENGINE, mounts.ROLE: mounts.TYPES[0]}
    balancers = balancer.parse(fronts, folder)
    hosts = tuple(
        _host(name, table, engines, _ports(engines, balancers)) for name, table in servers.tables()
    )
    active = media.flag("active") or False
    options = _media(media)
    mounted = mounts.parse(folders)
    parsed = replace(
        _site(site, options, hosts, folder, mounts.media(mounted)),
        database=rows,
        objects=files,
        balancer=balancers,
        cache=shared,
        worker=worker.parse(workers),
        pooler=pooler.parse(pools),
        dns=dns.parse(names),
        app=app.parse(applications),
        mounts=mounted,
        active=active,
    )
    if not problems.below("servers"):
        agreement.check(parsed, problems)
    if problems.found:
        raise TopologyErrors(problems.found, source)
    return parsed


def local(site: Site, ports: Mapping[str, int], folder: PurePath) -> Site:
    """The same site on this machine alone.

    `ports` has a free port for the name of each service that listens. `folder` is
    where the run keeps its files; the master copy and the rows are in it, so that a
    laptop never writes where production would.
    """
    hosts = tuple(_local_host(host, ports) for host in site.hosts)
    moved = replace(
        site,
        domains=tuple(dict.fromkeys((*site.domains, *LOCAL_DOMAINS))),
        media_root=folder / MASTER,
        hosts=hosts,
        # A laptop has several servers' load on one machine, and no visitors.
        app=replace(site.app, workers=1),
        # The certificate of the site's own domain is no laptop's.
        balancer=replace(site.balancer, certificate=None, certificate_key=None),
        database=_local_database(site.database, folder),
        objects=_local_objects(site.objects, folder),
        mounts=tuple(_local_mount(site, one, folder) for one in site.mounts),
    )
    if moved.media_url.startswith("/") or not moved.services("media"):
        return moved
    return replace(moved, media_url=moved.services("media")[0].port.url + "/")


def direct(site: Site) -> Site:
    """The same site without its poolers: for what needs a session of the server to itself."""
    return _without(site, "pooler")


def runnable(site: Site) -> Site:
    """The same site without what is rendered only, and does not run on a laptop."""
    return _without(site, "dns")


def _without(site: Site, role: str) -> Site:
    hosts = (
        replace(host, services=tuple(one for one in host.services if one.role != role))
        for host in site.hosts
    )
    return replace(site, hosts=tuple(host for host in hosts if host.services))


def _local_host(host: Host, ports: Mapping[str, int]) -> Host:
    services = tuple(
        replace(
            service,
            port=Port(LOOPBACK, ports.get(service.name, 0)),
            # Never the store where production's files are.
            engine="swift" if service.role == "objects" else service.engine,
        )
        for service in host.services
    )
    return replace(host, address=LOOPBACK, services=services)


def _local_database(database: Database | None, folder: PurePath) -> Database | None:
    if database is None:
        return None
    if not database.has_servers:
        return replace(database, name=str(folder / SQLITE_FILE))
    return replace(database, password_env="", password_file=folder / PASSWORD_FILE)


def _local_mount(site: Site, mount: Mount, folder: PurePath) -> Mount:
    """All processes are on one machine, so it is a folder there; nothing is mounted."""
    place = folder / (MASTER if mount.name == mounts.MEDIA else f"{MOUNTS}/{mount.name}")
    server = mount.server if mount.server in {host.name for host in site.hosts} else LOOPBACK
    return replace(mount, server=server, export=place, folder=place)


def _local_objects(store: Objects | None, folder: PurePath) -> Objects | None:
    if store is None:
        return None
    return replace(
        store,
        region=objects.REGION,
        access_key=LOCAL_KEY,
        secret_env="",
        secret_file=folder / PASSWORD_FILE,
        base_url="",
        signed=None,
    )


def _site(
    table: Table, media: Media, hosts: tuple[Host, ...], folder: PurePath, mount: Mount | None
) -> Site:
    site = Site(
        name=table.text("name", rules.name),
        settings=table.text("settings", rules.module),
        wsgi=table.text("wsgi", rules.wsgi),
        asgi=table.text("asgi", rules.asgi, default=""),
        domains=table.texts("domains", rules.domain),
        folder=folder / table.text("folder", rules.path, default="."),
        media_root=_media_root(table, media, folder, mount),
        media_url=table.text("media_url", rules.media_url, default="/media/"),
        media=media,
        hosts=hosts,
    )
    table.close()
    return site


def _media_root(table: Table, media: Media, folder: PurePath, mount: Mount | None) -> PurePath:
    if mount:
        given = table.text("media_root", rules.path, default="")
        if given and mounts.normal(folder / given) != mount.folder:
            hint = "Leave it out; with that mount it is its folder."
            table.wrong("media_root", f"is not {mount.folder}, the folder of {mount.path}.", hint)
        return mount.folder
    if media.is_distributed:
        # Nothing of the uploads is there; other storages of the site may use it.
        return folder / table.text("media_root", rules.path, default="media")
    return folder / table.text("media_root", rules.path)


def _media(table: Table) -> Media:
    storage = table.choice("storage", STORAGES, "a storage") or STORAGES[0]
    if storage == "distributed":
        for key in ("names", "fsync"):
            table.refuse(key, 'is for storage = "hybrid", which has a master copy.')
    media = Media(
        need=table.word_or_whole("need", ("majority", "all"), 0),
        names=table.choice("names", NAMES, "a way to name files"),
        timeout=table.number("timeout", more_than=0),
        deadline=table.number("deadline", more_than=0),
        downtime=table.number("downtime", more_than=0),
        fsync=table.flag("fsync"),
        storage=storage,
    )
    table.close()
    return media


def _ports(engines: Mapping[str, str], balancers: Balancer) -> dict[str, int]:
    """Where each role is, unless a server says otherwise; 0 for what is a file."""
    return {
        **PORTS,
        "balancer": balancer.HTTPS if balancers.certificate else balancer.HTTP,
        "primary": database.PORTS[engines["primary"]],
        "replica": database.PORTS[engines["replica"]],
        "objects": objects.PORTS[engines["objects"]],
        "cache": cache.PORTS[engines["cache"]],
        "pooler": pooler.PORT,
        "dns": dns.PORT,
        mounts.ROLE: mounts.PORT,
        # It serves nobody: it takes its work from a queue.
        "worker": 0,
    }


def _host(name: str, table: Table, engines: Mapping[str, str], defaults: Mapping[str, int]) -> Host:
    if problem := _server_name(name):
        table.report(problem)
    roles = table.texts("roles", _role)
    address = table.text("address", rules.address)
    ports = table.table("ports")
    numbers = {role: _number(role, ports, defaults) for role in roles}
    ports.close()
    own = {**engines, **_own_engines(table, roles)}
    services = tuple(
        Service(
            name if len(roles) == 1 else f"{name}:{role}",
            role,
            Port(address, numbers[role]),
            own.get(role, ""),
        )
        for role in roles
    )
    zone = table.text("zone", default="")
    weight = table.whole("weight", 0, 1_000_000, default=1)
    memory = table.whole("memory", 1, 100_000_000, default=0)
    public = table.texts("public", rules.ip, default=())
    table.close()
    return Host(name, address, services, zone, weight, memory, public)


def _own_engines(table: Table, roles: tuple[str, ...]) -> dict[str, str]:
    """What this server runs in a role: `engine`, or `engines` where it has a choice in several."""
    choices = [role for role in roles if role in CHOICES]
    if len(choices) > 1:
        words = ", ".join(f'{role} = "..."' for role in choices)
        table.refuse("engine", "could be that of several roles.", f"Write engines = {{ {words} }}.")
        engines = table.table("engines")
        found = {role: engines.choice(role, CHOICES[role], "an engine") for role in choices}
        engines.close()
        return {role: engine for role, engine in found.items() if engine}
    if not choices:
        names = " or ".join(f'"{role}"' for role in CHOICES)
        table.refuse("engine", f"is only for a server with the role {names}.")
        return {}
    [role] = choices
    engine = table.choice("engine", CHOICES[role], "an engine")
    return {role: engine} if engine else {}


def _number(role: str, ports: Table, defaults: Mapping[str, int]) -> int:
    if default := defaults[role]:
        return ports.whole(role, 1, 65535, default=default)
    what = "a worker does not" if role == "worker" else "SQLite is a file"
    ports.refuse(role, f"is for a server that listens; {what}.")
    return 0


def _server_name(name: str) -> str:
    if name in {REPAIR, MIGRATE}:
        return f'"{name}" is the name of the process that {name}s; choose another.'
    return rules.name(name)


def _role(role: str) -> str:
    return "" if role in ROLES else f'"{role}" is not a role; {suggestion(role, ROLES)}'
