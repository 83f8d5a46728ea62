"""`Site` -> the same site after one of its replicas has become the primary. Nothing is done here.

The laws:

1. Two servers exchange their roles, and nothing else changes: names, addresses and ports stay.
2. What has received most is promoted: another replica may have rows that were acknowledged and
   that this one never got. Who was not asked may be it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from outgrow.errors import ControlFailed
from outgrow.topology.keys import suggestion
from outgrow.topology.model import Host, Site


def promoted(site: Site, name: str) -> Site:
    """The site whose primary is the replica of this name. Raises `ControlFailed`."""
    replicas = [service.name for service in site.services("replica")]
    if name not in replicas:
        raise ControlFailed(_no_replica(site, name, replicas))
    if site.database is None or site.database.engine != "postgresql":
        raise ControlFailed(
            f"Only PostgreSQL's replicas are promoted here, and {name} is none of them. "
            'docs: howto/change-topology.md, "Move the database".'
        )
    [primary] = [service.name for service in site.services("primary")]
    roles = {primary: "replica", name: "primary"}
    for one in roles:
        if ":" in one:
            raise ControlFailed(
                f"{one} is on a server with several roles. Promote one that has a server of "
                "its own, or give the database a server of its own first."
            )
    return replace(site, hosts=tuple(_exchanged(host, roles) for host in site.hosts))


def _exchanged(host: Host, roles: Mapping[str, str]) -> Host:
    services = tuple(
        replace(service, role=roles.get(service.name, service.role)) for service in host.services
    )
    return replace(host, services=services)


def _no_replica(site: Site, name: str, replicas: list[str]) -> str:
    if not replicas:
        return "This site has no replica, so there is nothing to promote."
    if any(service.name == name for service in site.services("primary")):
        return f"{name} is the primary already."
    return f'"{name}" is no replica of this site; {suggestion(name, replicas)}'


def objection(name: str, received: Mapping[str, int | str]) -> str:
    """Why the replica of this name must not be promoted, or "".

    `received` has for each replica the bytes of log that it has received, or why it could not
    be asked.
    """
    own = received[name]
    if isinstance(own, str):
        return f"{name} could not be asked what it has: {own}."
    for other, count in received.items():
        if isinstance(count, str):
            return (
                f"{other} could not be asked what it has, and may have rows that {name} has not: "
                f"{count}. Start it first: outgrow start {other}"
            )
        if count > own:
            return (
                f"{other} has received {count - own} bytes of log that {name} has not; rows that "
                f"visitors were told are saved may be among them. Promote it: outgrow promote "
                f"{other}"
            )
    return ""


def furthest(received: Mapping[str, int | str]) -> str:
    """The replica to promote: the one that has received most, the first of several."""
    counts = {name: count for name, count in received.items() if isinstance(count, int)}
    if not counts:
        said = "; ".join(f"{name}: {why}" for name, why in received.items())
        raise ControlFailed(f"No replica could be asked what it has. {said}")
    return max(counts, key=lambda name: counts[name])
