"""The zones of a site -> BIND's configuration, and a file for each zone.

Each name server has every zone from here, and no two of them ask each other.

Sources: bind9.readthedocs.io/en/stable/reference.html; RFC 1035 §5 for the files of zones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Final

from outgrow.errors import ConfigurationError
from outgrow.topology.model import Port, Service, Site
from outgrow.topology.render import File
from outgrow.topology.zones import EXPIRE, REFRESH, RETRY, Zone, zones

CONFIGURATION: Final = "named.conf"

_MAIN: Final = """\
// Written by outgrow. Changes here are lost.
options {{
    directory "{state}";
    {listen}
    pid-file none;
    // It answers for the zones below, and asks nobody else: it is no resolver.
    recursion no;
    allow-query {{ any; }};
    allow-transfer {{ none; }};
    dnssec-validation no;
    // A small answer is of no use to who has it sent to others.
    minimal-responses yes;
    version none;
    // Each answer begins with the next address: round-robin.
    rrset-order {{ order cyclic; }};
}};

// systemd starts and reloads it, and nobody else.
controls {{ }};
"""

_ZONE: Final = """
zone "{name}" {{
    type primary;
    file "{file}";
    notify explicit;{others}
}};
"""

_OTHERS: Final = """
    allow-transfer {{ {them} }};
    also-notify {{ {them} }};"""

_HEAD: Final = """\
; Written by outgrow. Changes here are lost.
$TTL {ttl}
{name}. IN SOA {first}. {contact}. ( {serial} {refresh} {retry} {expire} {ttl} )
"""


def render(site: Site, service: Service, folder: PurePath, state: PurePath) -> Iterator[File]:
    """The files of one name server: they are put into `folder`, and it works in `state`.

    Raises `ConfigurationError` for a path that can't stand there.
    """
    for path in (folder, state):
        if any(character < " " or character in '"\\' for character in str(path)):
            raise ConfigurationError(str(path), "BIND can't be given this path.", "Rename it.")
    found = zones(site)
    others = [address for _, address in site.dns.secondaries]
    parts = (
        _MAIN.format(state=state, listen=_listen(service.port)),
        *(
            _ZONE.format(
                name=zone.name,
                file=folder / file_of(zone),
                others=_OTHERS.format(them=_list(others)) if others else "",
            )
            for zone in found
        ),
    )
    yield File(CONFIGURATION, "".join(parts))
    for zone in found:
        yield File(file_of(zone), "".join(_records(zone)))


def file_of(zone: Zone) -> str:
    """The name of a zone's file."""
    return f"{zone.name}.zone"


def _listen(port: Port) -> str:
    here = f"port {port.number} {{ {port.host}; }};"
    if ":" in port.host:
        return f"listen-on {{ none; }};\n    listen-on-v6 {here}"
    return f"listen-on {here}\n    listen-on-v6 {{ none; }};"


def _list(addresses: Iterable[str]) -> str:
    return " ".join(f"{address};" for address in addresses)


def _records(zone: Zone) -> Iterator[str]:
    yield _HEAD.format(
        ttl=zone.ttl,
        name=zone.name,
        first=zone.nameservers[0],
        contact=zone.contact.replace("@", "."),
        serial=zone.serial,
        refresh=REFRESH,
        retry=RETRY,
        expire=EXPIRE,
    )
    yield from (f"{zone.name}. IN NS {server}.\n" for server in zone.nameservers)
    for one in zone.names:
        for name in (one.name, *((f"*.{one.name}",) if one.wild else ())):
            yield from (f"{name}. IN {_type(address)} {address}\n" for address in one.addresses)


def _type(address: str) -> str:
    return "AAAA" if ":" in address else "A"
