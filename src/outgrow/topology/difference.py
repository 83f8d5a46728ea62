"""Two sites -> what differs between them: what is new, what goes, and what has data that moves.

The laws:

1. A part of a site is what one server does in one role. It is the same part under the same name,
   wherever it listens; a database server or a cache that runs another engine is another part.
2. SQLite's file is no part. A worker is one, though it listens nowhere.
3. A replica that becomes the primary keeps its rows, and so does the primary that becomes a
   replica: neither is new or gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from outgrow.topology.app import App
from outgrow.topology.applications import ENGINES
from outgrow.topology.capacity import clients, pool
from outgrow.topology.dns import Dns
from outgrow.topology.model import Host, Media, Service, Site
from outgrow.topology.mounts import Mount
from outgrow.topology.render import pgbouncer
from outgrow.topology.render.mounts import source
from outgrow.topology.settings import django_settings
from outgrow.topology.worker import Worker
from outgrow.topology.zones import zones

#: Whose settings come from the topology file.
CODE: Final = ("app", "worker")

#: To which visitors come first, and what is behind it.
FRONTS: Final = ("balancer", "dns")
_BEHIND: Final = ("balancer", "app", "media", "static")

#: Where another engine serves the same files, or holds nothing.
_ANY_ENGINE: Final = (*CODE, *FRONTS, "media", "objects", "static")

#: What is never moved to another port by itself: it is data.
DATA: Final = ("primary", "objects")
_STAYS_PUT: Final = (*DATA, "worker")


@dataclass(frozen=True, slots=True)
class Part:
    """What one server does in one role."""

    host: Host
    service: Service

    @property
    def role(self) -> str:
        """Its role."""
        return self.service.role

    @property
    def name(self) -> str:
        """The name of its server."""
        return self.host.name

    @property
    def place(self) -> str:
        """Where it is: its port, or the address of what listens nowhere."""
        return str(self.service.port) if self.service.port.number else self.host.address

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others, in two files."""
        engine = "" if self.role in _ANY_ENGINE else self.service.engine
        return self.name, self.role, engine


@dataclass(frozen=True, slots=True)
class Difference:
    """What is new and what goes, and what stays: as it was, and as it will be."""

    before: Site
    after: Site
    new: tuple[Part, ...]
    gone: tuple[Part, ...]
    stay: tuple[tuple[Part, Part], ...]
    #: Database servers that change their role, and keep their rows.
    swapped: tuple[tuple[Part, Part], ...] = ()

    @property
    def moved(self) -> tuple[tuple[Part, Part], ...]:
        """What stays and listens elsewhere, but for what is data or does not listen."""
        return tuple(
            (old, now)
            for old, now in self.stay
            if old.service.port != now.service.port and old.role not in _STAYS_PUT
        )

    @property
    def rows_move(self) -> bool:
        """Whether another server, or another database, has the rows."""
        return _rows(self.before) != _rows(self.after)

    @property
    def data_moves(self) -> bool:
        """Whether any data has another home."""
        return self.rows_move or self.master_moves or self.uploads_move or bool(self.mounts_move)

    @property
    def bucket_is_new(self) -> bool:
        """Whether another bucket has the files of the object store."""
        return self.after.objects is not None and _bucket(self.before) != _bucket(self.after)

    @property
    def uploads_move(self) -> bool:
        """Whether uploads go from the media servers to a store, or back, or to another store."""
        if bool(self.before.services("media")) != bool(self.after.services("media")):
            return True
        return self.bucket_is_new and self.before.objects is not None

    @property
    def master_moves(self) -> bool:
        """Whether the master copy of the uploads is in another place."""
        before, after = self.before, self.after
        if not before.services("media") or not after.services("media"):
            return False
        return before.media_root != after.media_root or not apps(before) & apps(after)

    @property
    def mounts_move(self) -> tuple[tuple[Mount, Mount], ...]:
        """Shared folders that have another server, or another folder there."""
        was = {mount.folder: mount for mount in self.before.mounts}
        return tuple(
            (was[now.folder], now)
            for now in self.after.mounts
            if now.folder in was and source(self.before, was[now.folder]) != source(self.after, now)
        )

    @property
    def settings_differ(self) -> bool:
        """Whether Django gets other settings."""
        return _settings(self.before) != _settings(self.after)

    def command_differs(self, role: str) -> bool:
        """Whether the servers of this role, one of CODE, are started otherwise."""
        return _command(self.before, role) != _command(self.after, role)

    @property
    def front_differs(self) -> bool:
        """Whether a balancer has other servers behind it, or works otherwise."""
        return _front(self.before) != _front(self.after)

    @property
    def zones_differ(self) -> bool:
        """Whether name servers answer otherwise."""
        return _names(self.before) != _names(self.after)

    @property
    def pools_come(self) -> bool:
        """Whether a pooler needs something else before the settings are others."""
        old, now = pgbouncer.entries(self.before), pgbouncer.entries(self.after)
        if any(old.get(name) != server for name, server in now.items()):
            return True
        if self.before.pooler.mode != self.after.pooler.mode:
            # Who has cursors on the server needs a session first.
            return not self.after.pooler.by_transaction
        return _sizes(self.before) != _sizes(self.after)

    @property
    def pools_go(self) -> tuple[str, ...]:
        """What a pooler must still have until the settings are others: lines of its file."""
        now = pgbouncer.entries(self.after)
        lines = [name for name in pgbouncer.entries(self.before) if name not in now]
        if not self.before.pooler.by_transaction and self.after.pooler.by_transaction:
            lines.append("pool_mode")
        return tuple(lines)


