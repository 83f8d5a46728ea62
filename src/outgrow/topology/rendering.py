"""What ``outgrow render`` does: the files of each server, planned and then written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TextIO

from outgrow.errors import ConfigurationError
from outgrow.topology.keys import suggestion
from outgrow.topology.load import load
from outgrow.topology.model import Host, Site
from outgrow.topology.render import File, nginx, systemd
from outgrow.topology.render.systemd import Places
from outgrow.topology.write import write


def plan(
    site: Site, places: Places, *, hosts: Iterable[str] = (), visitors: int | None = None
) -> list[File]:
    """Every file of these servers, or of all, each in a folder with its server's name.

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
    return [
        File(f"{host.name}/{file.name}", file.content)
        for host in site.hosts
        if not wanted or host.name in wanted
        for file in _files(site, host, places, visitors)
    ]


def _files(site: Site, host: Host, places: Places, visitors: int | None) -> Iterator[File]:
    yield from systemd.render(site, host, places)
    root, state = PurePosixPath(places.copies), PurePosixPath(places.state)
    for service in host.services:
        if service.engine == "nginx":
            yield from nginx.render(site, service, root, state, visitors=visitors)


def render(
    path: Path,
    places: Places,
    to: Path,
    out: TextIO,
    *,
    hosts: Iterable[str] = (),
    visitors: int | None = None,
    dry_run: bool = False,
) -> None:
    """Write the files of the topology file's servers below `to`, and say which are new.

    With `dry_run` they are printed, and nothing is written.
    """
    for file in plan(load(path), places, hosts=hosts, visitors=visitors):
        state = _state(file, to)
        out.write(f"{'# ' if dry_run else ''}{to / file.name}: {state}\n")
        if dry_run:
            out.write(f"{file.content}\n")
        elif state != "as it is":
            write([file], to)


def _state(file: File, to: Path) -> str:
    try:
        found = (to / file.name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return "new"
    return "as it is" if found == file.content else "changed"
