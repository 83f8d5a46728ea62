"""A site -> the zones of its domains: which names there are, and where they lead.

The laws:

1. A zone is a domain of the site that is not below another one of its domains. Nothing above it
   is claimed, and so no mail or other name of the domain above is lost.
2. Each name leads to every server that visitors come to: the balancers, or without them the
   application servers. A name server's own name leads to it alone.
3. The same site has the same serials, and another content another one: a server can be compared
   with its file. Whoever copies a zone needs serials that grow (RFC 1982), which no function of
   one site can know; then the file says the serial.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from outgrow.topology import rules

if TYPE_CHECKING:
    from outgrow.topology.model import Host, Site

#: Seconds: when a secondary looks for a new serial, looks again, and gives up (RFC 1912 §2.2).
REFRESH: Final = 3600
RETRY: Final = 600
EXPIRE: Final = 1_209_600

#: Of a domain, so that its zone can be a file with ".zone" behind it; and of any name with its
#: lengths and its end (RFC 1035 §2.3.4).
LONGEST: Final = 240
LONGEST_NAME: Final = 253

_SERIALS: Final = 2**32


@dataclass(frozen=True, slots=True)
class Name:
    """One name, and the addresses that it leads to; a `wild` one with all names below it."""

    name: str
    addresses: tuple[str, ...]
    wild: bool = False


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone: who has it, and its names. No name ends with a dot."""

    name: str
    nameservers: tuple[str, ...]
    names: tuple[Name, ...]
    contact: str
    ttl: int
    serial: int


def domains(site: Site) -> dict[str, bool]:
    """The site's domains that can be asked for: whether all names below are the site's, too.

    What such a domain has below it is not there a second time.
    """
    found: dict[str, bool] = {}
    for domain in site.domains:
        name = domain.removeprefix(".").lower()
        if not rules.is_address(domain.strip("[]")) and name != "localhost":
            found[name] = found.get(name, False) or domain.startswith(".")
    wild = [name for name, below in found.items() if below]
    return {
        name: below
        for name, below in found.items()
        if not any(_is_below(name, other) for other in wild)
    }


def apexes(site: Site) -> tuple[str, ...]:
    """The names of the zones (law 1)."""
    found = domains(site)
    return tuple(name for name in found if not any(_is_below(name, other) for other in found))


def nameservers(site: Site) -> tuple[Name, ...]:
    """The site's own name servers: their names are in the first zone."""
    [first, *_] = apexes(site)
    return tuple(Name(f"{host.name}.{first}", addresses(host)) for host in _having(site, "dns"))


def fronts(site: Site) -> tuple[Host, ...]:
    """The servers that visitors come to."""
    return tuple(_having(site, "balancer")) or tuple(_having(site, "app"))


def addresses(host: Host) -> tuple[str, ...]:
    """Where visitors reach a server; an address is spelled in one way (RFC 5952)."""
    found = map(rules.same_address, host.public or (host.address,))
    return tuple(dict.fromkeys(found))


def private(host: Host) -> tuple[str, ...]:
    """Those of these addresses that no visitor from outside gets to."""
    return tuple(one for one in addresses(host) if not ipaddress.ip_address(one).is_global)


def zones(site: Site) -> tuple[Zone, ...]:
    """Every zone of a site that has name servers."""
    if not site.services("dns"):
        return ()
    return tuple(_zone(site, name) for name in apexes(site))


def grows(old: int, new: int) -> bool:
    """Whether a secondary that has the `old` serial takes the `new` one (RFC 1982 §3.2)."""
    return 0 < (new - old) % _SERIALS < _SERIALS // 2


def _zone(site: Site, apex: str) -> Zone:
    own = nameservers(site)
    inside = [(name, wild) for name, wild in domains(site).items() if _is_in(name, apex)]
    visited = tuple(dict.fromkeys(one for host in fronts(site) for one in addresses(host)))
    names = (
        *(Name(name, visited, wild) for name, wild in inside),
        # What is wild has them already, unless they stand there by themselves.
        *(one for one in own if _is_in(one.name, apex)),
    )
    servers = (*(one.name for one in own), *(name.lower() for name, _ in site.dns.secondaries))
    contact = site.dns.contact or f"hostmaster@{apexes(site)[0]}"
    serial = site.dns.serial or _serial(servers, names, contact, site.dns.ttl)
    return Zone(apex, servers, names, contact, site.dns.ttl, serial)


def _serial(*content: object) -> int:
    """A number from 1 on that stands for the content (law 3)."""
    digest = hashlib.sha256(repr(content).encode()).digest()
    return int.from_bytes(digest[:4], "big") or 1


def _is_below(name: str, other: str) -> bool:
    return name.endswith(f".{other}")


def _is_in(name: str, zone: str) -> bool:
    return name == zone or _is_below(name, zone)


def _having(site: Site, role: str) -> Iterator[Host]:
    return (host for host in site.hosts if any(one.role == role for one in host.services))
