"""The tables ``[mounts.NAME]`` as values: folders that several servers have in common.

The server of a mount is one of the file, with the role "files", or another one by its address.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING, Final

from outgrow.topology import rules
from outgrow.topology.keys import Problems, Table, join, suggestion

if TYPE_CHECKING:
    from outgrow.topology.model import Host, Site

#: How a folder is shared.
TYPES: Final = ("nfs",)

#: The role of a server that shares folders, and where it listens (RFC 7530 §3.1).
ROLE: Final = "files"
PORT: Final = 2049

#: Who can mount a folder, and who does unless the file says otherwise.
CLIENTS: Final = ("app", "worker", "balancer", "media")
DEFAULT: Final = ("app", "worker")

#: The mount with this name is MEDIA_ROOT.
MEDIA: Final = "media"


@dataclass(frozen=True, slots=True)
class Mount:
    """One shared folder: `export` on its server is `folder` on each server with these roles."""

    name: str
    server: str
    export: PurePath
    folder: PurePath
    roles: tuple[str, ...] = DEFAULT
    type: str = TYPES[0]

    @property
    def path(self) -> str:
        """Where it stands in the file."""
        return join("mounts", self.name)


def parse(table: Table) -> tuple[Mount, ...]:
    """The mounts that the table describes."""
    return tuple(_mount(name, one) for name, one in table.tables())


def _mount(name: str, table: Table) -> Mount:
    if problem := rules.name(name):
        table.report(problem)
    if table.choice("type", TYPES, "a way to share a folder") is None and not table.has("type"):
        table.wrong("type", "is missing.", f'Write type = "{TYPES[0]}".')
    server = table.text("server", _server)
    export, folder = (normal(table.text(key, _folder)) for key in ("export", "folder"))
    roles = table.texts("roles", _client, default=DEFAULT)
    table.refuse("options", "are not chosen here: those that are rendered lose no data.")
    if name == MEDIA and roles and "app" not in roles:
        table.wrong("roles", 'must have "app": the application servers save uploads there.')
    table.close()
    return Mount(name, server, export, folder, roles)


def normal(path: str | PurePath) -> PurePosixPath:
    """One spelling of an absolute path."""
    # POSIX lets two slashes at the beginning mean something else; here they mean one.
    return PurePosixPath("/" + posixpath.normpath(str(path)).lstrip("/"))


def _server(value: str) -> str:
    # Whether it is one of the file is seen when all of them are known.
    return rules.address(value)


def _folder(value: str) -> str:
    if problem := rules.path(value):
        return problem
    if value != value.strip():
        return f'"{value}" must not begin or end with a space.'
    if not value.startswith("/"):
        return f'"{value}" must be an absolute path, as in "/srv/media".'
    return "" if normal(value).name else f'"{value}" is the whole system; share a folder of it.'


def _client(role: str) -> str:
    if role in CLIENTS:
        return ""
    return f'"{role}" is no role that mounts folders; {suggestion(role, CLIENTS)}'


def check(site: Site, problems: Problems) -> None:
    """Note which mounts do not fit to the servers, or to each other."""
    names = {host.name for host in site.hosts}
    having = {host.name for host in site.hosts if _has(host, ROLE)}
    for mount in site.mounts:
        where = f"{mount.path}.server"
        if mount.server in names - having:
            hint = f'Add "{ROLE}" to its roles.'
            problems.add(where, f'"{mount.server}" does not have the role "{ROLE}".', hint)
        elif mount.server not in names and _is_one_word(mount.server):
            problem = f'"{mount.server}" is no server of this file;'
            problems.add(where, problem, suggestion(mount.server, having or names))
    used = {mount.server for mount in site.mounts}
    for name in sorted(having - used):
        hint = f'Write one, with server = "{name}", or take the role away.'
        problems.add(join("servers", name), f'it has the role "{ROLE}", and no mount.', hint)
    _check_folders(site, problems)


def _is_one_word(server: str) -> bool:
    return not rules.is_address(server) and "." not in server


def _check_folders(site: Site, problems: Problems) -> None:
    for number, mount in enumerate(site.mounts):
        for other in site.mounts[:number]:
            both = (mount.folder, other.folder)
            if any(one.is_relative_to(two) for one, two in (both, both[::-1])):
                problem = f"is the folder of {other.path}, or one lies in the other."
                problems.add(f"{mount.path}.folder", problem, "Give each a folder of its own.")


# --- who mounts what


def media(mounts: tuple[Mount, ...]) -> Mount | None:
    """The one that is MEDIA_ROOT."""
    return next((mount for mount in mounts if mount.name == MEDIA), None)


def of(site: Site, host: Host) -> Iterator[Mount]:
    """What one server mounts."""
    for mount in site.mounts:
        if any(_has(host, role) for role in mount.roles):
            yield mount


def shared_by(site: Site, host: Host) -> Iterator[tuple[Mount, tuple[Host, ...]]]:
    """What one server shares, each with the others that mount it."""
    for mount in site.mounts:
        if mount.server == host.name:
            yield mount, clients(site, mount)


def clients(site: Site, mount: Mount) -> tuple[Host, ...]:
    """Who mounts a folder over the network: the server itself has it."""
    return tuple(
        host for host in site.hosts if host.name != mount.server and mount in of(site, host)
    )


def address(site: Site, mount: Mount) -> str:
    """Under which address the server of a mount is reached."""
    return next((one.address for one in site.hosts if one.name == mount.server), mount.server)


def _has(host: Host, role: str) -> bool:
    return any(service.role == role for service in host.services)
