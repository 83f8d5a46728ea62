"""A site's settings against its topology: what one says and the other does not.

What `django_settings` gives agrees with the file by itself. A settings.py may say something else
behind it, and then it is visitors who meet the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from outgrow.mistakes import Mistake
from outgrow.topology import mounts
from outgrow.topology.model import Site
from outgrow.topology.needs import needs
from outgrow.topology.sums import warnings
from outgrow.topology.weak_points import weak_points

#: The headers that the balancers write anew, as Django names them.
_OVERWRITTEN: Final = (
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
)

#: What makes a worker of Celery the one that starts scheduled tasks as well.
_SCHEDULES: Final = ("beat", "-B", "--beat")


@dataclass(frozen=True)
class Said:
    """What the settings say.

    `trusted` are the headers of a front that the site believes, by the names of the settings;
    `max_form` is in bytes, None where they say nothing.
    """

    allowed_hosts: tuple[str, ...] = ()
    trusted: Mapping[str, str] = field(default_factory=dict)
    max_form: int | None = None
    storages: Mapping[str, Any] = field(default_factory=dict)
    media_root: str = ""


def contradictions(site: Site, said: Said) -> Iterator[Mistake]:
    """What is wrong on every site that has it."""
    yield from _hosts(site, said)
    yield from _forms(site, said)
    yield from _copies(site, said)
    yield from _schedules(site)
    yield from _media_root(site, said)


def advice(site: Site, said: Said) -> Iterator[Mistake]:
    """What is right on some sites, and a trap on others: for `check --deploy`."""
    yield from _any_host(said)
    yield from _headers(site, said)
    for sentence in warnings(needs(site)):
        yield Mistake(sentence, "`outgrow capacity` has the sums.", "W607")
    # Who has one application server knows that it is one.
    if len({service.port.host for service in site.services("app")}) > 1:
        for sentence in weak_points(site):
            hint = "`outgrow capacity` lists them all. Silence this if you accept it."
            yield Mistake(sentence, hint, "I608")


def _hosts(site: Site, said: Said) -> Iterator[Mistake]:
    missing = [one for one in site.domains if not _is_allowed(one.lower(), said.allowed_hosts)]
    if missing:
        yield Mistake(
            f"ALLOWED_HOSTS has no {missing[0]!r}, which site.domains of the topology has: "
            "visitors who come by that name get status 400.",
            "Add it, or leave ALLOWED_HOSTS to django_settings().",
            "E601",
        )


def _is_allowed(domain: str, allowed: tuple[str, ...]) -> bool:
    """As Django matches names: one with a leading dot stands for all below it, and for itself."""
    patterns = {one.lower() for one in allowed}
    if patterns & {"*", domain}:
        return True
    below = [one for one in patterns if one.startswith(".")]
    return any(domain.endswith(one) or domain == one[1:] for one in below)


def _any_host(said: Said) -> Iterator[Mistake]:
    if "*" in said.allowed_hosts:
        yield Mistake(
            "ALLOWED_HOSTS has '*': a visitor chooses the name that the site takes for its own, "
            "in the links of its mails for new passwords, too.",
            "Write the names of site.domains. Where something before the site refuses all others, "
            "silence this.",
            "W602",
        )


def _headers(site: Site, said: Said) -> Iterator[Mistake]:
    for name, header in said.trusted.items():
        if not site.services("balancer"):
            why = "the topology has no balancer, which would write it anew"
        elif header not in _OVERWRITTEN:
            why = "the balancers pass it on as a visitor has sent it"
        else:
            continue
        shown = header.removeprefix("HTTP_").replace("_", "-").title()
        yield Mistake(
            f"{name} believes {shown}, and {why}: each visitor can say that he came by HTTPS, or "
            "under another name.",
            "Take the setting away. Where something else stands before the site and writes that "
            "header anew, silence this.",
            "W603",
        )


def _forms(site: Site, said: Said) -> Iterator[Mistake]:
    most = site.balancer.max_upload
    if site.services("balancer") and (said.max_form or 0) > most * 1_000_000:
        yield Mistake(
            f"DATA_UPLOAD_MAX_MEMORY_SIZE is {said.max_form:,} bytes, and the balancers refuse "
            f"more than {most} MB (balancer.max_upload): a form between the two never gets to the "
            "site, and its visitor sees the balancer's 413.",
            "Raise balancer.max_upload, or lower the setting.",
            "W604",
        )


def _copies(site: Site, said: Said) -> Iterator[Mistake]:
    sent = {_plain(one) for entry in said.storages.values() for one in _servers(entry)}
    missing = [one.name for one in site.media_servers() if _plain(one.address) not in sent]
    if missing:
        yield Mistake(
            f"No storage of STORAGES sends files to {', '.join(missing)}: visitors who are sent "
            "there miss what was uploaded.",
            "Use the STORAGES of django_settings(), or take the server out of the topology. If the "
            "storage of a field does it, silence this.",
            "W605",
        )


def _media_root(site: Site, said: Said) -> Iterator[Mistake]:
    mount = mounts.media(site.mounts)
    if mount and mounts.normal(said.media_root or "/") != mount.folder:
        yield Mistake(
            f"MEDIA_ROOT is {said.media_root or 'not set'}, and {mount.path} of the topology is "
            f"mounted at {mount.folder}: the other servers have none of what is saved.",
            "Leave MEDIA_ROOT to django_settings().",
            "E609",
        )


def _servers(entry: object) -> list[str]:
    """The addresses of the media servers of one storage."""
    options = entry.get("OPTIONS") if isinstance(entry, Mapping) else None
    servers = options.get("servers") if isinstance(options, Mapping) else None
    if isinstance(servers, Mapping):
        return [str(one) for one in servers.values()]
    return [str(one) for one in servers] if isinstance(servers, (list, tuple)) else []


def _plain(url: str) -> str:
    """The address of a media server, without what logs in there."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].rstrip('/')}".lower()


def _schedules(site: Site) -> Iterator[Mistake]:
    number = len(site.services("worker"))
    words = [word for word in site.worker.command if word in _SCHEDULES]
    if number > 1 and words:
        yield Mistake(
            f"worker.command of the topology has {words[0]!r}, and runs on {number} servers: each "
            f"of them starts every scheduled task, so each task runs {number} times.",
            "Start the scheduler on one server alone, by a unit of its own.",
            "W606",
        )
