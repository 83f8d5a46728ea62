"""The table ``[dns]`` as a value: how the name servers of the site's domains work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from outgrow.topology import rules
from outgrow.topology.keys import Table

#: What a name server can run; the first is the default.
ENGINES: Final = ("bind", "dnsmasq")

#: Where it listens, unless `ports` says otherwise: by UDP and by TCP (RFC 7766 §5).
PORT: Final = 53

#: Seconds for which a visitor's resolver goes on with what it has been told, and so sends him to
#: a balancer that has died. Amazon asks for 60 or less where servers are looked after
#: (docs.aws.amazon.com/Route53/latest/DeveloperGuide/resource-record-sets-values-latency.html).
TTL: Final = 60

#: Numbers that a zone can have (RFC 1035 §3.3.13).
_SERIALS: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Dns:
    """How all the name servers of a site work.

    `ttl` is in seconds. `contact` is a mail address; hostmaster of the first domain where it is
    empty (RFC 2142 §7). `secondaries` are servers of others, by name and address, that copy the
    zones; they do so when `serial` has grown, and so it must be given with them. It is 0 where
    the file does not say it: then it is made from what a zone holds.
    """

    ttl: int = TTL
    contact: str = ""
    serial: int = 0
    secondaries: tuple[tuple[str, str], ...] = ()


def parse(table: Table) -> Dns:
    """The name servers that a table describes."""
    others = table.table("secondaries")
    found = Dns(
        table.whole("ttl", 1, 604_800, default=TTL),
        table.text("contact", rules.contact, default=""),
        table.whole("serial", 1, _SERIALS, default=0),
        tuple((name, _address(others, name)) for name in others.chosen()),
    )
    if found.secondaries and not table.has("serial"):
        hint = "Write a number that grows with each change, as in serial = 2026010100."
        table.wrong("serial", "is missing: by it the secondaries know a change.", hint)
    others.close()
    table.close()
    return found


def _address(others: Table, name: str) -> str:
    value = others.text(name, rules.ip)
    if problem := rules.host_name(name):
        others.wrong(name, problem)
    return value
