"""Two sites -> the steps from one to the other, in an order that keeps the site up.

The laws:

1. A new server is set up, and has its data, before anything refers to it.
2. Servers of one kind are started and reloaded one after the other: each is a step of its own.
3. A server that goes is drained before it stops: nothing refers to it any more, and the others
   have what they need of it.
4. Data that has another home (the rows, the master copy, the uploads) is never moved by itself:
   that is a step by hand, which says so and names what to read. It comes before any server is
   started or reloaded with the new file.
5. What will be asked is opened first, and takes as much as it will be asked for. What is asked no
   more is closed last.
6. Between two equal sites there are no steps.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from outgrow.topology import moves
from outgrow.topology.applications import application, reload
from outgrow.topology.change import (
    COPY,
    DRAIN,
    FORGET,
    PREPARE,
    RECONFIGURE,
    RELOAD,
    REMOVE,
    SEND,
    SET_UP,
    START,
    STOP,
    SWITCH,
    Change,
)
from outgrow.topology.database import alias
from outgrow.topology.difference import CODE, FRONTS, Difference, Part, difference
from outgrow.topology.doors import callers, is_public
from outgrow.topology.model import Site
from outgrow.topology.ways import way
from outgrow.topology.zones import fronts, grows

#: What refers to others, in the order in which it is started: from the inside to the outside.
_REFERRERS: Final = ("pooler", *CODE, *FRONTS)
_PAGE: Final = "howto/change-topology.md"

#: Who remembers a server of this role.
_KEEPERS: Final = {"media": "media", "replica": "primary"}


def changes(before: Site, after: Site, file: str = "topology.toml") -> tuple[Change, ...]:
    """Every step from one site to the other; `file` is the path of the new one, for commands."""
    steps = _Steps(difference(before, after), shlex.quote(file))
    return (*steps.prepare(), *steps.switch(), *steps.remove())


@dataclass(frozen=True, slots=True)
class _Steps:
    differs: Difference
    #: The new topology file, as a shell reads it.
    file: str

    def prepare(self) -> Iterator[Change]:
        """What nobody notices yet."""
        inner = [part for part in self.differs.new if part.role not in _REFERRERS]
        yield from moves.prepared(self.differs, self.file)
        yield from self._grown()
        yield from map(self._set_up, inner)
        yield from self._opened()
        yield from map(self._listen_too, self.differs.moved)
        yield from self._filled(inner)
        yield from moves.mounted(self.differs, self.file)
        yield from map(self._set_up, _referring(self.differs.new))
        yield from self._installed()
        yield from self._names(kept=True)

    def switch(self) -> Iterator[Change]:
        """From the old servers to the new ones."""
        yield from map(self._drained, self._early())
        yield from moves.moved(self.differs)
        yield from (self._follow(now) for _, now in self.differs.swapped if now.role == "replica")
        yield from self._drained_media()
        for role in _REFERRERS:
            yield from (self._start(part) for part in self.differs.new if part.role == role)
            yield from self._reloaded(role)
        yield from self._engines()
        yield from self._visitors()

    def remove(self) -> Iterator[Change]:
        """What nothing refers to any more."""
        if self.differs.pools_go:
            yield from (self._pooled(REMOVE, part) for part in self._staying("pooler"))
        yield from map(self._drained, self._late())
        yield from self._forgotten()
        yield from self._names(kept=False)
        yield from self._peers()
        yield from moves.unmounted(self.differs)
        yield from map(self._stop, _outside_first(self.differs.gone))
        yield from map(self._listen_there_alone, self.differs.moved)
        yield from self._closed()

    # --- prepare

    def _grown(self) -> Iterator[Change]:
        """What secondaries take no notice of."""
        old, now = self.before.dns.serial, self.after.dns.serial
        others = bool(self.before.dns.secondaries and self.after.dns.secondaries)
        if others and self.differs.zones_differ and not grows(old, now):
            what = f"the new file: a serial of [dns] that is greater than {old}"
            why = "The zones are others, and by it the secondaries know it."
            name = self.after.services("dns")[0].name.partition(":")[0]
            yield Change(PREPARE, name, RECONFIGURE, what, why, (), way("dns").page)

    def _set_up(self, part: Part) -> Change:
        row = way(part.role)
        what = f"the {row.noun} at {part.place}"
        if part.role == "objects" and part.service.engine == "external":
            why = "It is new: an account there, and keys for the site."
            return Change(PREPARE, part.name, SET_UP, what, why, (), row.page)
        why = "It is new, and nothing refers to it yet."
        if part.role in _REFERRERS:
            why = "It is new. Do not start it yet: what it refers to comes first."
        why += f" servers/{part.name}/README.md says how."
        return Change(PREPARE, part.name, SET_UP, what, why, (self._render(part),), row.page)

    def _installed(self) -> Iterator[Change]:
        """What will run the site on servers that run something else today."""
        engine = self.after.app.engine
        for part in self._staying("app") if engine != self.before.app.engine else ():
            what = f"{engine}, which will run the site"
            why = f"Nothing runs it yet. servers/{part.name}/README.md says how it is installed."
            page = "howto/application-servers.md"
            yield Change(PREPARE, part.name, SET_UP, what, why, (self._render(part),), page)

    def _opened(self) -> Iterator[Change]:
        for now, come, _ in self._callers():
            if come:
                why = "It will be asked from there: the firewall, and the server's own rules."
                yield self._door(PREPARE, now, f"it, so that it lets {_together(come)} in", why)

    def _listen_too(self, moved: tuple[Part, Part]) -> Change:
        old, now = moved
        what = f"it to listen at {now.service.port}, and still at {old.service.port}"
        why = "Those that refer to the old address go on, until each of them has the new one."
        return Change(PREPARE, now.name, RECONFIGURE, what, why, (), f"{_PAGE}#change-an-address")

    def _filled(self, inner: Iterable[Part]) -> Iterator[Change]:
        for part in inner:
            if part.role == "primary" and not moves.can_follow(self.differs):
                continue  # there is nothing to copy before the move
            if part.role != "objects" and way(part.role).data:
                yield self._fill(part)
        if self.differs.bucket_is_new:
            yield from (self._fill(part) for part in moves.with_role(self.differs, "objects"))

    def _fill(self, part: Part) -> Change:
        row = way(part.role)
        what = f"it: {self._words(row.data, part)}"
        why = "It has its data before anything refers to it."
        commands = self._all(row.fill, part)
        return Change(PREPARE, part.name, COPY, what, why, commands, row.fill_page)

    def _names(self, *, kept: bool) -> Iterator[Change]:
        """Media servers take names again before the site uses them again, and not the other way."""
        before, after = (site.media.names == "keep" for site in (self.before, self.after))
        if before == after or after != kept:
            return
        why = "It takes a deleted name again before the site uses one."
        if not kept:
            why = "No process uses a deleted name any more, and it refuses them again."
        for part in self._staying("media"):
            yield self._rendered(PREPARE if kept else REMOVE, part, "its unit", why)

    # --- switch

    def _early(self) -> Iterator[Part]:
        """Application servers that would go on with data that is somewhere else by then."""
        if self.differs.data_moves and any(old.role == "app" for old, _ in self.differs.stay):
            yield from (part for part in self.differs.gone if part.role in CODE)

    def _follow(self, part: Part) -> Change:
        what = f"it to follow the new primary, through the slot {alias(part.name)}"
        why = "It was stopped with all that it had, so it need only follow."
        return Change(SWITCH, part.name, RECONFIGURE, what, why, (), f"{_PAGE}#move-the-database")

    def _drained_media(self) -> Iterator[Change]:
        """By the command that needs them in the settings."""
        for part in self.differs.gone:
            if part.role == "media" and moves.can_drain(self.differs):
                why = "Afterwards no file is on this server alone."
                yield self._drain(SWITCH, part, why, way(part.role).drain)

    def _start(self, part: Part) -> Change:
        why = "All that it refers to is there."
        row = way(part.role)
        commands = (f"systemctl enable --now {row.unit}",) if row.unit else ()
        return Change(SWITCH, part.name, START, f"the {row.noun}", why, commands, row.page)

    def _reloaded(self, role: str) -> Iterator[Change]:
        """One step for each, so that the others serve meanwhile."""
        for part in self._staying(role):
            if role == "pooler" and self.differs.pools_come:
                yield self._pooled(SWITCH, part, still=self.differs.pools_go)
            elif role == "dns":
                yield from self._renamed(part)
            elif role in FRONTS and self.differs.front_differs:
                why = "It sends visitors to those that will stay, and to no other."
                yield self._rendered(SWITCH, part, f"the {way(role).noun}", why, RELOAD)
            elif role in CODE and self.differs.command_differs(role):
                why = "Its unit is another. See that it serves before you go on."
                yield self._reload(part, "restart", why, (self._render(part),))
            elif role in CODE and self.differs.settings_differ:
                why = "Its settings come from there. See that it serves before you go on."
                yield self._reload(part, self._verb(role), why)

    def _renamed(self, part: Part) -> Iterator[Change]:
        """A name server: what it leads to is started before, and stops behind it."""
        if not self.differs.zones_differ:
            return
        what = "the name server: its zones"
        why = "It leads to those that will stay, and to no other. See that the new ones serve."
        unit, verb = way("dns").unit, "reload" if part.service.engine == "bind" else "restart"
        commands = (self._render(part), f"systemctl {verb} {unit}")
        yield Change(SWITCH, part.name, RELOAD, what, why, commands, way("dns").page)

    def _reload(self, part: Part, verb: str, why: str, first: tuple[str, ...] = ()) -> Change:
        what = f"the {way(part.role).noun} with the new file"
        unit = way(part.role).unit
        commands = (*first, *((f"systemctl {verb} {unit}",) if unit else ()))
        if part.role == "app" and self.after.services("media"):
            commands += ("systemctl restart outgrow-repair.service",)
        page = f"{_PAGE}#reload-one-by-one"
        if part.role == "app" and verb == "restart":
            page = "howto/application-servers.md#restart-without-losing-a-request"
        return Change(SWITCH, part.name, RELOAD, what, why, commands, page)

    def _verb(self, role: str) -> str:
        """Whether its unit can reload."""
        engine = self.after.app.engine
        parts = self.after.services("app")
        can = role == "app" and reload(engine, application(self.after, parts[0]))
        return "reload" if can else "restart"

    def _pooled(self, phase: str, part: Part, still: tuple[str, ...] = ()) -> Change:
        what = "PgBouncer with the new file"
        why = "It has all that the settings of the site name."
        if phase == REMOVE:
            what, why = f"{what} alone", "No process asks it for anything else any more."
        elif still:
            what += f", and still with its old {_together(still)}"
            why = "The site's processes ask it for the old and for the new, one after the other."
        row = way(part.role)
        commands = (self._render(part), f"systemctl reload {row.unit}")
        return Change(phase, part.name, RELOAD, what, why, commands, row.page)

    def _engines(self) -> Iterator[Change]:
        """Media servers that run something else, or show other files as pages."""
        active = self.before.active != self.after.active
        for old, now in self.differs.stay:
            if now.role != "media" or (not active and old.service.engine == now.service.engine):
                continue
            why = "It serves the same files. It is owed what is saved while it starts again."
            yield self._rendered(SWITCH, now, "what it runs", why)

    def _visitors(self) -> Iterator[Change]:
        here = [now for old, now in self.differs.moved]
        named = [host.name for host in fronts(self.after)] if self.after.services("dns") else []
        for part in (*self.differs.new, *here):
            if part.role == "dns":
                what = f"{part.place}, from the zone above the domain"
                why = "Its registrar, or whoever has that zone, names the site's name servers."
                yield Change(SWITCH, part.name, SEND, what, why, (), way("dns").page)
            elif is_public(self.after, part.role) and part.name not in named:
                why = "Your proxy, balancer or DNS knows the servers that were there before."
                yield Change(SWITCH, part.name, SEND, str(part.service.port), why, (), _PAGE)

    # --- remove

    def _late(self) -> Iterator[Part]:
        early = [part.key for part in self._early()]
        for part in self.differs.gone:
            drained = part.role == "media" and moves.can_drain(self.differs)
            if way(part.role).leave and not drained and part.key not in early:
                yield part

    def _drained(self, part: Part) -> Change:
        phase = SWITCH if part.key in [early.key for early in self._early()] else REMOVE
        commands: tuple[str, ...] = ()
        if part.role == "media" and self.after.services("media"):
            commands = ("python manage.py outgrow media repair --all",)
        why = "What stops now must not be missed."
        return self._drain(phase, part, why, commands)

    def _drain(self, phase: str, part: Part, why: str, commands: tuple[str, ...]) -> Change:
        row = way(part.role)
        alone = part.role == "media" and not self.after.services("media")
        what = f"it: {'the store has every file' if alone else row.leave}"
        if self.before.services("dns") and part.name in [one.name for one in fronts(self.before)]:
            seconds = self.before.dns.ttl
            why += f" Who was told its address has it for {seconds} seconds more, some for longer."
        return Change(phase, part.name, DRAIN, what, why, self._all(commands, part), row.page)

    def _forgotten(self) -> Iterator[Change]:
        for part in self.differs.gone:
            row = way(part.role)
            # With the last media server its journal goes, and with the primary its slots.
            if row.memory and self.after.services(_KEEPERS[part.role]):
                what = self._words(row.memory, part)
                why = "It will not come back."
                commands = self._all(row.forget, part)
                yield Change(REMOVE, part.name, FORGET, what, why, commands, row.fill_page)

    def _peers(self) -> Iterator[Change]:
        """Each nginx of a media server asks the others, on the port for visitors."""
        both = (self.before, self.after)
        old, now = ({one.url for one in site.services("media")} for site in both)
        for part in self._staying("media") if old != now else ():
            if part.service.engine == "nginx":
                why = "With --visitors it asks the other media servers for what it lacks."
                yield self._rendered(REMOVE, part, "nginx", why)

    def _stop(self, part: Part) -> Change:
        row = way(part.role)
        commands = (f"systemctl disable --now {row.unit}",) if row.unit else ()
        return Change(REMOVE, part.name, STOP, f"the {row.noun}", row.care, commands, row.page)

    def _listen_there_alone(self, moved: tuple[Part, Part]) -> Change:
        old, now = moved
        why = f"Nothing refers to {old.service.port} any more."
        if self.before.services("dns") and old.name in [one.name for one in fronts(self.before)]:
            why = f"Wait {self.before.dns.ttl} seconds: by then nothing refers to the old one."
        return self._rendered(REMOVE, now, f"it to listen at {now.service.port} alone", why)

    def _closed(self) -> Iterator[Change]:
        for now, _, go in self._callers():
            if go:
                why = "It is not asked from there any more, and another may have that address."
                yield self._door(
                    REMOVE, now, f"it, so that it lets {_together(go)} in no more", why
                )

    # --- of all

    @property
    def before(self) -> Site:
        """The site as it is."""
        return self.differs.before

    @property
    def after(self) -> Site:
        """The site as it will be."""
        return self.differs.after

    def _staying(self, role: str) -> Iterator[Part]:
        return (now for _, now in self.differs.stay if now.role == role)

    def _callers(self) -> Iterator[tuple[Part, list[str], list[str]]]:
        """Who comes to what stays, and who goes: each as name and address."""
        for old, now in (*self.differs.stay, *self.differs.swapped):
            if now.service.engine == "external":
                continue  # it has keys, and no list of ours
            was, is_now = (
                [f"{name} ({address})" for name, address in callers(site, part.host, part.service)]
                for site, part in ((self.before, old), (self.after, now))
            )
            yield (
                now,
                [one for one in is_now if one not in was],
                [one for one in was if one not in is_now],
            )

    def _door(self, phase: str, part: Part, what: str, why: str) -> Change:
        if part.role == "media" and part.service.engine == "nginx":
            why += " nginx has a line `allow` for each, twice; then reload it."
        return Change(phase, part.name, RECONFIGURE, what, why, (), f"{_PAGE}#open-and-close")

    def _rendered(
        self, phase: str, part: Part, what: str, why: str, verb: str = RECONFIGURE
    ) -> Change:
        unit = way(part.role).unit
        commands = (self._render(part), *((f"systemctl restart {unit}",) if unit else ()))
        return Change(phase, part.name, verb, what, why, commands, way(part.role).page)

    def _render(self, part: Part) -> str:
        return f"outgrow render {self.file} --to servers --host {part.name}"

    def _all(self, words: Iterable[str], part: Part) -> tuple[str, ...]:
        return tuple(self._words(one, part) for one in words)

    def _words(self, words: str, part: Part) -> str:
        return words.format(server=part.name, slot=alias(part.name), file=self.file)


def _together(some: Iterable[str]) -> str:
    return " and ".join(some)


def _referring(some: Iterable[Part]) -> list[Part]:
    return [part for part in some if part.role in _REFERRERS]


def _outside_first(some: Iterable[Part]) -> list[Part]:
    """What refers to others stops before these."""
    outside = {role: -place for place, role in enumerate(_REFERRERS, 1)}
    return sorted(some, key=lambda part: outside.get(part.role, 0))
