"""A site -> what each of its servers needs at the most: memory, connections, files, disk, inodes.

The laws:

1. A number is what we render, what the file says, or one of `sizes`. What nobody can know, such
   as the size of the uploads, stands there as words.
2. All is the most that there can be at once, so it is more than is seen on a usual day.
3. A role, or an engine, that is not known here has no sums, and no made-up ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from outgrow.topology import sizes
from outgrow.topology.capacity import (
    OPEN_FILES,
    Term,
    asking,
    at_once,
    clients,
    connections,
    of_each,
    pool,
    repairing,
    terms,
    total,
    workers,
)
from outgrow.topology.front import CONNECTIONS as FRONT_CONNECTIONS
from outgrow.topology.front import KEPT
from outgrow.topology.model import Host, Service, Site
from outgrow.topology.render import nginx, pgbouncer
from outgrow.topology.sums import (
    CONNECTIONS,
    DISK,
    FILES,
    INODES,
    MB,
    MEMORY,
    PROCESSES,
    Need,
    Sum,
)


def needs(site: Site, worker_memory: int | None = None) -> tuple[Need, ...]:
    """What each server of the site needs.

    `worker_memory` is megabytes of one worker process; without it, what was measured.
    """
    return tuple(need(site, host, worker_memory) for host in site.hosts)


def need(site: Site, host: Host, worker_memory: int | None = None) -> Need:
    """What one server needs."""
    memory = worker_memory or sizes.APPLICATIONS[site.app.engine].worker
    found = [
        _without_nothing(one)
        for service in host.services
        if service.role in _OF_ROLE
        for one in _OF_ROLE[service.role](site, service, memory)
    ]
    if any(service.engine != "external" for service in host.services):
        found.append(Sum("", DISK, (((sizes.JOURNAL, "MB of journal"),),), MB, "the system itself"))
    return Need(host, (*found, *_memory_of(host, found)))


def _memory_of(host: Host, found: list[Sum]) -> Iterator[Sum]:
    """The memory of a server: what its services need together, and what it has."""
    parts = [one for one in found if one.what == MEMORY]
    if len(parts) < 2 and not host.memory:
        return
    yield Sum(
        "",
        MEMORY,
        tuple(((one.total, f"MB of the {one.role}"),) for one in parts if one.total),
        MB,
        "the system itself",
        host.memory or None,
        "memory in the file" if host.memory else "",
        "Take a larger server, or move a role to another one." if host.memory else "",
    )


def _without_nothing(one: Sum) -> Sum:
    """The same without terms that come to nothing."""
    some = tuple(term for term in one.terms if all(number for number, _ in term))
    return replace(one, terms=some)


# --- each role


def _app(site: Site, service: Service, worker_memory: int) -> Iterator[Sum]:
    role, media = service.role, len(site.services("media"))
    runs = sizes.APPLICATIONS[site.app.engine]
    taken: tuple[Term, ...] = () if runs.takes is None else (((runs.takes, "connection"),),)
    repairs = (1, "repair") if media else (0, "repair")
    own, each = (site.app.workers, "worker"), of_each(site)
    yield Sum(role, PROCESSES, ((own,), ((runs.above, "above them"),), (repairs,)))
    yield Sum(
        role,
        MEMORY,
        (
            (own, (worker_memory, MB)),
            ((runs.above_memory, "MB above them"),),
            (repairs, (sizes.REPAIR_MEMORY, MB)),
        ),
        MB,
    )
    yield Sum(role, CONNECTIONS, _from_fronts(site), more=_from_others(site))
    yield Sum(
        role,
        FILES,
        (
            *taken,
            (each, (_asked(site), "connection")),
            ((media, "media server"), (sizes.MEDIA_KEPT, "connection")),
            ((each[0], "upload"),),
        ),
        more="what the code opens" if taken else "its connections, what the code opens",
        limit=OPEN_FILES,
        limited_by="LimitNOFILE",
    )
    yield _uploads(site, role, (own, each))
    if media and not site.media.is_distributed:
        records = ((media, "media server"), (sizes.RECORDS, "record"))
        yield Sum(role, INODES, (records,), more="one for each upload and each folder")


def _from_fronts(site: Site) -> tuple[Term, ...]:
    """The connections that balancers keep to one server behind them, at the most."""
    engines = [service.engine for service in site.services("balancer")]
    return (
        ((engines.count("nginx"), "balancer"), (sizes.CORES, "core"), (KEPT, "kept")),
        ((engines.count("haproxy"), "balancer"), (FRONT_CONNECTIONS, "visitor")),
    )


def _from_others(site: Site) -> str:
    engines = {service.engine for service in site.services("balancer")}
    if not engines:
        return "visitors' own"
    return "" if engines <= set(_FRONTS) else "those of other balancers"


def _asked(site: Site) -> int:
    """Servers that one thread keeps a connection to: databases by their aliases, and caches."""
    aliases = 2 if site.media.is_distributed else 1
    databases = len(site.services("primary")) * aliases + len(site.services("replica"))
    return databases + len(site.services("cache"))


def _uploads(site: Site, role: str, bodies: Term) -> Sum:
    """Room for bodies that are just being received: Django puts large ones on the disk."""
    largest = (site.balancer.max_upload, MB)
    words = "the code"
    if site.services("media") and not site.media.is_distributed:
        words += ", and every upload, where the master copy is on this disk"
    return Sum(role, DISK, ((*bodies, largest),), MB, words)


def _balancer(site: Site, service: Service, _: int) -> Iterator[Sum]:
    if service.engine in _FRONTS:
        yield from _FRONTS[service.engine](site, service)


def _nginx(site: Site, service: Service) -> Iterator[Sum]:
    cores, visitors = (sizes.CORES, "core"), (FRONT_CONNECTIONS // 2, "visitor")
    body = f"{site.balancer.max_upload} MB for each body that is just coming: they lie in /run"
    yield Sum(service.role, PROCESSES, ((cores,), ((1, "above them"),)))
    yield Sum(
        service.role,
        MEMORY,
        (((sizes.NGINX_MEMORY, "MB itself"),), (cores, visitors, (sizes.NGINX_VISITOR, MB))),
        MB,
        body,
    )
    # A visitor is one connection, and one more to a server.
    yield Sum(service.role, CONNECTIONS, ((cores, visitors),))
    yield Sum(
        service.role,
        FILES,
        (((FRONT_CONNECTIONS, "connection"),), ((FRONT_CONNECTIONS // 2, "upload"),)),
        limit=OPEN_FILES,
        limited_by="LimitNOFILE",
    )


def _haproxy(site: Site, service: Service) -> Iterator[Sum]:
    visitors = (FRONT_CONNECTIONS, "visitor")
    behind = len(site.services("app")) + len(site.services("media"))
    yield Sum(
        service.role,
        MEMORY,
        (((sizes.HAPROXY_MEMORY, "MB itself"),), (visitors, (sizes.HAPROXY_VISITOR, MB))),
        MB,
    )
    yield Sum(service.role, CONNECTIONS, ((visitors,),))
    yield Sum(
        service.role,
        FILES,
        ((visitors, (2, "connection")), ((behind, "check"),)),
        more="what it listens at",
        limit=OPEN_FILES,
        limited_by="LimitNOFILE",
    )


_FRONTS: Final[Mapping[str, Callable[[Site, Service], Iterator[Sum]]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
}


def _media(site: Site, service: Service, _: int) -> Iterator[Sum]:
    role, ours = service.role, service.engine == "outgrow"
    processes = (1 if ours else nginx.WORKERS, "process")
    takes = sizes.MEDIA_TAKES if ours else nginx.WORKERS * nginx.CONNECTIONS
    each = (sizes.MEDIA_MEMORY if ours else sizes.NGINX_MEMORY, MB)
    yield Sum(role, MEMORY, ((processes, each),), MB)
    tasks = (len(site.services("worker")), "background worker")
    writers = (
        (*workers(site), (sizes.MEDIA_KEPT, "connection")),
        (tasks, (sizes.MEDIA_KEPT, "connection")),
        ((len(repairing(site)), "repair"), (sizes.MEDIA_KEPT, "connection")),
    )
    yield Sum(
        role,
        CONNECTIONS,
        writers,
        more="those who read",
        limit=takes,
        limited_by="--connections" if ours else "worker_connections",
        remedy="Use an object store, or fewer application servers.",
    )
    requests, _tasks = at_once(site)
    yield Sum(role, DISK, ((*requests, (site.balancer.max_upload, MB)),), MB, "every upload, once")
    words = "one for each upload and each folder"
    week = ", and one for each name that was deleted, for a week" if ours else ""
    yield Sum(role, INODES, more=words + week)


def _rows(site: Site, service: Service, _: int) -> Iterator[Sum]:
    if service.engine in {"postgresql", "mariadb"}:
        yield from {"postgresql": _postgresql, "mariadb": _mariadb}[service.engine](site, service)


def _postgresql(site: Site, service: Service) -> Iterator[Sum]:
    # What is rendered for each of them: a standby must take as many as its primary.
    most = max(connections(site, role) for role in ("primary", "replica"))
    yield Sum(
        service.role,
        CONNECTIONS,
        terms(site, service.role),
        limit=most,
        limited_by="max_connections, as rendered",
    )
    yield Sum(
        service.role,
        MEMORY,
        (
            ((sizes.SHARED_BUFFERS, "MB shared"),),
            ((most, "connection"), (sizes.BACKEND_MEMORY + sizes.WORK_MEM, MB)),
        ),
        MB,
    )
    kept = sizes.SLOT_WAL if site.services("replica") else 0
    yield Sum(
        service.role,
        DISK,
        (((sizes.WAL, "MB of log"),), ((kept, "MB of log for replicas"),)),
        MB,
        "the rows",
    )


def _mariadb(site: Site, service: Service) -> Iterator[Sum]:
    wanted = terms(site, service.role)
    most = total(wanted)
    yield Sum(
        service.role,
        CONNECTIONS,
        wanted,
        limit=sizes.MARIADB_TAKES,
        limited_by="max_connections, by default",
        remedy=f"Write max_connections = {most} into its configuration, or ask for less.",
    )
    yield Sum(
        service.role,
        MEMORY,
        (
            ((sizes.BUFFER_POOL, "MB shared"),),
            ((most, "connection"), (sizes.MARIADB_CONNECTION, MB)),
        ),
        MB,
    )
    yield Sum(service.role, DISK, more="the rows, and the binary log")


def _pooler(site: Site, service: Service, _: int) -> Iterator[Sum]:
    role, most = service.role, (clients(site), "client")
    yield Sum(
        role,
        MEMORY,
        (((sizes.PGBOUNCER_MEMORY, "MB itself"),), (most, (sizes.PGBOUNCER_CLIENT, MB))),
        MB,
    )
    yield Sum(
        role,
        CONNECTIONS,
        asking(site),
        limit=clients(site),
        limited_by="clients in the file" if site.pooler.clients else "max_client_conn, as rendered",
        remedy="Raise clients of [pooler], or leave it out: then it is the sum.",
    )
    yield Sum(
        role,
        FILES,
        ((most,), ((len(pgbouncer.entries(site)), "pool"), (pool(site), "connection"))),
        more="what it listens at",
        limit=OPEN_FILES,
        limited_by="LimitNOFILE",
        remedy="Have a pooler on each server that runs the application or a worker.",
    )


def _cache(site: Site, service: Service, _: int) -> Iterator[Sum]:
    takes, by = sizes.CACHE_TAKES[service.engine]
    yield Sum(
        service.role,
        MEMORY,
        (((site.cache.memory, "MB of what is cached"),),),
        MB,
        "a little for itself",
    )
    yield Sum(
        service.role,
        CONNECTIONS,
        at_once(site),
        limit=takes,
        limited_by=by,
        remedy="Let it take more, or use fewer threads.",
    )


def _worker(_: Site, service: Service, __: int) -> Iterator[Sum]:
    yield Sum(service.role, MEMORY, more="that of its own command: measure it")


_OF_ROLE: Final[Mapping[str, Callable[[Site, Service, int], Iterator[Sum]]]] = {
    "app": _app,
    "balancer": _balancer,
    "media": _media,
    "primary": _rows,
    "replica": _rows,
    "pooler": _pooler,
    "cache": _cache,
    "worker": _worker,
}
