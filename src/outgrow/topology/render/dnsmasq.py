"""The zones of a site -> the configuration of a dnsmasq that answers for them alone.

It begins each answer with another address by itself. Its SOA and its serial are those of all its
zones together. Who does not know a name below a domain is told the domain's own.

Source: dnsmasq(8), "AUTHORITATIVE CONFIGURATION".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from outgrow.topology.model import Service, Site
from outgrow.topology.render import File
from outgrow.topology.zones import EXPIRE, REFRESH, RETRY, Zone, nameservers, zones

CONFIGURATION: Final = "dnsmasq.conf"

#: An address that nobody has.
_NOBODY: Final = "0.0.0.0"  # noqa: S104 - nothing listens there

_MAIN: Final = """\
# Written by outgrow. Changes here are lost.
port={port}
listen-address={host}
bind-interfaces
# It answers for the zones below, and asks nobody else: it is no resolver.
no-resolv
no-hosts
# It keeps nothing: systemd starts it, and it ends with it.
pid-file
auth-server={own},{host}
auth-ttl={ttl}
auth-soa={serial},{contact},{refresh},{retry},{expire}
# Who may copy the zones; without such a line everybody might.
auth-peer={peers}
"""


def render(site: Site, service: Service) -> Iterator[File]:
    """The configuration of one name server."""
    found = zones(site)
    own = _own(site, service)
    others = [name for name in found[0].nameservers if name != own]
    peers = [address for _, address in site.dns.secondaries] or [_NOBODY]
    head = _MAIN.format(
        port=service.port.number,
        host=service.port.host,
        own=own,
        ttl=site.dns.ttl,
        serial=site.dns.serial or _together(found),
        contact=found[0].contact.replace("@", "."),
        refresh=REFRESH,
        retry=RETRY,
        expire=EXPIRE,
        peers=",".join(peers),
    )
    more = (f"auth-sec-servers={','.join(others)}\n",) if others else ()
    lines = (*more, *(line for zone in found for line in _lines(zone)))
    yield File(CONFIGURATION, "".join((head, *lines)))


def _own(site: Site, service: Service) -> str:
    """The name of this server among the name servers."""
    names = [host.name for host in site.hosts if service in host.services]
    return next(one.name for one in nameservers(site) if one.name.split(".")[0] in names)


def _together(found: tuple[Zone, ...]) -> int:
    """One serial for several zones: another one when any of theirs is another."""
    together = 0
    for zone in found:
        together = (together * 31 + zone.serial) % 2**32
    return together or 1


def _lines(zone: Zone) -> Iterator[str]:
    yield f"\nauth-zone={zone.name}\n"
    for one in zone.names:
        yield from (f"host-record={one.name},{address}\n" for address in one.addresses)
        if one.wild:
            yield f"cname=*.{one.name},{one.name}\n"
