"""`Site` -> the drills that it can have, and why it can't have the others.

A name is what is done and whom it is done to: ``kill-app``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology.keys import suggestion
from outgrow.topology.model import Site

#: What is done to one server of each kind.
FAULTS: Final = ("kill", "freeze", "restart", "stop")

#: Kinds of servers, in the order in which they are broken.
ROLES: Final = ("balancer", "app", "media", "primary", "replica", "pooler", "cache")

ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Drill:
    """One fault, and whom it is for."""

    name: str
    fault: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A drill that this site can't have."""

    name: str
    reason: str


def catalogue(site: Site) -> tuple[Drill | Skipped, ...]:
    """Every drill, in their order."""
    return tuple(_every(site))


def choose(every: Iterable[Drill | Skipped], names: Iterable[str]) -> tuple[Drill | Skipped, ...]:
    """Those with these names, in the order of the catalogue.

    Raises `ConfigurationError` for one that is not there, or can't be had: who names it wants it.
    """
    every, wanted = tuple(every), tuple(dict.fromkeys(names))
    if not wanted or ALL in wanted:
        return every
    known = {one.name: one for one in every}
    for name in wanted:
        if name not in known:
            hint = suggestion(name, tuple(known))
            raise ConfigurationError("drill", f'"{name}" is not a drill;', hint)
        one = known[name]
        if isinstance(one, Skipped):
            hint = "`outgrow drill --list` names those that it has."
            raise ConfigurationError("drill", f"this site can't have {name}: {one.reason}.", hint)
    return tuple(one for one in every if one.name in wanted)


def _every(site: Site) -> Iterator[Drill | Skipped]:
    for role in ROLES:
        for fault in FAULTS:
            yield _one(site, f"{fault}-{role}", fault, role)
    apps = tuple(service.name for service in site.services("app"))
    yield _several(site, "all-apps-down", "stop", apps)
    yield _several(site, "rolling-restart", "roll", apps)
    yield _one(site, "reload-balancer", "reload", "balancer")
    yield _one(site, "disk-media", "disk", "media")
    yield _one(site, "disk-replica", "disk", "replica")
    yield _promotion(site)


def _one(site: Site, name: str, fault: str, role: str) -> Drill | Skipped:
    servers = [service for service in site.services(role) if service.port.number]
    if servers:
        return Drill(name, fault, (servers[0].name,))
    return Skipped(name, _why_not(site, role))


def _promotion(site: Site) -> Drill | Skipped:
    """The primary is lost with its disk: a replica takes its place, and hands it back."""
    one = _one(site, "disk-primary", "promote", "primary")
    if isinstance(one, Drill) and (reason := _why_not_promoted(site)):
        return Skipped(one.name, reason)
    return one


def _why_not_promoted(site: Site) -> str:
    rows = [*site.services("primary"), *site.services("replica")]
    if not site.services("replica"):
        return _why_not(site, "replica")
    if site.database is None or site.database.engine != "postgresql":
        return "only PostgreSQL's replicas are promoted here"
    if not site.database.synchronous:
        return "a commit waits for no replica here (synchronous = true), so rows would be lost"
    if any(":" in service.name for service in rows):
        return "a database server has other roles, too"
    return ""


def _several(site: Site, name: str, fault: str, servers: tuple[str, ...]) -> Drill | Skipped:
    if servers:
        return Drill(name, fault, servers)
    return Skipped(name, _why_not(site, "app"))


def _why_not(site: Site, role: str) -> str:
    if role in {"primary", "replica"} and site.database and not site.database.has_servers:
        return "SQLite is a file, and no server"
    return f'no server has the role "{role}"'
