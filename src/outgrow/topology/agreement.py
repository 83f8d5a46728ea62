"""What must hold between the servers of a site, once each of them is right by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from outgrow.topology import app, database, mounts, pooler, rules, zones
from outgrow.topology.keys import Problems, join

if TYPE_CHECKING:
    from outgrow.topology.model import Host, Site

#: Roles without which there is no site.
NEEDED: Final = ("app", "media")

#: Who may stand in the place of a media server.
INSTEAD: Final = {"media": "objects"}


def check(site: Site, problems: Problems) -> None:
    """Note where the servers of `site` do not fit together."""
    for role in NEEDED:
        if not site.services(role) and not site.services(INSTEAD.get(role, role)):
            problems.add("servers", f'no server has the role "{role}", and a site needs one.')
    _check_app(site, problems)
    _check_objects(site, problems)
    _check_caches(site, problems)
    for path, _ in _having(site, "worker"):
        if not site.worker.command:
            hint = 'Write it, as in command = "python -m celery -A photos worker".'
            problems.add("worker.command", f"is missing, and {path} asks for it.", hint)
            break
    media = len(site.services("media"))
    if isinstance(site.media.need, int) and site.media.need > media:
        hint = 'Lower it, or add servers with the role "media".'
        problems.add("media.need", f"{site.media.need} are needed, and there are {media}.", hint)
    if site.media.is_distributed and not (site.database and site.database.has_servers):
        hint = 'Write it, with engine = "postgresql" or "mariadb", or write storage = "hybrid".'
        problems.add(
            "database", "is missing: the catalogue of a distributed storage is there.", hint
        )
    _check_database(site, problems)
    _check_poolers(site, problems)
    _check_dns(site, problems)
    mounts.check(site, problems)
    _check_addresses(site, problems)


def _check_dns(site: Site, problems: Problems) -> None:
    servers = list(_having(site, "dns"))
    if not servers:
        return
    apexes = zones.apexes(site)
    if not apexes:
        problem = f"{servers[0][0]} has names to answer for, and there is none."
        problems.add("site.domains", problem, 'Write one, as in "example.org".')
        return
    for name in (name for name in zones.domains(site) if len(name) > zones.LONGEST):
        problems.add("site.domains", f'"{name}" is too long for a zone.')
    for _, host in servers:
        _check_name_server(site, host, f"{host.name}.{apexes[0]}", problems)
    for host in zones.fronts(site):
        if not host.public and not rules.is_address(host.address):
            problem = f'"{host.address}" is a name, and a domain leads to addresses.'
            hint = "Write the addresses that visitors come to: public = [...]."
            problems.add(f"{join('servers', host.name)}.address", problem, hint)


def _check_name_server(site: Site, host: Host, own: str, problems: Problems) -> None:
    """One of them, which has its `own` name in the zone."""
    where, hint = join("servers", host.name), "Give the server another name."
    if problem := rules.label(host.name):
        problems.add(where, problem, "A name server's own name begins with it.")
    if own in zones.domains(site):
        problems.add(where, f'"{own}" would be the name server, and is a domain of the site.', hint)
    if len(own) > zones.LONGEST_NAME:
        problems.add(where, f'"{own}" would be the name server, and is too long.', hint)
    if not rules.is_address(host.address):
        problem = f'"{host.address}" is a name, and a name server listens at an IP address.'
        problems.add(f"{where}.address", problem, "Write the address.")


def _check_app(site: Site, problems: Problems) -> None:
    engine = site.app.engine
    if engine in app.NEEDS_ASGI and not site.asgi:
        hint = f'Write it, as in asgi = "{site.settings.partition(".")[0]}.asgi:application".'
        problems.add("site.asgi", f"is missing: {engine} runs an ASGI application.", hint)
    elif site.is_asgi and site.app.threads != app.THREADS:
        hint = "Leave it out; workers says how many processes there are."
        problems.add("app.threads", "is for WSGI: each request of ASGI has a thread then.", hint)
    if engine in app.NEEDS_IP:
        for host in dict.fromkeys(host for _, host in _having(site, "app")):
            if not rules.is_address(host.address):
                where = f"{join('servers', host.name)}.address"
                problem = f'"{host.address}" is a name, and {engine} listens at an IP address.'
                problems.add(where, problem, "Write the address, or choose another engine.")


def _check_objects(site: Site, problems: Problems) -> None:
    stores = list(_having(site, "objects"))
    if site.objects is None and stores:
        path, host = stores[0]
        hint = f'Write it: the bucket that "{host.name}" has for the site.'
        problems.add("objects", f"is missing, and {path} asks for it.", hint)
    if site.objects is not None and not stores:
        problems.add("objects", 'needs a server with the role "objects", which has the bucket.')
    for path, _ in stores[1:]:
        first = stores[0][1].name
        problems.add(path, f'"{first}" is the object store already, and there can be but one.')


def _check_caches(site: Site, problems: Problems) -> None:
    if site.cache.engine != "redis":
        return
    for path, _ in list(_having(site, "cache"))[1:]:
        # Django writes to the first of several alone, and takes the others for its replicas
        # (docs.djangoproject.com/en/stable/topics/cache/#redis).
        hint = 'Several servers share the load with engine = "memcached".'
        problems.add(path, "Redis is the cache, and there can be but one.", hint)


def _check_database(site: Site, problems: Problems) -> None:
    primaries, replicas = list(_having(site, "primary")), list(_having(site, "replica"))
    if site.database is None and (primaries or replicas):
        path, host = (primaries or replicas)[0]
        hint = f'Write it: the engine and the name of the database that "{host.name}" has.'
        problems.add("database", f"is missing, and {path} asks for it.", hint)
    for path, _ in primaries[1:]:
        first = primaries[0][1].name
        problems.add(path, f'"{first}" is the primary already, and there can be but one.')
    for path, host in replicas:
        if not primaries:
            hint = 'Give one server the role "primary".'
            problems.add(path, "there is no primary for this replica.", hint)
        elif host is primaries[0][1]:
            problems.add(path, "a primary can't be its own replica.")
    if site.database and site.database.synchronous and not replicas:
        hint = 'Give a server the role "replica"; better two, for writes wait while one is away.'
        problems.add("database.synchronous", "there is no replica to wait for.", hint)
    _check_aliases(replicas, problems)
    if site.database and site.database.has_servers and not primaries and not replicas:
        problems.add("database", f'{site.database.engine} needs a server with the role "primary".')


def _check_poolers(site: Site, problems: Problems) -> None:
    poolers = list(_having(site, "pooler"))
    if not poolers:
        return
    path = poolers[0][0]
    if site.database is None or site.database.engine != pooler.DATABASE:
        problems.add(path, "PgBouncer is for PostgreSQL.", 'It needs engine = "postgresql".')
    elif site.database.name == pooler.RESERVED:
        problem = f'"{pooler.RESERVED}" is the name that PgBouncer has for its console.'
        problems.add("database.name", problem, "Give the database another name.")
    for alias in _entries(site):
        name = pooler.entry(site.database.name if site.database else "", alias)
        if len(name) > pooler.LONGEST:
            problem = f'with the pooler it is called "{name}", which is too long.'
            problems.add("database.name", problem, "Take a shorter name.")
    if not site.services("primary"):
        problems.add(path, "there is no primary for this pooler.", 'One server is "primary".')
    if len(poolers) > 1:
        _check_own_poolers(site, poolers, problems)


def _entries(site: Site) -> Iterator[str]:
    """The aliases whose entries have longer names than the database."""
    yield from (server.name for server, _ in site.replicas())
    if site.media.is_distributed:
        yield pooler.CATALOGUE


def _check_own_poolers(site: Site, poolers: list[tuple[str, Host]], problems: Problems) -> None:
    """Of several each is for its own server, under the same address on all of them."""
    having = {host.name for _, host in poolers}
    code = {host.name for role in pooler.CLIENTS for _, host in _having(site, role)}
    hint = "Have one pooler for all, or one on each server that runs the application or a worker."
    for path, host in poolers:
        if host.name not in code:
            problems.add(path, "there are several poolers, and nobody is on this one's.", hint)
    for name in sorted(code - having):
        where = join("servers", name)
        problems.add(where, "it has no pooler of its own, and there are several.", hint)
    services = site.services("pooler")
    ports = {one.port.number for one in services}
    # On one machine, as `outgrow up` has them, each has another.
    if len(ports) > 1 and len({one.port.host for one in services}) > 1:
        hint = "All servers have the same settings, so each finds its own at the same port."
        problems.add("servers", "the poolers listen at different ports.", hint)


def _check_aliases(replicas: list[tuple[str, Host]], problems: Problems) -> None:
    seen = {database.PRIMARY_ALIAS: "the primary"}
    for _, host in replicas:
        alias = database.alias(host.name)
        other = seen.setdefault(alias, host.name)
        if other != host.name:
            problem = f'its alias in DATABASES would be "{alias}", as that of {other} is.'
            problems.add(join("servers", host.name), problem, "Give it another name.")


def _having(site: Site, role: str) -> Iterator[tuple[str, Host]]:
    """The hosts that have a role, each with the path of that role in the file."""
    for host in site.hosts:
        for index, service in enumerate(host.services):
            if service.role == role:
                yield f"{join('servers', host.name)}.roles[{index}]", host


def _check_addresses(site: Site, problems: Problems) -> None:
    seen: dict[tuple[str, int], str] = {}
    for host in site.hosts:
        for service in host.services:
            if not service.port.number:  # a file, which listens nowhere
                continue
            port = (rules.same_address(host.address), service.port.number)
            other = seen.setdefault(port, service.name)
            if other != service.name:
                problems.add(
                    join("servers", host.name),
                    f'"{service.name}" and "{other}" have the same address {service.port}.',
                    "Give one of them another address, or other ports.",
                )
