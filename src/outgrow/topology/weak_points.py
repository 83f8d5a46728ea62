"""A site -> what stops, or is lost, when one server dies: for whoever decides what to double.

Only what the file tells is known: a machine below two servers, a switch or a data centre is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from outgrow.topology import mounts
from outgrow.topology.database import Database
from outgrow.topology.model import Service, Site
from outgrow.topology.pooler import CLIENTS
from outgrow.topology.ways import way

_LOST: Final = "what was written since the last backup is lost with its disk"


def weak_points(site: Site) -> tuple[str, ...]:
    """A sentence or two for each server without which something stops or is lost."""
    roles = dict.fromkeys(service.role for service in site.services())
    found = (_OF_ROLE.get(role, _one)(site, site.services(role)) for role in roles)
    return (*(text for some in found for text in some), *_file(site), *_mounts(site))


def _one(_: Site, services: tuple[Service, ...]) -> Iterator[str]:
    """A tier of one."""
    if len(services) == 1:
        noun = way(services[0].role).noun
        what, remedy = _ALONE.get(services[0].role, ("what it does is not done", "Add another"))
        yield f"{_only(services)} {noun}: when it dies, {what}. {remedy}."


#: What happens without the only one, and what to do, where it depends on nothing else.
_ALONE: Final[Mapping[str, tuple[str, str]]] = {
    "balancer": (
        "no visitor gets to the site",
        "Add another one, and its address to the domain",
    ),
    "app": ("there are no pages", "Add another one, and a balancer before them"),
    "worker": ("tasks wait until it is back", "Add another one"),
    "dns": (
        "no new visitor finds the site, and soon nobody does",
        "Add another one, at another place (RFC 2182 §3.1)",
    ),
}


def _media(site: Site, services: tuple[Service, ...]) -> Iterator[str]:
    distributed = site.media.is_distributed
    if len(services) == 1:
        lost = "its uploads are lost with its disk" if distributed else "the master copy has them"
        yield (
            f"{_only(services)} media server: when it dies, no upload is served until it is "
            f"back; {lost}. Add another one."
        )
    elif distributed and site.media.need in {None, 1}:
        yield (
            "An upload succeeds when one media server has it (need = 1): what it has not passed "
            'on yet is lost with its disk. Write need = "majority".'
        )
    if not distributed and not mounts.media(site.mounts):
        yield (
            f"{site.media_root} is the only disk with the master copy of the uploads: when it is "
            "away, nothing can be uploaded; files are served all the same. Back it up, or write "
            'storage = "distributed".'
        )


def _primary(site: Site, services: tuple[Service, ...]) -> Iterator[str]:
    rows = site.database
    if rows is None or not rows.has_servers:
        return
    name, replicas = _name(services[0]), site.services("replica")
    if not replicas:
        yield (
            f"{name} is the only database server: when it dies, the site stops, and {_LOST}. "
            "Add a replica."
        )
        return
    yield (
        f"{name} is the only primary: when it dies, reads go on, and writes stop until it is back "
        f"or a replica is promoted by hand. {_kept(rows)}"
    )
    if rows.synchronous and len(replicas) == 1:
        yield (
            f"{_only(replicas)} replica, and a commit waits for one: when it dies, writes stop. "
            "Add another one."
        )


def _file(site: Site) -> Iterator[str]:
    if site.database and not site.database.has_servers:
        yield (
            f"{site.database.name} is the only file with the rows: when its disk dies, {_LOST}. "
            "Use PostgreSQL, with replicas."
        )


def _mounts(site: Site) -> Iterator[str]:
    """The server of a shared folder, of which there is one."""
    for mount in site.mounts:
        what, remedy = str(mount.folder), "Back it up"
        if mount.name == mounts.MEDIA and site.services("media") and not site.media.is_distributed:
            what += ", the master copy of the uploads"
            remedy += (
                ', or write storage = "distributed"; the media servers serve files all the same'
            )
        yield (
            f"{mount.server} is the only server of {what}: when it dies, each process that reads "
            f"or writes there waits until it is back, and {_LOST}. {remedy}."
        )


def _kept(rows: Database) -> str:
    if rows.synchronous:
        return "Nothing that was acknowledged is lost: a replica has it."
    what = "What no replica has yet is lost with its disk"
    if rows.engine != "postgresql":
        return f"{what}."
    return f"{what}; with synchronous = true a commit waits for one."


def _cache(site: Site, services: tuple[Service, ...]) -> Iterator[str]:
    if len(services) != 1:
        return
    if site.cache.engine == "redis":
        what = "a page that asks it fails"
        remedy = "Use several memcached, of which one may be away"
    else:
        what, remedy = "all is computed anew; sessions are in the database, too", "Add another one"
    yield f"{_only(services)} cache: when it dies, {what}. {remedy}."


def _pooler(site: Site, services: tuple[Service, ...]) -> Iterator[str]:
    """One for several servers; that of the only one dies with it, which is told of that."""
    code = {host.name for host in site.hosts for one in host.services if one.role in CLIENTS}
    if len(services) == 1 and code != {_name(services[0])}:
        yield (
            f"{_only(services)} connection pooler: when it dies, nothing reaches the database "
            "until it is back. Give the role to each server that runs the application or a worker."
        )


def _objects(_: Site, services: tuple[Service, ...]) -> Iterator[str]:
    # Its provider's is many servers.
    for service in services:
        if service.engine != "external":
            yield (
                f"{_only(services)} object store: when it dies, no upload is stored or served, "
                "and they are lost with its disk. Use one that has several servers."
            )


def _nothing(_: Site, __: tuple[Service, ...]) -> Iterator[str]:
    """What is told elsewhere: a replica that dies with its primary; others read that then."""
    yield from ()


_OF_ROLE: Final[Mapping[str, Callable[[Site, tuple[Service, ...]], Iterator[str]]]] = {
    "media": _media,
    "primary": _primary,
    "replica": _nothing,
    "cache": _cache,
    "pooler": _pooler,
    "objects": _objects,
    # Told of its folders.
    mounts.ROLE: _nothing,
}


def _only(services: tuple[Service, ...]) -> str:
    return f"{_name(services[0])} is the only"


def _name(service: Service) -> str:
    """The name of a server; a service of one with several roles is called after both."""
    return service.name.partition(":")[0]
