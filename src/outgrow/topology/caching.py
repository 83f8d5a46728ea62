"""A cache on one machine: its files and its process, for `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outgrow.topology.model import Service, Site
from outgrow.topology.parts import Planned, Programs
from outgrow.topology.probes import Replies
from outgrow.topology.process import Command
from outgrow.topology.render import File, caches

#: What each kind is asked, and how its reply begins.
_QUESTIONS: Final = {
    "memcached": (b"version\r\n", b"VERSION"),
    "redis": (b"PING\r\n", b"+PONG"),
}


def files(site: Site, service: Service) -> Iterator[File]:
    """Its configuration, for a Redis."""
    if service.engine == "redis":
        for file in caches.redis(service.port, site.cache):
            yield File(f"_cache/{service.name}/{file.name}", file.content)


def planned(site: Site, service: Service, folder: Path, programs: Programs) -> Planned:
    """Its process: ready when it replies."""
    ask, begins = _QUESTIONS[service.engine]
    replies = Replies(service.port, ask, begins)
    configuration = folder / "_cache" / service.name / caches.CONFIGURATION
    user = programs.user.partition(" ")[0]
    if service.engine == "redis":
        words: tuple[str, ...] = (programs.cache, str(configuration))
    else:
        words = caches.memcached(programs.cache, service.port, site.cache, user)
    return Planned(
        service.name,
        f"cache ({service.engine})",
        Command(words, folder),
        "replies",
        replies,
        replies,
        service.port,
        url=service.url,
    )
