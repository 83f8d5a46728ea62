"""What ``outgrow render`` does: the files of each server, planned and then written."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, TextIO

from outgrow.errors import ConfigurationError
from outgrow.topology.front import front
from outgrow.topology.keys import suggestion
from outgrow.topology.load import load
from outgrow.topology.model import Host, Service, Site
from outgrow.topology.render import (
    File,
    alerts,
    bind,
    caches,
    dnsmasq,
    haproxy,
    mounts,
    nginx,
    nginx_front,
    pgbouncer,
    postgresql,
    readme,
    shared,
    systemd,
)
from outgrow.topology.render.systemd import Places
from outgrow.topology.write import write

#: What else than the servers of the file a site can be rendered for.
SHARED: Final = "shared-hosting"


def plan(
    site: Site, places: Places, *, hosts: Iterable[str] = (), visitors: int | None = None
) -> list[File]:
    """Every file of these servers, or of all, each in a folder with its server's name.

    With all there are those of no server, too: what a Prometheus is given.
    `visitors` is the port for visitors of each nginx. Raises `ConfigurationError` for a
    server that the site has not, and for what a file can't hold.
    """
    wanted = tuple(hosts)
    known = [host.name for host in site.hosts]
    for name in wanted:
        if name not in known:
            raise ConfigurationError(
                "host", f'"{name}" is no server of this site;', suggestion(name, known)
            )
    found = [
        File(f"{host.name}/{file.name}", file.content)
        for host in site.hosts
        if not wanted or host.name in wanted
        for file in _with_page(site, host, places, visitors)
    ]
    return found if wanted else [*found, *alerts.render(site)]


def _with_page(site: Site, host: Host, places: Places, visitors: int | None) -> Iterator[File]:
    files = list(_files(site, host, places, visitors))
    yield from files
    yield from readme.render(site, host, places, files, visitors=visitors)


def _files(site: Site, host: Host, places: Places, visitors: int | None) -> Iterator[File]:
    yield from mounts.render(site, host)
    yield from systemd.render(site, host, places)
    root = PurePosixPath(places.copies)
    for service in host.services:
        if service.role == "media" and service.engine == "nginx":
            state = PurePosixPath(places.state)
            yield from nginx.render(site, service, root, state, visitors=visitors)
        if service.role == "pooler":
            users = PurePosixPath(places.configurations) / pgbouncer.USERS
            yield from pgbouncer.render(site, service, users)
        if service.engine == "postgresql":
            yield from postgresql.render(site, host, service)
        if service.role == "cache" and service.engine == "redis":
            yield from caches.redis(service.port, site.cache)
        if service.role == "balancer":
            yield from _balancer(site, service, places)
        if service.engine == "bind":
            state = PurePosixPath(places.dns_state)
            yield from bind.render(site, service, PurePosixPath(places.zones), state)
        if service.engine == "dnsmasq":
            yield from dnsmasq.render(site, service)


def _balancer(site: Site, service: Service, places: Places) -> Iterator[File]:
    whole = front(site, service)
    if service.engine == "nginx":
        return nginx_front.render(whole, PurePosixPath(places.balancer_state))
    pem = PurePosixPath(places.pem) if whole.options.certificate else None
    return haproxy.render(whole, pem)


def wanted(
    path: Path,
    places: Places,
    *,
    hosts: Iterable[str] = (),
    visitors: int | None = None,
    target: str = "",
) -> list[File]:
    """The files of the topology file's servers; with `target` SHARED those for shared hosting.

    Raises `TopologyError` and `ConfigurationError`.
    """
    site = load(path)
    if target == SHARED:
        return list(shared.render(site, places))
    return plan(site, places, hosts=hosts, visitors=visitors)


def render(files: Iterable[File], to: Path, out: TextIO, *, dry_run: bool = False) -> None:
    """Write the files below `to`, and say which are new.

    With `dry_run` they are printed, and nothing is written.
    """
    for file in files:
        state = _state(file, to)
        out.write(f"{'# ' if dry_run else ''}{to / file.name}: {state}\n")
        if dry_run:
            out.write(f"{file.content}\n")
        elif state != "as it is":
            write([file], to)


def compare(files: Iterable[File], to: Path, out: TextIO) -> bool:
    """Print how the files below `to` would change, as `diff -u` does; whether any would."""
    differs = False
    for file in files:
        old = _found(to / file.name)
        if old == file.content:
            continue
        differs = True
        lines = difflib.unified_diff(
            (old or "").splitlines(keepends=True),
            file.content.splitlines(keepends=True),
            "/dev/null" if old is None else str(to / file.name),
            f"{to / file.name} (as it should be)",
        )
        out.writelines(lines)
    return differs


def _state(file: File, to: Path) -> str:
    found = _found(to / file.name)
    if found is None:
        return "new"
    return "as it is" if found == file.content else "changed"


def _found(path: Path) -> str | None:
    """What a file holds; None where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
