"""A promotion as a value: what it does, what may be lost by it, and why it must not be done.

The laws:

1. Two servers exchange their roles, and nothing else changes: names, addresses and ports stay.
2. What has received most is promoted: another replica may have rows that were acknowledged and
   that this one never got. Who was not asked may be it.
3. A primary that ended cleanly says where its log ends. Who has that has all.
4. Where rows may be lost, nothing is done until somebody accepts it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from outgrow.errors import ControlFailed
from outgrow.topology.keys import suggestion
from outgrow.topology.model import Host, Site

# What pg_controldata says of a primary that was shut down; one that was killed is "in production".
_CLEAN: Final = re.compile(r"^Database cluster state: +shut down$", re.MULTILINE)
_CHECKPOINT: Final = re.compile(
    r"^Latest checkpoint location: +([0-9A-F]+)/([0-9A-F]+)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Promotion:
    """`new` becomes the primary instead of `old`.

    `runs`: the old one still does, and will be stopped. `end` is where its log ends, in bytes, if
    it has ended cleanly. `received` has for each replica the bytes of log that it has received, or
    why it could not be asked. `others` follow the new primary, those `away` do not run, `readers`
    read the site's settings. With `begun` an earlier attempt was broken off.
    """

    new: str
    old: str
    runs: bool
    received: Mapping[str, int | str]
    end: int | None = None
    synchronous: bool = False
    others: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    begun: bool = False

    @property
    def steps(self) -> tuple[str, ...]:
        """What is done, in this order."""
        ended = (f"{self.old}: stop it, so that no two servers take writes",) if self.runs else ()
        has_most = f"{self.new}: see that it has received all that any other has"
        first = () if self.begun else (*ended, has_most)
        return (
            *first,
            f"{self.new}: make it the primary (pg_promote)",
            *(f"{one}: restart it, so that it follows {self.new}" for one in self.others),
            *(f"{one}: let it read the site's settings anew" for one in self.readers),
            f"{self.old}: rewind its data (pg_rewind), or copy them anew where that can't be",
            f"{self.old}: start it as a replica",
        )

    @property
    def may_lose(self) -> str:
        """Which rows may be lost by it, and why; or ""."""
        if self.begun or self.runs or self.end is not None:
            return ""
        asked = [why for why in map(self._unasked, self.received) if why]
        if self.synchronous:
            return " ".join(asked)
        unclean = (
            f"{self.old} did not end cleanly, and a commit waits for no replica here: rows of its "
            "last moments, of which visitors were told that they are saved, may be on no replica."
        )
        return " ".join((unclean, *asked))

    def check(self, *, accept_loss: bool) -> None:
        """Raises `ControlFailed` when it must not be done."""
        if self.begun:
            return
        if problem := self._objection():
            raise ControlFailed(problem)
        if self.may_lose and not accept_loss:
            raise ControlFailed(
                f"{self.may_lose} If {self.old} still has its data, start it, and nothing is "
                f"lost: outgrow start {self.old}. If it has not, promote {self.new} all the same: "
                f"outgrow promote {self.new} --accept-loss"
            )

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            **asdict(self),
            "received": dict(self.received),
            "steps": list(self.steps),
            "may_lose": self.may_lose,
        }

    def _objection(self) -> str:
        own = self.received[self.new]
        if isinstance(own, str):
            return f"{self.new} could not be asked what it has: {own}."
        if self.runs:
            return ""
        if self.end is not None:
            return "" if own > self.end else self._lacks(self.end - own)
        return next(filter(None, (self._ahead(one, own) for one in self.received)), "")

    def _lacks(self, count: int) -> str:
        # The last record begins where the log ends, as we know it.
        return (
            f"{self.old} ended cleanly, and {self.new} lacks the last of its log: more than "
            f"{count} bytes. Start it, wait until {self.new} has followed, and promote then: "
            f"outgrow start {self.old}"
        )

    def _ahead(self, other: str, own: int) -> str:
        count = self.received[other]
        if isinstance(count, str) or count <= own:
            return ""
        return (
            f"{other} has received {count - own} bytes of log that {self.new} has not; rows that "
            f"visitors were told are saved may be among them. Promote it: outgrow promote {other}"
        )

    def _unasked(self, other: str) -> str:
        why = self.received[other]
        if isinstance(why, int) or other == self.new:
            return ""
        return (
            f"{other} could not be asked what it has ({why}), and may have rows that {self.new} "
            f"has not; it is asked when it runs: outgrow start {other}."
        )


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


def log_end(text: str) -> int | None:
    """What pg_controldata says -> where the log of a primary that ended cleanly ends, or None.

    It is where the last record begins, which nobody has who has not received all before it.
    """
    found = _CHECKPOINT.search(text)
    if found is None or not _CLEAN.search(text):
        return None
    high, low = (int(part, 16) for part in found.groups())
    return (high << 32) + low


def furthest(received: Mapping[str, int | str]) -> str:
    """The replica to promote: the one that has received most, the first of several."""
    counts = {name: count for name, count in received.items() if isinstance(count, int)}
    if not counts:
        said = "; ".join(f"{name}: {why}" for name, why in received.items())
        raise ControlFailed(f"No replica could be asked what it has. {said}")
    return max(counts, key=lambda name: counts[name])


def to_write(old: str, new: str) -> str:
    """What the topology file must say before the site is started again."""
    return (
        f'Write it into the topology file before the site is started again: roles = ["primary"] '
        f'for {new}, and roles = ["replica"] for {old}.'
    )
