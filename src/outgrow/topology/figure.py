"""A site -> its figure: the servers in groups, and what goes from one group to another.

The groups stand in rows, from visitors downwards. A server with several roles stands once, in the
first of its groups, and says what else it does. `render.svg` and `render.text` draw the figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from outgrow.topology.model import Host, Site

#: What a group is called, in the order in which a server is put into one.
_TITLES: Final[Mapping[str, str]] = {
    "balancer": "balancers",
    "dns": "name servers",
    "app": "application servers",
    "pooler": "connection poolers",
    "media": "media servers",
    "objects": "object store",
    "cache": "caches",
    "worker": "workers",
    "files": "file servers",
    "primary": "primary database",
    "replica": "replicas",
}
_ENGINES: Final[Mapping[str, str]] = {
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB",
    "outgrow": "Outgrow",
    "external": "",
    "nfs": "NFS",
    "haproxy": "HAProxy",
    "pgbouncer": "PgBouncer",
    "bind": "BIND",
    "redis": "Redis",
    "swift": "Swift",
}

#: Groups that have a row of their own, or share one; all others have the last.
_ROWS: Final = (("balancer", "dns"), ("app",), ("pooler",))
_LAST: Final = tuple(role for role in _TITLES if not any(role in row for row in _ROWS))

VISITORS: Final = "visitors"


@dataclass(frozen=True, slots=True)
class Box:
    """One server: its name, where it is, and what it does besides its group."""

    name: str
    address: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Servers that do the same. `key` is the role."""

    key: str
    title: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Arrow:
    """What goes from one group to another; both are keys, `start` may be VISITORS."""

    start: str
    end: str
    label: str


@dataclass(frozen=True, slots=True)
class Figure:
    """The whole figure. Below the visitors stands the first row, and so on."""

    title: str
    rows: tuple[tuple[Group, ...], ...]
    arrows: tuple[Arrow, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """All of them, row by row."""
        return tuple(group for row in self.rows for group in row)


def figure(site: Site) -> Figure:
    """The figure of a site."""
    groups = {
        role: Group(role, _title(site, role), boxes)
        for role in _TITLES
        if (boxes := _boxes(site, role))
    }
    every = (tuple(groups[key] for key in row if key in groups) for row in (*_ROWS, _LAST))
    rows = tuple(row for row in every if row)
    return Figure(site.name, rows, tuple(_arrows(site, groups)))


def _title(site: Site, role: str) -> str:
    """Balancers that are the application servers as well are web servers."""
    members = [host for host in site.hosts if _group(host) == role]
    both = all(any(one.role == "app" for one in host.services) for host in members)
    return "web servers" if role == "balancer" and both else _TITLES[role]


def _boxes(site: Site, role: str) -> tuple[Box, ...]:
    return tuple(_box(host) for host in site.hosts if _group(host) == role)


def _group(host: Host) -> str:
    roles = {service.role for service in host.services}
    # A pooler stands for itself only where nothing else is on its server.
    return next(role for role in _TITLES if role in (roles - {"pooler"} or roles))


def _box(host: Host) -> Box:
    own = _group(host)
    others = [service for service in host.services if service.role != own]
    [first] = [service for service in host.services if service.role == own]
    notes = [_ENGINES.get(first.engine, first.engine), *(_short(one.role) for one in others)]
    if host.zone:
        notes.append(f"zone {host.zone}")
    return Box(
        host.name,
        str(first.port) if first.port.number else host.address,
        tuple(filter(None, notes)),
    )


def _short(role: str) -> str:
    """What a server does besides."""
    return {"primary": "also the primary", "objects": "also the store"}.get(role, f"also {role}")


def _arrows(site: Site, groups: Mapping[str, Group]) -> Iterator[Arrow]:
    files = "media" if site.services("media") else "objects"
    writes = "writes" if site.services("replica") else "rows"
    front = "balancer" if "balancer" in groups else VISITORS
    inner = "pooler" if "pooler" in groups else "app"
    # A whole URL is that of the media servers themselves.
    passes = front if site.media_url.startswith("/") and files == "media" else VISITORS
    every = (
        Arrow(VISITORS, "balancer", "requests"),
        Arrow(VISITORS, "dns", "names"),
        Arrow(front, "app", "requests"),
        Arrow(passes, files, "files"),
        Arrow("app", "media", "uploads, to each"),
        Arrow("app", "objects", "uploads"),
        Arrow("app", "files", "shared folders"),
        Arrow("app", "cache", "what is remembered"),
        Arrow("app", "worker", "tasks"),
        Arrow("app", "pooler", "rows"),
        Arrow(inner, "primary", writes),
        Arrow(inner, "replica", "reads"),
        Arrow("primary", "replica", "replication"),
    )
    # What a server does besides is done where that server stands.
    places = {VISITORS: VISITORS}
    for host in site.hosts:
        for service in host.services:
            places.setdefault(service.role, _group(host))
    places |= {key: key for key in groups}
    seen = set()
    for arrow in every:
        ends = (places.get(arrow.start), places.get(arrow.end))
        if None in ends or ends[0] == ends[1] or ends in seen:
            continue
        seen.add(ends)
        yield Arrow(str(ends[0]), str(ends[1]), arrow.label)