def difference(before: Site, after: Site) -> Difference:
    """What differs between two sites."""
    old, now = parts(before), parts(after)
    new = [part for key, part in now.items() if key not in old]
    gone = [part for key, part in old.items() if key not in now]
    stay = tuple((part, now[key]) for key, part in old.items() if key in now)
    going = {part.key: part for part in gone}
    swapped = tuple((going[key], part) for part in new if (key := _swapped(part)) in going)
    kept = {part.key for pair in swapped for part in pair}
    return Difference(
        before,
        after,
        tuple(part for part in new if part.key not in kept),
        tuple(part for part in gone if part.key not in kept),
        stay,
        swapped,
    )


def parts(site: Site) -> Mapping[tuple[str, str, str], Part]:
    """Every part of a site, in the order of the file."""
    every = (Part(host, service) for host in site.hosts for service in host.services)
    return {part.key: part for part in every if part.service.port.number or part.role == "worker"}


def apps(site: Site) -> set[str]:
    """The names of the servers that run the application."""
    return {part.name for part in parts(site).values() if part.role == "app"}


def _swapped(part: Part) -> tuple[str, str, str]:
    """The same server's other part of a database."""
    other = {"primary": "replica", "replica": "primary"}.get(part.role, "")
    return part.name, other, part.service.engine


def _rows(site: Site) -> object:
    if site.database is None:
        return None
    where = [service.port for service in site.services("primary")]
    return site.database.engine, site.database.name, where


def _bucket(site: Site) -> object:
    if site.objects is None:
        return None
    return site.objects.location, [service.url for service in site.services("objects")]


def _settings(site: Site) -> object:
    # What names a password or a secret is not among the settings; both are read with them.
    return django_settings(site), site.database, site.objects


def _names(site: Site) -> object:
    return zones(site), site.dns.secondaries


def _sizes(site: Site) -> object:
    return site.pooler, pool(site), clients(site)


def _command(site: Site, role: str) -> object:
    # A unit runs while these are mounted.
    folders = {mount.folder for mount in site.mounts if role in mount.roles}
    if role == "worker":
        return site.folder, site.settings, site.worker, folders
    known = ENGINES[site.app.engine].knows_visitors
    fronts = [service.port.host for service in site.services("balancer")] if known else []
    return site.folder, site.settings, site.application, site.app, fronts, folders


def _front(site: Site) -> Site:
    """What a balancer may know of a site: too much is a reload, too little would be a failure."""
    hosts = tuple(
        replace(host, services=some, public=())
        for host in site.hosts
        if (some := tuple(one for one in host.services if one.role in _BEHIND))
    )
    # How a body of unknown length is treated depends on the kind of application.
    kind = "asgi" if site.is_asgi else ""
    return replace(
        site,
        hosts=hosts,
        database=None,
        objects=None,
        media=Media(),
        worker=Worker(),
        dns=Dns(),
        app=App(),
        mounts=tuple(mount for mount in site.mounts if {*mount.roles} & {"balancer", "media"}),
        asgi=kind,
    )
