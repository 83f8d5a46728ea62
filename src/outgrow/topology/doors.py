"""`Site` -> which port of which server is asked by whom: for firewalls, and for plans.

Only what is rendered here is known: a server's own proxy, a monitoring system and your own ssh
are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from outgrow.topology import mounts
from outgrow.topology.model import Host, Port, Service, Site

#: Everybody, or the proxy that stands before the site.
VISITORS: Final = "visitors"

#: Who asks a server in this role. A role that is not here is asked by the site's code.
_CALLERS: Final[Mapping[str, tuple[str, ...]]] = {
    "dns": (VISITORS,),
    "balancer": (VISITORS,),
    "app": ("balancer",),
    "static": ("balancer",),
    "media": ("app", "worker", "balancer"),
    "primary": ("app", "worker", "pooler", "replica"),
    "replica": ("app", "worker", "pooler"),
    "worker": (),
}
_CODE: Final = ("app", "worker")

#: To whom visitors come where there is no balancer.
_OPEN: Final = ("app", "media", "static")


@dataclass(frozen=True, slots=True)
class Door:
    """One port that a server listens at, and the servers that ask there, with their addresses."""

    service: Service
    callers: tuple[tuple[str, str], ...]
    #: Visitors come here, too, or what stands before the site for them.
    public: bool

    @property
    def port(self) -> Port:
        """The port itself."""
        return self.service.port


def doors(site: Site, host: Host) -> tuple[Door, ...]:
    """Every port of one server that others ask, in the order of the file."""
    listening = (service for service in host.services if service.port.number)
    return tuple(
        Door(service, callers(site, host, service), is_public(site, service.role))
        for service in listening
    )


def callers(site: Site, host: Host, service: Service) -> tuple[tuple[str, str], ...]:
    """The other servers that ask this service: name and address, in the order of the file."""
    return tuple((one.name, one.address) for one in _calling(site, host, service.role))


def is_public(site: Site, role: str) -> bool:
    """Whether visitors come to servers of this role."""
    if VISITORS in _CALLERS.get(role, _CODE):
        return True
    return role in _OPEN and not site.services("balancer")


def _calling(site: Site, host: Host, role: str) -> Iterator[Host]:
    wanted = _CALLERS.get(role, _CODE)
    if role == mounts.ROLE:
        shared = [some for _, some in mounts.shared_by(site, host)]
        yield from (one for one in site.hosts if any(one in some for some in shared))
        return
    if role == "pooler" and len(site.services(role)) > 1:
        return  # each is for its own server alone
    for one in site.hosts:
        if one.name != host.name and any(service.role in wanted for service in one.services):
            yield one
