"""Data that gets another home, and what must be ready for it: steps by hand, said to be so."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from outgrow.topology import mounts
from outgrow.topology.capacity import connections
from outgrow.topology.change import (
    MOVE,
    PREPARE,
    RECONFIGURE,
    REMOVE,
    SET_UP,
    STOP,
    SWITCH,
    Change,
)
from outgrow.topology.difference import Difference, Part, apps, parts
from outgrow.topology.model import Site
from outgrow.topology.mounts import Mount
from outgrow.topology.render.mounts import source, unit_name

_PAGE: Final = "howto/change-topology.md"
_SHARED: Final = "howto/shared-folder.md"
#: The roles that have the rows.
_ROWS: Final = ("primary", "replica")
_BY_HAND: Final = "By hand, and nobody may write meanwhile."


def prepared(differs: Difference, file: str) -> Iterator[Change]:
    """What a site must have before there is more that asks for it."""
    before, after = differs.before, differs.after
    if len(apps(before)) < 2 <= len(apps(after)):
        what = "the site for several servers: no state on one of them alone"
        why = "Sessions and caches are shared, and so is MEDIA_ROOT, the master of the uploads."
        check = f"OUTGROW_TOPOLOGY={file} python manage.py check"
        page = f"{_PAGE}#add-an-application-server"
        yield Change(PREPARE, _app(before), RECONFIGURE, what, why, (check,), page)
    if after.services("replica") and not before.services("replica"):
        what = "the site: outgrow.databases.ReplicationMiddleware stands first in MIDDLEWARE"
        why = "Every process notes what its clients wrote, before any of them reads a replica."
        page = "howto/replicas.md#switch-it-on-step-by-step"
        yield Change(PREPARE, _app(before), RECONFIGURE, what, why, (), page)
    if before.media_url != after.media_url and after.services("media"):
        what = f"the address of files: they are found under {after.media_url}, too"
        why = "Pages lead there as soon as the first application server has the new file."
        media = after.services("media")[0].name.partition(":")[0]
        yield Change(PREPARE, media, RECONFIGURE, what, why, (), "howto/media-servers.md")
    yield from _roomier(differs)


def mounted(differs: Difference, file: str) -> Iterator[Change]:
    """Folders that servers which stay mount from now on; for a new one its own page says it."""
    before = {host.name: host for host in differs.before.hosts}
    moving = [now.folder for _, now in differs.mounts_move]
    for host in differs.after.hosts:
        known = before.get(host.name)
        had = [mount.folder for mount in mounts.of(differs.before, known)] if known else []
        for mount in mounts.of(differs.after, host) if known else ():
            if mount.folder in had or mount.folder in moving:
                continue
            what = f"the mount of {source(differs.after, mount)} at {mount.folder}"
            why = "Nothing refers to it yet. What is in that folder today is hidden by it."
            why += f" servers/{host.name}/README.md says how."
            render = f"outgrow render {file} --to servers --host {host.name}"
            yield Change(PREPARE, host.name, SET_UP, what, why, (render,), _SHARED)


def unmounted(differs: Difference) -> Iterator[Change]:
    """Folders that servers which stay mount no more."""
    after = {host.name: host for host in differs.after.hosts}
    for host in differs.before.hosts:
        known = after.get(host.name)
        kept = [mount.folder for mount in mounts.of(differs.after, known)] if known else []
        for mount in mounts.of(differs.before, host) if known else ():
            if mount.folder not in kept:
                what = f"the mount at {mount.folder}"
                why = "Nothing refers to it any more. Keep what is on its server, or copy it."
                unit = shlex.quote(unit_name(mount.folder))
                command = f"systemctl disable --now {unit}"
                yield Change(REMOVE, host.name, STOP, what, why, (command,), _SHARED)


def _roomier(differs: Difference) -> Iterator[Change]:
    """Database servers that will be asked for more connections than they take."""
    was, will = (
        max(connections(site, role) for role in ("primary", "replica"))
        for site in (differs.before, differs.after)
    )
    staying = [one for one in (*differs.stay, *differs.swapped) if one[1].role in _ROWS]
    # A standby that takes fewer than its primary does not go on
    # (postgresql.org/docs/current/hot-standby.html, "Administrator's Overview").
    for _, now in sorted(staying, key=lambda pair: pair[0].role == "primary"):
        if will > was and now.service.engine == "postgresql":
            what = f"it to take {will} connections: max_connections in its configuration"
            why = "The site will ask for more than it takes today. Start it again; writes wait."
            page = "explanation/tuning.md#connections-of-the-database"
            yield Change(PREPARE, now.name, RECONFIGURE, what, why, (), page)


def moved(differs: Difference) -> Iterator[Change]:
    """The manual acts."""
    before, after = differs.before, differs.after
    if differs.rows_move:
        page = f"{_PAGE}#move-the-database"
        what = f"of the database: {_rows(before)} -> {_rows(after)}"
        why = f"{_BY_HAND} No two servers take writes at any moment."
        yield Change(SWITCH, _keeper(after), MOVE, what, why, (), page)
    if differs.master_moves:
        what = f"of the master copy: {before.media_root} -> {after.media_root}, with .outgrow/"
        page = f"{_PAGE}#move-the-master-copy"
        yield Change(SWITCH, _app(after), MOVE, what, _BY_HAND, (), page)
    for old, now in differs.mounts_move:
        what = f"of {now.folder}: {source(before, old)} -> {source(after, now)}"
        page = f"{_SHARED}#move-it-to-another-server"
        yield Change(SWITCH, _client(after, now), MOVE, what, _BY_HAND, (), page)
        yield from _mounted_anew(after, now)
    if differs.uploads_move:
        what = f"of the uploads: {_files(before)} -> {_files(after)}"
        why = "By hand, while the site goes on: one deployment reads and writes both."
        yield Change(SWITCH, _app(after), MOVE, what, why, (), "howto/move-storage.md")


def can_follow(differs: Difference) -> bool:
    """Whether a new database server can be filled by the old primary."""
    before, after = differs.before, differs.after
    if before.database is None or after.database is None or not before.database.has_servers:
        return False
    return before.database.engine == after.database.engine


def can_drain(differs: Difference) -> bool:
    """Whether `media server drain` finds enough other servers in the settings of today.

    Where it does not, the new servers are repaired with the new settings.
    """
    before = differs.before
    count = len(before.services("media"))
    need = before.media.need
    words = {None: 1, "majority": count // 2 + 1, "all": count}
    needed = need if isinstance(need, int) else words[need]
    return bool(differs.after.services("media")) and count - 1 >= max(1, needed)


def with_role(differs: Difference, role: str) -> Iterator[Part]:
    """The parts of the new site in one role."""
    return (part for part in parts(differs.after).values() if part.role == role)


def _app(site: Site) -> str:
    return next(host.name for host in site.hosts if host.name in apps(site))


def _mounted_anew(site: Site, mount: Mount) -> Iterator[Change]:
    """What has the folder must see its new server before anybody writes there again."""
    for host in mounts.clients(site, mount):
        what = f"the mount at {mount.folder}: {source(site, mount)}"
        why = f"The files are there now. servers/{host.name} has its unit, once it is rendered."
        command = f"systemctl restart {shlex.quote(unit_name(mount.folder))}"
        yield Change(SWITCH, host.name, RECONFIGURE, what, why, (command,), _SHARED)


def _client(site: Site, mount: Mount) -> str:
    return next((host.name for host in site.hosts if mount in mounts.of(site, host)), _app(site))


def _keeper(site: Site) -> str:
    """The server that a step about the rows is for."""
    primaries = [part.name for part in parts(site).values() if part.role == "primary"]
    return primaries[0] if primaries else _app(site)


def _rows(site: Site) -> str:
    if site.database is None:
        return "where the site's own settings say"
    primary = site.services("primary")
    where = f" at {primary[0].port}" if primary and site.database.has_servers else ""
    return f"{site.database.engine} {site.database.name}{where}"


def _files(site: Site) -> str:
    if site.services("media") or site.objects is None:
        return "the media servers"
    return site.objects.location
